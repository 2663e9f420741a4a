"""Whether probabilities mean what they say: scores of calibration from arrays, and the temperature that mends them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from customcnn.metrics.bootstrap import in_order, percentile, resampled
from customcnn.metrics.validation import check_classes, check_probabilities, check_rows

LOWEST, HIGHEST = 0.05, 20.0
"""A temperature stays between these: no finite one is best where every image is right, or where all is guesswork."""

TINY = 1e-30
"""Smaller probabilities of a softmax count as this before their logarithm is taken; float32 has it."""

HALVINGS = 60


def calibration(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    positive: str | None = None,
    bins: int = 15,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Score how well probabilities agree with what is true, every score with a confidence interval.

    The intervals are percentiles over resamples of whole groups where they are known, of images otherwise. The expected
    calibration error of a resample tends to be larger than that of the data, the more so the fewer images a bin has:
    its interval leans upward, and says nothing where the error is near 0. The order of the images has no influence.

    Args:
        labels: (N,) int, the index of the true class.
        probabilities: (N, C) float, rows sum to 1.
        classes: the C class names, two at least.
        groups: the N group names; None if they are not known.
        positive: of two classes the one that `positive_class` is about; None for that of
            `customcnn.metrics.validation.default_positive`.
        bins: how many bins of equal width the confidence, 0..1, is cut into; one ends below its upper edge, the last
            at 1.
        resamples, seed: how many resamples are drawn, and from which seed.
        level: the confidence level, between 0 and 1.

    Returns:
        A dict ready for JSON. Each {value, low, high}: `ece`, the mean distance of confidence (the largest
        probability) from accuracy over the bins, each weighed by its images; `ece_adaptive`, the same with bins of
        equal numbers of images; `brier`, the mean over the images of the squared distance from the truth summed over
        the classes, 0..2; `log_loss`, natural logarithm. `reliability`, one {low, high, images, confidence, accuracy}
        a bin, None where a bin is empty. `images`, `groups`, `bins`, `interval`. With two classes also
        `positive_class`: its name, `brier` of its probability alone (half of the sum, what scikit-learn calls the Brier
        score), and `reliability` of its probability: there "accuracy" is the share of the class.

    Raises:
        CustomCNNError: no images, or a probability that is not finite.
        ValueError: shapes or values that do not belong together.

    References: Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; Guo et al., On calibration of modern
        neural networks, ICML 2017; equal numbers: Nguyen and O'Connor, EMNLP 2015.
    """
    if bins < 1 or resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"At least 1 bin, 1 resample and a level in 0..1 are needed. Received: {bins}, {resamples} and {level}."
        )
    names, positive = check_classes(classes, positive)
    labels, probabilities = check_probabilities(labels, probabilities, len(names))
    labels, probabilities, units = in_order(labels, probabilities, groups)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    equal = np.unique(np.quantile(confidence, edges[1:-1]))
    loss = -np.log(probabilities[np.arange(len(labels)), labels].clip(np.finfo(np.float64).eps, 1))
    squares = ((probabilities - np.eye(len(names))[labels]) ** 2).sum(axis=1)
    columns = {
        "ece": _by_bin(confidence - right, _bin(confidence, edges[1:-1]), bins),
        "ece_adaptive": _by_bin(confidence - right, _bin(confidence, equal), len(equal) + 1),
        "brier": squares[:, None],
        "log_loss": loss[:, None],
    }
    count, unit = int(units[-1]) + 1, "image" if groups is None else "group"
    method = f"none (one {unit} only)" if count == 1 else f"percentile bootstrap over {unit}s"
    scored = _scored(columns, units, resamples, seed)
    found = {key: percentile(value, sample, level) for key, (value, sample) in scored.items()}
    result: dict[str, Any] = {
        "images": len(labels),
        "groups": None if groups is None else count,
        "classes": names,
        "bins": bins,
        **found,
        "reliability": _reliability(confidence, right, edges),
        "interval": {"level": level, "method": method, "resamples": 0 if count == 1 else resamples, "seed": seed},
    }
    if positive is not None:
        column = names.index(positive)
        half = {key: None if value is None else value / 2 for key, value in found["brier"].items()}
        of_class = _reliability(probabilities[:, column], labels == column, edges)
        result["positive_class"] = {"name": positive, "brier": half, "reliability": of_class}
    return result


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature T for which softmax(logits / T) has the smallest log loss.

    The log loss is convex in 1 / T, so its slope is halved in to 0. Above 1 the probabilities were too sure of
    themselves. No class changes its rank.

    Args:
        logits: (N, C) float; the logarithms of probabilities are logits too, see `log_probabilities`.
        labels: (N,) int, the index of the true class.

    Returns:
        Between LOWEST, which is also for data without an error, and HIGHEST.

    Raises:
        CustomCNNError: no images, or a logit that is not finite.
        ValueError: shapes that do not belong together.

    Reference: Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017.
    """
    labels, logits = check_rows(labels, logits, np.shape(logits)[-1])
    apart = logits - logits[np.arange(len(labels)), labels][:, None]

    def slope(inverse: float) -> float:
        weights = softmax(apart * inverse)
        return float((weights * apart).sum(axis=1).mean())

    low, high = -np.log(HIGHEST), -np.log(LOWEST)  # of log(1 / T)
    if slope(np.exp(low)) >= 0:
        return HIGHEST
    if slope(np.exp(high)) <= 0:
        return LOWEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(log(p) / T) of probabilities (N, C), float64: what a network with this temperature says."""
    return softmax(log_probabilities(probabilities) / temperature)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Return the logarithms of probabilities, float64; below TINY of TINY."""
    return np.log(np.asarray(probabilities, dtype=np.float64).clip(TINY, None))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the exponentials of each row (N, C), divided by their sum."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _bin(values: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the bin of each value, given the edges between bins; a value on an edge belongs to the bin above."""
    return np.searchsorted(inner, values, side="right")


