"""The scores of a run for another positive class, computed anew from its predictions: nothing is trained or scored."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from customcnn.errors import CustomCNNError, show
from customcnn.metrics.clinical import clinical
from customcnn.metrics.scores import positive_scores
from customcnn.metrics.validation import check_classes
from customcnn.report.run_facts import RunFacts

RESAMPLES = 2000
"""Of the bootstrap where metrics.json does not say how many it had."""


def with_positive(found: RunFacts, positive: str, say: Callable[[str], object]) -> RunFacts:
    """Return what a run holds, with sensitivity, specificity and the clinical figures of another positive class.

    A threshold is left out: it was chosen for the other class, on images that predictions.csv does not hold.

    Args:
        found: the run.
        positive: one of its two classes.
        say: receives the note about the threshold.

    Raises:
        CustomCNNError: it is none of two classes, or predictions.csv is not that of metrics.json.
    """
    check_classes(found.info.classes if found.metrics is None else found.metrics["classes"], positive)
    if found.metrics is None:
        return replace(found, info=replace(found.info, positive=positive))
    metrics: dict[str, Any] = {**found.metrics, "positive": positive}
    metrics["positive_class"] = positive_scores(metrics["per_class"], positive)
    if known := metrics.get("clinical"):
        if known.get("threshold"):
            say("Note: the threshold was chosen for the other class; evaluate with the same --positive to choose one.")
        metrics["clinical"] = {**_clinical(found, positive), "strata": known.get("strata") or {}}
    return replace(found, metrics=metrics)


def _clinical(found: RunFacts, positive: str) -> dict[str, Any]:
    metrics, rows = found.metrics or {}, found.predictions
    classes, how = list(metrics["classes"]), metrics.get("interval") or {}
    try:
        labels = np.array([classes.index(row["label"]) for row in rows])
        probabilities = np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows])
        groups = [row["group"] for row in rows]
    except (KeyError, ValueError) as error:
        raise CustomCNNError(
            f"predictions.csv and metrics.json are those of one evaluation. Received: {show(found.run.path)} "
            f"({type(error).__name__}: {show(str(error))}). Evaluate it again."
        ) from None
    return clinical(
        labels,
        probabilities,
        classes,
        groups=groups if all(groups) else None,
        positive=positive,
        resamples=how.get("resamples") or RESAMPLES,
        seed=how.get("seed", 0),
    )
