"""Exports for LiteRT (TensorFlow Lite): read, and computed on the CPU."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.files import worker_count
from customcnn.runtime import KEY
from customcnn.runtime.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

INFO = f"{KEY}.json"
"""The entry with the metadata in the ZIP archive behind the network: where TensorFlow Lite's associated files are."""


class Exported:
    """A network that was exported for LiteRT, see `customcnn.runtime.Exported`.

    Args:
        path: the .tflite file.

    Raises:
        Exception: of any kind, for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        # First of all: the archive stands at the end, and LiteRT would read past the end of a file that lost it.
        with zipfile.ZipFile(path) as archive:
            self.metadata: dict[str, Any] = json.loads(archive.read(INFO))
        with quiet():  # it says which kernels it takes
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(str(path), num_threads=worker_count(None))
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shape: tuple[int, ...] = ()

    def compile(self, images: int) -> Exported:
        """Return itself: it is compiled for each new shape of a batch."""
        return self

    def __call__(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the network's output for every batch, in order.

        Args:
            batches: uint8 (N, H, W, 3) at the input size, RGB.

        Yields:
            float32 (N, classes), or (N, 1) for one sigmoid output.
        """
        for batch in batches:
            if batch.shape != self._shape:
                with quiet():
                    self._interpreter.resize_tensor_input(self._input, batch.shape)
                    self._interpreter.allocate_tensors()
                self._shape = batch.shape
            self._interpreter.set_tensor(self._input, batch)
            self._interpreter.invoke()
            yield self._interpreter.get_tensor(self._output)
