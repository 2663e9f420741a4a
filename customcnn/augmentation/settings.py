"""What on-line augmentation does to the training images, as a recipe's table says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from customcnn.errors import one_of, require

if TYPE_CHECKING:
    import numpy as np


ENGINES = ("arrays", "layers", "albumentations")
FLIPS = ("none", "horizontal", "vertical", "both")


@dataclass(frozen=True)
class Augmentation:
    """How every training image is changed, anew in each epoch. Amounts are drawn evenly from a range; 0 leaves alone.

    The changes come in the order of the keys, but for zoom, which comes before shift. Values stay within 0..255. What a
    moved image leaves empty is filled with its mirror image. Where an engine differs, its module says so.

    Attributes:
        engine: what computes it: "arrays" (numpy and Pillow), "layers" (Keras layers) or "albumentations" (where
            installed).
        pipeline: a JSON file that Albumentations has saved, instead of the keys below; "" for none.
        flip: mirrored left to right (horizontal), top to bottom (vertical) or both, each with probability 1/2.
        quarter_turns: turned by 0, 90, 180 or 270 degrees; an image that is not square by 0 or 180.
        rotate: degrees, turned about the centre by up to so much either way, 0 to 180.
        shift: share of the edge, moved by up to so much along each axis.
        zoom: enlarged or shrunk about the centre by a factor of 1 - zoom to 1 + zoom, 0 to 0.5.
        crop: share of the edge, a random window with edges of 1 - crop to 1 of the image's, enlarged to full size.
        brightness: multiplied by 1 - x to 1 + x.
        contrast: the distance from the image's mean multiplied by 1 - x to 1 + x.
        gamma: as a share of 255 raised to a power of 1 / (1 + x) to 1 + x, drawn evenly on a logarithmic scale; 0 to 9.
        saturation: the distance from grey, .299 R + .587 G + .114 B, multiplied by 1 - x to 1 + x.
        hue: share of the colour circle (of HSV), turned by up to so much either way, 0 to 0.5.
    """

    engine: str = "arrays"
    pipeline: str = ""
    flip: str = "none"
    quarter_turns: bool = False
    rotate: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    crop: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        shares = ("shift", "crop", "brightness", "contrast", "saturation")
        rules = {name: (0 <= getattr(self, name) < 1, f"0 <= {name} < 1") for name in shares}
        rules |= {
            "engine": one_of(self.engine, ENGINES),
            "flip": one_of(self.flip, FLIPS),
            "rotate": (0 <= self.rotate <= 180, "0 to 180 degrees"),
            "zoom": (0 <= self.zoom <= 0.5, "0 to 0.5"),
            "gamma": (0 <= self.gamma <= 9, "0 to 9"),
            "hue": (0 <= self.hue <= 0.5, "0 to 0.5"),
        }
        require(self, "augmentation.", rules)
        if self.pipeline:
            others = [key for key in _set_keys(self) if key not in ("engine", "pipeline")]
            rule = 'a file for engine = "albumentations" only'
            require(self, "augmentation.", {"pipeline": (self.engine == "albumentations", rule)})
            rule = f"stands instead of the other keys, here {', '.join(others)}"
            require(self, "augmentation.", {"pipeline": (not others, rule)})

    @property
    def active(self) -> bool:
        """Whether any image is changed at all."""
        return _set_keys(replace(self, engine="arrays", pipeline="")) != [] or bool(self.pipeline)


def _set_keys(augmentation: Augmentation) -> list[str]:
    return [f.name for f in fields(augmentation) if getattr(augmentation, f.name) != f.default]


Transform = Callable[["np.ndarray", tuple[int, ...]], "np.ndarray"]
"""Images, uint8 (N, H, W, 3), and a key go in; changed images, 0..255 of the same shape, come out."""
