"""A trained network, loaded once, that answers for files and for pixels in memory."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from customcnn.backend import devices
from customcnn.data.leakage import run_notes
from customcnn.errors import CustomCNNError, printable, show, show_names
from customcnn.explain.explanation import Explanation, Method, heat_map, laid_over
from customcnn.images.decode import BadImage, converted_note
from customcnn.images.readers import reader
from customcnn.images.sizes import size_note
from customcnn.inference.decision import Judge, Prediction
from customcnn.inference.inputs import Picture, as_pixels, extent, is_several, listed, name_of
from customcnn.inference.predictions import PICTURES, Predictions
from customcnn.inference.runtimes import BATCH as BATCH_EXPORTED
from customcnn.inference.runtimes import NAMES, Exported, Network, StaleExport, export_path, is_installed, open_exported
from customcnn.inference.tta import averaged
from customcnn.io.parallel import parallel
from customcnn.metrics.scores import two_columns
from customcnn.metrics.validation import require_finite
from customcnn.progress import Progress, silent
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_classifier

if TYPE_CHECKING:
    import keras

BATCH = 64
RUNTIMES = ("auto", "keras", *NAMES)
AUTO = "openvino"
"""What "auto" takes where its export is there."""

Say = Callable[[str], object]


class Classifier:
    """A trained network, loaded once: for many questions, one after the other or from several threads.

    Args:
        run: a trained run.
        weights: "best" or "last".
        runtime: "keras"; "openvino", "onnx" or "litert", from the run's export; "auto" for openvino where an export of
            these very weights is there and OpenVINO is installed, and no GPU is asked for, else keras.
        device: "auto", "cpu" or "gpu".
        say: receives the notes: about an export that is not used, about converted images.

    Attributes:
        run: the run.
        path: its .keras file.
        info: what that file carries: class names, input size, calibration.
        judge: what makes predictions of probabilities.
        runtime: what computes: "keras", "openvino", "onnx" or "litert".
        device: what was asked for.

    Raises:
        CustomCNNError: no trained network, or no export of these weights for the runtime that is asked for.
    """

    def __init__(
        self,
        run: RunDir,
        *,
        weights: str = "best",
        runtime: str = "auto",
        device: str = "auto",
        say: Say = lambda line: None,
    ) -> None:
        self.run, self.say = run, say
        self.path = run.weights(weights)
        self.info = read_classifier(self.path)
        self.judge = Judge.of(self.info)
        self.runtime, self._exported = _chosen(self.path, runtime, device, say)
        self.device = device
        self._lock = Lock()
        self._compiled: dict[bool, Network] = {}

    def __repr__(self) -> str:
        height, width = self.info.input_size
        names = " or ".join(map(printable, self.classes))
        return (
            f"<Classifier: {printable(self.info.model)} from {show(self.path)}, {names}, {height} x {width} pixels, "
            f"epoch {self.info.epoch}, computed by {self.runtime}>"
        )

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the probabilities."""
        return self.info.classes

    @property
    def history(self) -> list[dict[str, float]]:
        """One dictionary an epoch of the whole training, as in history.csv: what `pandas.DataFrame` takes."""
        return self.run.read_history() or [dict(row) for row in self.info.history]

    @cached_property
    def notes(self) -> list[str]:
        """The warnings that belong beside every answer: leakage of the run's data, drawn cells."""
        return run_notes(self.run.read_manifest()) if self.run.manifest.is_file() else []

    @cached_property
    def model(self) -> "keras.Model":
        """The Keras network, loaded when it is first needed."""
        device = devices.configure(self.device)
        model = load_model(self.path)
        devices.prepare(model, device)
        return model

    def pixels(self, image: Picture) -> np.ndarray:
        """Return an image as the network takes it, uint8 (H, W, 3) at its input size.

        Raises:
            BadImage: a file or bytes that are no image.
            CustomCNNError: an array of another type or shape.
        """
        return as_pixels(image, self.info.input_size)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the class probabilities of one batch; safe to call from several threads.

        Args:
            images: uint8 (N, H, W, 3) at the input size.

        Returns:
            float64 (N, classes); rows sum to 1.

        Raises:
            CustomCNNError: the network gives NaN or infinite ones.
        """
        found = self.outputs(images)
        require_finite(found)
        return found

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Return what `probabilities` returns, NaN included: who answers for many asks which rows are good."""
        with self._lock:
            return np.concatenate([two_columns(raw) for raw in self._network(len(images))([images])])

    def predict(
        self,
        images: Picture | Iterable[Picture],
        *,
        tta: bool = False,
        skip_bad: bool = False,
        workers: int | None = None,
        progress: Progress = silent,
    ) -> Predictions:
        """Predict the class of images; a folder stands for the images directly inside it.

        Args:
            images: one or several, see `Picture`; an array (N, H, W, 3) is N images.
            tta: take the mean over the turns and mirror images of each, see `customcnn.inference.tta`: eight times the
                work.
            skip_bad: leave out what cannot be used as an image, and list it in `skipped` of what is returned, instead
                of failing.
            workers: threads for decoding; None for one a core.
            progress: draws the bar, see `customcnn.progress`.

        Returns:
            One prediction an image, in the order given; a folder's files sorted by name. What is no file is called
            "image 1" and so on, by its place. In a notebook the list shows itself as a table.

        Raises:
            CustomCNNError: something that is not an image, or a network that gives NaN or infinite probabilities.
        """
        pictures = listed(images)
        if tta and self.judge.sets:
            self.say("Note: the sets of classes were fitted without --tta; their coverage is not promised with it.")
        read = reader(len(pictures))

        def decode(place: int) -> _Decoded | BadImage:
            picture = pictures[place]
            try:
                pixels, mode = as_pixels(picture, self.info.input_size, read)
            except BadImage as error:
                if not skip_bad:
                    raise
                return BadImage(name_of(picture, place), error.reason)
            size = extent(picture) if self.info.sides else None
            return _Decoded(name_of(picture, place), pixels, mode, self.judge.look(pixels), size)

        found: list[Prediction] = []
        stream = _Stream(BATCH_EXPORTED if self._exported else BATCH, keep=len(pictures) <= PICTURES)
        with progress(len(pictures), "predict") as advance, self._lock:
            network = self._network(len(pictures))
            batches = stream.batches(parallel(decode, range(len(pictures)), workers))
            # Probabilities are averaged, as evaluate does: two sigmoid outputs need not sum to 1.
            outputs = averaged(lambda some: map(two_columns, network(some)))(batches) if tta else network(batches)
            for raw in outputs:
                rows = two_columns(raw)
                require_finite(rows)
                for row in rows:
                    name, novelty = stream.waiting.popleft()
                    found.append(self.judge.judge(name, row, novelty))
                advance(len(raw))
            if stream.skipped:
                advance(len(stream.skipped))
        if note := converted_note(stream.kinds):
            self.say(note)
        beside = [note] if (note := size_note(self.info.sides, stream.sizes)) else []
        for note in beside:
            self.say(f"Warning: {note}")
        return Predictions(found, stream.pictures, lambda: [*self.notes, *beside], stream.skipped)

    def explain(
        self,
        image: Picture,
        label: str | None = None,
        method: str | Method = "grad-cam",
        *,
        layer: str | None = None,
    ) -> Explanation:
        """Find where in an image the network sees what speaks for a class. Keras computes it, also beside an export.

        Args:
            image: one, see `Picture`.
            label: the class; None for the predicted one.
            method: "grad-cam", "grad-cam++", "occlusion" (slower, of any network), or a function, see
                `customcnn.explain.explanation.Method`.
            layer: whose maps Grad-CAM takes, a name of `customcnn.explain.gradcam.cam_layers`; None for the last ones.

        Raises:
            CustomCNNError: something that is not one image, no such class, method or layer, or for Grad-CAM a network
                without feature maps.
        """
        if is_several(image):
            raise CustomCNNError(
                "One image is explained at a time. Received: several. Explain them one after the other."
            )
        pixels = self.pixels(image)
        shares = self.probabilities(pixels[None])[0]
        with self._lock:
            return explained(self.model, pixels, shares, self.classes, label, method, layer, self.notes)

    def _network(self, images: int) -> Network:
        """Return what computes about so many images at a time."""
        if not self._exported:
            model = self.model
            return lambda batches: (np.asarray(model.predict_on_batch(batch)) for batch in batches)
        few = images <= BATCH_EXPORTED
        if few not in self._compiled:
            self._compiled[few] = self._exported.compile(images)
        return self._compiled[few]


