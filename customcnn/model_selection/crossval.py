"""Cross-validation: every image is scored once, by a network that was not trained on it."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.data.leakage import DRAWN, Leakage, find_leakage, notes
from customcnn.data.manifest import Manifest, read_rows
from customcnn.errors import show
from customcnn.evaluation.evaluate import evaluate
from customcnn.io.atomic import write_text
from customcnn.metrics.scores import evaluate_predictions
from customcnn.model_selection.folds import USED, Fold, make_folds
from customcnn.progress import Progress, silent
from customcnn.recipe.monitor import chosen_by_validation
from customcnn.recipe.recipe import Recipe, flat
from customcnn.runs.run_dir import RunDir, rows_to_csv
from customcnn.runs.series import Series, forget_networks, hash_images, pack_once, spoken_once
from customcnn.training.classification import input_size
from customcnn.training.train import train

if TYPE_CHECKING:
    from customcnn.cluster.remote_trainings import Spread

FROM_HISTORY = ("val_loss", "val_accuracy")
FROM_METRICS = ("balanced_accuracy", "macro_f1", "weighted_f1", "cohen_kappa", "roc_auc", "log_loss")
SCORES = (*FROM_HISTORY, *FROM_METRICS)
SAMPLE = re.compile(r"-aug\d{4,}\.")
"""In the name of an image: it was made by `customcnn augment`."""

FREE = frozenset({"recipe.epochs", "recipe.device", "recipe.tensorboard", "recipe.mlflow"})
"""Settings that may change when a cross-validation is resumed, as with a run."""


@dataclass(frozen=True)
class CrossvalResult:
    """What a cross-validation found.

    Attributes:
        path: its folder.
        folds: one row a fold: fold, train_images, images, groups, epochs, epoch, and every one of `SCORES`.
        mean, deviation: of every score over the folds; the deviation divides by K - 1. None where a fold has no value.
        metrics: the contents of metrics.json: the scores of all images together.
        leakage: what the folds share with the images that their networks were trained on, added up.
        notes: the sentences that belong beside every score.
    """

    path: Path
    folds: list[dict[str, Any]]
    mean: dict[str, float | None]
    deviation: dict[str, float | None]
    metrics: dict[str, Any]
    leakage: Leakage
    notes: list[str]


def crossval(
    data: Manifest,
    out: Path,
    recipe: Recipe,
    *,
    folds: int | None = None,
    by: str = "image",
    seed: int = 120,
    weights: str = "best",
    resamples: int = 2000,
    resume: bool = False,
    replace_old: bool = False,
    workers: int | None = None,
    spread: "Spread | None" = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> CrossvalResult:
    """Train a network for every fold on the other folds, and score it on the fold.

    Every fold is a run of its own, `out/fold-1` and so on, with fresh weights. All take the same recipe and so the same
    seed: they begin with the same weights and differ by their images alone. Writes predictions.csv, metrics.json,
    confusion.png, folds.csv and folds.png into `out`.

    Args:
        data: from `scan`, with groups if they are known. A test part is left alone.
        out: the folder to make.
        recipe: of every training.
        folds: how many; None for 5, or for as many as the column has values.
        by: "image", "group" (whole groups), or a further column of the manifest that names each image's fold.
        seed: of the folds; the recipe has its own.
        weights: "best" (of the epoch with the best score on the fold itself) or "last".
        resamples: of the bootstrap behind the intervals.
        resume: go on with the cross-validation that is there: finished folds are kept.
        replace_old: delete the cross-validation that is there.
        workers: threads for decoding; None for one a core.
        spread: the cluster whose nodes train the folds, several at a time; None for one after the other, here.
        progress: draws the bars, see `customcnn.progress`.
        say: receives one line of text for each thing a user should know.

    Raises:
        CustomCNNError: as by `make_folds`, `train` and `evaluate`; or something is in the way.

    Reference: Kohavi (1995), A study of cross-validation and bootstrap for accuracy estimation and model selection.
    """
    parts = make_folds(data, folds=folds, by=by, seed=seed)
    left = sum(record.split not in USED for record in data.records)
    if left:
        say(f"Note: the {left:,} images of the test part are left alone.")
    settings = {
        "data": str(data.root),
        "by": by,
        "folds": len(parts),
        "seed": seed,
        "weights": weights,
        "images": hash_images(replace(data, records=tuple(r for r in data.records if r.split in USED))),
        "recipe": flat(recipe),
    }
    speak = spoken_once(say)
    with series(out).opened(data, settings, resume=resume, replace=replace_old, free=FREE):
        open_folds = [part for part in parts if not _finished(RunDir(out / f"fold-{part.number}"), recipe, part)]
        if not open_folds:
            say(f"Nothing to do: {len(parts)} folds are trained and scored.")
        for note in notes(data, _leakage(parts)) if open_folds else []:
            say(f"Warning: {note}")
        fold = partial(_train_fold, out, recipe, weights, resamples, workers)
        if spread is not None and open_folds:
            _spread(open_folds, len(parts), fold, spread, out, speak)
        else:
            for part in open_folds:
                speak(f"{_title(part, len(parts))}: {_sizes(part)}.")
                fold(part, progress, speak)
                forget_networks()
        return _collect(out, parts, recipe, settings, resamples)


def _title(part: Fold, count: int) -> str:
    return f"Fold {part.number} of {count}{f' ({show(part.value)})' if part.value else ''}"


def _sizes(part: Fold) -> str:
    train_images, images = (len(part.manifest.part(name).records) for name in ("train", "validation"))
    return f"{train_images:,} images train, {images:,} validate"


def _spread(
    parts: Sequence[Fold],
    count: int,
    fold: Callable[..., None],
    spread: "Spread",
    out: Path,
    say: Callable[[str], object],
) -> None:
    """Train and score the folds on the nodes of a cluster; the first that fails ends all."""
    with spread.crew(out, say) as crew:
        for part in parts:
            crew.train(f"fold-{part.number}", _title(part, count), _sizes(part), fold, part)
        crew.finish()


def _train_fold(
    out: Path,
    recipe: Recipe,
    weights: str,
    resamples: int,
    workers: int | None,
    part: Fold,
    progress: Progress,
    say: Callable[[str], object],
    *,
    shared: bool = False,
) -> None:
    """Train a fold, or go on with it, and score it.

    Args:
        out, recipe, weights, resamples, workers, progress, say: as of `crossval`.
        part: the fold.
        shared: whether other processes may pack the same images now.
    """
    run = RunDir(out / f"fold-{part.number}")
    for path in (run.metrics, run.reliability):
        path.unlink(missing_ok=True)  # from an evaluation before more epochs: they mark a finished fold
    if shared:
        pack_once(part.manifest, input_size(recipe), workers, progress)
    train(part.manifest, run, recipe, resume=True, workers=workers, progress=progress, say=say)
    evaluate(
        run,
        part.manifest,
        part="validation",
        weights=weights,
        resamples=resamples,
        device=recipe.device,
        workers=workers,
        progress=progress,
        say=say,
    )


def series(out: Path) -> Series:
    """Return the folder of a cross-validation, which may not be there yet."""
    return Series(out, "cross-validation", "crossval.json")


def _finished(run: RunDir, recipe: Recipe, fold: Fold) -> bool:
    """Tell whether a fold was trained by this recipe and scored on its images."""
    if not (run.exists() and run.metrics.is_file() and run.reliability.is_file() and run.predictions.is_file()):
        return False
    old, new = flat(run.read_recipe()), flat(recipe)
    if any(old[key] != new[key] for key in new if key not in ("device", "tensorboard", "mlflow")):
        return False
    scored = [row["path"] for row in read_rows(run.predictions, ("path",))]
    return scored == [record.path for record in fold.manifest.part("validation").records]


def _collect(
    out: Path, parts: Sequence[Fold], recipe: Recipe, settings: Mapping[str, Any], resamples: int
) -> CrossvalResult:
    """Read the folds' own results, score all images together, and write everything."""
    whole = RunDir(out)
    folds: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}
    for part in parts:
        run = RunDir(out / f"fold-{part.number}")
        metrics = json.loads(run.metrics.read_text("utf-8"))
        folds.append(_row(part, run, metrics))
        rows = read_rows(run.predictions, ("path", "label", "group", "predicted"))
        predictions += [{"path": row.pop("path"), "fold": part.number, **row} for row in rows]
    predictions.sort(key=lambda row: row["path"])
    leakage = _leakage(parts)
    beside = notes(parts[0].manifest, leakage)
    if metrics["drawn"] and DRAWN not in beside:
        beside.append(DRAWN)
    samples = sum(SAMPLE.search(row["path"]) is not None for row in predictions)
    if samples and settings["by"] == "image":
        beside.append(
            f"{samples:,} of {len(predictions):,} images are samples of customcnn augment: by image, samples of one "
            "original stand on both sides of a fold. Give the folder they were made from."
        )
    classes = metrics["classes"]
    pooled = evaluate_predictions(
        np.array([classes.index(row["label"]) for row in predictions]),
        np.array([[float(row[f"probability_{label}"]) for label in classes] for row in predictions]),
        classes,
        groups=[row["group"] for row in predictions] if all(row["group"] for row in predictions) else None,
        positive=metrics["positive"],
        resamples=resamples,
    )
    mean = {score: _over([fold[score] for fold in folds], np.mean) for score in SCORES}
    deviation = {
        score: _over([fold[score] for fold in folds], lambda values: np.std(values, ddof=1)) for score in SCORES
    }
    pooled |= {
        "model": recipe.model,
        **{key: settings[key] for key in ("weights", "data", "by", "seed")},
        "part": "out of fold",
        "chosen_on_this_part": settings["weights"] == "best" and chosen_by_validation(recipe),
        "drawn": metrics["drawn"],
        "leakage": leakage.as_dict(),
        "notes": beside,
        "folds": folds,
        "mean": mean,
        "standard_deviation": deviation,
    }
    result = CrossvalResult(out, folds, mean, deviation, pooled, leakage, beside)
    _write(whole, result, predictions)
    return result


