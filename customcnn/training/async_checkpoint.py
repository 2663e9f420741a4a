"""Save a network while its training goes on: what it is at the moment is copied, and a thread writes the copy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from customcnn.runs.saved_model import ModelInfo, load_model, save_model

if TYPE_CHECKING:
    import keras

LARGE = 4_000_000
"""Weights from which on a thread saves: fewer are written in less time than their copy takes to be made."""


class Checkpointer:
    """Save a network and its optimizer again and again to one file, each time whole or not at all.

    The first time the training waits. From then on a large network has a copy in memory, compiled and with an optimizer
    of its own: saving puts the present values into it, which takes as long as copying them, and a thread writes the
    file. One save at a time is at work; the next waits for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copy: keras.Model | None = None
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(self, model: keras.Model, info: ModelInfo, then: Callable[[], object], *, again: bool) -> None:
        """Save the values that a network and its optimizer have now.

        Args:
            model: compiled, always the same one.
            info: what the file carries beside them.
            then: is called when the file is there, by the thread where one writes.
            again: whether more saves may follow.

        Raises:
            CustomCNNError, OSError: this save failed, or the one before it.
        """
        self.wait()
        if self._copy is None:
            _write(model, info, self.path, then)
            if again and model.count_params() >= LARGE:
                self._copy = load_model(self.path, whole=True)
            return
        _copy_values(model, self._copy)
        self._pending = self._writer.submit(_write, self._copy, info, self.path, then)

    def wait(self) -> None:
        """Wait until the last save is whole, and raise what stopped it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()


def _write(model: keras.Model, info: ModelInfo, path: Path, then: Callable[[], object]) -> None:
    save_model(model, info, path)
    then()


def _copy_values(model: keras.Model, copy: keras.Model) -> None:
    import keras

    pairs = [*zip(model.variables, copy.variables, strict=True)]
    pairs += zip(model.optimizer.variables, copy.optimizer.variables, strict=True)
    for value, target in pairs:
        # A copy, for the next step on JAX gives the memory of the old values away.
        target.assign(keras.ops.copy(value))
