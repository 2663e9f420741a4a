"""The graph of a network: every call of a layer, what it takes, and from which part of the image a value comes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Span = tuple[int, int]
"""First and last row (or column)."""

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; bottom and right are the first ones outside."""

PASSING = ("Pooling2D", "Padding2D", "Cropping2D", "Dropout")
"""Ends of the names of layers that find nothing themselves."""


@dataclass(frozen=True)
class Step:
    """One call of a layer or of another operation.

    Attributes:
        name: of the layer; inside a model inside the model `outer/inner`; of a second call `name:2`.
        operation: the keras layer or operation.
        parents: the places in the list of steps whose outputs it takes.
        shape: of its output without the batch, (H, W, C) or (D,).
        tensor: its output in the graph that it belongs to.
    """

    name: str
    operation: Any
    parents: tuple[int, ...]
    shape: tuple[int | None, ...]
    tensor: Any

    @property
    def kind(self) -> str:
        """The class of its layer or operation."""
        return type(self.operation).__name__

    @property
    def has_maps(self) -> bool:
        """Whether its output has four axes: batch, height, width, channels."""
        return len(self.shape) == 3


def is_graph(layer: Any) -> bool:
    """Tell whether a layer is a model with a graph of its own."""
    import keras

    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def steps(model: Any, *, inside: bool = True) -> list[Step]:
    """Return every step of a functional model, each behind all that it takes; branch by branch.

    Args:
        model: a functional keras model.
        inside: go into models inside the model; else each of them is one step.
    """
    found: list[Step] = []
    _add(found, model, "", None, inside)
    return found


def _add(found: list[Step], model: Any, prefix: str, sources: Sequence[int] | None, inside: bool) -> list[int]:
    """Append the steps of a model that takes the outputs of the steps `sources`; return the places of its outputs."""
    places = {} if sources is None else dict(zip(map(id, model.inputs), sources, strict=True))
    for node in _nodes(model.outputs):
        if all(id(tensor) in places for tensor in node.outputs):
            continue  # an input of a model inside the model
        layer = node.operation
        parents = [places[id(tensor)] for tensor in node.input_tensors]
        if inside and is_graph(layer):
            outputs = _add(found, layer, f"{prefix}{layer.name}/", parents, inside)
        else:
            shape = tuple(node.outputs[0].shape[1:])
            found.append(Step(_name(found, prefix + layer.name), layer, tuple(parents), shape, node.outputs[0]))
            outputs = [len(found) - 1] * len(node.outputs)
        places.update(zip(map(id, node.outputs), outputs, strict=True))
    return [places[id(tensor)] for tensor in model.outputs]


def _name(found: Sequence[Step], name: str) -> str:
    uses = sum(step.name == name or step.name.startswith(f"{name}:") for step in found)
    return f"{name}:{uses + 1}" if uses else name


def _nodes(outputs: Sequence[Any]) -> Iterator[Any]:
    """Yield the calls that make the outputs, each behind what it takes. Not recursive: networks are deep."""
    done: set[int] = set()
    waiting = [(tensor, False) for tensor in reversed(outputs)]
    while waiting:
        tensor, ready = waiting.pop()
        # Keras has no public way from a tensor to the call that made it; its own graphs are built by this one.
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            yield node
            continue
        waiting.append((tensor, True))
        waiting.extend((parent, False) for parent in reversed(node.input_tensors))


def spine(found: Sequence[Step]) -> list[int]:
    """Return the places of the steps that every way from the image to the output passes, in order."""
    return cuts([step.parents for step in found])


def cuts(parents: Sequence[Sequence[int]]) -> list[int]:
    """Return the places that every way through a graph passes, given what each place takes: only places before it."""
    last = list(range(len(parents)))  # the last place that takes this one's output
    for place, taken in enumerate(parents):
        for parent in taken:
            last[parent] = place
    found, reach = [], 0
    for place in range(len(parents)):
        if reach <= place:
            found.append(place)
        reach = max(reach, last[place])
    return found


def depths(model: Any, count: int = 3) -> list[str]:
    """Return the names of layers at different depths: the last maps of each resolution that all ways pass, in order.

    Args:
        model: a functional keras model.
        count: how many at most, the deepest ones; maps below 2x2 are left out.
    """
    found = steps(model, inside=False)
    first = next((place for place, step in enumerate(found) if "Conv" in step.kind), len(found))
    last: dict[tuple[int | None, ...], str] = {}
    for step in (found[place] for place in spine(found) if place >= first):
        is_layer = hasattr(step.operation, "weights")
        passing = step.kind.endswith(PASSING)
        if step.has_maps and is_layer and not passing and min(_sides(step)) >= 2:
            last[step.shape[:2]] = step.name
    return list(last.values())[-count:]


def _sides(step: Step) -> tuple[int, int]:
    height, width = step.shape[:2]
    return height or 0, width or 0


