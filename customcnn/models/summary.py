"""A network layer by layer: as plain data, and as a table of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import keras


def summarize(model: keras.Model) -> dict[str, Any]:
    """Describe a built functional model as plain data, ready for JSON.

    Args:
        model: with one input; the layers of every output are listed.

    Returns:
        model (its name), input ([height, width, channels]), parameters, trainable and non_trainable (numbers of
        weights), and layers, in order and without the input: a list of {name, kind, output, parameters}, where
        output is the shape without the batch, [H, W, C] or [features].
    """
    return {
        "model": model.name,
        "input": list(model.input_shape[1:]),
        "parameters": _count(model.weights),
        "trainable": _count(model.trainable_weights),
        "non_trainable": _count(model.non_trainable_weights),
        "layers": [
            {
                "name": layer.name,
                "kind": type(layer).__name__,
                "output": list(layer.output.shape[1:]),
                "parameters": _count(layer.weights),
            }
            for layer in model.layers
            if type(layer).__name__ != "InputLayer"
        ],
    }


def render_summary(summary: dict[str, Any]) -> str:
    """Lay a summary out as an aligned table.

    Args:
        summary: what `summarize` returns.

    Returns:
        Lines of text: the input, one line a layer, the totals. No newline at the end.
    """
    rows = [("layer", "kind", "output", "parameters")]
    rows += [
        (layer["name"], layer["kind"], _shape(layer["output"]), f"{layer['parameters']:,}")
        for layer in summary["layers"]
    ]
    names, kinds, outputs, numbers = (max(map(len, column)) for column in zip(*rows, strict=True))
    table = [f"{a:<{names}}  {b:<{kinds}}  {c:<{outputs}}  {d:>{numbers}}" for a, b, c, d in rows]
    table.insert(1, "-" * len(table[0]))
    totals = [
        f"{summary['parameters']:,} parameters: "
        f"{summary['trainable']:,} trainable, {summary['non_trainable']:,} non-trainable"
    ]
    return "\n".join([f"{summary['model']}, input {_shape(summary['input'])}", "", *table, "", *totals])


def _count(weights: Iterable[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _shape(sides: list[int | None]) -> str:
    return " x ".join("?" if side is None else str(side) for side in sides)
