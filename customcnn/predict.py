"""Predict the class of image files, by Keras or by an exported network."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from customcnn import devices, files
from customcnn.errors import CustomCNNError, show
from customcnn.images import SUFFIXES, converted_note
from customcnn.progress import Progress, silent
from customcnn.readers import reader
from customcnn.runs import RunDir, load_model, read_classifier
from customcnn.runtime import BATCH as BATCH_EXPORTED
from customcnn.runtime import Exported, StaleExport, export_path, is_installed

if TYPE_CHECKING:
    import keras

BATCH = 64
RUNTIMES = ("auto", "keras", "openvino")


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
