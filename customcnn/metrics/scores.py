"""Scores from arrays: labels and probabilities in, figures with their confidence intervals out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from customcnn.errors import show
from customcnn.metrics.bootstrap import Interval, in_order, percentile, resampled, wilson
from customcnn.metrics.validation import check_classes, check_indexes, check_probabilities, others_of

PER_CLASS = {"precision": "precision", "recall": "recall", "f1": "F1"}
HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    **{f"{mean}_{key}": f"{mean} {label}" for mean in ("macro", "weighted") for key, label in PER_CLASS.items()},
    "cohen_kappa": "Cohen's kappa",
    "roc_auc": "ROC AUC",
}
WIDTH = 99  # columns of the text report
NAME_WIDTH = 24  # of a class name in it
HEADINGS, HEADING_WIDTH = 6, 12  # so many class names of that width fit over the confusion matrix


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the images of each true class by the class that was predicted.

    Args:
        labels: (N,) int, the index of the true class, 0..classes - 1.
        predicted: (N,) int, the index of the predicted class.
        classes: the number of classes, C.

    Returns:
        (C, C) int64: rows are the true classes, columns the predicted ones.

    Raises:
        ValueError: an index is outside 0..C - 1, or the lengths differ.
    """
    rows, columns = np.stack([check_indexes(labels, classes), check_indexes(predicted, classes)])
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute every score that follows from a confusion matrix, for one matrix or thousands at once.

    0/0 is 0 in precision, recall and F1. Balanced accuracy is the mean over the classes that occur; the macro scores
    over those that occur or are predicted; the weighted ones go by support. Accuracy and all means of an empty matrix
    are NaN, and so is kappa where chance alone agrees on everything. Scikit-learn defines them the same way.

    Args:
        confusion: (..., C, C), counts or sums of weights, rows true, columns predicted; leading axes are kept.

    Returns:
        Float64 arrays: precision, recall and f1 of shape (..., C); accuracy, balanced_accuracy, macro_precision,
        macro_recall, macro_f1, weighted_precision, weighted_recall, weighted_f1 and cohen_kappa of shape (...).

    Reference: Cohen (1960), A coefficient of agreement for nominal scales, doi:10.1177/001316446002000104.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, chosen = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = support.sum(axis=-1)
    occurs, seen = support > 0, (support > 0) | (chosen > 0)
    result = {
        "accuracy": _ratio(hits.sum(axis=-1), total),
        "precision": _ratio(hits, chosen, 0.0),
        "recall": _ratio(hits, support, 0.0),
        "f1": _ratio(2 * hits, support + chosen, 0.0),
    }
    result["balanced_accuracy"] = _ratio((result["recall"] * occurs).sum(axis=-1), occurs.sum(axis=-1))
    for mean, weights in (("macro", seen), ("weighted", support)):
        for key in PER_CLASS:
            result[f"{mean}_{key}"] = _ratio((result[key] * weights).sum(axis=-1), weights.sum(axis=-1))
    # observed and expected disagreement, both times the square of the total: counts stay whole numbers
    disagree = total * (total - hits.sum(axis=-1))
    by_chance = total**2 - (support * chosen).sum(axis=-1)
    result["cohen_kappa"] = 1 - _ratio(disagree, by_chance)
    return result


