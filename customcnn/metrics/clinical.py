"""What a clinic asks of predictions: curves, thresholds, net benefit, results by subject and by stratum."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from customcnn.errors import CustomCNNError, show_names
from customcnn.metrics.bootstrap import Interval, in_order, numbered, percentile, resampled, wilson
from customcnn.metrics.curves import (
    Counts,
    Sweep,
    Threshold,
    average_precision,
    count,
    net_benefit,
    precision_recall_points,
    ratio,
    roc_area,
    roc_points,
    sensitivity_along,
    sensitivity_at,
    sweep,
    threshold_at,
)
from customcnn.metrics.scores import confusion_matrix, evaluate_predictions, roc_auc, scores

SPECIFICITIES = np.array([0.8, 0.9, 0.95])
RATES = np.linspace(0, 1, 51)  # where the ROC curve's band is computed
DECISIONS = np.arange(1, 100) / 100  # threshold probabilities of the decision curve
NO_VALUE = "(none)"  # a stratum of the images that have no value


def clinical(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    positive: str | None = None,
    threshold: Threshold | float | None = None,
    strata: Mapping[str, Sequence[str]] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Read predictions as a clinic would: what is found at which price, for whom, and how sure that is.

    Intervals are percentiles over resamples of whole groups where these are known, else of images, as in
    `customcnn.metrics.scores.evaluate_predictions`; proportions of images without groups, and of subjects, have
    Wilson's. The sensitivity at a fixed specificity takes a new threshold in every resample, so its interval holds the
    luck of that choice too. The order of the images has no influence.

    Args:
        labels: (N,) int, the index of the true class.
        probabilities: (N, C) float, rows sum to 1.
        classes: the C class names, two at least.
        groups: the N group names (patient, photograph); None if they are not known.
        positive: of two classes the one to be found; None for that of
            `customcnn.metrics.validation.default_positive`.
        threshold: of two classes, chosen elsewhere than on these images, see `customcnn.metrics.curves`.
        strata: by column name the N values that part the images: fold, site.
        resamples, seed: how many resamples are drawn, and from which seed.
        level: the confidence level, between 0 and 1.

    Returns:
        A dict ready for JSON, described in docs/clinical.md: images, groups, classes, positive, interval, curves,
        sensitivity_at, threshold, decision_curve, subjects, strata. What is undefined is None.

    Raises:
        CustomCNNError: as `evaluate_predictions`; or a threshold with more than two classes.
        ValueError: shapes or values that do not belong together.
    """
    # A single resample: it checks the arrays, and counts.
    facts = evaluate_predictions(labels, probabilities, classes, groups=groups, positive=positive, resamples=1)
    names, positive = facts["classes"], facts["positive"]
    if threshold is not None and positive is None:
        raise CustomCNNError(
            f"A threshold belongs to one of two classes. Received: one for the classes {show_names(names)}. "
            "Leave it out."
        )
    how = _How(level, resamples, seed, groups is not None)
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    parts = {
        column: _strata(labels, probabilities, names, groups, _strings(column, values, len(labels)), how)
        for column, values in (strata or {}).items()
    }
    subjects = None if groups is None else _subjects(labels, probabilities, names, groups, positive, how)
    labels, probabilities, units = in_order(labels, probabilities, groups)
    return {
        "images": facts["images"],
        "groups": facts["groups"],
        "classes": names,
        "positive": positive,
        "interval": how.as_dict(int(units[-1]) + 1),
        **_curves(labels, probabilities, names, positive, units, how),
        "threshold": None
        if threshold is None or positive is None
        else _at_threshold(labels, probabilities, names.index(positive), threshold, units, how),
        "subjects": subjects,
        "strata": parts,
    }


class _How:
    """How intervals are made: the level, the resamples and their seed, and whether groups are resampled."""

    def __init__(self, level: float, resamples: int, seed: int, grouped: bool) -> None:
        if resamples < 1 or not 0 < level < 1:
            raise ValueError(f"At least 1 resample and a level in 0..1 are needed. Received: {resamples} and {level}.")
        self.level, self.resamples, self.seed, self.grouped = level, resamples, seed, grouped

    def as_dict(self, units: int) -> dict[str, Any]:
        """Return the words for a result from so many groups or images."""
        unit = "group" if self.grouped else "image"
        single = units == 1
        method = f"none (one {unit} only)" if single else f"percentile bootstrap over {unit}s"
        proportions = method if self.grouped else "Wilson"
        return {
            "level": self.level,
            "method": method,
            "proportions": proportions,
            "resamples": 0 if single else self.resamples,
            "seed": self.seed,
        }


