"""The format onnx: one file for ONNX Runtime and whatever else reads ONNX."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.export.tf_function import serving
from customcnn.inference.runtimes import BATCH, KEY
from customcnn.inference.runtimes.onnx import load_onnxruntime
from customcnn.io.stdio import silent_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from customcnn.export import Job

OPSET = 17
"""The version of ONNX that is written: what ONNX Runtime reads from 1.12 on."""

LEARNED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""The operations that have weights, and nearly all the work."""

QUANTIZED = (*LEARNED, "Add", "Mul", "Concat", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Pad")
"""What is computed in int8. Others that only move values, such as Reshape, follow what they move."""

SMALL = 1024
"""Weights of fewer values stay float32: biases, and what batch normalisation became."""


def write(job: Job, target: Path) -> None:
    """Write the file; the metadata are the entry "customcnn" of its metadata_props."""
    import onnx

    with silent_stderr():
        converted = _converted(job)
        if job.precision == "float16":
            halve(converted)
        if job.precision == "int8":
            converted = _quantized(converted, job.images)
    onnx.helper.set_model_props(converted, {KEY: json.dumps(job.metadata)})
    onnx.checker.check_model(converted)
    onnx.save_model(converted, target)


def _converted(job: Job) -> onnx.ModelProto:
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)  # it tells of every step
    function = serving(job.model)
    model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=OPSET)
    return model


def halve(model: onnx.ModelProto) -> None:
    """Store the large weights in float16, in place; ONNX Runtime makes float32 of them when it reads the file.

    To compute in float16, too, would be slower on a CPU, which has no such kernels, and would overflow where a network
    takes pixels of 0..255 unscaled.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        # Beyond the range of float16 nothing is gained, all is lost.
        if values.dtype != np.float32 or values.size < SMALL or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _quantized(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    import onnx

    load_onnxruntime()
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save_model(model, folder / "float32.onnx")
        quantization.quant_pre_process(folder / "float32.onnx", folder / "ready.onnx", skip_symbolic_shape=True)
        quantization.quantize_static(
            folder / "ready.onnx",
            folder / "int8.onnx",
            _Reader(model.graph.input[0].name, images),
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=outside(onnx.load_model(folder / "ready.onnx").graph),
            per_channel=True,
            # Seven bits a weight: with eight, processors without VNNI instructions overflow in between.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load_model(folder / "int8.onnx")


def outside(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes before the first and behind the last operation that has weights.

    Before them pixels are scaled, behind them logits become probabilities, and those of several networks one: there is
    little to compute, and eight bits are too few for it.
    """
    makers = {name: node.name for node in graph.node for name in node.output}
    learned = {node.name for node in graph.node if node.op_type in LEARNED}
    before = {node.name: {makers[name] for name in node.input if name in makers} for node in graph.node}
    after: dict[str, set[str]] = {node.name: set() for node in graph.node}
    for name, sources in before.items():
        for source in sources:
            after[source].add(name)
    inside = _reached(learned, after) & _reached(learned, before)
    return [node.name for node in graph.node if node.name not in inside]


def _reached(start: set[str], edges: dict[str, set[str]]) -> set[str]:
    found, waiting = set(start), list(start)
    while waiting:
        new = edges[waiting.pop()] - found
        found |= new
        waiting += new
    return found


class _Reader:
    """Gives the images batch by batch, as the quantization asks for them."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._batches: Iterator[dict[str, Any]] = (
            {name: images[start : start + BATCH]} for start in range(0, len(images), BATCH)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)
