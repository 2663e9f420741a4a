"""Exports in the format ONNX: read, and computed by ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.files import worker_count
from customcnn.runtime import KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ERRORS = 3
"""The level of ONNX Runtime's log that lets errors through, and no warnings."""


class Exported:
    """A network that was exported as ONNX, see `customcnn.runtime.Exported`.

    Args:
        path: the .onnx file.

    Raises:
        Exception: of any kind, for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS
        # Its own choice is the machine's cores, not those that this process may use.
        options.intra_op_num_threads = worker_count(None)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.metadata: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map[KEY])

    def compile(self, images: int) -> Exported:
        """Return itself: it was compiled when it was read."""
        return self

    def __call__(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the network's output for every batch, in order.

        Args:
            batches: uint8 (N, H, W, 3) at the input size, RGB.

        Yields:
            float32 (N, classes), or (N, 1) for one sigmoid output.
        """
        name = self._session.get_inputs()[0].name
        for batch in batches:
            (found,) = self._session.run(None, {name: np.ascontiguousarray(batch)})
            yield found