def _curves(
    labels: np.ndarray, probabilities: np.ndarray, names: list[str], positive: str | None, units: np.ndarray, how: _How
) -> dict[str, Any]:
    """Return curves, sensitivity_at and decision_curve: of the positive class, or of each against the rest."""
    shown = [names.index(positive)] if positive else list(range(len(names)))
    sweeps = [sweep(labels == index, probabilities[:, index], units) for index in shown]
    sample = _resampled_curves(sweeps, units, how, decisions=positive is not None) if units[-1] else None
    result: dict[str, Any] = {"curves": {}, "sensitivity_at": {}, "decision_curve": None}
    for place, (index, images) in enumerate(zip(shown, sweeps, strict=True)):
        drawn = {} if sample is None else sample[place]
        counts = count(images, np.ones(int(units[-1]) + 1))
        share = float(counts.true[-1] / len(labels))
        result["curves"][names[index]] = {
            "roc": roc_points(images, counts)
            | {
                "area": percentile(roc_area(counts), drawn.get("roc"), how.level),
                "band": _band(sensitivity_along(_one(counts), RATES)[0], drawn.get("along"), how.level),
            },
            "precision_recall": precision_recall_points(counts)
            | {
                "area": percentile(average_precision(counts), drawn.get("precision_recall"), how.level),
                "prevalence": share,
            },
        }
        found = sensitivity_at(_one(counts), SPECIFICITIES)[0]
        result["sensitivity_at"][names[index]] = [
            {
                "specificity": float(specificity),
                "threshold": None if np.isnan(value) else threshold_at(images, counts, specificity),
                "sensitivity": percentile(value, drawn["at"][:, column] if drawn else None, how.level),
            }
            for column, (specificity, value) in enumerate(zip(SPECIFICITIES, found, strict=True))
        ]
        if positive:
            benefit = net_benefit(images, _one(counts), DECISIONS)[0]
            low, high = _limits(benefit, drawn.get("benefit"), how.level)
            everyone = share - (1 - share) * DECISIONS / (1 - DECISIONS)
            result["decision_curve"] = {
                "threshold": DECISIONS.tolist(),
                "model": benefit.tolist(),
                "model_low": low,
                "model_high": high,
                "all": everyone.tolist(),
                "none": 0,
            }
    return result


def _one(counts: Counts) -> Counts:
    return Counts(counts.true[None], counts.false[None])


def _resampled_curves(
    sweeps: list[Sweep], units: np.ndarray, how: _How, *, decisions: bool
) -> list[dict[str, np.ndarray]]:
    """Return, for each class, what the curves are in each resample: (B,) or (B, G), NaN where undefined."""
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in sweeps]
    for weights in resampled(int(units[-1]) + 1, how.resamples, how.seed, len(units)):
        for images, part in zip(sweeps, parts, strict=True):
            counts = count(images, weights)
            found = {
                "roc": roc_area(counts),
                "precision_recall": average_precision(counts),
                "at": sensitivity_at(counts, SPECIFICITIES),
                "along": sensitivity_along(counts, RATES),
            }
            part.append(found | ({"benefit": net_benefit(images, counts, DECISIONS)} if decisions else {}))
    return [{key: np.concatenate([found[key] for found in part]) for key in part[0]} for part in parts]


def _limits(values: np.ndarray, sample: np.ndarray | None, level: float) -> tuple[list | None, list | None]:
    """Return the percentiles at each of G places, widened to hold the values; `sample` is (B, G)."""
    defined = None if sample is None else sample[~np.isnan(sample).any(axis=1)]
    if defined is None or not len(defined) or np.isnan(values).any():
        return None, None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.minimum(low, values).tolist(), np.maximum(high, values).tolist()


def _band(values: np.ndarray, sample: np.ndarray | None, level: float) -> dict[str, list] | None:
    low, high = _limits(values, sample, level)
    return None if low is None or high is None else {"false_positive_rate": RATES.tolist(), "low": low, "high": high}


def _at_threshold(
    labels: np.ndarray,
    probabilities: np.ndarray,
    own: int,
    threshold: Threshold | float,
    units: np.ndarray,
    how: _How,
) -> dict[str, Any]:
    """Return the scores of two classes where the positive one is called from a threshold on."""
    chosen = threshold if isinstance(threshold, Threshold) else Threshold(float(threshold))
    if not np.isfinite(chosen.value):
        raise ValueError(f"A threshold is a finite number. Received: {chosen.value}.")
    predicted = np.where(probabilities[:, own] >= chosen.value, own, 1 - own)
    confusion = confusion_matrix(labels, predicted, 2)
    tallies = np.zeros((int(units[-1]) + 1, 4))
    np.add.at(tallies, (units, 2 * labels + predicted), 1)
    parts = [
        _two_class_scores((weights @ tallies).reshape(-1, 2, 2), own)
        for weights in resampled(len(tallies), how.resamples if len(tallies) > 1 else 0, how.seed)
    ]
    found = {
        key: percentile(value, np.concatenate([part[key] for part in parts]) if parts else None, how.level)
        for key, value in _two_class_scores(confusion, own).items()
    }
    if not how.grouped:
        hits, support = np.diagonal(confusion), confusion.sum(axis=1)
        found["sensitivity"] = _wilson(hits[own], support[own], how.level)
        found["specificity"] = _wilson(hits[1 - own], support[1 - own], how.level)
        found["accuracy"] = _wilson(hits.sum(), support.sum(), how.level)
    return {
        "value": chosen.value,
        "rule": chosen.rule,
        "chosen_on": chosen.chosen_on,
        **found,
        "confusion_matrix": confusion.tolist(),
    }


