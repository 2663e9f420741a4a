"""Predict the class of image files, by Keras or by an exported network."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn import devices, files
from customcnn.conformal import Conformal
from customcnn.errors import CustomCNNError, show
from customcnn.images import SUFFIXES, converted_note
from customcnn.novelty import Novelty
from customcnn.progress import Progress, silent
from customcnn.readers import reader
from customcnn.runs import ModelInfo, RunDir, load_model, read_classifier
from customcnn.runtime import BATCH as BATCH_EXPORTED
from customcnn.runtime import Exported, StaleExport, export_path, is_installed
from customcnn.views import Network, averaged

if TYPE_CHECKING:
    import keras

BATCH = 64
RUNTIMES = ("auto", "keras", "openvino")


@dataclass(frozen=True)
class Prediction:
    """One image's class and its probabilities by class name.

    The other attributes are None where the network is not calibrated, see `customcnn.calibrate`.

    Attributes:
        file: the image.
        label: the class with the largest probability.
        probabilities: by class name, 0..1.
        classes: the set of classes that holds the true one with the promised probability; it may be empty.
        sure: whether that set is exactly one class.
        novelty: how far the image lies from those of the calibration: 1 is typical.
        novel: whether that is beyond the limit: the image looks like none of them, and the rest means nothing.
    """

    file: str
    label: str
    probabilities: dict[str, float]
    classes: list[str] | None = None
    sure: bool | None = None
    novelty: float | None = None
    novel: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, ready for JSON; the set of classes is `set` there."""
        named = {("set" if key == "classes" else key): value for key, value in vars(self).items()}
        return {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True)
class Judge:
    """What a network's calibration makes of its probabilities.

    Attributes:
        classes: the class names.
        sets: how sets of classes are made; None where the network is not calibrated.
        novelty: what is usual; None where that is not known.
    """

    classes: list[str]
    sets: Conformal | None = None
    novelty: Novelty | None = None

    @classmethod
    def of(cls, info: ModelInfo) -> "Judge":
        """Return the judge for what a saved network carries."""
        stored = info.calibration or {}
        sets, novelty = stored.get("sets"), stored.get("novelty")
        return cls(
            info.classes,
            sets and Conformal.from_dict(sets),
            novelty and Novelty.from_dict(novelty),
        )

    def look(self, image: np.ndarray) -> float | None:
        """Return the novelty of an image, uint8 (H, W, 3), at the input size."""
        return float(self.novelty.scores(image[None])[0]) if self.novelty else None

    def judge(self, file: str, shares: np.ndarray, novelty: float | None = None) -> Prediction:
        """Return the prediction of one image from its probabilities (C,)."""
        chosen = sure = None
        if self.sets:
            inside = self.sets.sets(shares[None])[0]
            chosen = [label for label, within in zip(self.classes, inside, strict=True) if within]
            sure = len(chosen) == 1
        by_class = {label: float(value) for label, value in zip(self.classes, shares, strict=True)}
        novel = None if novelty is None or self.novelty is None else novelty > self.novelty.limit
        return Prediction(file, self.classes[int(shares.argmax())], by_class, chosen, sure, novelty, novel)


def predict(
    run: RunDir,
    images: Sequence[Path],
    *,
    weights: str = "best",
    runtime: str = "auto",
    tta: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> list[Prediction]:
    """Predict the class of image files; a folder stands for the images directly inside it.

    A calibrated network (see `customcnn.calibrate`) also gives a set of classes, and says what looks like no cell.

    Args:
        run: a trained run.
        images: files or folders.
        weights: "best" or "last".
        runtime: "keras"; "openvino", from the run's export; "auto" for openvino where an export of these very weights
            is there and OpenVINO is installed, and no GPU is asked for.
        tta: take the mean over the turns and mirror images of each image, see `customcnn.views`: eight times the work.
        device: "auto", "cpu" or "gpu".
        workers: threads for decoding; None for one a core.
        progress: draws the bar, see `customcnn.progress`.
        say: receives the notes about converted images, about an export that is not used, and about sets of classes
            that were fitted without `tta`.

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
    if tta:
        network = averaged(network)
    judge = Judge.of(info)
    if tta and judge.sets:
        say("Note: the sets of classes were fitted without --tta; their coverage is not promised with it.")
    found: list[Prediction] = []
    stream = _Stream(size)
    with progress(len(paths), "predict") as advance:
        read = reader(len(paths))

        def decode(path: Path) -> tuple[np.ndarray, str, float | None]:
            image, kind = read(path, info.input_size)
            return image, kind, judge.look(image)

        for raw in network(stream.batches(files.parallel(decode, paths, workers))):
            for row in _shares(raw):
                found.append(judge.judge(str(paths[len(found)]), row, stream.novelties.popleft()))
            advance(len(raw))
    if note := converted_note(stream.kinds):
        say(note)
    return found


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


@dataclass
class _Stream:
    """Decoded images on their way to the network, and what was seen of them."""

    size: int
    kinds: Counter[str] = field(default_factory=Counter)
    novelties: deque[float | None] = field(default_factory=deque)

    def batches(self, decoded: Iterator[tuple[np.ndarray, str, float | None]]) -> Iterator[np.ndarray]:
        while some := list(islice(decoded, self.size)):
            self.kinds.update(kind for _, kind, _ in some)
            self.novelties.extend(novelty for *_, novelty in some)
            yield np.stack([image for image, *_ in some])


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
