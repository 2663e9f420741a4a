"""What looks like none of the images that a network was calibrated on: a distance on plain image statistics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from customcnn.errors import CustomCNNError
from customcnn.metrics.bootstrap import numbered

FOLDS = 10
"""The limit is read from images that the mean and covariance of their own fold do not know."""

LEAST = 20
"""Fewer images say too little about what is usual."""

LEVELS = 5
"""The image and its halves: texture is measured at so many scales, or as many as it has."""

RINGS = 4
"""Square rings from the border to the centre."""

DIGITS = 7
"""Significant digits of the stored numbers: the file stays small, and a score moves by less than 1e-4 of itself."""


@dataclass(frozen=True)
class Novelty:
    """What is usual, and from which distance on an image is not.

    Attributes:
        mean: (D,) of the statistics of an image.
        spread: (D,) their standard deviations; 1 where a statistic never varies.
        precision: (D, D), the inverse covariance of the standardised statistics.
        limit: the largest score that passes.
        share: of new images like those of the fit, 0..1, so many are to pass.
    """

    mean: np.ndarray
    spread: np.ndarray
    precision: np.ndarray
    limit: float
    share: float

    def scores(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Return how far images lie from the usual ones, float64 (N,): 1 is typical, above `limit` is novel.

        Args:
            images: uint8 (N, H, W, 3), RGB, at the input size of the network.
        """
        return _distances(statistics(images), self.mean, self.spread, self.precision)

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, ready for JSON."""
        return {
            "mean": _plain(self.mean),
            "spread": _plain(self.spread),
            "precision": [_plain(row) for row in self.precision],
            "limit": self.limit,
            "share": self.share,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Novelty":
        """Return what `as_dict` wrote down."""
        mean, spread, precision = (np.array(values[key], np.float64) for key in ("mean", "spread", "precision"))
        return cls(mean, spread, precision, float(values["limit"]), float(values["share"]))


def fit_novelty(
    images: np.ndarray | Iterable[np.ndarray], share: float = 0.99, groups: Sequence[str] | None = None
) -> Novelty:
    """Learn what is usual from images of cells.

    The statistics of an image (see `statistics`) are compared with their mean over all images by the Mahalanobis
    distance, its covariance shrunk as by Ledoit and Wolf (2004), doi:10.1016/S0047-259X(03)00096-4. The limit is the
    quantile of distances that are measured by cross-validation: each fold, of whole groups where they are known, from
    the images outside it. So a new subject's stain is no reason to be novel, as far as the subjects at hand differ.

    Args:
        images: (N, H, W, 3) or N images (H, W, 3), uint8, RGB, at the network's input size.
        share: of new images like these that are to pass, between 0 and 1.
        groups: the N group names; None if they are not known.

    Raises:
        CustomCNNError: fewer than LEAST images, or a share outside 0..1.
        ValueError: an image has no group name.
    """
    require_share(share)
    found = statistics(images)
    if len(found) < LEAST:
        raise CustomCNNError(
            f"What is usual is learnt from {LEAST} images or more. Received: {len(found)}. Give a larger part."
        )
    distances = np.empty(len(found))
    for inside in _folds(len(found), groups):
        distances[inside] = _distances(found[inside], *_usual(found[~inside]))
    return Novelty(*_usual(found), limit=_quantile(distances, share), share=share)


def require_share(share: float) -> None:
    """Refuse a share outside 0..1.

    Raises:
        CustomCNNError: it is.
    """
    if not 0 < share < 1:
        raise CustomCNNError(f"A share of images lies between 0 and 1. Received: --novelty {share:g}. Give .99, say.")


def statistics(images: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
    """Describe images by numbers that turns by a quarter and flips hardly change.

    Means, deviations and quantiles of the colours, how the colours go together, how much neighbours differ at several
    scales, how much of the image is perfectly even, and the brightness of rings from the border to the centre.

    Args:
        images: (N, H, W, 3) or N images (H, W, 3), uint8, RGB.

    Returns:
        Float64 (N, D), D by the size of the images.
    """
    return np.stack([_describe(image) for image in images])


def _describe(image: np.ndarray) -> np.ndarray:
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    centred = pixels.reshape(-1, 3) - pixels.mean(axis=(0, 1))
    covariance = centred.T @ centred / np.float32(len(centred))
    deviation = np.sqrt(covariance.diagonal())
    below = np.outer(deviation, deviation)
    together = np.divide(covariance, below, out=np.ones((3, 3), np.float32), where=below > 1e-6)
    grey = pixels.mean(axis=2)
    parts = [pixels.mean(axis=(0, 1)), _log(deviation), _quantiles(image), together[[0, 1, 2], [1, 2, 0]]]
    return np.concatenate([*parts, _texture(grey), *_rings(grey)]).astype(np.float64)


def _quantiles(image: np.ndarray) -> np.ndarray:
    """Return the levels, 0..1, below which 5, 50 and 95 % of each channel lie, (9,)."""
    counts = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])
    shares = counts.cumsum(axis=1) / counts[0].sum()
    return np.concatenate([(shares < limit).sum(axis=1) for limit in (0.05, 0.5, 0.95)]) / 255


def _texture(grey: np.ndarray) -> np.ndarray:
    """Return logs: the mean step between neighbours at each scale; at the first also the root mean square step, and
    the share of steps that are none.
    """
    found = []
    for level in range(LEVELS):
        if min(grey.shape) < 4:
            break
        down, across = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))
        steps = down.size + across.size
        found.append((down.sum() + across.sum()) / steps)
        if level == 0:
            found.append(np.sqrt(((down**2).sum() + (across**2).sum()) / steps))
            found.append(1 - (np.count_nonzero(down) + np.count_nonzero(across)) / steps)
        height, width = grey.shape[0] // 2 * 2, grey.shape[1] // 2 * 2
        even = grey[:height, :width]
        grey = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    return _log(np.array(found))


def _rings(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the grey levels in rings, and the logs of their deviations, (RINGS,) each."""
    ring = _ring_numbers(*grey.shape)
    count = np.bincount(ring, minlength=RINGS).clip(1)
    mean = np.bincount(ring, grey.ravel(), RINGS) / count
    apart = (grey.ravel() - mean[ring]) ** 2
    return mean, _log(np.sqrt(np.bincount(ring, apart, RINGS) / count))


