"""Augmentor's operations on one image, with all chance drawn from a seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from customcnn.errors import CustomCNNError


@dataclass(frozen=True)
class Operations:
    """Augmentor's operations and `shift`, in the order they are tried; each fires with `probability`, independently.

    Attributes:
        probability: of every operation.
        turns: rotate90 and rotate270.
        flips: flip_left_right and flip_top_bottom.
        rotate: up to this many degrees either way, 1..25, the corners cropped away; 0 for none.
        zoom: enlarge by up to this factor, at most 4, about the centre; 1 for none.
        shear: up to this many degrees, 1..25; 0 for none.
        shift: move by up to this share of each edge, at most .5, in whole pixels; the pixels at the edge are repeated
            into what comes free. Augmentor has no such operation: it is ours. 0 for none.
        brightness: factor between 1 - x and 1 + x, below 1; 0 for none.
        contrast: likewise.
        random_erasing: a rectangle of noise with edges up to this share of the image's, .1..1; 0 for none.
    """

    probability: float = 0.5
    turns: bool = True
    flips: bool = True
    rotate: int = 0
    zoom: float = 1.0
    shear: int = 0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        rules = {
            "probability": (0 <= self.probability <= 1, "lies in 0..1"),
            "rotate": (0 <= self.rotate <= 25, "lies in 0..25 degrees"),
            "zoom": (1 <= self.zoom <= 4, "lies in 1..4"),
            "shear": (0 <= self.shear <= 25, "lies in 0..25 degrees"),
            "shift": (0 <= self.shift <= 0.5, "is at least 0 and at most .5"),
            "brightness": (0 <= self.brightness < 1, "is at least 0 and below 1"),
            "contrast": (0 <= self.contrast < 1, "is at least 0 and below 1"),
            "random_erasing": (
                self.random_erasing == 0 or 0.1 <= self.random_erasing <= 1,
                "is 0 or lies in .1..1",
            ),
        }
        for name, (fine, rule) in rules.items():
            if not fine:
                raise CustomCNNError(
                    f"--{name.replace('_', '-')} {rule}. Received: {getattr(self, name):g}. See --help."
                )

    @property
    def exact(self) -> bool:
        """Whether turns and flips are all that is asked for: they move pixels and change none."""
        return replace(self, probability=0.5, turns=True, flips=True) == Operations()

    def pipeline(self) -> Callable[[Image.Image], Image.Image]:
        """Build Augmentor's pipeline.

        Its probabilities are read through `torch_transform`, which fires where r < p; Augmentor's own `sample()` rounds
        r to one decimal first, so that p = .5 fires 55 times in 100.

        Returns:
            A function from an RGB Pillow image to an augmented one; it draws from the global `random` and
            `numpy.random`.
        """
        import Augmentor

        pipeline = Augmentor.Pipeline()
        p = self.probability
        if p == 0:  # Augmentor refuses it
            return pipeline.torch_transform()
        if self.turns:
            pipeline.rotate90(p)
            pipeline.rotate270(p)
        if self.flips:
            pipeline.flip_left_right(p)
            pipeline.flip_top_bottom(p)
        if self.rotate:
            pipeline.rotate(p, self.rotate, self.rotate)
        if self.zoom > 1:
            pipeline.zoom(p, 1.0, self.zoom)
        if self.shear:
            pipeline.shear(p, self.shear, self.shear)
        if self.shift:
            pipeline.add_operation(_shift_operation(p, self.shift))
        if self.brightness:
            pipeline.random_brightness(p, 1 - self.brightness, 1 + self.brightness)
        if self.contrast:
            pipeline.random_contrast(p, 1 - self.contrast, 1 + self.contrast)
        if self.random_erasing:
            pipeline.random_erasing(p, self.random_erasing)
        return pipeline.torch_transform()


def _shift_operation(probability: float, share: float) -> Any:
    """Return an operation of Augmentor's kind that moves images; it draws from the global `random`."""
    from Augmentor.Operations import Operation

    class Shift(Operation):
        def perform_operation(self, images: list[Image.Image]) -> list[Image.Image]:
            right, down = random.uniform(-share, share), random.uniform(-share, share)
            return [shifted(image, round(right * image.width), round(down * image.height)) for image in images]

    return Shift(probability)


def shifted(image: Image.Image, right: int, down: int) -> Image.Image:
    """Move an image by whole pixels; what comes free is filled with the pixels at the edge.

    Args:
        image: of any size and mode.
        right: pixels, negative to the left.
        down: pixels, negative upwards.

    Returns:
        An image of the same size.
    """
    rows = (np.arange(image.height) - down).clip(0, image.height - 1)
    columns = (np.arange(image.width) - right).clip(0, image.width - 1)
    return Image.fromarray(np.asarray(image)[rows[:, None], columns])


def as_seed(text: str) -> bytes:
    """Return what `random` itself makes of a text, also of a name with bytes that are not UTF-8, which it refuses."""
    return text.encode("utf-8", "surrogateescape")


def augment_image(image: Image.Image, operations: Operations, seed: str) -> Image.Image:
    """Apply the operations to one RGB image, all chance drawn from the seed; the global generators are put back."""
    pipeline = _pipeline(operations)
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        random.seed(as_seed(seed))
        np.random.seed(random.getrandbits(32))
        return pipeline(image.copy())  # Augmentor's random_erasing paints into the image that it is given
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


@lru_cache(maxsize=1)
def _pipeline(operations: Operations) -> Callable[[Image.Image], Image.Image]:
    return operations.pipeline()


def draw_view(operations: Operations, seed: str) -> tuple[int, bool, bool]:
    """Draw the turns and flips that `augment_image` makes of this seed, without touching the global generators.

    Returns:
        Quarter turns against the clock (-1, 0 or 1); then whether mirrored left to right; then whether top to bottom.
    """
    chance = random.Random(as_seed(seed))
    chance.getrandbits(32)  # numpy's seed, there

    def fires(asked_for: bool, most: int) -> bool:
        fired = asked_for and chance.random() < operations.probability
        if fired:
            chance.randint(0, most)  # Augmentor's operations draw one even where they have no use for it
        return fired

    turns = fires(operations.turns, 2) - fires(operations.turns, 2)
    return turns, fires(operations.flips, 1), fires(operations.flips, 1)
