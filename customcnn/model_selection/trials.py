"""The trials of a search: Optuna chooses their values and keeps them in a journal that survives a kill."""

import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.io.atomic import write_bytes
from customcnn.model_selection.space import Space, chosen_values
from customcnn.recipe.monitor import higher_is_better

if TYPE_CHECKING:
    import optuna

METHODS = ("grid", "random", "bayes")
SCORES = ("loss", "accuracy", "val_loss", "val_accuracy")
JOURNAL = "journal.log"


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: from 1, as in the name of its run.
        values: of the searched keys.
        scores: of its best epoch, by the names in `SCORES`; empty where it failed.
        epoch: the best one by the monitor; 0 where it failed.
        epochs: how many were trained.
        error: why it failed, one line; "" where it did not.
        stopped: why it was stopped before its last epoch, by the search; "" where it was not.
    """

    number: int
    values: Mapping[str, Any]
    scores: Mapping[str, float]
    epoch: int = 0
    epochs: int = 0
    error: str = ""
    stopped: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial's training.

    Attributes:
        scores, epoch, epochs, error, stopped: as of a `Trial`.
        values: the monitor after every epoch.
    """

    scores: Mapping[str, float]
    epoch: int = 0
    epochs: int = 0
    values: tuple[float, ...] = ()
    error: str = ""
    stopped: str = ""


@contextmanager
def open_study(path: Path, monitor: str) -> Iterator["optuna.Study"]:
    """Open Optuna's journal in the folder, quietly; the folder's own lock keeps other processes out."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class NoLock:
        # Optuna's own would outlive a kill and hold up the next process for half a minute.
        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    journal = path / JOURNAL
    if journal.is_file():
        lines = journal.read_bytes()
        whole = lines[: lines.rfind(b"\n") + 1]
        if whole != lines:
            write_bytes(journal, whole)  # a kill has cut the last line off
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        lock: Any = NoLock()
        yield optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=lock)),
            study_name="customcnn tune",
            direction="maximize" if higher_is_better(monitor) else "minimize",
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(level)


class Search:
    """Optuna's study, in which a resumed search takes the same way as an unbroken one.

    Args:
        study: from `open_study`.
        space: what is searched.
        method: one of `METHODS`.
        seed: of the search.
        several: whether trials run at the same time: "bayes" then keeps away from those whose scores are not known yet.
    """

    def __init__(self, study: "optuna.Study", space: Space, method: str, seed: int, *, several: bool = False) -> None:
        self.study, self.space, self.method, self.seed, self.several = study, space, method, seed, several

    def next(self, count: int, running: Container[int] = ()) -> "optuna.trial.Trial | None":
        """Return a trial that was interrupted, or a new one with its values; None where there are enough.

        Args:
            count: how many there are to be.
            running: the numbers, from 0, of those that are at work now.
        """
        import optuna

        known = self.study.get_trials(deepcopy=False)
        broken = [trial for trial in known if not trial.state.is_finished() and trial.number not in running]
        number = broken[0].number if broken else len(known)
        if not broken and number >= count:
            return None
        self.study.sampler = self._sampler(number, 0)
        trial = optuna.trial.Trial(self.study, broken[0]._trial_id) if broken else self.study.ask()
        for place, axis in enumerate(self.space.axes):
            # A sampler of its own for every value: Optuna does not save where its generators stand, and a kill may
            # come between two values.
            self.study.sampler = self._sampler(number, place)
            if axis.choices:
                trial.suggest_categorical(axis.key, axis.names)
            elif isinstance(axis.low, int):
                trial.suggest_int(axis.key, axis.low, int(axis.high), log=axis.log)
            else:
                trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)
        return trial

    def _sampler(self, number: int, place: int) -> "optuna.samplers.BaseSampler":
        from optuna.samplers import GridSampler, RandomSampler, TPESampler

        if self.method == "grid":
            return GridSampler({axis.key: axis.names for axis in self.space.axes}, seed=self.seed)
        chance = int(np.random.default_rng((self.seed, number, place)).integers(2**32))
        if self.method == "random":
            return RandomSampler(seed=chance)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is experimental
            return TPESampler(seed=chance, multivariate=False, constant_liar=self.several)

    def record(self, trial: "optuna.trial.Trial", outcome: Outcome, monitor: str, *, every: bool = False) -> None:
        """Record a trial that came to its end, failed or was stopped.

        Args:
            trial: from `next`.
            outcome: of its training.
            monitor: the score that counts.
            every: whether the journal gets its value after each epoch: "bayes" learns what a stopped one was worth.
        """
        result: dict[str, Any] = {"scores": outcome.scores}
        if outcome.error:
            result["error"] = outcome.error
        else:
            result |= {"epoch": outcome.epoch, "epochs": outcome.epochs}
        if outcome.stopped:
            result["stopped"] = outcome.stopped
        if every:
            known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
            for epoch, value in enumerate(outcome.values, start=1):
                if epoch not in known:
                    trial.report(value, epoch)
        trial.set_user_attr("result", result)
        self._tell(trial, None if outcome.error or outcome.stopped else outcome.scores[monitor])

    def _tell(self, trial: "optuna.trial.Trial", value: float | None) -> None:
        from optuna.samplers import RandomSampler
        from optuna.trial import TrialState

        # GridSampler wants to stop a loop of Optuna's own after its last trial; there is none here.
        self.study.sampler = RandomSampler(seed=0)
        # As pruned, not as failed: "bayes" then keeps away from where trials fail.
        self.study.tell(trial, value, state=TrialState.PRUNED if value is None else TrialState.COMPLETE)

    def trials(self) -> list[Trial]:
        """Return the finished trials by number."""
        return [
            Trial(trial.number + 1, chosen_values(self.space.axes, trial.params), **trial.user_attrs["result"])
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished()
        ]
