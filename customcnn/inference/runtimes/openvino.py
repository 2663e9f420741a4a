"""Exports for OpenVINO: read, and computed on the CPU."""

from __future__ import annotations

import json
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.inference.runtimes import BATCH, KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import openvino


def load_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    `import openvino` and every conversion post to google-analytics.com, and leave an identifier in ~/intel. Where the
    package that sends cannot be imported, OpenVINO does without it.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # import raises ModuleNotFoundError
    import openvino

    return openvino


class Exported:
    """A network that was exported for OpenVINO, see `customcnn.inference.runtimes.Exported`.

    Args:
        path: the .xml file; the .bin lies beside it.

    Raises:
        Exception: of any kind, for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self._core = load_openvino().Core()
        self._model = self._core.read_model(path)
        self.metadata: dict[str, Any] = json.loads(self._model.get_rt_info([KEY]).astype(str))

    def compile(self, images: int, *, bfloat16: bool = False) -> Compiled:
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
        return Compiled(self._core.compile_model(self._model, "CPU", options))


class Compiled:
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