def _two_class_scores(confusion: np.ndarray, own: int) -> dict[str, np.ndarray]:
    """Return the scores of one matrix or many; NaN where a class that a score is about does not occur."""
    hits, support = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1)
    recall = ratio(hits.astype(np.float64), support)
    both = scores(confusion)
    return {
        "sensitivity": recall[..., own],
        "specificity": recall[..., 1 - own],
        "accuracy": both["accuracy"],
        "balanced_accuracy": both["balanced_accuracy"],
    }


def _wilson(hits: int, total: int, level: float) -> Interval:
    return wilson(int(hits), int(total), level)


def _subjects(
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: list[str],
    groups: Sequence[str],
    positive: str | None,
    how: _How,
) -> dict[str, Any]:
    """Pool the images of each group whose images have one label; the others are counted as mixed."""
    labels, probabilities, units = in_order(labels, probabilities, groups)
    number = int(units[-1]) + 1
    by_label = np.zeros((number, len(names)), dtype=np.int64)
    np.add.at(by_label, (units, labels), 1)
    predicted = probabilities.argmax(axis=1)
    answers = np.zeros((number, len(names)), dtype=np.int64)
    np.add.at(answers, (units, predicted), 1)
    votes = np.zeros((number, len(names)))
    np.add.at(votes, (units,), probabilities)
    images = by_label.sum(axis=1)
    votes /= images[:, None]
    kept = np.flatnonzero((by_label > 0).sum(axis=1) == 1)
    truth, soft = by_label.argmax(axis=1), votes.argmax(axis=1)
    ordered = sorted(set(groups))
    rows = []
    for index in kept.tolist():
        right = float(answers[index, truth[index]] / images[index])
        rows.append(
            {
                "group": ordered[index],
                "label": names[truth[index]],
                "images": int(images[index]),
                "share": float(answers[index, names.index(positive)] / images[index]) if positive else right,
                "vote": {name: float(vote) for name, vote in zip(names, votes[index], strict=True)},
                "predicted": names[soft[index]],
                "accuracy": right,
            }
        )
    hits = int((truth[kept] == soft[kept]).sum())
    return {
        "count": len(kept),
        "mixed": number - len(kept),
        "accuracy": _wilson(hits, len(kept), how.level),
        "confusion_matrix": confusion_matrix(truth[kept], soft[kept], len(names)).tolist(),
        "roc_auc": _subject_area(truth[kept], votes[kept], names, positive, how),
        "rows": rows,
    }


def _subject_area(
    truth: np.ndarray, votes: np.ndarray, names: list[str], positive: str | None, how: _How
) -> dict[str, Any]:
    """Return the ROC area of the pooled probabilities, with its bootstrap over subjects."""
    if not len(truth):
        return percentile(np.nan, None)
    order = np.lexsort((*votes.T, truth))
    truth, votes = truth[order], votes[order]
    draws = resampled(len(truth), how.resamples if len(truth) > 1 else 0, how.seed)
    if positive == names[0]:
        truth, votes = 1 - truth, votes[:, ::-1]
    parts = [roc_auc(truth, votes, weights) for weights in draws]
    return percentile(roc_auc(truth, votes), np.concatenate(parts) if parts else None, how.level)


def _strings(column: str, values: Sequence[str], images: int) -> list[str]:
    if len(values) != images:
        raise ValueError(f"A stratum has a value for each of {images} images. Received: {len(values)} of {column!r}.")
    return [str(value) or NO_VALUE for value in values]


def _strata(
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: list[str],
    groups: Sequence[str] | None,
    values: list[str],
    how: _How,
) -> list[dict[str, Any]]:
    """Score the images of each value alone."""
    rows = []
    places = numbered(values, len(values))
    for place, value in enumerate(sorted(set(values))):
        inside = np.flatnonzero(places == place)
        found = evaluate_predictions(
            labels[inside],
            probabilities[inside],
            names,
            groups=None if groups is None else [groups[index] for index in inside.tolist()],
            resamples=how.resamples,
            level=how.level,
            seed=how.seed,
        )
        confusion = np.array(found["confusion_matrix"])
        hits, support = np.diagonal(confusion), confusion.sum(axis=1)
        recall = {name: found["per_class"][name]["recall"] for name in names}
        if not how.grouped:
            found["accuracy"] = _wilson(hits.sum(), support.sum(), how.level)
            recall = {name: _wilson(hits[index], support[index], how.level) for index, name in enumerate(names)}
        recall = {name: recall[name] if support[index] else wilson(0, 0) for index, name in enumerate(names)}
        rows.append(
            {
                "value": value,
                "images": found["images"],
                "groups": found["groups"],
                "accuracy": found["accuracy"],
                "balanced_accuracy": found["balanced_accuracy"],
                "roc_auc": found["roc_auc"],
                "recall": recall,
                "interval": how.as_dict(found["groups"] if how.grouped else found["images"])["method"],
            }
        )
    return rows
