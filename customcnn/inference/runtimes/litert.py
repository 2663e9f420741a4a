"""Exports for LiteRT (TensorFlow Lite): read, and computed on the CPU."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

from customcnn.inference.runtimes import KEY
from customcnn.inference.runtimes.sequential import InTurn
from customcnn.io.parallel import worker_count
from customcnn.io.stdio import silent_stderr

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

INFO = f"{KEY}.json"
"""The entry with the metadata in the ZIP archive behind the network: where TensorFlow Lite's associated files are."""

MAX_INFO = 16_000_000
"""Bytes that it has at most: a class name takes some ten, what `customcnn calibrate` adds some hundred thousand."""


class Exported(InTurn):
    """A network that was exported for LiteRT, see `customcnn.inference.runtimes.Exported`.

    Args:
        path: the .tflite file.

    Raises:
        Exception: of any kind, for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        # First of all: the archive stands at the end, and LiteRT would read past the end of a file that lost it.
        with zipfile.ZipFile(path) as archive:
            if (size := archive.getinfo(INFO).file_size) > MAX_INFO:
                raise ValueError(f"its {INFO} would unpack to {size:,} bytes")
            self.metadata: dict[str, Any] = json.loads(archive.read(INFO))
        with silent_stderr():  # it says which kernels it takes
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(str(path), num_threads=worker_count(None))
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shape: tuple[int, ...] = ()

    def compute(self, batch: np.ndarray) -> np.ndarray:
        """Return the network's output for one batch, see `InTurn`."""
        if batch.shape != self._shape:
            with silent_stderr():
                self._interpreter.resize_tensor_input(self._input, batch.shape)
                self._interpreter.allocate_tensors()
            self._shape = batch.shape
        self._interpreter.set_tensor(self._input, batch)
        self._interpreter.invoke()
        found: np.ndarray = self._interpreter.get_tensor(self._output)
        return found
