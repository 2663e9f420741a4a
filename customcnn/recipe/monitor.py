"""What a training run watches: whether higher is better, which epoch is kept, and when to stop."""

import math
from statistics import fmean

from customcnn.recipe.recipe import Recipe
from customcnn.recipe.schedules import History, lra

SMOOTHED = 3
"""Epochs in a mean of `keep = "best-smoothed"`: a third of the variance of one, and few enough for short trainings."""


def higher_is_better(monitor: str) -> bool:
    """Tell the direction of a column of history.csv: an accuracy is to rise, a loss to fall."""
    return monitor.endswith("accuracy")


def best_epoch(history: History, monitor: str, *, ties: str = "val_loss") -> int:
    """Return the number, from 1, of the epoch that is best by a monitor: highest accuracy or lowest loss.

    Args:
        history: the epochs so far.
        monitor: the column that decides.
        ties: the loss that decides between equals; "" for none. Of epochs that are equal in both, the first is best.
    """
    sign = 1 if higher_is_better(monitor) else -1
    return max(range(len(history)), key=lambda i: (sign * history[i][monitor], -history[i].get(ties, 0.0), -i)) + 1


def kept_epoch(history: History, recipe: Recipe) -> int:
    """Return the number, from 1, of the epoch whose network is best.keras, as the recipe's `keep` says.

    With one epoch more, it is the one that it was, or the new one: a training can choose as it goes. The schedule
    "lra" chooses the best epoch by itself.

    Raises:
        ValueError: the history is empty.
    """
    if recipe.keep == "last" and history:
        return len(history)
    if recipe.schedule.kind == "lra":
        return lra(recipe.schedule, recipe.learning_rate, history).best_epoch or len(history)
    if recipe.keep == "best-smoothed":
        return _best_smoothed(history, recipe.monitor)
    return best_epoch(history, recipe.monitor, ties="" if recipe.keep == "first-best" else "val_loss")


def _best_smoothed(history: History, monitor: str) -> int:
    """Return the epoch that is best by means over `SMOOTHED` epochs, itself the last of them; one that has such a mean.

    The mean of fewer epochs is noisier and so more often the highest by chance: without enough epochs, the last is
    kept.
    """
    if len(history) < SMOOTHED:
        return len(history)
    ends = range(SMOOTHED, len(history) + 1)
    columns = {monitor, "val_loss"} & history[-1].keys()
    means = [{key: fmean(row[key] for row in history[end - SMOOTHED : end]) for key in columns} for end in ends]
    return best_epoch(means, monitor) + SMOOTHED - 1


def chosen_by_validation(recipe: Recipe) -> bool:
    """Tell whether the scores on the validation part choose the epoch that is kept: they flatter it there."""
    return recipe.keep != "last" and (recipe.schedule.kind == "lra" or recipe.monitor.startswith("val_"))


def kept_words(recipe: Recipe, history: History) -> str:
    """Return which epoch is kept, and by what: "Best epoch 3 of 9 by val_accuracy"."""
    place = f"epoch {kept_epoch(history, recipe)} of {len(history)}"
    if recipe.keep == "last":
        return f"Last {place}"
    over = f", the mean of {SMOOTHED} epochs" if recipe.keep == "best-smoothed" else ""
    return f"Best {place} by {'the schedule lra' if recipe.schedule.kind == 'lra' else recipe.monitor}{over}"


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
