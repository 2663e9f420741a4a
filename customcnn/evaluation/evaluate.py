"""Score a trained network on labelled images."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.backend import devices
from customcnn.data.image_state import with_hashes
from customcnn.data.leakage import DRAWN, Leakage, find_leakage, notes, run_notes
from customcnn.data.manifest import Manifest, Record
from customcnn.data.pack import Packed, find_pack, pack, stream
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.images.decode import converted_note
from customcnn.images.sizes import size_note, sizes_in
from customcnn.inference.classifier import BATCH, probabilities
from customcnn.inference.tta import averaged_probabilities
from customcnn.io import atomic
from customcnn.metrics.calibration import calibration
from customcnn.metrics.clinical import clinical
from customcnn.metrics.curves import Threshold, choose_threshold, read_rule
from customcnn.metrics.scores import evaluate_predictions, format_report
from customcnn.metrics.validation import check_classes
from customcnn.progress import Progress, silent
from customcnn.runs.run_dir import RunDir, rows_to_csv
from customcnn.runs.saved_model import ModelInfo, load_model, read_classifier

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What `evaluate` found: the contents of metrics.json, and the sentences that belong beside every score.

    It shows itself as the text that `customcnn evaluate` prints.
    """

    metrics: dict[str, Any]
    leakage: Leakage
    notes: list[str]

    def __repr__(self) -> str:
        return "\n".join([format_report(self.metrics), *(f"Warning: {note}" for note in self.notes)])


