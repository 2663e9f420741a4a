"""The trials of a search: Optuna chooses their values and keeps them in a journal that survives a kill."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.files import write_bytes
from customcnn.model_selection.space import Space, chosen_values

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
    """

    number: int
    values: Mapping[str, Any]
    scores: Mapping[str, float]
    epoch: int = 0
    epochs: int = 0
    error: str = ""


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
            direction="maximize" if monitor.endswith("accuracy") else "minimize",
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(level)


class Search:
    """Optuna's study, one trial after the other, so that a resumed search takes the same way as an unbroken one."""

    def __init__(self, study: "optuna.Study", space: Space, method: str, seed: int) -> None:
        self.study, self.space, self.method, self.seed = study, space, method, seed

    def next(self, count: int) -> "optuna.trial.Trial | None":
        """Return the trial that was interrupted, or a new one with its values; None where there are enough."""
        import optuna

        known = self.study.get_trials(deepcopy=False)
        broken = [trial for trial in known if not trial.state.is_finished()]
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
        return TPESampler(seed=chance, multivariate=False, constant_liar=False)

    def done(
        self, trial: "optuna.trial.Trial", scores: Mapping[str, float], epoch: int, epochs: int, monitor: str
    ) -> None:
        """Record a trial that came to its end."""
        trial.set_user_attr("result", {"scores": scores, "epoch": epoch, "epochs": epochs})
        self._tell(trial, scores[monitor])

    def failed(self, trial: "optuna.trial.Trial", reason: str) -> None:
        """Record a trial that failed."""
        trial.set_user_attr("result", {"scores": {}, "error": reason})
        self._tell(trial, None)

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
