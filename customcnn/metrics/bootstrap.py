"""Confidence intervals: a bootstrap over whole groups, and Wilson's for proportions of independent images."""

from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np

CHUNK = 2**19
"""Weights held at once by the bootstrap: 4 MiB an array, which stays in the cache."""

Interval = dict[str, float | int | None]
"""value, low and high as JSON has them, None where undefined; `undefined_resamples` where there are any."""


def in_order(
    labels: np.ndarray, probabilities: np.ndarray, groups: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the images by group, label and probabilities, and number what is resampled, so that no order tells.

    Args:
        labels: (N,) int.
        probabilities: (N, C) float.
        groups: the N group names, none empty; None if they are not known, then each image is a unit.

    Returns:
        Labels and probabilities in the new order, and the unit of each image: (N,) int from 0, rising.

    Raises:
        ValueError: an image has no group name.
    """
    if groups is None:
        order = np.lexsort((*probabilities.T, labels))
        return labels[order], probabilities[order], np.arange(len(labels))
    units = numbered(groups, len(labels))
    order = np.lexsort((*probabilities.T, labels, units))
    return labels[order], probabilities[order], units[order]


def numbered(groups: Sequence[str], images: int) -> np.ndarray:
    """Return the number of each image's group, (N,) int from 0, in the order of the sorted names.

    Raises:
        ValueError: an image has no group name.
    """
    if len(groups) != images or not all(groups):
        raise ValueError(f"Every image has a group name. Received: {sum(map(bool, groups))} for {images} images.")
    number = {name: index for index, name in enumerate(sorted(set(groups)))}
    return np.array([number[name] for name in groups])


def resampled(count: int, resamples: int, seed: int, width: int | None = None) -> Iterator[np.ndarray]:
    """Yield how often each of `count` units is drawn, with replacement, in each resample.

    Args:
        count: units: groups, or images.
        resamples: how many resamples in all.
        seed: of all chance.
        width: numbers that the caller holds for one resample; None for `count`. So many resamples come at a time that
            these fit into the cache.

    Yields:
        Float64 (B, count) whose rows sum to `count`; the B of all sum to `resamples`.

    Reference: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13; whole groups: Field and Welsh
    (2007), doi:10.1111/j.1467-9868.2007.00593.x.
    """
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // max(1, count if width is None else width))
    for first in range(0, resamples, step):
        drawn = [rng.integers(count, size=count) for _ in range(min(step, resamples - first))]
        yield np.array([np.bincount(row, minlength=count) for row in drawn], dtype=np.float64)


def percentile(value: float | np.ndarray, sample: np.ndarray | None, level: float = 0.95) -> Interval:
    """Return an estimate with the percentiles of its resamples, widened to hold it where they would not.

    Args:
        value: the estimate; NaN where it is undefined.
        sample: (B,) float, the score of each resample, NaN where undefined: those are left out and counted; None for
            no interval.
        level: the confidence level, between 0 and 1.
    """
    estimate = None if np.isnan(value) else float(value)
    result: Interval = {"value": estimate, "low": None, "high": None}
    if sample is None or estimate is None:
        return result
    defined = sample[~np.isnan(sample)]
    if len(defined):
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
        result |= {"low": min(float(low), estimate), "high": max(float(high), estimate)}
    if len(defined) < len(sample):
        result["undefined_resamples"] = len(sample) - len(defined)
    return result


def wilson(hits: float, total: float, level: float = 0.95) -> Interval:
    """Return a proportion with Wilson's score interval: for images that are independent of each other.

    It is never empty, also where no image or every image is a hit.

    Args:
        hits: how many of `total` count.
        total: how many there are; 0 gives an undefined value.
        level: the confidence level, between 0 and 1.

    Raises:
        ValueError: hits outside 0..total.

    Reference: Wilson (1927), Probable inference, the law of succession, and statistical inference,
    doi:10.1080/01621459.1927.10502953.
    """
    if not 0 <= hits <= total:
        raise ValueError(f"Hits lie in 0..total. Received: {hits} of {total}.")
    if total == 0:
        return {"value": None, "low": None, "high": None}
    share, z = hits / total, NormalDist().inv_cdf((1 + level) / 2)
    shrink = 1 + z**2 / total
    middle = (share + z**2 / (2 * total)) / shrink
    half = z / shrink * (share * (1 - share) / total + z**2 / (4 * total**2)) ** 0.5
    # The ends are exact there, and rounding must not push them past the estimate.
    low = 0.0 if hits == 0 else min(middle - half, share)
    high = 1.0 if hits == total else max(middle + half, share)
    return {"value": share, "low": low, "high": high}
