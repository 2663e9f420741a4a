"""Everything a run holds, read once: what the report and the model card are written from."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customcnn.data.leakage import DRAWN, Leakage, find_leakage, run_notes
from customcnn.data.manifest import Manifest, read_rows
from customcnn.errors import CustomCNNError, show
from customcnn.metrics.scores import HEADLINES
from customcnn.recipe.recipe import Recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, read_classifier

MEMBERS = "members.csv"
CHOSEN_HERE = "The best epoch was chosen by its score on this part; a test part would be free of that choice."
NO_GROUPS = "No group labels given, so leakage cannot be checked."
NOT_MEDICAL = (
    "Not a medical device: made for teaching and research. It is neither tested nor cleared for diagnosis, and no "
    "decision about a patient may rest on it."
)


@dataclass(frozen=True)
class RunFacts:
    """The files of a run.

    Attributes:
        run: the folder.
        info: of its best network.
        recipe: how it was trained.
        recipe_text: recipe.toml as it stands.
        environment: of environment.json; empty if missing.
        trained: the manifest of the training.
        history: one row an epoch; empty for an ensemble.
        members: rows of members.csv; empty but for an ensemble.
        metrics: of metrics.json; None before customcnn evaluate.
        predictions: rows of predictions.csv; empty before customcnn evaluate.
        others: further evaluations in folders of the run, by name.
    """

    run: RunDir
    info: ModelInfo
    recipe: Recipe
    recipe_text: str
    environment: Mapping[str, Any]
    trained: Manifest
    history: Sequence[Mapping[str, float]]
    members: Sequence[Mapping[str, str]]
    metrics: Mapping[str, Any] | None
    predictions: Sequence[Mapping[str, str]]
    others: Mapping[str, Mapping[str, Any]]

    @property
    def notes(self) -> list[str]:
        """All that belongs beside the scores: the warnings, then the remarks."""
        return [*self.warnings, *self.remarks]

    @property
    def warnings(self) -> list[str]:
        """The warnings that belong beside the scores, or beside the training where there are none yet."""
        found = run_notes(self.trained) if self.metrics is None else list(self.metrics.get("notes") or [])
        return found if DRAWN in found or not self.info.drawn else [*found, DRAWN]

    @property
    def remarks(self) -> list[str]:
        """What `customcnn evaluate` says of the scores as notes: nothing is wrong, but they say less for it."""
        metrics = self.metrics or {}
        unknown = not (metrics.get("leakage") or {}).get("groups_known", True)
        return [*([CHOSEN_HERE] if metrics.get("chosen_on_this_part") else []), *([NO_GROUPS] if unknown else [])]

    @property
    def positive(self) -> str:
        """The positive class of two: that of the scores, or of the network where there are none yet; "" of more."""
        return str((self.metrics or {}).get("positive") or self.info.positive)

    @property
    def part(self) -> str:
        """The scored part in words."""
        name = str((self.metrics or {}).get("part", ""))
        return "all images" if name == "given" else f"the {name} part"

    @property
    def data(self) -> str:
        """The folder that was scored, as it was given; "" before customcnn evaluate."""
        return str((self.metrics or {}).get("data", ""))

    def leakages(self) -> list[Leakage]:
        """Return what each other part shares with the training part."""
        train = self.trained.part("train").records
        return [
            find_leakage(train, self.trained.part(name).records, name)
            for name in self.trained.parts
            if name != "train" and train
        ]

    def commands(self) -> list[str]:
        """Return the lines that make run, scores and report again."""
        lines = [self.made_by] if self.made_by else []
        place = shlex.quote(str(self.run.path))
        if self.info.calibration:
            part = str(self.info.calibration.get("part", ""))
            chosen = f" --part {shlex.quote(part)}" if part in self.trained.parts else ""
            lines.append(f"customcnn calibrate {place} {shlex.quote(self.data or 'DATA')}{chosen}")
        if self.metrics is not None:
            words = ["evaluate", str(self.run.path), self.data]
            if self.metrics.get("part") not in (None, "given"):
                words += ["--part", str(self.metrics["part"])]
            if self.metrics.get("weights") == "last":
                words += ["--weights", "last"]
            if self.metrics.get("tta"):
                words.append("--tta")
            if self.positive != self.info.positive:
                words += ["--positive", self.positive]
            clinical = self.metrics.get("clinical") or {}
            for column in clinical.get("strata") or {}:
                words += ["--strata", str(column)]
            rule = (clinical.get("threshold") or {}).get("rule", "youden")
            if rule != "youden":
                words += ["--threshold", str(rule)]
            resamples = (self.metrics.get("interval") or {}).get("resamples")
            if resamples not in (None, 0, 2000):
                words += ["--resamples", str(resamples)]
            lines += ["customcnn " + shlex.join(words), f"customcnn report {place} --data {shlex.quote(self.data)}"]
        else:
            lines += [f"customcnn evaluate {place} DATA", f"customcnn report {place}"]
        return lines

    @property
    def made_by(self) -> str:
        """The command that made the run, or the program; "" if unknown."""
        words = [str(word) for word in self.environment.get("command") or []]
        if not words:
            return ""
        program = Path(words[0])
        if program.name == "__main__.py":
            return shlex.join(["python", "-m", program.parent.name, *words[1:]])
        return shlex.join([program.name, *words[1:]])


def read_facts(run: RunDir) -> RunFacts:
    """Read a run.

    Raises:
        CustomCNNError: it is no run, holds no trained classifier, or a file in it is damaged.
    """
    info = read_classifier(run.weights())
    metrics = _json(run.metrics)
    members = run.path / MEMBERS
    if metrics is not None:
        _require_scores(metrics, run.metrics)
    return RunFacts(
        run=run,
        info=info,
        recipe=run.read_recipe(),
        recipe_text=run.recipe.read_text("utf-8", "replace"),
        environment=_json(run.environment) or {},
        trained=run.read_manifest(),
        history=run.read_history(),
        members=read_rows(members, ("run", "model", "weight")) if members.is_file() else [],
        metrics=metrics,
        predictions=_predictions(run) if metrics is not None else [],
        others=_others(run),
    )


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CustomCNNError(
            f"A run's JSON files are whole. Received: {show(path)} ({error}). Make it again."
        ) from None
    if not isinstance(values, dict):
        raise CustomCNNError(f"A run's JSON files hold an object. Received: {show(path)}. Make it again.")
    return values


def _require_scores(metrics: Mapping[str, Any], path: Path) -> None:
    needed = ("images", "errors", "classes", "confusion_matrix", "per_class", *HEADLINES)
    missing = [key for key in needed if key not in metrics]
    if missing:
        raise CustomCNNError(
            f"Scores are those of customcnn evaluate. Received: {show(path)} without {', '.join(missing)}. "
            "Run customcnn evaluate again."
        )


def _predictions(run: RunDir) -> list[dict[str, str]]:
    return read_rows(run.predictions, ("path", "label", "predicted")) if run.predictions.is_file() else []


def _others(run: RunDir) -> dict[str, dict[str, Any]]:
    """Return the scores in the folders of a run, as `customcnn evaluate --out RUN/NAME` writes them."""
    found = {}
    for path in sorted(run.path.glob("*/metrics.json")):
        values = _json(path)
        if values and all(key in values for key in ("accuracy", "images", "part", "data")):
            found[path.parent.name] = values
    return found