def roc_auc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Compute the area under the ROC curve: how often an image of a class outranks one of another; ties count half.

    Two classes: the area for class 1. More: the mean of each class against the rest, over the classes that occur.

    Args:
        labels: (N,) int, the index of the true class.
        probabilities: (N, C) float, C at least 2.
        weights: (..., N) float, at least 0, the weight of each image; None for 1. Leading axes are kept.

    Returns:
        Float64 of the leading shape of `weights`, so () without weights; NaN where fewer than two classes have weight.

    Reference: Hanley and McNeil (1982), doi:10.1148/radiology.143.1.7063747.
    """
    ranks = _rank_all(np.asarray(labels), np.asarray(probabilities), np.arange(len(labels)))
    return _area(ranks, np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64))


def evaluate_predictions(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    positive: str | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predictions, every score with a confidence interval: images of one patient are not independent.

    The intervals are percentiles over resamples, drawn with replacement from the groups where they are known and from
    the images otherwise, and widened to hold the estimate where they would not. Where no groups are known, proportions
    (accuracy and weighted recall, which is the same number, and each class's recall and precision) have Wilson's
    interval instead. Resamples in which a score is undefined (for a class: those that did not draw it) are left out of
    its percentiles and counted in `undefined_resamples`; the macro scores count a class as 0 where it was not drawn but
    predicted. Where the data hold no error, no resample does: a bootstrap's 1 to 1 is too narrow then. The order of the
    images has no influence.

    Args:
        labels: (N,) int, the index of the true class.
        probabilities: (N, C) float, rows sum to 1; the prediction is the greatest, the first one on ties.
        classes: the C class names, two at least.
        groups: the N group names (patient, photograph); None if they are not known.
        positive: of two classes the one that sensitivity and specificity are about; None for that of
            `customcnn.metrics.validation.default_positive`.
        resamples, seed: how many resamples are drawn, and from which seed.
        level: the confidence level, between 0 and 1.

    Returns:
        A dict ready for JSON: images, groups, errors, classes, positive, confusion_matrix, one {value, low, high} per
        name in `HEADLINES`, per_class, log_loss (natural logarithm, mean per image), interval, and with two classes
        positive_class. What is undefined is None; a single group or image gives no bootstrap.

    Raises:
        CustomCNNError: no images, a probability that is not finite, or a positive class that is none of two.
        ValueError: shapes or values that do not belong together.

    Reference: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13; whole groups: Field and Welsh
    (2007), doi:10.1111/j.1467-9868.2007.00593.x; Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"At least 1 resample and a level in 0..1 are needed. Received: {resamples} and {level}.")
    names, positive = check_classes(classes, positive)
    labels, probabilities = check_probabilities(labels, probabilities, len(names))
    labels, probabilities, units = in_order(labels, probabilities, groups)
    predicted, single = probabilities.argmax(axis=1), units[-1] == 0
    confusion = confusion_matrix(labels, predicted, len(names))
    values = scores(confusion) | {"roc_auc": roc_auc(labels, probabilities)}
    sample = {} if single else _bootstrap(labels, probabilities, predicted, units, resamples, seed)
    likelihood = probabilities[np.arange(len(labels)), labels].clip(np.finfo(np.float64).eps, 1)
    headlines = {key: percentile(values[key], sample.get(key), level) for key in HEADLINES}
    per_class = _per_class(names, confusion, values, sample, level)
    if groups is None:
        _put_wilson(headlines, per_class, confusion, level)
    return {
        "images": len(labels),
        "groups": None if groups is None else int(units[-1]) + 1,
        "errors": int((labels != predicted).sum()),
        "classes": names,
        "positive": positive,
        "confusion_matrix": confusion.tolist(),
        **headlines,
        "per_class": per_class,
        "log_loss": float(-np.log(likelihood).mean()),
        "interval": {
            "level": level,
            "method": _method(single, groups is not None),
            "resamples": 0 if single else resamples,
            "seed": seed,
        },
        **({} if positive is None else {"positive_class": positive_scores(per_class, positive)}),
    }


def format_report(metrics: dict[str, Any]) -> str:
    """Write the dict of `evaluate_predictions` as aligned text, less than 100 columns wide, without a last newline.

    Long class names are shortened; the classes are numbered where their names do not fit over the confusion matrix.
    """
    names = headings = [_short(name) for name in metrics["classes"]]
    if len(names) > HEADINGS or max(map(len, names)) > HEADING_WIDTH:
        headings = [str(index + 1) for index in range(len(names))]
        names = [f"{number:>{len(headings[-1])}} {name}" for number, name in zip(headings, names, strict=True)]
    matrix = _matrix_lines(names, headings, metrics["confusion_matrix"])
    return "\n".join([*_headline_lines(metrics), "", *_class_lines(names, metrics), "", *matrix])


def recall_names(positive: str, classes: Sequence[str], width: int = NAME_WIDTH) -> dict[str, str]:
    """Return what sensitivity and specificity are called where they stand: with the class whose recall they are.

    Args:
        positive: the positive class of two.
        classes: the two class names.
        width: characters of a class name; the middle of a longer one is left out.
    """
    of = {"sensitivity": positive, "specificity": others_of(positive, classes)}
    return {key: f"{key} (recall of {_short(name, width)})" for key, name in of.items()}


class _Ranks(NamedTuple):
    """One class against the rest: which units its images belong to, and how many of the rest lie below each image."""

    inside: np.ndarray  # (P,) the unit of each image of the class, by rising probability
    outside: np.ndarray  # (M,) the unit of each other image, by rising probability
    below: np.ndarray  # (P,) how many of `outside` have a lower probability
    to_tie: np.ndarray  # (P,) how many of `outside` have a lower or the same probability


def _rank_all(labels: np.ndarray, probabilities: np.ndarray, units: np.ndarray) -> list[_Ranks]:
    """Sort the images once for all resamples: class 1 of two classes, each class that occurs of more."""
    count = probabilities.shape[1]
    ranks = []
    for index in [1] if count == 2 else range(count):
        own, rest = labels == index, labels != index
        inside, outside = probabilities[own, index], probabilities[rest, index]
        first, second = inside.argsort(kind="stable"), outside.argsort(kind="stable")
        below = np.searchsorted(outside[second], inside[first], side="left")
        to_tie = np.searchsorted(outside[second], inside[first], side="right")
        ranks.append(_Ranks(units[own][first], units[rest][second], below, to_tie))
    return ranks


def _area(ranks: list[_Ranks], weights: np.ndarray) -> np.ndarray:
    """Return the mean area of the classes that have one, else NaN; `weights` (..., U) holds one weight per unit."""
    each = []
    for inside, outside, below, to_tie in ranks:
        own = weights.take(inside, axis=-1)
        rest = np.zeros((*weights.shape[:-1], len(outside) + 1))
        np.cumsum(weights.take(outside, axis=-1), axis=-1, out=rest[..., 1:])
        beaten = rest.take(below, axis=-1)
        beaten += rest.take(to_tie, axis=-1)  # twice what lies below: a tie counts half
        won = np.einsum("...i,...i->...", own, beaten)
        each.append(_ratio(won, 2 * own.sum(axis=-1) * rest[..., -1]))
    areas = np.stack(each)
    defined = ~np.isnan(areas)
    return _ratio(np.where(defined, areas, 0.0).sum(axis=0), defined.sum(axis=0))


def _bootstrap(
    labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, units: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the scores of every resample of the units, (B,) or (B, C); NaN where a score is undefined there."""
    count, classes = int(units[-1]) + 1, probabilities.shape[1]
    # the units of each cell of the confusion matrix, with their counts: at most N pairs, ordered by cell
    pairs, counts = np.unique((labels * classes + predicted) * count + units, return_counts=True)
    cells, starts = np.unique(pairs // count, return_index=True)
    ranks = _rank_all(labels, probabilities, units)
    parts: list[dict[str, np.ndarray]] = []
    for weights in resampled(count, resamples, seed, max(len(labels), classes**2)):
        confusion = np.zeros((len(weights), classes * classes))
        confusion[:, cells] = np.add.reduceat(weights.take(pairs % count, axis=1) * counts, starts, axis=1)
        confusion = confusion.reshape(-1, classes, classes)
        part = scores(confusion) | {"roc_auc": _area(ranks, weights)}
        for key in PER_CLASS:  # a resample without a class says nothing about it: undefined here, not 0
            part[key][confusion.sum(axis=2) == 0] = np.nan
        part["precision"][confusion.sum(axis=1) == 0] = np.nan
        parts.append(part)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _per_class(
    names: list[str], confusion: np.ndarray, values: dict[str, np.ndarray], sample: dict[str, np.ndarray], level: float
) -> dict[str, Any]:
    """Return precision, recall and F1 with their intervals, and the support, of every class."""
    result: dict[str, Any] = {}
    for index, name in enumerate(names):
        drawn = {key: sample[key][:, index] if sample else None for key in PER_CLASS}
        result[name] = {key: percentile(values[key][index], drawn[key], level) for key in PER_CLASS}
        result[name]["support"] = int(confusion[index].sum())
    return result


def _put_wilson(headlines: dict[str, Interval], per_class: dict[str, Any], confusion: np.ndarray, level: float) -> None:
    """Give the proportions Wilson's interval in place: for images that are independent of each other."""
    for key in ("accuracy", "weighted_recall"):
        headlines[key] = wilson(int(confusion.trace()), int(confusion.sum()), level)
    for index, row in enumerate(per_class.values()):
        for key, axis in (("recall", 1), ("precision", 0)):
            total = int(confusion.sum(axis=axis)[index])
            # 0/0 keeps its value of 0, see `scores`.
            found = wilson(int(confusion[index, index]), total, level)
            row[key] = found if total else {**found, "value": 0.0}


def _method(single: bool, grouped: bool) -> str:
    """Say how the intervals come about."""
    if grouped:
        return "none (one group only)" if single else "percentile bootstrap over groups"
    return f"Wilson for proportions, else {'none (one image only)' if single else 'percentile bootstrap over images'}"


def positive_scores(per_class: Mapping[str, Any], positive: str) -> dict[str, Any]:
    """Return the scores of one of two classes in the words of the clinic: specificity is the recall of the other."""
    own = per_class[positive]
    (other,) = (scored for name, scored in per_class.items() if name != positive)
    chosen = {key: own[key] for key in PER_CLASS} | {"sensitivity": own["recall"], "specificity": other["recall"]}
    return {"name": positive, **{key: dict(interval) for key, interval in chosen.items()}}


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Divide; where the divisor is 0 the result is `empty`."""
    return np.divide(above, below, out=np.full(np.broadcast_shapes(above.shape, below.shape), empty), where=below != 0)


def _headline_lines(metrics: dict[str, Any]) -> list[str]:
    """Return the counts, a row per score with its interval, how the intervals came about and the positive class."""
    interval, own = metrics["interval"], metrics.get("positive_class")
    rows = {label: metrics[key] for key, label in HEADLINES.items()}
    if own:
        rows |= {label: own[key] for key, label in recall_names(own["name"], metrics["classes"], 16).items()}
    wide = max(map(len, rows))
    groups = "" if metrics["groups"] is None else f" of {_count(metrics['groups'], 'group')}"
    how = f", {_count(interval['resamples'], 'resample')}, seed {interval['seed']}" if interval["resamples"] else ""
    lines = [
        f"{_count(metrics['images'], 'image')}{groups}, {_count(metrics['errors'], 'error')}",
        "",
        f"{'':{wide}}  {'value':>9}  {interval['level'] * 100:g} % interval",
        *(f"{label:{wide}}  {_score_text(row)}" for label, row in rows.items()),
        f"{'log loss':{wide}}  {metrics['log_loss']:9.3f}",
        f"intervals: {interval['method']}{how}",
    ]
    if own:
        found = ", ".join(f"{key} {own[key]['value']:.3f}" for key in ("precision", "recall"))
        lines.append(f"positive class: {_short(own['name'])} ({found})")
    return lines


def _class_lines(names: list[str], metrics: dict[str, Any]) -> list[str]:
    """Return the table of precision, recall, F1 and support by class."""
    wide = max(map(len, [*names, "class"]))
    lines = [f"{'class':{wide}}  precision  recall     F1  support"]
    for label, name in zip(names, metrics["classes"], strict=True):
        precision, recall, f1 = (metrics["per_class"][name][key]["value"] for key in PER_CLASS)
        support = metrics["per_class"][name]["support"]
        lines.append(f"{label:{wide}}  {precision:9.3f}  {recall:6.3f}  {f1:5.3f}  {support:7,}")
    return lines


def _matrix_lines(names: list[str], headings: list[str], confusion: list[list[int]]) -> list[str]:
    """Return the confusion matrix, in blocks one below the other where its columns do not fit side by side."""
    wide, column = max(map(len, names)), max(len(text) for text in [*headings, f"{np.max(confusion):,}"]) + 2
    step = (WIDTH - wide) // column
    lines = ["confusion matrix (rows: true class, columns: predicted class)"]
    for first in range(0, len(headings), step):
        part = slice(first, first + step)
        lines.append(" " * wide + "".join(f"{heading:>{column}}" for heading in headings[part]))
        rows = zip(names, confusion, strict=True)
        lines += [f"{label:{wide}}" + "".join(f"{n:>{column},}" for n in row[part]) for label, row in rows]
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _score_text(row: dict[str, Any]) -> str:
    """Return the value, the interval and in how many resamples there was none."""
    text = f"{'undefined':>9}  " if row["value"] is None else f"{row['value']:9.3f}  "
    text += "-" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    undefined = row.get("undefined_resamples")
    return f"{text}  (undefined in {_count(undefined, 'resample')})" if undefined else text


def _short(name: str, width: int = NAME_WIDTH) -> str:
    """Return a class name on one line: the middle of a long one is left out."""
    text = name if name.isprintable() else show(name)
    return text if len(text) <= width else f"{text[: width // 2 - 2]}...{text[-width // 2 + 1 :]}"


def two_columns(output: np.ndarray) -> np.ndarray:
    """Return a network's output as class probabilities, two columns also for one sigmoid output.

    Of outputs that do not sum to 1 (a sigmoid for each class) the shares are returned, all alike where each is 0.

    Args:
        output: (N, classes) or (N, 1).

    Returns:
        float64 (N, classes); rows sum to 1.
    """
    raw = np.asarray(output, dtype=np.float64)
    if raw.shape[1] == 1:
        raw = np.concatenate([1 - raw, raw], axis=1)
    total = raw.sum(axis=1, keepdims=True)
    return np.where(total == 0, 1 / raw.shape[1], raw / np.where(total == 0, 1, total))
