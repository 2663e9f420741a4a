"""Images unlike the rest: each is measured once, and compared with the median and the usual spread of all."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from customcnn.audit.findings import Quality, Unlike
from customcnn.data.manifest import Record

MEASURES = (
    "area", "shape", "brightness", "contrast", "red_green", "yellow_blue", "saturation", "sharpness", "frame", "edge",
    "black",
)  # fmt: skip
"""What `measure` returns, in this order."""

FAR = 5
"""An image is unlike the rest where a measure lies so many usual spreads from the median.

Tried on drawn cells and on photographs with planted faults: at 5 no image without a fault was named, at 4 three in a
thousand photographs; at 6 half of the slightly blurred ones were missed.
"""

ENOUGH = 20
"""Of fewer images nobody can say what is usual."""

BLANK = 4.0
"""A standard deviation of the brightness below so many of 255 levels means that nothing can be seen."""

MOST_PIXELS = 2**20  # larger images are made smaller first
SMALL = 96  # pixels: colours and brightness are measured on about so many a side
DARK = 12  # levels: darker is taken for background, as around C-NMC's cells

# The least spread that counts. Where most images are equal in a measure, as they are in size, the spread would be 0.
LEAST = {
    "area": 0.05,
    "shape": 0.05,
    "brightness": 0.05,
    "contrast": 0.1,
    "red_green": 4.0,
    "yellow_blue": 4.0,
    "saturation": 0.2,
    "sharpness": 0.3,
    "frame": 0.015,
    "edge": 0.08,
    "black": 0.03,
}

BELOW = {
    "area": "odd size",
    "shape": "odd shape",
    "brightness": "dark",
    "contrast": "little contrast",
    "red_green": "odd colour",
    "yellow_blue": "odd colour",
    "saturation": "little colour",
    "sharpness": "out of focus",
}
ABOVE = {
    "area": "odd size",
    "shape": "odd shape",
    "brightness": "bright",
    "red_green": "odd colour",
    "yellow_blue": "odd colour",
    "saturation": "much colour",
    "sharpness": "noisy",
    "frame": "cut off",
    "edge": "cut off",
    "black": "much black",
}
"""How an image is called that lies far below or above the median; a measure that is missing here is not judged."""

KINDS = tuple(dict.fromkeys(["blank", *BELOW.values(), *ABOVE.values()]))


def measure(image: Image.Image, grey: Image.Image) -> np.ndarray:
    """Measure what a fault would change.

    Ratios are logarithms to the base of 2. Background that is black is left out of brightness, colour and sharpness.
    Colour is measured on the darker half: there is the stain.

    Args:
        image: RGB.
        grey: the same in mode L.

    Returns:
        float32 (MEASURES,): pixels; width by height; mean brightness; standard deviation of the brightness; red minus
        green; yellow minus blue; saturation; variance of the Laplacian relative to the brightness; the share of the
        outermost pixels that are not background; how straight the outline of what is not black is; the share of black
        pixels. NaN where nothing can be measured.
    """
    width, height = image.size
    if width * height > MOST_PIXELS:
        factor = int(np.ceil(np.sqrt(width * height / MOST_PIXELS)))
        image, grey = image.reduce(factor), grey.reduce(factor)
    factor = max(1, max(image.size) // SMALL)
    pixels, light = np.asarray(image.reduce(factor)), np.asarray(grey.reduce(factor))
    seen = light > DARK
    mean, *colour = _colour(pixels, light, seen)
    contrast = float(np.log2(light.std() + 0.5))
    sharp = _sharpness(np.asarray(grey)) - 2 * mean
    black = 1 - float(seen.mean())
    cut = (_frame(image), _edge(seen))
    values = [np.log2(width * height), np.log2(width / height), mean, contrast, *colour, sharp, *cut, black]
    return np.array(values, np.float32)


def _colour(pixels: np.ndarray, light: np.ndarray, seen: np.ndarray) -> tuple[float, float, float, float]:
    """Return brightness, red minus green, yellow minus blue and saturation of uint8 (H, W, 3), where bool (H, W)."""
    count = np.count_nonzero(seen)
    if not count:
        return (float("nan"),) * 4
    mean = float((light * seen).sum()) / count
    red, green, blue = pixels[seen & (light <= mean)].T
    saturation = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    r, g, b = (float(channel.mean()) for channel in (red, green, blue))
    return float(np.log2(mean)), r - g, (r + g) / 2 - b, float(np.log2(saturation.mean() + 1))


def _sharpness(grey: np.ndarray) -> float:
    """Return the logarithm of the variance of the Laplacian, away from black pixels; NaN where little else is."""
    if min(grey.shape) < 3:
        return float("nan")
    middle = grey[1:-1, 1:-1]
    beside = (grey[:-2, 1:-1], grey[2:, 1:-1], grey[1:-1, :-2], grey[1:-1, 2:])
    darkest = middle
    laplacian = np.multiply(middle, 4, dtype=np.int16)
    for other in beside:
        darkest = np.minimum(darkest, other)
        laplacian -= other
    inside = darkest > DARK
    count = np.count_nonzero(inside)
    if count < 64:
        return float("nan")
    values = (laplacian * inside).ravel().astype(np.float32)
    variance = float(values @ values) / count - (float(values.sum()) / count) ** 2
    return float(np.log2(max(variance, 0) + 0.1))


def _frame(image: Image.Image) -> float:
    """Return the share of the outermost pixels that are not background, as `decode.foreground` judges them."""
    pixels = np.asarray(image)
    ring = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]]).astype(np.int16)
    apart = np.abs(ring - np.median(ring, axis=0))
    deviation = 1.4826 * np.median(apart, axis=0)
    return float((apart > np.maximum(12, 6 * deviation)).any(axis=1).mean())


def _edge(seen: np.ndarray) -> float:
    """Return how much of a side of the box around all that is not black it fills, of the fullest side; NaN for nothing.

    A round cell touches the box with a small part of its outline, one that was cut off with all of the cut.
    """
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return float("nan")
    box = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return float(max(side.mean() for side in (box[0], box[-1], box[:, 0], box[:, -1])))


def unlike_the_rest(records: Sequence[Record], measures: np.ndarray) -> Quality:
    """Compare the measures of every image with those of all.

    For each measure: the median, and apart for the values below and above it the median distance from it, times 1.4826
    (a standard deviation where values are normal). Blank images do not count among the usual ones.

    Args:
        records: the images.
        measures: float32 (N, MEASURES).
    """
    count = len(measures)
    blank = measures[:, MEASURES.index("contrast")] < np.log2(BLANK + 0.5)
    kinds: dict[int, dict[str, float]] = {i: {"blank": float("inf")} for i in np.flatnonzero(blank).tolist()}
    furthest = np.where(blank, np.inf, 0).astype(np.float32)
    if count - len(kinds) >= ENOUGH:
        for column, name in enumerate(MEASURES):
            score = _score(measures[:, column], blank, LEAST[name])
            score[(score < 0) & (name not in BELOW) | (score > 0) & (name not in ABOVE)] = 0
            furthest = np.maximum(furthest, np.abs(score))
            for i in np.flatnonzero(np.abs(score) > FAR).tolist():
                kind = (BELOW if score[i] < 0 else ABOVE)[name]
                mine = kinds.setdefault(i, {})
                mine[kind] = max(mine.get(kind, 0.0), abs(float(score[i])))
    # What is furthest comes first; where several are as far, the first by name.
    order = sorted(kinds, key=lambda i: (-max(kinds[i].values()), i))
    found = [_named(records[i].path, kinds[i]) for i in order]
    usual = np.argsort(furthest, kind="stable")[:3]
    return Quality(
        enough=count - int(blank.sum()) >= ENOUGH,
        unlike=found,
        usual=[records[i].path for i in usual.tolist() if furthest[i] <= FAR],
    )


def _named(path: str, kinds: dict[str, float]) -> Unlike:
    if "blank" in kinds:
        return Unlike(path, ["blank"], None)
    return Unlike(path, sorted(kinds, key=lambda kind: -kinds[kind]), round(max(kinds.values()), 1))


def _score(values: np.ndarray, blank: np.ndarray, least: float) -> np.ndarray:
    """Return how many usual spreads each value lies from the median, float32 (N,); 0 where it cannot be told."""
    known = values[~blank & ~np.isnan(values)]
    if len(known) < ENOUGH:
        return np.zeros(len(values), np.float32)
    away = known - np.median(known)
    below, above = (1.4826 * float(np.median(np.abs(away[side]))) for side in (away <= 0, away >= 0))
    away = np.where(blank | np.isnan(values), 0, values - np.median(known))
    return np.where(away < 0, away / max(below, least), away / max(above, least)).astype(np.float32)
