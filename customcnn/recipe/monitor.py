"""The monitor of a training: its direction, the epoch that is kept, and when to stop."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from customcnn.recipe.recipe import Recipe
from customcnn.recipe.schedules import lra, should_stop

if TYPE_CHECKING:
    pass


def kept_epoch(history: Sequence[Mapping[str, float]], recipe: Recipe) -> int:
    """Return the number, from 1, of the epoch whose network is best.keras: best by `monitor`, or by the callback LRA.

    Raises:
        ValueError: the history is empty.
    """
    if recipe.schedule.kind == "lra":
        return lra(recipe.schedule, recipe.learning_rate, history).best_epoch or len(history)
    return best_epoch(history, recipe.monitor)


def stopped(history: Sequence[Mapping[str, float]], recipe: Recipe) -> str:
    """Return why a training ends here before its last epoch; "" where it goes on."""
    if should_stop(recipe.monitor, recipe.patience, history):
        return f"{recipe.patience} epochs without a better {recipe.monitor}"
    if recipe.schedule.kind == "lra" and lra(recipe.schedule, recipe.learning_rate, history).stop:
        return f"{recipe.schedule.stop_patience} lower rates in a row did not help"
    return ""


def best_epoch(history: Sequence[Mapping[str, float]], monitor: str) -> int:
    """Return the number, from 1, of the first epoch that is best by a monitor: highest accuracy or lowest loss."""
    sign = 1 if monitor.endswith("accuracy") else -1
    return max(range(len(history)), key=lambda i: (sign * history[i][monitor], -i)) + 1
