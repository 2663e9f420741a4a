"""One class against the rest at every threshold: for the images as they are, or for thousands of resamples at once."""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from customcnn.errors import CustomCNNError, show

ROUNDING = 1e-9  # (1 - .9) * 10 is a little less than 1
MOST_POINTS = 500  # of a curve that is stored


class Sweep(NamedTuple):
    """The images by falling score, and the K thresholds, which are the different scores: positive is score >= t."""

    thresholds: np.ndarray  # (K,) float, falling
    ends: np.ndarray  # (K,) int, the last image that is called positive
    own: np.ndarray  # (N,) float, 1 for an image of the class, else 0
    units: np.ndarray  # (N,) int, the unit that is resampled with the image


class Counts(NamedTuple):
    """What is called positive at each threshold, in images or in sums of weights."""

    true: np.ndarray  # (..., K), rising
    false: np.ndarray  # (..., K), rising


@dataclass(frozen=True)
class Threshold:
    """An image is called positive where its score is at least `value`; by which rule that was chosen, and where."""

    value: float
    rule: str = "given"
    chosen_on: str = "validation"


def sweep(own: np.ndarray, scores: np.ndarray, units: np.ndarray) -> Sweep:
    """Sort images once for all resamples.

    Args:
        own: (N,) bool, whether the image is of the class.
        scores: (N,) float, how much it looks like the class.
        units: (N,) int, the unit that is resampled with it.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    return Sweep(falling[ends], ends, own[order].astype(np.float64), units[order])


def count(images: Sweep, weights: np.ndarray) -> Counts:
    """Count what is called positive at each threshold.

    Args:
        images: N of them, from `sweep`.
        weights: (..., U) float, the weight of each unit; leading axes are kept.
    """
    drawn = weights.take(images.units, axis=-1)
    every = drawn.cumsum(axis=-1).take(images.ends, axis=-1)
    drawn *= images.own
    true = drawn.cumsum(axis=-1, out=drawn).take(images.ends, axis=-1)
    every -= true
    return Counts(true, every)


def roc_area(counts: Counts) -> np.ndarray:
    """Return the area under the ROC curve, (...); NaN without images of the class or without others.

    Reference: Hanley and McNeil (1982), doi:10.1148/radiology.143.1.7063747.
    """
    true, false = counts
    inner = np.einsum("...k,...k->...", np.diff(false), true[..., 1:] + true[..., :-1])
    return ratio(false[..., 0] * true[..., 0] + inner, 2 * true[..., -1] * false[..., -1])


def average_precision(counts: Counts) -> np.ndarray:
    """Return the average precision, (...): the area under the steps of the precision-recall curve.

    NaN without images of the class.

    Reference: Davis and Goadrich (2006), The relationship between precision-recall and ROC curves,
    doi:10.1145/1143844.1143874.
    """
    true, false = counts
    precision = ratio(true, true + false, 0.0)
    gained = true[..., 0] * precision[..., 0] + np.einsum("...k,...k->...", np.diff(true), precision[..., 1:])
    return ratio(gained, true[..., -1])


def sensitivity_at(counts: Counts, specificities: np.ndarray) -> np.ndarray:
    """Return the greatest sensitivity that some threshold reaches at each specificity or a greater one.

    Args:
        counts: of B resamples, (B, K).
        specificities: (G,) float in 0..1.

    Returns:
        (B, G) float; NaN where a resample lacks the class or all others.
    """
    result = np.full((len(counts.true), len(specificities)), np.nan)
    for row, true, false in zip(result, *counts, strict=True):
        if true[-1] and false[-1]:
            allowed = np.searchsorted(false, (1 - specificities + ROUNDING) * false[-1], side="right")
            row[:] = np.append(0.0, true)[allowed] / true[-1]
    return result


def sensitivity_along(counts: Counts, rates: np.ndarray) -> np.ndarray:
    """Return the height of the ROC curve, straight lines between its points, at false positive rates.

    Args:
        counts: of B resamples, (B, K).
        rates: (G,) float in 0..1.

    Returns:
        (B, G) float; NaN where a resample lacks the class or all others.
    """
    result = np.full((len(counts.true), len(rates)), np.nan)
    for row, true, false in zip(result, *counts, strict=True):
        if true[-1] and false[-1]:
            places = (rates + ROUNDING) * false[-1]  # the upper end where the curve goes straight up
            row[:] = np.interp(places, np.append(0.0, false), np.append(0.0, true)) / true[-1]
    return result


def net_benefit(images: Sweep, counts: Counts, thresholds: np.ndarray) -> np.ndarray:
    """Return the net benefit of treating who scores at least a threshold, per image.

    A needless treatment counts t / (1 - t) of a needed one: who treats from a probability of t on says so.

    Args:
        images: from `sweep`, scores are probabilities.
        counts: of B resamples, (B, K).
        thresholds: (G,) float between 0 and 1.

    Returns:
        (B, G) float.

    Reference: Vickers and Elkin (2006), doi:10.1177/0272989X06295361.
    """
    treated = np.searchsorted(-images.thresholds, -thresholds, side="right")
    none = np.zeros((len(counts.true), 1))
    true, false = (np.concatenate([none, called], axis=1)[:, treated] for called in counts)
    total = counts.true[:, -1:] + counts.false[:, -1:]
    return (true - false * thresholds / (1 - thresholds)) / total


def roc_points(images: Sweep, counts: Counts) -> dict[str, list]:
    """Return the ROC curve from (0, 0) on: false_positive_rate, sensitivity and threshold, None for none positive.

    Points on a straight line are left out, and where more than MOST_POINTS are left, these are spread along the curve.

    Args:
        images: from `sweep`.
        counts: of all images, (K,).
    """
    true, false = (np.append(0.0, called) for called in counts)
    if not (true[-1] and false[-1]):
        return {"false_positive_rate": [], "sensitivity": [], "threshold": []}
    rate, sensitivity = false / false[-1], true / true[-1]
    corners = np.append(True, (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0))
    kept = np.flatnonzero(np.append(corners, True))
    kept = kept[_spread(rate[kept] + sensitivity[kept])]
    thresholds = [None, *images.thresholds.tolist()]
    return {
        "false_positive_rate": rate[kept].tolist(),
        "sensitivity": sensitivity[kept].tolist(),
        "threshold": [thresholds[index] for index in kept],
    }


def precision_recall_points(counts: Counts) -> dict[str, list]:
    """Return recall and precision from recall 0 on, with the precision of the highest threshold there.

    From each point the curve steps back to the recall before it: the area under these steps is the average precision.

    Args:
        counts: of all images, (K,).
    """
    true, false = counts
    if not true[-1]:
        return {"recall": [], "precision": []}
    recall, precision = true / true[-1], true / (true + false)
    recall, precision = np.append(0.0, recall), np.append(precision[0], precision)
    kept = _spread(recall + np.abs(np.diff(precision, prepend=precision[0])).cumsum())
    return {"recall": recall[kept].tolist(), "precision": precision[kept].tolist()}


def ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Divide; where the divisor is 0 the result is `empty`."""
    return np.divide(above, below, out=np.full(np.broadcast_shapes(above.shape, below.shape), empty), where=below != 0)