def _chosen(path: Path, runtime: str, device: str, say: Say) -> tuple[str, Exported | None]:
    """Return what computes, and the export that it opens; None for Keras."""
    if runtime not in RUNTIMES:
        raise CustomCNNError(f"--runtime is one of {', '.join(RUNTIMES)}. Received: {show(runtime)}. Choose one.")
    if runtime in NAMES:
        if device == "gpu":
            raise CustomCNNError(
                f"--runtime {runtime} computes on the CPU. Received: --device gpu. "
                "Use --runtime keras, or --device cpu."
            )
        return runtime, open_exported(path, runtime, say)
    if runtime == "keras" or device == "gpu" or not (export_path(path, AUTO).exists() and is_installed(AUTO)):
        return "keras", None
    try:
        return AUTO, open_exported(path, AUTO, say)
    except StaleExport as error:
        say(f"Note: Keras computes this. {error}")
        return "keras", None


@dataclass(frozen=True)
class _Decoded:
    """One image, its name, and what was seen of it; `size` is the width and height of its file."""

    name: str
    pixels: np.ndarray
    kind: str
    novelty: float | None
    size: tuple[int, int] | None


@dataclass
class _Stream:
    """Decoded images on their way to the network, and what was seen of them; `waiting` have no answer yet."""

    size: int
    keep: bool = False
    pictures: list[np.ndarray] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    waiting: deque[tuple[str, float | None]] = field(default_factory=deque)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def batches(self, decoded: Iterator[_Decoded | BadImage]) -> Iterator[np.ndarray]:
        good = self._good(decoded)
        while some := list(islice(good, self.size)):
            self.kinds.update(one.kind for one in some)
            self.sizes.update((one.name, one.size) for one in some)
            self.waiting.extend((one.name, one.novelty) for one in some)
            self.pictures += [one.pixels for one in some] if self.keep else []
            yield np.stack([one.pixels for one in some])

    def _good(self, decoded: Iterator[_Decoded | BadImage]) -> Iterator[_Decoded]:
        for one in decoded:
            if isinstance(one, BadImage):
                self.skipped.append((str(one.path), one.reason))
            else:
                yield one


