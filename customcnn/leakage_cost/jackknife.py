"""The arithmetic of the price: scores without each group in turn, and an interval over seeds that share groups."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from customcnn.metrics.scores import scores

METHOD = (
    "t interval over seeds: the variance of their mean is S^2 / J plus the mean covariance of two seeds, estimated by "
    "leaving one group out at a time (0 where it comes out negative)"
)
BOUNDS = {"own": (0, 1), "test": (0, 1), "inflation": (-1, 1), "price": (-2, 2)}


def cell_scores(confusion: np.ndarray, score: str) -> tuple[np.ndarray, np.ndarray]:
    """Compute a score of every cell, and the same without each group in turn.

    Args:
        confusion: (..., n, C, C) counts, one confusion matrix for each of n groups; zeros where a cell does not score
            the group. Rows are the true classes.
        score: a key of what `metrics.scores` returns, such as "accuracy".

    Returns:
        The scores (...), and (n, ...) the scores without group 0, 1, ...; NaN where nothing is left to score.
    """
    whole = confusion.sum(axis=-3)
    value = np.asarray(scores(whole)[score])
    without = np.asarray(scores(whole[..., None, :, :] - confusion)[score])
    return value, np.moveaxis(without, -1, 0)


def quantities(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Return every figure of the experiment from the scores of its cells, by its name.

    Args:
        cells: (..., 2, 2): by image and by group; each network's own validation part and the test groups.

    Returns:
        Arrays (...): image.own, image.test, image.inflation (own - test), the same for group, and price, which is the
        inflation by image less the inflation by group.
    """
    found: dict[str, np.ndarray] = {}
    for place, by in enumerate(("image", "group")):
        own, test = cells[..., place, 0], cells[..., place, 1]
        found |= {f"{by}.own": own, f"{by}.test": test, f"{by}.inflation": own - test}
    return {**found, "price": found["image.inflation"] - found["group.inflation"]}


def over_seeds(
    values: Sequence[float] | np.ndarray,
    without: np.ndarray,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, float | None]:
    """Return the mean of one figure over the seeds with a t interval that minds that the seeds share their groups.

    Given the data, the seeds are independent draws of splits and of weights, and S^2 / J is the variance of their mean.
    It leaves out what all seeds have in common, the groups of this data set: Var(mean) = E[S^2] / J + c, where c is the
    covariance of two seeds. Nadeau and Bengio (2003) guess c from the shares alone, as S^2 * n_test / n_train, which is
    far too much for a difference in which most of a group's easiness cancels. Here c is estimated: each group is left
    out of all that is scored, in all seeds at once, and the jackknife covariance of each pair of seeds is averaged. One
    below 0 counts as 0. The degrees of freedom are Satterthwaite's, with min(J, n) - 1 for c.

    The networks are not trained anew without a group: what a group does through training is seen as far as seeds differ
    by it, and not where all seeds have it in common. Where no seed differs and no group has a say the width is 0.

    Args:
        values: (J,) the figure of each seed, two at least.
        without: (n, J) the same figure without each group in turn.
        level: the confidence level, between 0 and 1.
        bounds: the figure cannot lie outside.

    Returns:
        value, low and high; standard_deviation (S, over the seeds); shared_variance (c) and degrees. low, high, c and
        degrees are None where leaving out a group leaves nothing to score.

    Reference: Nadeau and Bengio (2003), Inference for the generalization error, doi:10.1023/A:1024068626366; Efron and
    Stein (1981), The jackknife estimate of variance, doi:10.1214/aos/1176345462; MacKinnon, Nielsen and Webb (2023),
    Cluster-robust inference: a guide to empirical practice, doi:10.1016/j.jeconom.2022.04.001; Satterthwaite (1946), An
    approximate distribution of estimates of variance components, doi:10.2307/3002019.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    found: dict[str, float | None] = {"value": mean, "low": None, "high": None, "standard_deviation": spread}
    shared = shared_covariance(without)
    if shared is None:
        return found | {"shared_variance": None, "degrees": None}
    between, common = spread**2 / len(values), max(0.0, shared)
    degrees = _degrees(between, common, len(values), len(without))
    half = float(t.ppf((1 + level) / 2, degrees)) * math.sqrt(between + common)
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    # Rounding of the mean must not push it out of its own bounds.
    return found | {"low": min(low, mean), "high": max(high, mean), "shared_variance": common, "degrees": degrees}


def shared_covariance(without: np.ndarray) -> float | None:
    """Return the mean, over all pairs of seeds, of their jackknife covariance; None where a value is undefined.

    Args:
        without: (n, J) the figure of each seed without each of n groups.
    """
    if np.isnan(without).any():
        return None
    count, seeds = without.shape
    away = without - without.mean(axis=0)
    covariance = (count - 1) / count * away.T @ away
    return float((covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1)))


def _degrees(between: float, common: float, seeds: int, groups: int) -> float:
    total = between + common
    if total == 0:
        return float(seeds - 1)
    # The covariance comes from so many seeds and groups, and is no surer than the fewer of them.
    return total**2 / (between**2 / (seeds - 1) + common**2 / (min(seeds, groups) - 1))


def summarize(confusion: np.ndarray, score: str, level: float = 0.95) -> dict[str, Any]:
    """Return every figure of the experiment for one score: by seed, and over the seeds with its interval.

    Args:
        confusion: (J, 2, 2, n, C, C) counts, by seed, way, part (own validation, test), and group.
        score: as for `cell_scores`.
        level: the confidence level.

    Returns:
        By the names of `quantities`: a dict as from `over_seeds`, with the `seeds` beside it.
    """
    value, without = cell_scores(confusion, score)
    apart = quantities(without)
    return {
        name: {
            **over_seeds(figures, apart[name], level=level, bounds=BOUNDS[name.rpartition(".")[2]]),
            "seeds": [float(figure) for figure in figures],
        }
        for name, figures in quantities(value).items()
    }


def group_confusions(
    rows: Sequence[Mapping[str, str]], classes: Sequence[str], groups: Mapping[str, int]
) -> np.ndarray:
    """Count predictions by group, true class and predicted class: (n, C, C) int64.

    Args:
        rows: with `label`, `group` and `predicted`.
        classes: the C names.
        groups: the place of each of n groups.
    """
    place = {label: i for i, label in enumerate(classes)}
    counts = np.zeros((len(groups), len(classes), len(classes)), dtype=np.int64)
    for row in rows:
        counts[groups[row["group"]], place[row["label"]], place[row["predicted"]]] += 1
    return counts