def receptive_field(found: Sequence[Step], place: int, row: int, column: int, *, clip: bool = True) -> Box:
    """Return the part of the image that one value of a layer depends on, as far as convolutions and poolings carry.

    What comes from the whole image, as the gates of squeeze-and-excitation do, is left out.

    Args:
        found: from `steps`, of a model with one input of fixed size.
        place: of the step with maps.
        row, column: of the value in its maps.
        clip: leave out what lies outside the image, or was cut away from it.

    Raises:
        ValueError: the step has no maps.
    """
    if not found[place].has_maps:
        raise ValueError(f"A receptive field belongs to a value of a map. Received: {found[place].name}, without maps.")
    spans: dict[int, tuple[Span, Span]] = {place: ((row, row), (column, column))}
    image = next(number for number, step in enumerate(found) if not step.parents)
    for number in range(place, -1, -1):
        if number not in spans:
            continue
        for parent in found[number].parents:
            reached = _reach(found[number], found[parent], spans[number], clip)
            if reached:
                known = spans.get(parent, reached)
                spans[parent] = (_union(known[0], reached[0]), _union(known[1], reached[1]))
    (top, bottom), (left, right) = spans[image]
    return top, left, bottom + 1, right + 1


def _union(one: Span, other: Span) -> Span:
    return min(one[0], other[0]), max(one[1], other[1])


def _reach(step: Step, parent: Step, spans: tuple[Span, Span], clip: bool) -> tuple[Span, Span] | None:
    """Return the rows and columns of the parent's output that a step needs; None for what has no place."""
    if not parent.has_maps:
        return None
    sizes = _sides(parent)
    if not step.has_maps or (max(_sides(step)) == 1 and max(sizes) > 1 and not hasattr(step.operation, "strides")):
        return (0, sizes[0] - 1), (0, sizes[1] - 1)
    if max(sizes) == 1 and max(_sides(step)) > 1:
        return None  # a gate
    first, second = (_along(step, axis, sizes[axis], _sides(step)[axis], spans[axis], clip) for axis in (0, 1))
    return first, second


def _along(step: Step, axis: int, size: int, own: int, span: Span, clip: bool) -> Span:
    """Return the span of one axis of the parent, `size` long, that a span of the step's output, `own` long, needs."""
    layer, (low, high) = step.operation, span
    window = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    if window and own <= size:
        stride = layer.strides[axis] if isinstance(layer.strides, tuple) else layer.strides
        dilation = getattr(layer, "dilation_rate", 1)
        dilation = dilation[axis] if isinstance(dilation, tuple) else dilation
        width = (window[axis] - 1) * dilation + 1
        before = max((own - 1) * stride + width - size, 0) // 2 if layer.padding == "same" else 0
        low, high = low * stride - before, high * stride - before + width - 1
    elif step.kind == "ZeroPadding2D":
        low, high = low - layer.padding[axis][0], high - layer.padding[axis][0]
    elif step.kind == "Cropping2D":
        low, high = low + layer.cropping[axis][0], high + layer.cropping[axis][0]
    elif own != size:  # resized
        low, high = int(low * size / own), int((high + 1) * size / own - 1e-9)
    return (min(max(low, 0), size - 1), min(max(high, 0), size - 1)) if clip else (low, high)


def place_map(found: Sequence[Step], place: int, heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lay a map of a layer over the image: each value where the middle of its receptive field is.

    To stretch the map over the image instead would move it: convolutions without padding lose the image's border, and
    poolings of odd sizes shift. Between the middles it is interpolated; what the layer does not see is 0.

    Args:
        found: from `steps`, of a model with one input of fixed size.
        place: of the step with maps.
        heat: float (h, w), of the step's height and width.
        size: height and width of the image.

    Returns:
        float32 (H, W).
    """
    laid = heat.astype(np.float64)
    corners = ((0, 0), (heat.shape[0] - 1, heat.shape[1] - 1))
    fields = [receptive_field(found, place, *corner, clip=False) for corner in corners]
    inside = [receptive_field(found, place, *corner) for corner in corners]
    for axis, count in enumerate(heat.shape):
        middle, final = ((box[axis] + box[axis + 2]) / 2 for box in fields)
        step = (final - middle) / (count - 1) if count > 1 else 1.0
        where = (np.arange(size[axis]) + 0.5 - middle) / max(step, 1e-9)
        low = np.clip(np.floor(where), 0, count - 1).astype(int)
        share = np.clip(where - low, 0, 1)
        high = np.minimum(low + 1, count - 1)
        pixel = np.arange(size[axis])
        seen = (pixel >= inside[0][axis]) & (pixel < inside[1][axis + 2])
        # The last value is laid as far as its cell reaches, half a step, and fades over a further step.
        beyond = np.maximum(np.maximum(-where, where - (count - 1)), 0)
        faded = seen * np.clip(1.5 - beyond, 0, 1)
        lower, upper = (np.expand_dims(part * faded, 1 - axis) for part in (1 - share, share))
        laid = np.take(laid, low, axis=axis) * lower + np.take(laid, high, axis=axis) * upper
    return laid.astype(np.float32)
