"""Exports in the format ONNX: read, and computed by ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.inference.runtimes import KEY
from customcnn.inference.runtimes.sequential import InTurn
from customcnn.io.parallel import worker_count

if TYPE_CHECKING:
    from pathlib import Path

ERRORS = 3
"""The level of ONNX Runtime's log that lets errors through, and no warnings."""


def load_onnxruntime() -> Any:
    """Import ONNX Runtime without its telemetry: a look-up of Microsoft's host, an identifier in ~/.cache/Microsoft."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


class Exported(InTurn):
    """A network that was exported as ONNX, see `customcnn.inference.runtimes.Exported`.

    Args:
        path: the .onnx file.

    Raises:
        Exception: of any kind, for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        onnxruntime = load_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS
        # Its own choice is the machine's cores, not those that this process may use.
        options.intra_op_num_threads = worker_count(None)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.metadata: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map[KEY])

    def compute(self, batch: np.ndarray) -> np.ndarray:
        """Return the network's output for one batch, see `InTurn`."""
        found: np.ndarray
        (found,) = self._session.run(None, {self._input: np.ascontiguousarray(batch)})
        return found
