"""Checks of a map: does it hang on what the network has learned, and does it lie on the cell?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

ONES, ZEROS = ("gamma", "moving_variance"), ("beta", "bias", "moving_mean")


@contextmanager
def random_weights(model: Any, seed: int = 0) -> Iterator[None]:
    """Give a network random weights for a while, and its own back at the end.

    A map that stays as it is says nothing about what the network has learned: it shows the image's edges.

    Reference: Adebayo et al. (2018), Sanity Checks for Saliency Maps, arXiv:1810.03292.

    Args:
        model: a keras model; what is computed from copies of its weights must be made inside.
        seed: the same seed gives the same weights.
    """
    rng = np.random.default_rng(seed)
    before = model.get_weights()
    try:
        for weight in model.weights:
            shape = tuple(weight.shape)
            if len(shape) > 1:
                spread = np.sqrt(2 / np.prod(shape[:-1]))
                weight.assign((rng.standard_normal(shape, dtype=np.float32) * spread).astype(np.float32))
            elif weight.name in ONES + ZEROS:
                weight.assign(np.full(shape, float(weight.name in ONES), np.float32))
        yield
    finally:
        model.set_weights(before)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps of one shape, -1..1; 0 where one of them is flat."""
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def share_inside(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return how much of a map's heat, of what is above 0, lies inside a mask, 0..1; NaN where there is no heat.

    Args:
        heat: float (H, W).
        mask: bool (H, W).
    """
    above = np.maximum(heat, 0).astype(np.float64)
    total = above.sum()
    return float(above[mask].sum() / total) if total > 0 else float("nan")
