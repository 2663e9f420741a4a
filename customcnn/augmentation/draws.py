"""What is drawn for each image before it is changed: by how much, from the key alone."""

from dataclasses import dataclass

import numpy as np

from customcnn.augmentation.settings import Augmentation

AMOUNTS, LAYERS, PIPELINE = 1, 2, 3
"""What numbers are drawn for. One of them ends every seed: numpy takes (seed, epoch) and (seed, epoch, 0) for the same,
and nothing here may draw the numbers that shuffle an epoch."""

NUMBERS = 15


@dataclass(frozen=True)
class Amounts:
    """How one image is changed; the defaults change nothing.

    Attributes:
        mirrored: left to right.
        upside_down: top to bottom.
        quarter_turns: 0 to 3, against the clock.
        angle: degrees, against the clock.
        zoom: factor by which the image is enlarged.
        right, down: shares of the width and of the height by which it is moved.
        window: share of the edges that is kept.
        across, along: where the window lies among all places that fit, from 0 (left, top) to 1 (right, bottom).
        brightness, contrast, saturation: factors.
        gamma: a power.
        hue: share of the colour circle.
    """

    mirrored: bool = False
    upside_down: bool = False
    quarter_turns: int = 0
    angle: float = 0.0
    zoom: float = 1.0
    right: float = 0.0
    down: float = 0.0
    window: float = 1.0
    across: float = 0.5
    along: float = 0.5
    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


def generator(key: tuple[int, ...], purpose: int) -> np.random.Generator:
    """Return the generator of a key for one purpose: AMOUNTS, LAYERS or PIPELINE."""
    return np.random.default_rng((*key, purpose))


def draw(augmentation: Augmentation, key: tuple[int, ...], count: int) -> list[Amounts]:
    """Return the amounts of so many images.

    Each image has numbers of its own and each amount its place among them, so that an amount depends neither on the
    size of the batch nor on which other keys are set.
    """
    return [_amounts(augmentation, row) for row in generator(key, AMOUNTS).random((count, NUMBERS)).tolist()]


def draw_turns(
    augmentation: Augmentation, key: tuple[int, ...], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the flips and quarter turns of so many images alone: the same as `draw` has among its amounts.

    Returns:
        bool (count,), mirrored; bool (count,), upside down; int64 (count,), quarter turns.
    """
    numbers = generator(key, AMOUNTS).random((count, NUMBERS))
    mirrored = (numbers[:, 0] < 0.5) & (augmentation.flip in ("horizontal", "both"))
    upside_down = (numbers[:, 1] < 0.5) & (augmentation.flip in ("vertical", "both"))
    return mirrored, upside_down, (4 * numbers[:, 2]).astype(np.int64) * augmentation.quarter_turns


def _amounts(a: Augmentation, numbers: list[float]) -> Amounts:
    """Return the amounts that 15 numbers, each 0 <= x < 1, stand for."""
    mirror, turn_over, turns, angle, zoom, right, down, window, across, along, *colour = numbers
    brightness, contrast, gamma, saturation, hue = (2 * number - 1 for number in colour)  # -1 to 1
    return Amounts(
        mirrored=a.flip in ("horizontal", "both") and mirror < 0.5,
        upside_down=a.flip in ("vertical", "both") and turn_over < 0.5,
        quarter_turns=int(4 * turns) if a.quarter_turns else 0,
        angle=a.rotate * (2 * angle - 1),
        zoom=1 + a.zoom * (2 * zoom - 1),
        right=a.shift * (2 * right - 1),
        down=a.shift * (2 * down - 1),
        window=1 - a.crop * window,
        across=across,
        along=along,
        brightness=1 + a.brightness * brightness,
        contrast=1 + a.contrast * contrast,
        gamma=(1 + a.gamma) ** gamma,
        saturation=1 + a.saturation * saturation,
        hue=a.hue * hue,
    )
