"""What a training run watches: whether higher is better, which epoch is kept, and when to stop."""

import math

from customcnn.recipe.recipe import Recipe
from customcnn.recipe.schedules import History, lra


def higher_is_better(monitor: str) -> bool:
    """Tell the direction of a column of history.csv: an accuracy is to rise, a loss to fall."""
    return monitor.endswith("accuracy")


def best_epoch(history: History, monitor: str) -> int:
    """Return the number, from 1, of the first epoch that is best by a monitor: highest accuracy or lowest loss."""
    sign = 1 if higher_is_better(monitor) else -1
    return max(range(len(history)), key=lambda i: (sign * history[i][monitor], -i)) + 1


def kept_epoch(history: History, recipe: Recipe) -> int:
    """Return the number, from 1, of the epoch whose network is best.keras: best by `monitor`, or by the callback LRA.

    Raises:
        ValueError: the history is empty.
    """
    if recipe.schedule.kind == "lra":
        return lra(recipe.schedule, recipe.learning_rate, history).best_epoch or len(history)
    return best_epoch(history, recipe.monitor)


def should_stop(monitor: str, patience: int, history: History) -> bool:
    """Return whether a training stops early: `patience` epochs in a row, the last ones, were not better.

    An epoch is better where its value beats that of every epoch before it; an equal value is not better. So patience 3
    stops after the third epoch in a row without a better value.

    Args:
        monitor: which column is watched; higher is better for an accuracy, lower for a loss.
        patience: how many epochs; 0 never stops.
        history: the epochs so far.
    """
    sign = 1 if higher_is_better(monitor) else -1
    best, waited = -math.inf, 0
    for row in history:
        better = sign * row[monitor] > best
        best, waited = (sign * row[monitor], 0) if better else (best, waited + 1)
    return 0 < patience <= waited


def stopped(history: History, recipe: Recipe) -> str:
    """Return why a training ends here before its last epoch; "" where it goes on."""
    if should_stop(recipe.monitor, recipe.patience, history):
        return f"{recipe.patience} epochs without a better {recipe.monitor}"
    if recipe.schedule.kind == "lra" and lra(recipe.schedule, recipe.learning_rate, history).stop:
        return f"{recipe.schedule.stop_patience} lower rates in a row did not help"
    return ""
