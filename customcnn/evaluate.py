"""Score a trained network on labelled images, and predict unlabelled ones."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn import devices, files
from customcnn.errors import CustomCNNError, show, show_all
from customcnn.images import SUFFIXES, converted_note
from customcnn.leakage import DRAWN, Leakage, find_leakage, notes, run_notes
from customcnn.manifest import Manifest, Record
from customcnn.metrics import evaluate_predictions
from customcnn.pack import find_pack, pack, stream
from customcnn.progress import Progress, silent
from customcnn.readers import reader
from customcnn.runs import ModelInfo, RunDir, load_model, read_classifier, rows_to_csv
from customcnn.runtime import BATCH as BATCH_EXPORTED
from customcnn.runtime import Exported, StaleExport, export_path, is_installed

if TYPE_CHECKING:
    import keras

BATCH = 64
RUNTIMES = ("auto", "keras", "openvino")


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


def probabilities(model: "keras.Model", images: np.ndarray) -> np.ndarray:
    """Return class probabilities, two columns also for a network with one sigmoid output.

    Args:
        model: a network of this package.
        images: uint8 (N, H, W, 3) at its input size.

    Returns:
        float64 (N, classes); rows sum to 1.
    """
    return _shares(model.predict_on_batch(images))


def _shares(output: np.ndarray) -> np.ndarray:
    raw = np.asarray(output, dtype=np.float64)
    if raw.shape[1] == 1:
        raw = np.concatenate([1 - raw, raw], axis=1)
    return raw / raw.sum(axis=1, keepdims=True)


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


@dataclass(frozen=True)
class Prediction:
    """One image's class and its probabilities by class name."""

    file: str
    label: str
    probabilities: dict[str, float]


def predict(
    run: RunDir,
    images: Sequence[Path],
    *,
    weights: str = "best",
    runtime: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> list[Prediction]:
    """Predict the class of image files; a folder stands for the images directly inside it.

    Args:
        run: a trained run.
        images: files or folders.
        weights: "best" or "last".
        runtime: "keras"; "openvino", from the run's export; "auto" for openvino where an export of these very weights
            is there and OpenVINO is installed, and no GPU is asked for.
        device: "auto", "cpu" or "gpu".
        workers: threads for decoding; None for one a core.
        progress: draws the bar, see `customcnn.progress`.
        say: receives the notes about converted images and about an export that is not used.

    Returns:
        One prediction a file, in the order given; a folder's files sorted by name.

    Raises:
        CustomCNNError: no trained network, a file that is not an image, or for "openvino" no export of these weights.
    """
    path = run.weights(weights)
    info = read_classifier(path)
    paths = expand(images)
    exported = _exported(path, runtime, device, say)
    network: Network
    if exported:
        network, size = exported.compile(len(paths)), BATCH_EXPORTED
    else:
        network, size = _keras_network(path, devices.configure(device)), BATCH
    found: list[Prediction] = []
    kinds: Counter[str] = Counter()
    with progress(len(paths), "predict") as advance:
        read = reader(len(paths))
        decoded = files.parallel(lambda path: read(path, info.input_size), paths, workers)
        for raw in network(_batches(decoded, size, kinds)):
            for row in _shares(raw):
                by_class = {label: float(value) for label, value in zip(info.classes, row, strict=True)}
                found.append(Prediction(str(paths[len(found)]), info.classes[int(row.argmax())], by_class))
            advance(len(raw))
    if note := converted_note(kinds):
        say(note)
    return found


Network = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]
"""Batches of uint8 (N, H, W, 3) in, their raw outputs (N, classes) or (N, 1) out, in order."""


def _exported(path: Path, runtime: str, device: str, say: Callable[[str], object]) -> Exported | None:
    """Return the export to use; None for Keras."""
    if runtime not in RUNTIMES:
        raise CustomCNNError(f"--runtime is one of {', '.join(RUNTIMES)}. Received: {show(runtime)}. Choose one.")
    if runtime == "openvino":
        if device == "gpu":
            raise CustomCNNError(
                "--runtime openvino computes on the CPU. Received: --device gpu. Use --runtime keras, or --device cpu."
            )
        return Exported(path)
    if runtime == "keras" or device == "gpu" or not (export_path(path).exists() and is_installed()):
        return None
    try:
        return Exported(path)
    except StaleExport as error:
        say(f"Note: Keras computes this. {error}")
        return None


def _keras_network(path: Path, device: str) -> Network:
    model = load_model(path)
    devices.prepare(model, device)
    return lambda batches: (np.asarray(model.predict_on_batch(batch)) for batch in batches)


def _batches(decoded: Iterator[tuple[np.ndarray, str]], size: int, kinds: Counter[str]) -> Iterator[np.ndarray]:
    while some := list(islice(decoded, size)):
        kinds.update(kind for _, kind in some)
        yield np.stack([image for image, _ in some])


def expand(images: Sequence[Path]) -> list[Path]:
    """Return the files, with every folder replaced by the images directly inside it.

    Raises:
        CustomCNNError: nothing is given, a path is missing, or a folder holds no image.
    """
    paths: list[Path] = []
    for path in images:
        inside = _inside(path) if path.is_dir() else [path]
        if not inside or not inside[0].exists():
            what = "a folder without images" if path.is_dir() else "which does not exist"
            raise CustomCNNError(
                f"Images are given as files, or as folders of them. Received: {show(path)}, {what}. Check its name."
            )
        paths += inside
    if not paths:
        raise CustomCNNError("Images are given as files, or as folders of them. Received: none. Name one.")
    return paths


def _inside(folder: Path) -> list[Path]:
    # Names that begin with a dot are litter, as in `scan`.
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
