"""What a network's probabilities mean: the class, and from its calibration the set of classes and the novelty."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from customcnn.metrics.conformal import Conformal
from customcnn.metrics.out_of_distribution import Novelty
from customcnn.runs.saved_model import ModelInfo


@dataclass(frozen=True)
class Prediction:
    """One image's class and its probabilities by class name.

    The other attributes are None where the network is not calibrated, see `customcnn.evaluation.calibrate`.

    Attributes:
        file: the image.
        label: the class with the largest probability.
        probabilities: by class name, 0..1.
        classes: the set of classes that holds the true one with the promised probability; it may be empty.
        sure: whether that set is exactly one class.
        novelty: how far the image lies from those of the calibration: 1 is typical.
        novel: whether that is beyond the limit: the image looks like none of them, and the rest means nothing.
    """

    file: str
    label: str
    probabilities: dict[str, float]
    classes: list[str] | None = None
    sure: bool | None = None
    novelty: float | None = None
    novel: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, ready for JSON; the set of classes is `set` there."""
        named = {("set" if key == "classes" else key): value for key, value in vars(self).items()}
        return {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True)
class Judge:
    """What a network's calibration makes of its probabilities.

    Attributes:
        classes: the class names.
        sets: how sets of classes are made; None where the network is not calibrated.
        novelty: what is usual; None where that is not known.
    """

    classes: list[str]
    sets: Conformal | None = None
    novelty: Novelty | None = None

    @classmethod
    def of(cls, info: ModelInfo) -> "Judge":
        """Return the judge for what a saved network carries."""
        stored = info.calibration or {}
        sets, novelty = stored.get("sets"), stored.get("novelty")
        return cls(
            info.classes,
            sets and Conformal.from_dict(sets),
            novelty and Novelty.from_dict(novelty),
        )

    def look(self, image: np.ndarray) -> float | None:
        """Return the novelty of an image, uint8 (H, W, 3), at the input size."""
        return float(self.novelty.scores(image[None])[0]) if self.novelty else None

    def judge(self, file: str, shares: np.ndarray, novelty: float | None = None) -> Prediction:
        """Return the prediction of one image from its probabilities (C,)."""
        chosen = sure = None
        if self.sets:
            inside = self.sets.sets(shares[None])[0]
            chosen = [label for label, within in zip(self.classes, inside, strict=True) if within]
            sure = len(chosen) == 1
        by_class = {label: float(value) for label, value in zip(self.classes, shares, strict=True)}
        novel = None if novelty is None or self.novelty is None else novelty > self.novelty.limit
        return Prediction(file, self.classes[int(shares.argmax())], by_class, chosen, sure, novelty, novel)