@cache
def _ring_numbers(height: int, width: int) -> np.ndarray:
    """Return the number of each pixel's ring, 0 at the border, int (height * width,)."""
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]) / n for n in (height, width))
    return np.minimum(np.minimum(down[:, None], across) * 2 * RINGS, RINGS - 1).astype(int).ravel()


def _log(values: Any) -> Any:
    # One grey level of 255 is what an image can tell at all: below it a log would tell rounding.
    return np.log(values + np.float32(1 / 255))


def _usual(found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, the spread and the precision of statistics (N, D)."""
    from sklearn.covariance import LedoitWolf

    mean, spread = found.mean(axis=0), found.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    return mean, spread, LedoitWolf(assume_centered=True).fit((found - mean) / spread).precision_


def _distances(found: np.ndarray, mean: np.ndarray, spread: np.ndarray, precision: np.ndarray) -> np.ndarray:
    apart = (found - mean) / spread
    return np.sqrt(np.einsum("nd,de,ne->n", apart, precision, apart) / len(mean))


def _folds(count: int, groups: Sequence[str] | None) -> Iterable[np.ndarray]:
    """Yield bool (N,), the images of each fold; a group lies in one fold."""
    units = np.arange(count) if groups is None else numbered(groups, count)
    if units.max() == 0:  # one group only
        units = np.arange(count)
    order = np.random.default_rng(0).permutation(units.max() + 1)
    for fold in range(min(FOLDS, len(order))):
        yield order[units] % FOLDS == fold


def _quantile(distances: np.ndarray, share: float) -> float:
    """Return the distance below which a further image lies with probability `share`; the largest where N is small."""
    rank = int(np.ceil((len(distances) + 1) * share - 1e-9))
    return float(np.sort(distances)[min(rank, len(distances)) - 1])


def _plain(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
