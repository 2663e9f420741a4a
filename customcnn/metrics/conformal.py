"""Sets of classes that hold the true one with a promised probability: split conformal prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from customcnn.errors import CustomCNNError, show
from customcnn.metrics.bootstrap import numbered
from customcnn.metrics.validation import check_probabilities

METHODS = ("lac", "aps")
ROUNDING = 1e-9  # of sums of weights: .9 of 9 + 1 images is the ninth of them


@dataclass(frozen=True)
class Conformal:
    """How a set of classes is made from probabilities.

    Attributes:
        method: "lac" or "aps", see `conformity`.
        coverage: the promised probability that the set holds the true class, 0..1.
        quantile: classes of a higher score stay outside; 1 lets every class in.
        unit: "group" where the promise holds for an image of a new group, "image" where it holds only for images that
            are drawn like those of the fit.
        images, groups: how many it was fitted on; groups is None where they are not known.
    """

    method: str
    coverage: float
    quantile: float
    unit: str
    images: int
    groups: int | None

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Return bool (N, C): which classes are in the set of each image."""
        return prediction_sets(probabilities, self.quantile, self.method)

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Conformal":
        """Return what `as_dict` wrote down."""
        return cls(**values)


def fit_sets(
    labels: np.ndarray,
    probabilities: np.ndarray,
    coverage: float = 0.9,
    method: str = "lac",
    groups: Sequence[str] | None = None,
) -> Conformal:
    """Fit by groups where they are known and enough of them to promise this coverage, else by images.

    A coverage c for new groups needs c / (1 - c) groups: 9 for .9, 19 for .95. With fewer every set would have to hold
    every class.

    Args, Raises: as `fit_conformal`.
    """
    count = None if groups is None else len(set(groups))
    by_group = count is not None and count >= least_units(coverage)
    quantile = fit_conformal(labels, probabilities, coverage, method, groups if by_group else None)
    return Conformal(method, coverage, quantile, "group" if by_group else "image", len(labels), count)


def fit_conformal(
    labels: np.ndarray,
    probabilities: np.ndarray,
    coverage: float,
    method: str = "lac",
    groups: Sequence[str] | None = None,
) -> float:
    """Find the score below which the true class of a new image lies with probability `coverage`.

    It is a quantile of the scores that the true classes have here. Without groups every image weighs the same, and the
    promise holds for images that are exchangeable with these: other cells of the same subjects. With groups every group
    weighs the same, whatever the number of its images, and one more group, the new one, weighs as if it were as strange
    as can be: then it holds for an image of a new group, if groups are exchangeable.

    Args:
        labels: (N,) int, the index of the true class; of images that were not trained on.
        probabilities: (N, C) float, rows sum to 1.
        coverage: between 0 and 1.
        method: see `conformity`.
        groups: the N group names; None for images that do not come in groups.

    Returns:
        0..1; 1, which lets every class in, where the images or groups are too few to promise so much.

    Raises:
        CustomCNNError: no images, a probability that is not finite, a coverage outside 0..1, or another method.
        ValueError: shapes or values that do not belong together.

    References: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; with groups: Lee, Barber and
        Willett, Distribution-free inference with hierarchical data, arXiv:2306.06342; Dunn, Wasserman and Ramdas,
        doi:10.1080/01621459.2022.2060112.
    """
    least_units(coverage)
    scores = conformity(probabilities, method)
    labels, _ = check_probabilities(labels, probabilities, scores.shape[1])
    own = scores[np.arange(len(labels)), labels]
    units = np.arange(len(labels)) if groups is None else numbered(groups, len(labels))
    members = np.bincount(units)
    weights = 1 / ((len(members) + 1) * members[units])
    order = np.lexsort((weights, own))
    below = np.cumsum(weights[order])
    place = int(np.searchsorted(below, coverage - ROUNDING))
    return float(own[order[place]]) if place < len(own) else 1.0


def prediction_sets(probabilities: np.ndarray, quantile: float, method: str = "lac") -> np.ndarray:
    """Return the sets of classes of images.

    Args:
        probabilities: (N, C) float, rows sum to 1.
        quantile: from `fit_conformal`.
        method: the one that the quantile was fitted with.

    Returns:
        Bool (N, C). A set of "lac" may be empty: no class is as likely as the true ones were. A set of "aps" holds
        the most likely class at least: it goes on until the sum of its probabilities reaches the quantile.
    """
    inside = conformity(probabilities, method) <= quantile
    if method == "aps":
        # What is summed up before a class is the score of the class before it.
        before = conformity(probabilities, method) - np.asarray(probabilities, dtype=np.float64)
        inside |= before < quantile - ROUNDING
        inside[np.arange(len(inside)), np.asarray(probabilities).argmax(axis=1)] = True
    return inside


def conformity(probabilities: np.ndarray, method: str) -> np.ndarray:
    """Return how badly each class fits each image, float64 (N, C), 0..1.

    "lac" (least ambiguous classes): 1 - p; its sets are the smallest on average. "aps" (adaptive prediction sets): the
    sum of the probabilities from the most likely class down to this one.

    Raises:
        CustomCNNError: another method.

    References: Sadinle, Lei and Wasserman, doi:10.1080/01621459.2017.1395341; Romano, Sesia and Candes, Classification
        with valid and adaptive coverage, NeurIPS 2020, without its random part.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if method == "lac":
        return (1 - probabilities).clip(0, 1)
    if method != "aps":
        raise CustomCNNError(f"Sets are made by {' or '.join(METHODS)}. Received: {show(method)}. Choose one of them.")
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sums = np.take_along_axis(probabilities, order, axis=1).cumsum(axis=1)
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores.clip(0, 1)


def least_units(coverage: float) -> float:
    """Return how many images or groups a coverage needs, so that not every set has to hold every class.

    Raises:
        CustomCNNError: the coverage is outside 0..1.
    """
    if not 0 < coverage < 1:
        raise CustomCNNError(f"A coverage lies between 0 and 1. Received: --coverage {coverage:g}. Give .9, say.")
    return coverage / (1 - coverage) - ROUNDING
