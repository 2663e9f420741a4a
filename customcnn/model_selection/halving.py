"""Asynchronous successive halving: a trial goes on only where it is among the best of those that came as far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from customcnn.recipe.monitor import higher_is_better
from customcnn.runs.run_dir import RunDir

STOPS = ("none", "asha")

FACTOR = 3
"""One trial of so many goes on from each rung, and from one rung to the next the epochs grow as many times."""


def is_rung(epoch: int, first: int) -> bool:
    """Tell whether trials are compared after an epoch, from 1: after `first`, 3 * `first`, 9 * `first` and so on."""
    while first < epoch:
        first *= FACTOR
    return first == epoch


def goes_on(value: float, others: Sequence[float], *, higher: bool) -> bool:
    """Tell whether a trial goes on from a rung.

    Args:
        value: its score there.
        others: those of the trials that have come as far, whatever became of them.
        higher: whether higher scores are better.

    Reference: Li et al. (2020), A system for massively parallel hyperparameter tuning, arXiv:1810.05934. A trial cannot
    wait for others here, so the first two go on as long as each is the best so far, as in Optuna's
    SuccessiveHalvingPruner.
    """
    ranked = sorted([*others, value], reverse=higher)
    last = ranked[max(1, len(ranked) // FACTOR) - 1]
    return value >= last if higher else value <= last


@dataclass
class Halving:
    """Decides after every epoch of a trial whether it goes on: the `stop` of `train`.

    It reads the histories of the other trials from their runs, so it needs nobody to ask, and a trial that is resumed
    is judged as it was before.

    Attributes:
        trials: the folder with the runs of all trials.
        own: the name of the trial's own.
        monitor: what is compared.
        first: the first rung, in epochs.
        reason: why the trial was stopped; "" while it was not.
    """

    trials: Path
    own: str
    monitor: str
    first: int
    reason: str = ""

    def __call__(self, history: Sequence[Mapping[str, float]]) -> str:
        """Return why the trial ends after the last epoch of its history; "" where it goes on."""
        epoch = len(history)
        self.reason = ""
        if is_rung(epoch, self.first):
            others = self._others(epoch)
            if not goes_on(history[-1][self.monitor], others, higher=higher_is_better(self.monitor)):
                self.reason = f"{self.monitor} is not among the best third of {len(others) + 1} trials"
        return self.reason

    def _others(self, epoch: int) -> list[float]:
        runs = [RunDir(path) for path in sorted(self.trials.glob("trial-*")) if path.name != self.own]
        histories = [run.read_history() for run in runs]
        return [history[epoch - 1][self.monitor] for history in histories if len(history) >= epoch]