def _by_bin(values: np.ndarray, places: np.ndarray, bins: int) -> np.ndarray:
    """Return (N, bins): each value in the column of its bin, 0 elsewhere."""
    return np.where(places[:, None] == np.arange(bins), values[:, None], 0.0)


def _scored(
    columns: dict[str, np.ndarray], units: np.ndarray, resamples: int, seed: int
) -> dict[str, tuple[float, np.ndarray | None]]:
    """Return the sum of the absolute column means of each (N, K), and that of every resample of the units, (B,)."""
    count = int(units[-1]) + 1
    images = np.bincount(units, minlength=count)
    sums = {
        key: np.stack([np.bincount(units, column, count) for column in each.T], axis=1) for key, each in columns.items()
    }
    values = {key: float(np.abs(each.sum(axis=0)).sum()) / len(units) for key, each in sums.items()}
    if count == 1:
        return {key: (value, None) for key, value in values.items()}
    drawn: dict[str, list[np.ndarray]] = {key: [] for key in columns}
    for weights in resampled(count, resamples, seed):
        for key, each in sums.items():
            drawn[key].append(np.abs(weights @ each).sum(axis=1) / (weights @ images))
    return {key: (value, np.concatenate(drawn[key])) for key, value in values.items()}


def _reliability(values: np.ndarray, hits: np.ndarray, edges: np.ndarray) -> list[dict[str, Any]]:
    places = _bin(values, edges[1:-1])
    rows = []
    for number, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = places == number
        images = int(inside.sum())
        means = [float(each[inside].mean()) if images else None for each in (values, hits)]
        rows.append({"low": low, "high": high, "images": images, "confidence": means[0], "accuracy": means[1]})
    return rows


def format_calibration(result: dict[str, Any]) -> str:
    """Write the dict of `calibration` as aligned text, without a last newline."""
    lines = [f"{'calibration':46}  {'value':>9}  {result['interval']['level'] * 100:g} % interval"]
    for key, words in (
        ("ece", f"expected calibration error, {result['bins']} bins"),
        ("ece_adaptive", "the same with equally many images a bin"),
        ("brier", "Brier score, summed over the classes"),
        ("log_loss", "log loss"),
    ):
        row = result[key]
        span = "-" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        lines.append(f"{words:46}  {row['value']:9.3f}  {span}")
    if result.get("temperature"):
        lines.append(f"a temperature of {result['temperature']:.3f} is applied")
    return "\n".join(lines)
