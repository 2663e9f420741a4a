"""A list of predictions that shows itself: as lines of text, as a table with pictures in a notebook, as rows of CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np

from customcnn.errors import show
from customcnn.explain.explanation import picture_html
from customcnn.html.page import Html, escape
from customcnn.inference.decision import Prediction
from customcnn.io.atomic import write_text
from customcnn.runs.run_dir import rows_to_csv

PICTURES = 24
"""Up to so many predictions show their images, too."""

ROWS = 60
"""A table in a notebook has so many rows at most."""

EDGE = 64
"""The least height of a picture in a table, in CSS pixels."""


class Predictions(list[Prediction]):
    """The predictions of several images, in their order.

    Args:
        found: the predictions.
        pictures: uint8 (H, W, 3) of each image as the network took it; empty where there are too many to show.
        notes: the warnings that belong beside every answer; or a function that returns them, asked when they are shown.
        skipped: (name, reason) of what is no image, and has no prediction.
    """

    def __init__(
        self,
        found: Iterable[Prediction] = (),
        pictures: Sequence[np.ndarray] = (),
        notes: Sequence[str] | Callable[[], Sequence[str]] = (),
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(found)
        self.pictures = list(pictures)
        self._notes = notes
        self.skipped = list(skipped)

    @property
    def notes(self) -> list[str]:
        """The warnings that belong beside every answer."""
        self._notes = list(self._notes() if callable(self._notes) else self._notes)
        return self._notes

    def __reduce__(self) -> tuple[Any, ...]:
        return Predictions, (list(self), self.pictures, self.notes, self.skipped)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> "Predictions": ...
    def __getitem__(self, index: Any) -> Any:
        """Return one prediction; of a slice, predictions with their pictures."""
        found = super().__getitem__(index)
        return Predictions(found, self.pictures[index], self._notes) if isinstance(index, slice) else found

    def to_rows(self) -> list[dict[str, object]]:
        """Return one dictionary an image, see `as_row`: what `pandas.DataFrame` takes."""
        return [as_row(prediction) for prediction in self]

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as CSV; with a path, write them there, whole or not at all."""
        text = rows_to_csv(self.to_rows())
        if path is not None:
            write_text(Path(path), text)
        return text

    def __repr__(self) -> str:
        return "\n".join(map(as_line, self)) if self else "no predictions"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the pictures if they are few, labels, probabilities, notes."""
        shown = self[:ROWS]
        pictures = shown.pictures if len(self) <= PICTURES and len(self.pictures) == len(self) else []
        classes = list(self[0].probabilities) if self else []
        head = ["image"] * bool(pictures) + ["file", "label", *classes, ""]
        rows = [_row(prediction, pictures[place] if pictures else None) for place, prediction in enumerate(shown)]
        parts = [f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>", *rows]
        left = len(self) - len(shown)
        under = [f"and {left:,} more"] * bool(left) + [f"Warning: {note}" for note in self.notes]
        return f"<table>{''.join(parts)}</table>" + "".join(f"<p>{escape(line)}</p>" for line in under)


def as_row(prediction: Prediction) -> dict[str, object]:
    """Return a prediction as a row of CSV; what a calibration adds only where there is one."""
    row: dict[str, object] = {"file": prediction.file, "label": prediction.label}
    row |= {f"probability_{label}": value for label, value in prediction.probabilities.items()}
    if prediction.classes is not None:
        row |= {f"set_{label}": int(label in prediction.classes) for label in prediction.probabilities}
        row["sure"] = int(bool(prediction.sure))
    if prediction.novelty is not None:
        row |= {"novelty": prediction.novelty, "novel": int(bool(prediction.novel))}
    return row


def as_line(prediction: Prediction) -> str:
    """Return a prediction as one line of text."""
    shares = "  ".join(f"{_field(label)} {value:.3f}" for label, value in prediction.probabilities.items())
    line = f"{_field(prediction.file)}  {_field(prediction.label)}  ({shares})"
    return "  ".join([line, *_doubts(prediction)])


def _doubts(prediction: Prediction) -> list[str]:
    found = []
    if prediction.sure is False:
        names = " or ".join(map(_field, prediction.classes or ()))
        found.append(f"not sure: {names or 'no class fits'}")
    if prediction.novel:
        found.append(f"does not look like the training images (novelty {prediction.novelty:.1f})")
    return found


def _field(name: str) -> str:
    # As the CSV would quote it, so that a name with a newline stays on its line.
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([name])
    return text.getvalue() if name.isprintable() else show(name)


def _row(prediction: Prediction, picture: np.ndarray | None) -> str:
    cells = [] if picture is None else [picture_html(picture, prediction.file, EDGE)]
    cells += [escape(prediction.file), Html(f"<b>{escape(prediction.label)}</b>")]
    cells += [escape(f"{share:.3f}") for share in prediction.probabilities.values()]
    cells.append(escape("; ".join(_doubts(prediction))))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
