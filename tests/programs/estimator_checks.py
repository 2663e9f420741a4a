"""scikit-learn's checks of the estimator, in a process of their own; prints them as JSON."""

import json

import numpy as np

from customcnn.estimator import ImageClassifier
from customcnn.plots import curves


class OnTables(ImageClassifier):
    """The estimator on tables of any width and range, which the checks feed: a row is a strip of grey squares.

    For the tests alone: that numbers of any kind are pixels is not a claim to make. All else is the estimator's own.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array = False, True
        return tags

    def _from_table(self, table, *, reset):
        if reset:
            self._low, self._high = float(table.min()), float(table.max())
        spread = self._high - self._low or 1.0
        return np.rint(255 * np.clip((table - self._low) / spread, 0, 1)).astype(np.uint8)[:, None]


def main() -> None:
    """Run every check and print what became of it."""
    from sklearn.utils.estimator_checks import check_estimator

    # The pictures of the curves are not what is checked, and take half of the time.
    curves.plot_curves = lambda *args, **kwargs: None
    estimator = OnTables(
        "one-conv",
        input_size=4,
        epochs=6,
        batch_size=16,
        learning_rate=0.02,
        recipe={"optimizer": "adam", "precision": "float32"},
        random_state=0,
    )
    done = check_estimator(estimator, on_fail=None, on_skip=None)
    rows = [{"name": row["check_name"], "status": row["status"], "why": repr(row["exception"])} for row in done]
    print("CHECKS", json.dumps(rows))


if __name__ == "__main__":
    main()