def _row(part: Fold, run: RunDir, metrics: Mapping[str, Any]) -> dict[str, Any]:
    history = run.read_history()
    epoch = history[metrics["epoch"] - 1]
    scores = {key: metrics[key]["value"] if isinstance(metrics[key], dict) else metrics[key] for key in FROM_METRICS}
    return {
        "fold": part.number,
        **({"value": part.value} if part.value else {}),
        "train_images": len(part.manifest.part("train").records),
        "images": metrics["images"],
        "groups": metrics["groups"],
        "epochs": len(history),
        "epoch": metrics["epoch"],
        **{key: epoch[key] for key in FROM_HISTORY},
        **scores,
    }


def _leakage(parts: Sequence[Fold]) -> Leakage:
    """Add up what the folds share with the images that their networks are trained on."""
    leaks: list[Leakage] = []
    homes: dict[str, set[int]] = {}
    for part in parts:
        taught, scored = (part.manifest.part(name).records for name in ("train", "validation"))
        leaks.append(find_leakage(taught, scored, "out-of-fold"))
        for record in scored:
            homes.setdefault(record.group, set()).add(part.number)
    return Leakage(
        part="out-of-fold",
        images=sum(leak.images for leak in leaks),
        groups_known=all(leak.groups_known for leak in leaks),
        shared_groups=sum(len(numbers) > 1 for group, numbers in homes.items() if group),
        images_in_shared_groups=sum(leak.images_in_shared_groups for leak in leaks),
        identical_files=sum(leak.identical_files for leak in leaks),
    )


def _over(values: Sequence[float | None], function: Callable[[list[float]], Any]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(function(defined)) if len(defined) == len(values) else None


def _write(whole: RunDir, result: CrossvalResult, predictions: Sequence[Mapping[str, object]]) -> None:
    from customcnn.plots.confusion import plot_confusion
    from customcnn.plots.search import plot_folds

    metrics = result.metrics
    write_text(whole.predictions, rows_to_csv(predictions))
    rows: list[dict[str, Any]] = list(result.folds)
    for name, scores in (("mean", result.mean), ("standard deviation", result.deviation)):
        rows.append({key: scores.get(key) for key in result.folds[0]} | {"fold": name})
    write_text(whole.path / "folds.csv", rows_to_csv(rows))
    title = (
        f"{metrics['model']}, {len(result.folds)} folds of {Path(metrics['data']).resolve().name} by {metrics['by']}"
    )
    plot_confusion(metrics["confusion_matrix"], metrics["classes"], whole.confusion, title=title, notes=result.notes)
    plot_folds(result.folds, whole.path / "folds.png", title=title, notes=result.notes)
    write_text(whole.metrics, json.dumps(metrics, indent=2) + "\n")
