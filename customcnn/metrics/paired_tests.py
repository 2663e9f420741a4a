"""Two classifiers on the same images: their difference with its interval, and tests of whether there is one."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from customcnn.metrics.bootstrap import percentile, resampled

DIFFERENCES = ("accuracy", "balanced_accuracy")


def compare_answers(
    right: np.ndarray, labels: np.ndarray, units: np.ndarray, *, resamples: int, level: float, seed: int
) -> list[dict[str, Any]]:
    """Compare every two of R classifiers by which images they had right.

    Args:
        right: (R, N) bool.
        labels: (N,) int, the true class of each image.
        units: (N,) int from 0, the group of each image; each image its own where no groups are known.
        resamples, level, seed: of the paired bootstrap.

    Returns:
        One dict for each pair of places: first, second, the differences accuracy and balanced_accuracy as {value, low,
        high}, only_first and only_second (images that one of the two alone has right), mcnemar, p (of the sign-flip
        test over units) and holm.
    """
    count = int(units.max()) + 1
    hits, sizes = _sums(right, labels, units)
    values = _paired_scores(np.ones((1, count)), hits, sizes)
    drawn = resampled(count, resamples if count > 1 else 0, seed)
    parts = [_paired_scores(weights, hits, sizes) for weights in drawn]
    sample = {key: np.concatenate([part[key] for part in parts]) if parts else None for key in DIFFERENCES}
    pairs: list[dict[str, Any]] = []
    for a, b in combinations(range(len(right)), 2):
        pair: dict[str, Any] = {"first": a, "second": b}
        for key, of in sample.items():
            difference = values[key][0, a] - values[key][0, b]
            pair[key] = percentile(difference, None if of is None else of[:, a] - of[:, b], level)
        pair["only_first"], pair["only_second"] = int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())
        pair["mcnemar"] = mcnemar(pair["only_first"], pair["only_second"])
        by_unit = np.bincount(units, weights=right[a].astype(float) - right[b]).astype(int)
        pair["p"] = sign_flip(by_unit) if len(by_unit) < len(units) else pair["mcnemar"]
        pairs.append(pair)
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["holm"] = corrected
    return pairs


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p value of McNemar's exact test: the binomial one on what one of two alone has right.

    It takes the images as independent of each other.

    Reference: McNemar (1947), doi:10.1007/BF02295996; the exact form instead of a corrected chi-squared (Edwards, 1948,
    doi:10.1007/BF02289261): Fay (2010), Two-sided exact tests and matching confidence intervals for discrete data,
    doi:10.32614/RJ-2010-008.
    """
    total, term, tail = only_first + only_second, 1, 1
    for hits in range(min(only_first, only_second)):
        term = term * (total - hits) // (hits + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)  # whole numbers as long as they come: the quotient is exact


def sign_flip(differences: np.ndarray) -> float:
    """Return the two-sided p value of the exact sign-flip test: is the sum of the differences other than 0?

    If neither of two runs is better, a group could as well have come out with the two exchanged: its difference has
    either sign with equal chance, independently of other groups. p is the share of all choices of signs whose sum is at
    least as far from 0. With one image a group it is McNemar's exact test.

    Args:
        differences: (G,) int, for each group the number of right answers of the first run minus those of the second.

    Reference: Pitman (1937), Significance tests which may be applied to samples from any populations,
    doi:10.2307/2984124; whole groups flipped: Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060; where the
    differences are not symmetric: Romano (1990), doi:10.1080/01621459.1990.10474928.
    """
    sizes = np.abs(differences[differences != 0])
    total = int(sizes.sum())
    chances = np.zeros(total + 1)  # of what the differences with a plus sign sum to
    chances[0], reached = 1.0, 0
    for size in sizes.tolist():
        chances[: reached + 1] /= 2
        # A copy: the two places overlap.
        chances[size : reached + size + 1] += chances[: reached + 1].copy()
        reached += size
    far = np.abs(2 * np.arange(total + 1) - total) >= abs(int(differences.sum()))
    return min(1.0, float(chances[far].sum()))


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected so that the chance of any false one among all is kept.

    Reference: Holm (1979), A simple sequentially rejective multiple test procedure, jstor.org/stable/4615733.
    """
    order = sorted(range(len(p)), key=lambda index: p[index])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def p_text(p: float) -> str:
    """Return a p value to three decimals, to four where it is below .001."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 1e-3 else f"{p:.3f}"


def _sums(right: np.ndarray, labels: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count by class and unit: (K, U, R) images that each of R runs has right, and (K, U) images."""
    count, hits, sizes = int(units.max()) + 1, [], []
    for label in np.unique(labels):
        own = labels == label
        hits.append(np.stack([np.bincount(units[own], weights=row[own], minlength=count) for row in right], axis=1))
        sizes.append(np.bincount(units[own], minlength=count).astype(np.float64))
    return np.stack(hits), np.stack(sizes)


def _paired_scores(weights: np.ndarray, hits: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Return (B, R) accuracies and balanced accuracies, given (B, U) how often each unit is drawn."""
    found, drawn = weights @ hits, (sizes @ weights.T)[..., None]  # (K, B, R) and (K, B, 1)
    recalls = np.divide(found, drawn, out=np.zeros_like(found), where=drawn > 0)
    # As `metrics.scores` has it: over the classes that were drawn.
    return {
        "accuracy": found.sum(axis=0) / drawn.sum(axis=0),
        "balanced_accuracy": recalls.sum(axis=0) / (drawn > 0).sum(axis=0),
    }
