"""What a reproduction is asked for and comes to: plain data, between the work and its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from customcnn.metrics.scores import HEADLINES, PER_CLASS
from customcnn.runs.run_dir import RunDir
from customcnn.studies.study_file import Row, Study

RUNS, DATA = "runs", "data"
"""The folders inside a reproduction: one run a row, and the prepared images."""

DONE, FAILED, NOT_RUN = "done", "failed", "not run"

Value = Mapping[str, float | None]
"""A measured number: `value`, and where they are known the ends of its interval, `low` and `high`, or `deviation`."""


@dataclass(frozen=True)
class Changes:
    """What makes a reproduction other than the study, smaller for the most part.

    Attributes:
        epochs: of every training; 0 for the recipe's.
        limit: images of each class in each part at most; 0 for all.
        settings: KEY=VALUE for every recipe.
        only: names of the rows to run; none for all.
    """

    epochs: int = 0
    limit: int = 0
    settings: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The options that make its numbers others than the study's, as they are typed; "" for none."""
        given = [f"--epochs {self.epochs}"] * bool(self.epochs) + [f"--limit {self.limit}"] * bool(self.limit)
        return " ".join([*given, *(f"--set {setting}" for setting in self.settings)])


@dataclass(frozen=True)
class Result:
    """What a row came to: the contents of its result.json.

    Attributes:
        name: of the row.
        status: "done", "failed" or "not run".
        reason: why it failed.
        recipe: as TOML, every key written out; for a search or a crossval, what its command was given.
        measured: by place and score, as `customcnn.studies.study_file.Values` but with intervals.
        metrics: by part, the contents of metrics.json.
        folders: by part, the folder of its pictures, relative to the run.
        epoch: whose weights were scored.
        epochs: how many were trained.
        seconds: per epoch, the median, with validation and checkpoints; None where none was timed.
        notes: the warnings that belong beside its scores.
    """

    name: str
    status: str = NOT_RUN
    reason: str = ""
    recipe: str = ""
    measured: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    epochs: int = 0
    seconds: float | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Reproduction:
    """All rows of a study with their results, in the order of the study."""

    study: Study
    changes: Changes
    out: Path
    results: Mapping[str, Result]

    @property
    def failed(self) -> list[Result]:
        """The rows that failed."""
        return [result for result in self.results.values() if result.status == FAILED]

    def run(self, row: Row) -> RunDir:
        """Return the run of a row."""
        return RunDir(self.out / RUNS / row.name)


def scores_of(metrics: Mapping[str, Any]) -> dict[str, Value]:
    """Return every score of metrics.json by its name in a study: "accuracy", "precision.hem", "log_loss" ..."""
    found: dict[str, Value] = {key: metrics[key] for key in HEADLINES}
    found["log_loss"] = {"value": metrics["log_loss"]}
    own = metrics.get("positive_class", {})
    found |= {key: own[key] for key in ("sensitivity", "specificity") if key in own}
    for name, scored in metrics["per_class"].items():
        found |= {f"{key}.{name}": scored[key] for key in PER_CLASS}
    return found
