"""The rows of a study: each is trained, cross-validated or searched, scored, and its result written."""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from customcnn.data.manifest import Manifest
from customcnn.errors import CustomCNNError, is_out_of_memory
from customcnn.evaluation.evaluate import evaluate
from customcnn.io.atomic import write_text
from customcnn.model_selection.crossval import crossval
from customcnn.model_selection.space import read_space
from customcnn.model_selection.tune import tune
from customcnn.progress import Advance, Progress
from customcnn.recipe.recipe import Recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model
from customcnn.runs.series import forget_networks
from customcnn.studies.results import DONE, FAILED, Result, Value, scores_of
from customcnn.studies.study_file import PLACES, Row, Study
from customcnn.training.train import train

RESULT = "result.json"


def read_result(row: Row, run: RunDir) -> Result:
    """Return what an earlier call left of a row; "not run" where it is not done."""
    path = run.path / RESULT
    return Result(**json.loads(path.read_text("utf-8"))) if path.is_file() else Result(row.name)


@dataclass(frozen=True)
class Work:
    """What a row is run with."""

    study: Study
    row: Row
    data: Manifest
    run: RunDir
    settings: Mapping[str, object]
    workers: int | None
    progress: Progress
    say: Callable[[str], object]

    @property
    def recipe_file(self) -> Path:
        """The row's file: marks, which have none, are never run."""
        assert self.row.recipe is not None
        return self.row.recipe

    def quiet(self, line: str) -> None:
        """Say a line of the row's own training, but no warning: these are said once, at the end of the row."""
        if not line.startswith("Warning:"):
            self.say(f"  {line}")


def attempt(work: Work, recipe: Recipe | CustomCNNError) -> Result:
    """Run a row and write its result.json; whatever goes wrong is the result of the row."""
    kinds = {"train": _train, "crossval": _crossval, "tune": _tune}
    try:
        if isinstance(recipe, CustomCNNError):
            raise recipe
        result = kinds[work.row.kind](work, recipe)
        write_text(work.run.path / RESULT, json.dumps(asdict(result), indent=2) + "\n")
    except Exception as error:
        return Result(work.row.name, FAILED, why(error))
    finally:
        forget_networks()
    return result


def why(error: Exception) -> str:
    """Return one line for any error."""
    if isinstance(error, CustomCNNError):
        return str(error)
    if is_out_of_memory(error):
        return "Not enough memory. Give --set a smaller batch_size or input_size."
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:300]}"


def _train(work: Work, recipe: Recipe) -> Result:
    watch = Stopwatch(work.progress)
    done = train(work.data, work.run, recipe, resume=True, workers=work.workers, progress=watch, say=work.quiet)
    measured: dict[str, Mapping[str, Value]] = {
        "training": {key: {"value": done.best[key]} for key in PLACES["training"] if key in done.best},
        "network": {key: {"value": value} for key, value in count_weights(work.run).items()},
    }
    metrics: dict[str, Any] = {}
    folders, notes = {}, list(done.notes)
    # The part that customcnn evaluate takes by default lies in the run itself, another in a folder of its name.
    main = "test" if "test" in work.data.parts else work.data.parts[-1]
    for part in [part for part in work.study.parts if part in work.data.parts]:
        folders[part] = "" if part == main else part
        found = evaluate(
            work.run,
            work.data,
            part=part,
            out=work.run.path / folders[part],
            device=recipe.device,
            workers=work.workers,
            progress=work.progress,
        )
        metrics[part] = found.metrics
        measured[part] = scores_of(found.metrics)
        notes += [note for note in found.notes if note not in notes]
    return Result(
        work.row.name,
        DONE,
        recipe=recipe.to_toml(),
        measured=measured,
        metrics=metrics,
        folders=folders,
        epoch=int(done.best["epoch"]),
        epochs=len(done.history),
        seconds=watch.median,
        notes=notes,
    )


def count_weights(run: RunDir) -> dict[str, float]:
    """Return how many weights the best network of a run has, and how many of them are trained."""
    model = load_model(run.best)
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    total = trained + sum(math.prod(weight.shape) for weight in model.non_trainable_weights)
    return dict(zip(PLACES["network"], (total, trained, total - trained), strict=True))


class Stopwatch:
    """A `Progress` that hands on to another, and times the epochs of a training."""

    def __init__(self, inner: Progress) -> None:
        self.inner = inner
        self.seconds: list[float] = []

    @property
    def median(self) -> float | None:
        """The median of the epochs, in seconds; None before the first."""
        return statistics.median(self.seconds) if self.seconds else None

    @contextmanager
    def __call__(self, total: int, label: str) -> Iterator[Advance]:
        """Time what is labelled as an epoch."""
        began = time.perf_counter()
        with self.inner(total, label) as advance:
            yield advance
        if label.startswith("epoch "):
            self.seconds.append(time.perf_counter() - began)


def _crossval(work: Work, recipe: Recipe) -> Result:
    watch = Stopwatch(work.progress)
    folds, by = work.row.options.get("folds", 5), work.row.options.get("by", "image")
    found = crossval(
        work.data,
        work.run.path,
        recipe,
        folds=folds,
        by=by,
        resume=True,
        workers=work.workers,
        progress=watch,
        say=work.quiet,
    )
    measured = {
        name: {"value": found.mean[key], "deviation": found.deviation[key]}
        for name, key in (("accuracy", "val_accuracy"), ("loss", "val_loss"))
    }
    return Result(
        work.row.name,
        DONE,
        recipe=recipe.to_toml(),
        measured={"folds": measured, "out of fold": scores_of(found.metrics)},
        metrics={"out of fold": found.metrics},
        folders={"out of fold": ""},
        seconds=watch.median,
        notes=found.notes,
    )


def _tune(work: Work, recipe: Recipe) -> Result:
    watch = Stopwatch(work.progress)
    space = read_space(work.recipe_file, work.settings)
    found = tune(work.data, work.run.path, space, resume=True, workers=work.workers, progress=watch, say=work.quiet)
    best = {**found.best.values, **found.best.scores}
    return Result(
        work.row.name,
        DONE,
        recipe=recipe.to_toml(),
        measured={"search": {key: {"value": best[key]} for key in PLACES["search"] if key in best}},
        epoch=found.best.epoch,
        epochs=found.best.epochs,
        seconds=watch.median,
        notes=found.notes,
    )