def probabilities(model: "keras.Model", images: np.ndarray) -> np.ndarray:
    """Return class probabilities, two columns also for a network with one sigmoid output.

    Args:
        model: a network of this package.
        images: uint8 (N, H, W, 3) at its input size.

    Returns:
        float64 (N, classes); rows sum to 1.
    """
    return two_columns(model.predict_on_batch(images))


def explained(
    model: "keras.Model",
    pixels: np.ndarray,
    shares: np.ndarray,
    classes: Sequence[str],
    label: str | None,
    method: str | Method,
    layer: str | None = None,
    notes: Sequence[str] = (),
) -> Explanation:
    """Find where in an image a network sees what speaks for a class.

    Args:
        model: the Keras network.
        pixels: uint8 (H, W, 3) at its input size.
        shares: the probabilities (C,) of the image.
        classes: their names.
        label, method, layer: see `Classifier.explain`.
        notes: the warnings that belong beside every answer of the network.

    Raises:
        CustomCNNError: as `Classifier.explain`.
    """
    if label is not None and label not in classes:
        raise CustomCNNError(
            f"A class of the network is explained. Received: {show(label)}; it knows {show_names(classes)}."
        )
    index = int(shares.argmax()) if label is None else [*classes].index(label)
    heat = heat_map(model, lambda some: probabilities(model, some), pixels, index, method, layer)
    return Explanation(
        image=pixels,
        heat=heat,
        label=classes[index],
        probabilities={name: float(share) for name, share in zip(classes, shares, strict=True)},
        method=method if isinstance(method, str) else getattr(method, "__name__", "a function"),
        overlay=laid_over(pixels, heat, method),
        notes=[*notes],
    )


def predict(
    run: RunDir,
    images: Sequence[Path],
    *,
    weights: str = "best",
    runtime: str = "auto",
    tta: bool = False,
    skip_bad: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> Predictions:
    """Predict the class of image files; a folder stands for the images directly inside it.

    A calibrated network (see `customcnn.evaluation.calibrate`) also gives a set of classes, and says what looks like no
    cell.

    Args:
        run: a trained run.
        images: files or folders.
        weights: "best" or "last".
        runtime: "keras"; "openvino", "onnx" or "litert", from the run's export; "auto" for openvino where an export of
            these very weights is there and OpenVINO is installed, and no GPU is asked for.
        tta: take the mean over the turns and mirror images of each image, see `customcnn.inference.tta`: eight times
            the work.
        skip_bad: leave out what cannot be used as an image, and list it in `skipped` of what is returned, instead of
            failing.
        device: "auto", "cpu" or "gpu".
        workers: threads for decoding; None for one a core.
        progress: draws the bar, see `customcnn.progress`.
        say: receives the notes about converted images, about images of another size than those of the training, about
            an export that is not used, and about sets of classes that were fitted without `tta`.

    Returns:
        One prediction a file, in the order given; a folder's files sorted by name.

    Raises:
        CustomCNNError: no trained network, a file that is not an image, no export of these weights for the runtime, or
            a network that gives NaN or infinite probabilities.
    """
    classifier = Classifier(run, weights=weights, runtime=runtime, device=device, say=say)
    return classifier.predict(images, tta=tta, skip_bad=skip_bad, workers=workers, progress=progress)