def evaluate(
    run: RunDir,
    data: Manifest,
    *,
    part: str | None = None,
    weights: str = "best",
    out: Path | None = None,
    resamples: int = 2000,
    tta: bool = False,
    strata: Sequence[str] = (),
    rule: str | None = None,
    positive: str | None = None,
    device: str = "auto",
    no_pack: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> Evaluation:
    """Score a run on one part of a split folder, or on a whole folder of class folders.

    Writes predictions.csv, metrics.json and the pictures (confusion, curves, roc, precision-recall, decision, subjects,
    reliability: those that the data allows) into the run, or into `out`.

    Args:
        run: a trained run.
        data: labelled images, from `scan`.
        part: "train", "validation" or "test"; None for test where there is one, else validation, else everything.
        weights: "best" or "last".
        out: where to write; None for the run itself.
        resamples: of the bootstrap behind the intervals.
        tta: take the mean over the turns and mirror images of each image, see `customcnn.inference.tta`.
        strata: columns of the manifest whose values part the images; each part gets scores of its own.
        rule: how the threshold of two classes is chosen, see `customcnn.metrics.curves.choose_threshold`: on the
            validation part, where that is not the one that is scored. None for "youden" where one can be chosen.
        positive: of two classes the one that sensitivity is the recall of; None for the network's own.
        device: "auto", "cpu" or "gpu".
        no_pack: decode the images batch by batch, see `customcnn.data.pack.stream`: slower, and nothing on the disk.
        workers: threads for decoding; None for one a core.
        progress: draws the bar, see `customcnn.progress`.
        say: receives the notes about converted images, and about images of another size than those of the training.

    Raises:
        CustomCNNError: no trained network, no such part or column, no resample, a class that the network does not
            know, a positive class that is none of two, or a rule where no threshold can be chosen.
    """
    atomic.refuse_non_empty(out or run.path, True)
    if out is not None:
        atomic.refuse_inside(data.root, out)
    if resamples < 1:
        raise CustomCNNError(f"Intervals need a resample at least. Received: --resamples {resamples}. Give 1 or more.")
    path = run.weights(weights)
    info = read_classifier(path)
    scored, name = choose_part(data, part)
    require_known(run, info, scored)
    if info.sides and (note := size_note(info.sides, sizes_in(data.root, [record.path for record in scored.records]))):
        say(f"Warning: {note}")
    info = replace(info, positive=check_classes(info.classes, positive or info.positive or None)[1] or "")
    if rule is not None:
        _require_rule(info, data, name, rule)
    columns = {column: column_values(scored, column) for column in strata}
    used = devices.configure(device)
    model = load_model(path)
    devices.prepare(model, used)

    def outputs(some: Manifest, what: str) -> np.ndarray:
        note = say if what == name else (lambda line: None)
        packed = decoded(data, some, info.input_size, no_pack=no_pack, workers=workers, progress=progress, say=note)
        rows = packed.rows(what if data.parts else None)
        return predict_rows(model, packed.images, rows, tta=tta, progress=progress)

    labels, predicted = label_numbers(info, scored), outputs(scored, name)
    groups = [record.group for record in scored.records] if scored.groups_known else None
    positive = info.positive or None
    scores = evaluate_predictions(
        labels, predicted, info.classes, groups=groups, positive=positive, resamples=resamples
    )
    threshold = _threshold(info, data, name, rule or "youden", lambda some: outputs(some, "validation"))
    leakage = leakage_of(run, data, scored, name)
    beside = notes(scored, leakage)
    if info.drawn and DRAWN not in beside:
        beside.append(DRAWN)
    metrics = {
        **scores,
        "model": info.model,
        "weights": weights,
        "epoch": info.epoch,
        "data": str(data.root),
        "part": name,
        "tta": tta,
        "chosen_on_this_part": name == "validation" and weights == "best" and run.chosen_by_validation(),
        "calibrated_on_this_part": weights == "best" and (info.calibration or {}).get("part") == name,
        "drawn": scored.drawn or info.drawn,
        "leakage": leakage.as_dict(),
        "notes": beside,
        "clinical": clinical(
            labels,
            predicted,
            info.classes,
            groups=groups,
            positive=positive,
            threshold=threshold,
            strata=columns,
            resamples=resamples,
        ),
        "calibration": {
            **calibration(labels, predicted, info.classes, groups=groups, positive=positive, resamples=resamples),
            "temperature": (info.calibration or {}).get("temperature"),
        },
    }
    _write(RunDir(out or run.path), run, scored, info, predicted, metrics, beside)
    return Evaluation(metrics, leakage, beside)


def require_known(run: RunDir, info: ModelInfo, data: Manifest) -> None:
    """Refuse data with classes that a network does not know.

    Raises:
        CustomCNNError: there is one.
    """
    if unknown := set(data.classes) - set(info.classes):
        raise CustomCNNError(
            f"Data has the classes of the run. Received: {show_names(sorted(unknown))} in {show(data.root)}, where "
            f"{show(run.path)} knows {show_names(info.classes)}. Give the data that belongs to the run."
        )


def label_numbers(info: ModelInfo, data: Manifest) -> np.ndarray:
    """Return the true class of every image by its number in the network, (N,) int."""
    number = {label: index for index, label in enumerate(info.classes)}
    return np.array([number[record.label] for record in data.records])


def column_values(data: Manifest, column: str) -> list[str]:
    """Return a column of the manifest, one value an image: a further one of its CSV, or label, group or split.

    Raises:
        CustomCNNError: no image has such a column.
    """
    if column in ("label", "group", "split"):
        return [str(getattr(record, column)) for record in data.records]
    known = sorted({name for record in data.records for name in record.extra})
    if column not in known:
        raise CustomCNNError(
            "--strata names a column of the manifest: label, group, split, or a further one of its CSV. "
            f"Received: {show(column)}; {show(data.root)} has {show_names(known) if known else 'no further one'}. "
            "Name one that is there."
        )
    return [record.extra.get(column, "") for record in data.records]


def decoded(
    data: Manifest,
    some: Manifest,
    size: tuple[int, int],
    *,
    no_pack: bool,
    workers: int | None,
    progress: Progress,
    say: Callable[[str], object],
) -> Packed:
    """Return images at a size: from the pack that a training left of the whole data, else of `some` alone."""
    if no_pack:
        packed = stream(some, size, workers)
    else:
        packed = find_pack(data, size) or pack(some, size, workers=workers, progress=progress)
    if packed.converted:
        say(converted_note(packed.converted))
    return packed


def predict_rows(
    model: "keras.Model", images: np.ndarray, rows: np.ndarray, *, tta: bool = False, progress: Progress = silent
) -> np.ndarray:
    """Return the probabilities of some images of a pack, float64 (N, classes); rows sum to 1.

    Args:
        model: a network of this package.
        images: uint8 (M, H, W, 3) at its input size.
        rows: (N,) int, the places of the images in there.
        tta: take the mean over the turns and mirror images of each.
        progress: draws the bar.
    """
    parts = []
    with progress(len(rows), "evaluate") as advance:
        for start in range(0, len(rows), BATCH):
            batch = images[rows[start : start + BATCH]]
            if tta:
                parts.append(averaged_probabilities(lambda some: probabilities(model, some), batch))
            else:
                parts.append(probabilities(model, batch))
            advance(len(batch))
    return np.concatenate(parts)


def leakage_of(run: RunDir, data: Manifest, scored: Manifest, part: str) -> Leakage:
    """Compare what a run was trained on with what it is scored on; files without a hash are read, see `with_hashes`.

    Args:
        run: a trained run.
        data: the data as it was given, whose groups count.
        scored: the part of it that is scored.
        part: its name, for the warning.
    """
    trained = _trained_on(run, data)
    hashed = any(record.sha256 for record in trained)
    return find_leakage(trained, with_hashes(scored) if hashed else scored.records, part)


def _trained_on(run: RunDir, data: Manifest) -> list[Record]:
    """Return the run's training images, with the groups that the data gives them where it holds the same files.

    The run may know other groups, or none: groups of two naming schemes can never be seen to be shared.
    """
    groups = {record.sha256 or record.path: record.group for record in data.records if record.group}
    train = run.read_manifest().part("train").records
    return [replace(record, group=groups.get(record.sha256 or record.path, record.group)) for record in train]


def _require_rule(info: ModelInfo, data: Manifest, scored: str, rule: str) -> None:
    """Refuse a rule that would be ignored: of more than two classes, or without a validation part to choose on."""
    read_rule(rule)
    if not info.positive:
        raise CustomCNNError(
            f"A threshold belongs to one of two classes. Received: {show(rule)} for {len(info.classes)} classes, "
            f"{show_names(info.classes)}. Leave out --threshold."
        )
    if not _has_validation(info, data, scored):
        raise CustomCNNError(
            "A threshold is chosen on a validation split of both classes that is not the one scored. Received: "
            f"{show(rule)} for {show(data.root)}, scored on {'all of it' if scored == 'given' else scored}. "
            "Leave out --threshold, or score the test split of a folder with a validation split."
        )


def _has_validation(info: ModelInfo, data: Manifest, scored: str) -> bool:
    return scored != "validation" and data.part("validation").classes == sorted(info.classes)


def _threshold(
    info: ModelInfo, data: Manifest, scored: str, rule: str, predicted: Callable[[Manifest], np.ndarray]
) -> Threshold | None:
    """Choose the threshold of two classes on the validation part; None where that is scored itself, or missing."""
    if not info.positive or not _has_validation(info, data, scored):
        return None
    validation = data.part("validation")
    positive = info.classes.index(info.positive)
    return choose_threshold(label_numbers(info, validation) == positive, predicted(validation)[:, positive], rule=rule)


def choose_part(data: Manifest, part: str | None) -> tuple[Manifest, str]:
    """Return the images to score and the name of their part; "given" for a folder that is not split.

    Raises:
        CustomCNNError: the folder has no such part.
    """
    if part is None and not data.parts:
        return data, "given"
    name = part or ("test" if "test" in data.parts else data.parts[-1])
    if name not in data.parts:
        having = show_names(data.parts) if data.parts else "none"
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
    from customcnn.plots.clinical import write_figures
    from customcnn.plots.confusion import plot_confusion
    from customcnn.plots.curves import plot_curves
    from customcnn.plots.reliability import plot_reliability

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
    atomic.write_text(target.predictions, rows_to_csv(rows))
    atomic.write_text(target.metrics, json.dumps(metrics, indent=2) + "\n")
    which = "all" if metrics["part"] == "given" else f"{metrics['part']} part"
    title = f"{info.model}, {which} of {scored.root.resolve().name}"
    plot_confusion(metrics["confusion_matrix"], info.classes, target.confusion, title=title, notes=beside)
    write_figures(metrics["clinical"], target.path, title=title, notes=beside)
    history = run.read_history()
    if history:
        plot_curves(history, target.curves, notes=run_notes(run.read_manifest()))
    # The last file: where it is there, all are. A fold without it is scored again.
    plot_reliability({which: metrics["calibration"]}, target.reliability, title=title, notes=beside)
