"""What labels, probabilities and class names must be before anything is scored."""

from collections.abc import Sequence

import numpy as np

from customcnn.errors import CustomCNNError, show, show_names

ROW_SUM_TOLERANCE = 0.02
"""The probabilities of an image sum to 1 but for this: a softmax computed in bfloat16 is off by that much."""


POSITIVE = {frozenset({"all", "hem"}): "all"}
"""The positive class of known names: of C-NMC's classes the cancerous cells, `all`, not the healthy ones, `hem`."""


def check_indexes(values: np.ndarray, classes: int) -> np.ndarray:
    """Return class indexes as int64 (N,).

    Raises:
        ValueError: they are no whole numbers in 0..classes - 1, or have another shape.
    """
    values = np.asarray(values)
    whole = values.dtype.kind in "iu" and bool(((values >= 0) & (values < classes)).all())
    if values.ndim != 1 or (values.size and not whole):
        raise ValueError(f"Class indexes are whole numbers in 0..{classes - 1}, shape (N,). Received: {values!r}.")
    return values.astype(np.int64)


def check_rows(labels: np.ndarray, rows: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int64 (N,) and a finite row of numbers for each as float64 (N, C).

    Raises:
        CustomCNNError: no images, or a number that is not finite.
        ValueError: shapes or values that do not belong together.
    """
    labels, rows = check_indexes(labels, classes), np.asarray(rows, dtype=np.float64)
    if not len(labels):
        raise CustomCNNError("Scores need at least one image. Received: 0 images. Name a folder or part that has some.")
    if rows.shape != (len(labels), classes):
        raise ValueError(f"Probabilities are ({len(labels)}, {classes}). Received: {rows.shape}.")
    require_finite(rows)
    return labels, rows


def require_finite(rows: np.ndarray) -> None:
    """Refuse probabilities (N, C) that are no finite numbers.

    Raises:
        CustomCNNError: a number is NaN or infinite.
    """
    if bad := int((~np.isfinite(rows)).any(axis=1).sum()):
        raise CustomCNNError(
            f"Probabilities are finite numbers. Received: NaN or infinite ones for {bad:,} of {len(rows):,} images. "
            "The network has diverged: train it again with a lower learning rate."
        )


def check_probabilities(labels: np.ndarray, probabilities: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int64 (N,) and probabilities as float64 (N, C), once they are fit to be scored.

    Raises:
        CustomCNNError: as `check_rows`.
        ValueError: as `check_rows`; or a probability is below 0, or a row does not sum to 1.
    """
    labels, probabilities = check_rows(labels, probabilities, classes)
    off = float(np.abs(probabilities.sum(axis=1) - 1).max())
    if off > ROW_SUM_TOLERANCE or probabilities.min() < 0:
        raise ValueError(f"Rows are at least 0 and sum to 1. Received: {probabilities.min():g}, a sum off by {off:g}.")
    return labels, probabilities


def check_classes(classes: Sequence[str], positive: str | None) -> tuple[list[str], str | None]:
    """Return the class names, and of two the positive one: that of `default_positive` where none is named.

    Raises:
        CustomCNNError: a positive class that is none of two.
        ValueError: fewer than two names, or one twice.
    """
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise ValueError(f"Two or more different class names are needed. Received: {show_names(classes)}.")
    if positive is not None and (len(classes) > 2 or positive not in classes):
        raise CustomCNNError(
            f"A positive class is one of two classes. Received: {show(positive)}, and the classes "
            f"{show_names(classes)}. Name one of two, or leave it out."
        )
    return list(classes), positive or default_positive(classes) or None


def default_positive(classes: Sequence[str]) -> str:
    """Return the positive class of two where none is named: that of `POSITIVE`, else the second; "" of more than two.

    Args:
        classes: the class names, in the order of the network; upper and lower case are the same to `POSITIVE`.
    """
    if len(classes) != 2:
        return ""
    known = POSITIVE.get(frozenset(name.casefold() for name in classes))
    return next((name for name in classes if name.casefold() == known), classes[1])


def others_of(positive: str, classes: Sequence[str]) -> str:
    """Return the class of two that is not the positive one: its recall is the specificity."""
    return next(name for name in classes if name != positive)
