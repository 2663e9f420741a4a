"""What the libraries share that are ready once a file is read, and compute one batch after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np


class InTurn(ABC):
    """The calls of a `customcnn.inference.runtimes.Exported`, from `compute`."""

    def compile(self, images: int) -> Self:
        """Return itself: there is nothing left to compile."""
        return self

    def __call__(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield `compute` of every batch, in order."""
        return map(self.compute, batches)

    @abstractmethod
    def compute(self, batch: np.ndarray) -> np.ndarray:
        """Return the network's output for one batch.

        Args:
            batch: uint8 (N, H, W, 3) at the input size, RGB.

        Returns:
            float32 (N, classes), or (N, 1) for one sigmoid output.
        """
