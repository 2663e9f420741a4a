"""Inference with OpenVINO from an exported network: neither Keras nor its backend is loaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.errors import CustomCNNError, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import openvino

KEY = "customcnn"
"""Where the metadata stand in an export's rt_info: one text, JSON."""

BATCH = 16
"""Images in one request: enough for the kernels' full speed, few enough that decoding and inference overlap."""


def export_path(network: Path) -> Path:
    """Return where the export of a .keras file lies: best.openvino.xml beside best.keras, and a .bin of that name."""
    return network.with_name(f"{network.stem}.openvino.xml")


def is_installed() -> bool:
    """Tell whether OpenVINO can be imported, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def digest(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; it is read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StaleExport(CustomCNNError):
    """There is no export that can be used: it is missing, damaged, or of another network."""


class Exported:
    """An exported network, checked against its .keras file and ready to be compiled.

    Args:
        network: the .keras file.

    Attributes:
        metadata: what `customcnn.export` wrote: the fields of `ModelInfo` but for the history, and `sha256`;
            `calibration` only where there is one.

    Raises:
        StaleExport: no export, a damaged one, or one of another network than the file holds now.
        CustomCNNError: OpenVINO is not installed.
    """

    def __init__(self, network: Path) -> None:
        path = export_path(network)
        if not is_installed():
            raise CustomCNNError(
                "An export needs OpenVINO. Received: it is not installed. "
                "Install it: pip install 'customcnn[openvino]'."
            )
        again = f"Export it again: customcnn export {show(network.parent)}."
        if not (path.is_file() and path.with_suffix(".bin").is_file()):
            raise StaleExport(
                f"An export is best.openvino.xml with its .bin. Received: {show(path)} is missing. {again}"
            )
        import openvino

        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(path)
            self.metadata: dict[str, Any] = json.loads(self._model.get_rt_info([KEY]).astype(str))
            made_from = self.metadata["sha256"]
        except Exception as error:  # OpenVINO raises RuntimeError for all that a damaged file can hold
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
            raise StaleExport(f"An export is whole. Received: {show(path)} ({reason}). {again}") from None
        if made_from != digest(network):
            raise StaleExport(
                f"An export belongs to the network beside it. Received: {show(path)}, "
                f"made from another {network.name}. {again}"
            )

    def compile(self, images: int, *, bfloat16: bool = False) -> Network:
        """Compile for this machine.

        Args:
            images: about how many will come; for a few the cores share one image, for more each has its own.
            bfloat16: compute in bfloat16 where the processor multiplies it: about twice as fast, but a probability
                may then be off by more than .01. Else in float32.
        """
        fast = bfloat16 and "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
            "PERFORMANCE_HINT": "LATENCY" if images <= BATCH else "THROUGHPUT",
        }
        return Network(self._core.compile_model(self._model, "CPU", options))


class Network:
    """A compiled network that computes several batches at a time."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        # One more than there are streams: the next batch waits ready when one ends.
        self._requests = [compiled.create_infer_request() for _ in range(count + 1)]

    def __call__(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the network's output for every batch, in order.

        Args:
            batches: uint8 (N, H, W, 3) at the input size, RGB; the next one is taken while earlier ones are computed.

        Yields:
            float32 (N, classes), or (N, 1) for one sigmoid output.
        """
        free, busy = deque(self._requests), deque[Any]()
        try:
            for batch in batches:
                if not free:
                    yield self._result(busy, free)
                request = free.popleft()
                request.start_async([np.ascontiguousarray(batch)])
                busy.append(request)
            while busy:
                yield self._result(busy, free)
        finally:
            for request in busy:
                request.wait()

    @staticmethod
    def _result(busy: deque[Any], free: deque[Any]) -> np.ndarray:
        request = busy.popleft()
        request.wait()
        found = request.get_output_tensor(0).data.copy()
        free.append(request)
        return found
