"""Score a trained network on labelled images."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn import devices, files
from customcnn.errors import CustomCNNError, show, show_all
from customcnn.images import converted_note
from customcnn.leakage import DRAWN, Leakage, find_leakage, notes, run_notes
from customcnn.manifest import Manifest, Record
from customcnn.metrics import evaluate_predictions
from customcnn.pack import find_pack, pack, stream
from customcnn.predict import BATCH, probabilities
from customcnn.progress import Progress, silent
from customcnn.runs import ModelInfo, RunDir, load_model, read_classifier, rows_to_csv

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: the contents of metrics.json, and the sentences that belong beside every score."""

    metrics: dict[str, Any]
    leakage: Leakage
    notes: list[str]


def evaluate(
    run: RunDir,
    data: Manifest,
    *,
    part: str | None = None,
    weights: str = "best",
    out: Path | None = None,
    resamples: int = 2000,
    device: str = "auto",
    no_pack: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> Evaluation:
    """Score a run on one part of a split folder, or on a whole folder of class folders.

    Writes predictions.csv, metrics.json, confusion.png and curves.png into the run, or into `out`.

    Args:
        run: a trained run.
        data: labelled images, from `scan`.
        part: "train", "validation" or "test"; None for test where there is one, else validation, else everything.
        weights: "best" or "last".
        out: where to write; None for the run itself.
        resamples: of the bootstrap behind the intervals.
        device: "auto", "cpu" or "gpu".
        no_pack: decode the images batch by batch, see `customcnn.pack.stream`: slower, and nothing on the disk.
        workers: threads for decoding; None for one a core.
        progress: draws the bar, see `customcnn.progress`.
        say: receives the note about converted images.

    Raises:
        CustomCNNError: no trained network, no such part, no resample, or a class that the network does not know.
    """
    files.refuse_non_empty(out or run.path, True)
    if resamples < 1:
        raise CustomCNNError(f"Intervals need a resample at least. Received: --resamples {resamples}. Give 1 or more.")
    path = run.weights(weights)
    info = read_classifier(path)
    scored, name = choose_part(data, part)
    unknown = set(scored.classes) - set(info.classes)
    if unknown:
        raise CustomCNNError(
            f"Data has the classes of the run. Received: {show_all(sorted(unknown))} in {show(data.root)}, where "
            f"{show(run.path)} knows {show_all(info.classes)}. Give the data that belongs to the run."
        )
    used = devices.configure(device)
    if no_pack:
        packed = stream(scored, info.input_size, workers)
    else:
        # A training leaves a pack of all parts; where there is none, the scored images alone are decoded.
        packed = find_pack(data, info.input_size) or pack(scored, info.input_size, workers=workers, progress=progress)
    if packed.converted:
        say(converted_note(packed.converted))
    model = load_model(path)
    devices.prepare(model, used)
    predicted = _predict_rows(model, packed.images, packed.rows(name if data.parts else None), progress)
    labels = np.array([info.classes.index(record.label) for record in scored.records])
    groups = [record.group for record in scored.records] if scored.groups_known else None
    metrics = evaluate_predictions(
        labels, predicted, info.classes, groups=groups, positive=info.positive or None, resamples=resamples
    )
    leakage = find_leakage(_trained_on(run, data), scored.records, name)
    beside = notes(scored, leakage)
    if info.drawn and DRAWN not in beside:
        beside.append(DRAWN)
    chosen_here = name == "validation" and weights == "best" and run.read_recipe().monitor.startswith("val_")
    metrics |= {
        "model": info.model,
        "weights": weights,
        "epoch": info.epoch,
        "data": str(data.root),
        "part": name,
        "chosen_on_this_part": chosen_here,
        "drawn": scored.drawn or info.drawn,
        "leakage": leakage.as_dict(),
        "notes": beside,
    }
    _write(RunDir(out or run.path), run, scored, info, predicted, metrics, beside)
    return Evaluation(metrics, leakage, beside)


def _trained_on(run: RunDir, data: Manifest) -> list[Record]:
    """Return the run's training images, with the groups that the data gives them where it holds the same files.

    The run may know other groups, or none: groups of two naming schemes can never be seen to be shared.
    """
    groups = {record.sha256 or record.path: record.group for record in data.records if record.group}
    train = run.read_manifest().part("train").records
    return [replace(record, group=groups.get(record.sha256 or record.path, record.group)) for record in train]


def _predict_rows(model: "keras.Model", images: np.ndarray, rows: np.ndarray, progress: Progress) -> np.ndarray:
    parts = []
    with progress(len(rows), "evaluate") as advance:
        for start in range(0, len(rows), BATCH):
            chosen = rows[start : start + BATCH]
            parts.append(probabilities(model, images[chosen]))
            advance(len(chosen))
    return np.concatenate(parts)


def choose_part(data: Manifest, part: str | None) -> tuple[Manifest, str]:
    """Return the images to score and the name of their part; "given" for a folder that is not split.

    Raises:
        CustomCNNError: the folder has no such part.
    """
    if part is None and not data.parts:
        return data, "given"
    name = part or ("test" if "test" in data.parts else data.parts[-1])
    if name not in data.parts:
        having = show_all(data.parts) if data.parts else "none"
        raise CustomCNNError(
            f"--part names a part of the data. Received: {name}; {show(data.root)} has {having}. Name one of them."
        )
    return data.part(name), name


def _write(
    target: RunDir,
    run: RunDir,
    scored: Manifest,
    info: ModelInfo,
    predicted: np.ndarray,
    metrics: dict[str, Any],
    beside: list[str],
) -> None:
    from customcnn.plots import plot_confusion, plot_curves

    target.path.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "path": record.path,
            "label": record.label,
            "group": record.group,
            "predicted": info.classes[int(values.argmax())],
            **{f"probability_{label}": float(value) for label, value in zip(info.classes, values, strict=True)},
        }
        for record, values in zip(scored.records, predicted, strict=True)
    ]
    files.write_text(target.predictions, rows_to_csv(rows))
    files.write_text(target.metrics, json.dumps(metrics, indent=2) + "\n")
    which = "all" if metrics["part"] == "given" else f"{metrics['part']} part"
    title = f"{info.model}, {which} of {scored.root.resolve().name}"
    plot_confusion(metrics["confusion_matrix"], info.classes, target.confusion, title=title, notes=beside)
    history = run.read_history()
    if history:
        plot_curves(history, target.curves, notes=run_notes(run.read_manifest()))
