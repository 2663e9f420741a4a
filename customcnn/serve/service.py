"""What answers: images in bytes go in; predictions, and where wanted pictures, come out."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
from PIL import Image

from customcnn.data.leakage import DRAWN
from customcnn.errors import CustomCNNError, show
from customcnn.explain.gradcam import GradCam
from customcnn.images.decode import FORMATS, kind, open_image, resize, to_rgb
from customcnn.images.limits import BoundedFile
from customcnn.images.sizes import size_note
from customcnn.inference.classifier import Classifier
from customcnn.inference.decision import Prediction
from customcnn.serve.batching import Batcher
from customcnn.serve.decoders import Decoders, in_thread
from customcnn.serve.limits import MB, Limits, Refused
from customcnn.serve.multipart import Upload

LARGE_BODY = MB
"""A request with more bytes than this waits until one of LARGE_AT_ONCE places is free: that bounds the memory."""

LARGE_AT_ONCE = 4
PATIENCE = 60  # seconds that it waits

LARGE_IMAGE = 4_000_000
"""Images of more pixels than this are decoded one at a time."""

SHOWN = 320  # pixels of the longer side of the image that the page shows


@dataclass(frozen=True)
class Answer:
    """What is said about one image: a prediction, or why there is none.

    Attributes:
        name: of the image.
        prediction: None for what could not be used.
        error: one line; "" where there is a prediction.
        kind: of its pixels, see `customcnn.images.decode.kind`.
        pixels: as the network takes it, uint8 (H, W, 3).
        shown: the image at a size to look at, uint8 (h, w, 3); None unless it was asked for.
        warning: that it is plainly of another size than the training images; "" for none.
    """

    name: str
    prediction: Prediction | None = None
    error: str = ""
    kind: str = "RGB"
    pixels: np.ndarray | None = None
    shown: np.ndarray | None = None
    warning: str = ""


@dataclass(frozen=True)
class _Decoded:
    pixels: np.ndarray
    kind: str
    novelty: float | None
    shown: np.ndarray | None
    size: tuple[int, int]


class Service:
    """A classifier for many clients: decodes in threads, computes in batches, and draws Grad-CAM.

    Args:
        classifier: the network.
        limits: what a request may hold.
    """

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self.classifier, self.limits = classifier, limits
        self._decoders = Decoders()
        self._batcher = Batcher(classifier.outputs)
        self._one_large = asyncio.Semaphore(1)
        self._places = asyncio.Semaphore(LARGE_AT_ONCE)
        self._loading = threading.Lock()
        self._grad_cam: GradCam | None = None
        self._no_grad_cam = ""

    @property
    def warnings(self) -> list[str]:
        """What belongs beside every answer."""
        notes = self.classifier.notes
        return notes if DRAWN in notes or not self.classifier.info.drawn else [*notes, DRAWN]

    def warm_up(self) -> None:
        """Compute once, so that the first visitor does not wait for the network to be loaded."""
        self._batcher.submit(np.zeros((*self.classifier.info.input_size, 3), np.uint8)).result()

    def close(self) -> None:
        """End the thread that computes; those that decode end by themselves, or with the process."""
        self._batcher.close()

    @asynccontextmanager
    async def place(self, size: int | None) -> AsyncIterator[None]:
        """Hold a place for the body of a request, where it is large.

        Args:
            size: its bytes; None where that is not known.

        Raises:
            Refused: 503, no place became free.
        """
        if size is not None and size <= LARGE_BODY:
            yield
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._places.acquire()
        except TimeoutError:
            raise Refused(503, "Too many large requests at once. Try again later.", after=PATIENCE) from None
        try:
            yield
        finally:
            self._places.release()

    async def predict(self, uploads: list[Upload], *, shown: bool = False) -> list[Answer]:
        """Return an answer for every image, in order.

        Args:
            uploads: the files.
            shown: whether to keep what the page shows of them.
        """
        return list(await asyncio.gather(*(self._answer(upload, shown) for upload in uploads)))

    async def _answer(self, upload: Upload, shown: bool) -> Answer:
        try:
            large = await self._decoders.run(lambda: _is_large(upload.data))
            async with self._one_large if large else nullcontext():
                decoded = await self._decoders.run(lambda: self._decode(upload, shown))
        except CustomCNNError as error:
            return Answer(upload.name, error=str(error))
        except MemoryError:
            raise Refused(503, "Not enough memory for this image now. Try again later.", after=PATIENCE) from None
        row = await asyncio.wrap_future(self._batcher.submit(decoded.pixels))
        if not np.isfinite(row).all():
            line = f"A network gives numbers. Received: none for {show(upload.name)}. Train the network again."
            return Answer(upload.name, error=line)
        prediction = self.classifier.judge.judge(upload.name, row, decoded.novelty)
        warning = size_note(self.classifier.info.sides, {upload.name: decoded.size})
        return Answer(upload.name, prediction, "", decoded.kind, decoded.pixels, decoded.shown, warning)

    def _decode(self, upload: Upload, shown: bool) -> _Decoded:
        image = open_image(upload.data, upload.name)
        pixels = self.classifier.pixels(image)
        small = _small(image) if shown else None
        return _Decoded(pixels, kind(image), self.classifier.judge.look(pixels), small, image.size)

    async def explain(self, answer: Answer) -> np.ndarray | None:
        """Return the Grad-CAM of an answer's class, float32 (H, W), 0..1; None for a network without feature maps."""
        if answer.prediction is None or answer.pixels is None:
            return None
        # Where an export computes, Keras is loaded only now, and others are answered meanwhile.
        await in_thread(self._load)
        if self._grad_cam is None:
            return None
        pixels, index = answer.pixels, self.classifier.classes.index(answer.prediction.label)
        grad_cam = self._grad_cam
        return await asyncio.wrap_future(self._batcher.call(lambda: grad_cam(pixels, index)))

    def _load(self) -> None:
        with self._loading:
            if self._grad_cam is None and not self._no_grad_cam:
                model = self.classifier.model
                try:
                    self._grad_cam = self._batcher.call(lambda: GradCam(model)).result()
                except CustomCNNError as error:
                    self._no_grad_cam = str(error)


def _is_large(data: bytes) -> bool:
    try:
        with BoundedFile(data).open(FORMATS) as image:
            return image.width * image.height > LARGE_IMAGE
    except Exception:  # whatever it is, `open_image` says it
        return False


def _small(image: Image.Image) -> np.ndarray:
    """Return an image at a size to look at, in its own shape."""
    rgb = to_rgb(image)
    share = min(1.0, SHOWN / max(rgb.size))
    size = (max(1, round(rgb.height * share)), max(1, round(rgb.width * share)))
    return np.asarray(resize(rgb, size))