def _spread(way: np.ndarray) -> np.ndarray:
    """Return which points to keep, (M,) int, the ends among them, at even steps of the way along the curve, rising."""
    if len(way) <= MOST_POINTS:
        return np.arange(len(way))
    kept = np.searchsorted(way, np.linspace(way[0], way[-1], MOST_POINTS))
    return np.unique(np.append(kept, len(way) - 1))


def threshold_at(images: Sweep, counts: Counts, specificity: float) -> float | None:
    """Return the highest threshold of greatest sensitivity at this specificity or a greater one.

    None where no threshold that keeps the specificity finds an image of the class.

    Args:
        images: from `sweep`.
        counts: of all images, (K,).
        specificity: 0..1.
    """
    allowed = np.searchsorted(counts.false, (1 - specificity + ROUNDING) * counts.false[-1], side="right")
    if not allowed or not counts.true[allowed - 1]:
        return None
    return float(images.thresholds[np.searchsorted(counts.true, counts.true[allowed - 1])])


def choose_threshold(
    labels: np.ndarray, scores: np.ndarray, *, rule: str = "youden", chosen_on: str = "validation"
) -> Threshold:
    """Choose the threshold of one of two classes, on images that are not those of the test.

    Args:
        labels: (N,) bool or int, 1 for the positive class.
        scores: (N,) float, the probability of the positive class.
        rule: "youden" for the greatest sensitivity + specificity - 1; "sensitivity>=X" for the highest threshold that
            reaches a sensitivity; "specificity>=X" for the most sensitive that keeps a specificity. X in 0..1.
        chosen_on: what the images are, in a word.

    Returns:
        The threshold, one of the scores; the highest where several are as good.

    Raises:
        CustomCNNError: no such rule, images of one class only, or no threshold that does what the rule asks.
        ValueError: shapes or values that do not belong together.

    Reference: Youden (1950), Index for rating diagnostic tests,
    doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3.
    """
    kind, target = read_rule(rule)
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Labels of 0 and 1 and scores are (N,). Received: {labels.shape} and {scores.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError("Scores are finite numbers. Received: NaN or infinite ones.")
    own = labels.astype(bool)
    if own.all() or not own.any():
        raise CustomCNNError(
            f"A threshold is chosen on images of both classes. Received: {own.sum():,} of the positive class and "
            f"{(~own).sum():,} of the other. Choose it on a part that holds both."
        )
    images = sweep(own, scores, np.arange(len(own)))
    counts = count(images, np.ones(len(own)))
    true, false = counts
    if kind == "youden":
        best = int(np.argmax(true * false[-1] - false * true[-1]))  # whole numbers: what is as good is equal
    elif kind == "sensitivity":
        best = int(np.argmax(true >= (target - ROUNDING) * true[-1]))
    else:
        found = threshold_at(images, counts, target)
        if found is None:
            raise CustomCNNError(
                f"A threshold finds an image of the positive class. Received: {rule}, which none does here: the "
                "greatest scores belong to the other class. Choose another rule."
            )
        return Threshold(found, rule, chosen_on)
    return Threshold(float(images.thresholds[best]), rule, chosen_on)


def read_rule(rule: str) -> tuple[str, float]:
    """Return a threshold's rule, "youden", "sensitivity" or "specificity", and its number, 0 of youden.

    Raises:
        CustomCNNError: no such rule.
    """
    read = re.fullmatch(r"(sensitivity|specificity)>=(\d*\.?\d+)", rule)
    if rule == "youden":
        return rule, 0.0
    if read and float(read[2]) <= 1:
        return read[1], float(read[2])
    raise CustomCNNError(
        f"A threshold rule is youden, sensitivity>=X or specificity>=X. Received: {show(rule)}. Give one, X in 0..1."
    )
