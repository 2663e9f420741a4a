"""Where in an image a network sees what speaks for a class: the ways to find it, and a picture that shows it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from customcnn.errors import CustomCNNError, printable, show
from customcnn.explain.gradcam import GradCam, overlay
from customcnn.explain.occlusion import occlusion, signed_overlay
from customcnn.html.page import Html, data_uri, escape
from customcnn.images.decode import encode
from customcnn.io.atomic import write_bytes

if TYPE_CHECKING:
    import keras

CAMS = {"grad-cam": False, "grad-cam++": True}
"""By method, whether it is Grad-CAM++."""

OTHERS = {"occlusion": occlusion}
"""Further methods, see `Method`."""

METHODS = (*CAMS, *OTHERS)

Function = Callable[[np.ndarray], np.ndarray]
"""Uint8 (N, H, W, 3) in, probabilities (N, classes) out."""

Method = Callable[[Function, np.ndarray, int], np.ndarray]
"""A way to explain: (function, uint8 (H, W, 3), number of the class) in, a map float (H, W) out."""

LEAST = 192
"""The least height of a picture in pixels: smaller ones are enlarged by a whole number, pixel by pixel."""

GAP = 8
"""Pixels of white between an image and its map."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """An image, and how much each place of it speaks for a class. A notebook shows both beside each other.

    Attributes:
        image: uint8 (H, W, 3), as the network takes it.
        heat: float32 (H, W): by Grad-CAM 0..1, by occlusion -1..1 where below 0 speaks against the class.
        label: the class that is explained.
        probabilities: of the image, by class name.
        method: how the map was made.
        overlay: uint8 (H, W, 3), the map over the image.
        notes: the warnings that belong beside every answer of the network.
    """

    image: np.ndarray
    heat: np.ndarray
    label: str
    probabilities: dict[str, float]
    method: str
    overlay: np.ndarray
    notes: list[str] = field(default_factory=list)

    @property
    def beside(self) -> np.ndarray:
        """The image and the overlay beside each other, uint8 (H, 2 W + GAP, 3)."""
        gap = np.full((self.image.shape[0], GAP, 3), 255, np.uint8)
        return np.concatenate([self.image, gap, self.overlay], axis=1)

    @property
    def caption(self) -> str:
        """What the picture shows, in one line."""
        shares = ", ".join(f"{printable(label)} {share:.3f}" for label, share in self.probabilities.items())
        return f"{self.method} for {printable(self.label)} ({shares})"

    def save(self, path: str | Path) -> Path:
        """Write the image and the overlay beside each other as PNG, small ones enlarged, whole or not at all.

        Raises:
            CustomCNNError: the name does not end in .png.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise CustomCNNError(f"An explanation is saved as PNG. Received: {show(path)}. Give a name in .png.")
        write_bytes(path, self._repr_png_())
        return path

    def __repr__(self) -> str:
        height, width = self.heat.shape
        return f"<Explanation: {self.caption}, {height} x {width}>"

    def _repr_png_(self) -> bytes:
        times = -(-LEAST // self.image.shape[0])
        return png(self.beside.repeat(times, axis=0).repeat(times, axis=1))

    def _repr_html_(self) -> str:
        lines = [self.caption, *(f"Warning: {note}" for note in self.notes)]
        words = "".join(f"<p>{escape(line)}</p>" for line in lines)
        return f"<div>{picture_html(self.beside, self.caption, LEAST)}{words}</div>"


def heat_map(
    model: "keras.Model",
    function: Function,
    image: np.ndarray,
    index: int,
    method: str | Method,
    layer: str | None = None,
) -> np.ndarray:
    """Return how much each place of an image speaks for a class.

    Args:
        model: the Keras network.
        function: its probabilities.
        image: uint8 (H, W, 3) at the input size.
        index: the number of the class.
        method: one of `METHODS`, or a function; see `Method`.
        layer: whose maps Grad-CAM takes; None for the last ones.

    Returns:
        float32 (H, W).

    Raises:
        CustomCNNError: another method, a layer where the method takes none, or a function that gives no map.
    """
    if isinstance(method, str) and method in CAMS:
        return GradCam(model, layer, plus_plus=CAMS[method])(image, index)
    if isinstance(method, str) and method not in OTHERS:
        raise CustomCNNError(
            f"A method is one of {', '.join(METHODS)}, or a function. Received: {show(method)}. Choose one."
        )
    if layer is not None:
        raise CustomCNNError(
            f"A layer is for {' and '.join(CAMS)}. Received: {show(layer)} for {method}. Leave it out."
        )
    explain: Method = OTHERS[method] if isinstance(method, str) else method
    heat = np.asarray(explain(function, image, index), dtype=np.float32)
    if heat.shape != image.shape[:2] or not np.isfinite(heat).all():
        raise CustomCNNError(
            f"A map has a finite number for each pixel, {image.shape[:2]}. Received: {heat.shape} from {method}."
        )
    return heat


def laid_over(image: np.ndarray, heat: np.ndarray, method: str | Method) -> np.ndarray:
    """Lay a map over its image: as Grad-CAM does, or in red and blue where the method or the map knows values below 0.

    Args:
        image: uint8 (H, W, 3).
        heat: float32 (H, W).
        method: how the map was made.

    Returns:
        uint8 (H, W, 3).
    """
    if method in OTHERS or heat.min() < 0:
        return signed_overlay(image, heat)
    return overlay(image, heat / max(1.0, float(heat.max())))


def png(pixels: np.ndarray) -> bytes:
    """Return uint8 (H, W, 3) as a PNG file's bytes."""
    return encode(Image.fromarray(pixels), "PNG")


def picture_html(pixels: np.ndarray, alt: str, least: int) -> Html:
    """Return a picture as markup that carries it; a small one is shown enlarged, in sharp squares.

    Args:
        pixels: uint8 (H, W, 3).
        alt: what it shows, for who cannot see it.
        least: it is shown at least so high, in CSS pixels.
    """
    height, width = pixels.shape[:2]
    times = -(-least // height)
    style = f"width:{times * width}px;height:{times * height}px;max-width:none;image-rendering:pixelated"
    return Html(f'<img src="{data_uri(png(pixels))}" alt="{escape(alt)}" style="{style}">')
