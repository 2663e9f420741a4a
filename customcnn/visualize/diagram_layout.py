"""From a network to a drawing's plan: what is drawn as one box, what repeats, and where each box stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from customcnn.explain.graph import Step, cuts, is_graph, steps

SMALL = {
    "BatchNormalization": "BN",
    "LayerNormalization": "layer norm",
    "GroupNormalization": "group norm",
    "Normalization": "normalise",
    "ReLU": "ReLU",
    "LeakyReLU": "leaky ReLU",
    "PReLU": "PReLU",
    "Rescaling": "scale",
    "Dropout": "dropout",
    "SpatialDropout2D": "dropout",
    "LayerScale": "layer scale",
    "StochasticDepth": "stochastic depth",
    "GaussianNoise": "noise",
    "ZeroPadding2D": "",
    "Identity": "",
    "Reshape": "",
    "Flip": "colours reversed",
    "Flatten": "flatten",
    "Cropping2D": "cut out the centre",
    "Resizing": "resize",
    "HardSwish": "hard swish",
    "HardSigmoid": "hard sigmoid",
    "Silu": "swish",
    "Gelu": "GELU",
    "Softmax": "softmax",
    "Clip": "",
}
"""Layers that are written into the box of the layer before or behind them."""

ACTIVATIONS = {
    "relu": "ReLU", "relu6": "ReLU", "silu": "swish", "swish": "swish", "gelu": "GELU", "hard_silu": "hard swish",
    "hard_swish": "hard swish", "hard_sigmoid": "hard sigmoid", "linear": "",
}  # fmt: skip
MERGES = {"Add": "+", "Multiply": "×", "Concatenate": "concat", "Average": "mean", "Maximum": "max", "Subtract": "-"}


@dataclass
class Box:
    """What is drawn as one box.

    Attributes:
        kind: "input", "conv", "pool", "merge", "dense", "model" or "other".
        words: what it is.
        before, extras: what stands over and under that: normalisation, activation and so on.
        parents: the places of the boxes whose outputs it takes.
        shape: of its output, without the batch.
        weights: how many.
        row, lane: where it stands inside its unit; lanes are counted from 0.
    """

    kind: str
    words: str
    before: list[str]
    extras: list[str]
    parents: list[int]
    shape: tuple[int | None, ...]
    weights: int
    row: int = 0
    lane: int = 0


@dataclass
class Edge:
    """A line between two boxes of a unit; -1 is the box before the unit. It keeps to one lane between its ends."""

    source: int
    target: int
    lane: int


@dataclass
class Unit:
    """A piece of the network between two boxes that every way passes: a chain's box, or branches with what joins them.

    Attributes:
        boxes: the last is the one that every way passes.
        edges: between them; numbers are places in `boxes`.
        rows, lanes: how many the unit takes.
        times: how often it repeats, one behind the other.
        members: how many units repeat together; 0 in those behind the first of them.
    """

    boxes: list[Box]
    edges: list[Edge] = field(default_factory=list)
    rows: int = 1
    lanes: int = 1
    times: int = 1
    members: int = 1


def plan(model: Any) -> list[Unit]:
    """Return the units of a network in order, repeated ones once.

    Args:
        model: a functional keras model; a model inside it is one box.
    """
    boxes = _boxes(steps(model, inside=False))
    spine = cuts([box.parents for box in boxes])
    units, before = [], -1
    for place in spine:
        units.append(_unit(boxes[before + 1 : place + 1], before + 1))
        before = place
    return _repeated(units)


# ---------------------------------------------------------------- boxes


def _boxes(found: Sequence[Step]) -> list[Box]:
    """Return one box for every layer that counts; the others are written into the box before or behind them."""
    counted: set[int] = set()
    boxes = [_box(step, _count(step, counted)) for step in found]
    children: list[list[int]] = [[] for _ in boxes]
    for place, box in enumerate(boxes):
        for parent in box.parents:
            children[parent].append(place)
    into = list(range(len(boxes)))
    for place, (step, box) in enumerate(zip(found, boxes, strict=True)):
        # Backwards, into the box before, where that leads nowhere else.
        if _is_small(step) and len(box.parents) == 1 and len(children[box.parents[0]]) == 1:
            target = into[box.parents[0]]
            if boxes[target].kind != "input" and not _belongs_behind(step, boxes[target]):
                _join(boxes[target], box, behind=True)
                boxes[target].shape = boxes[target].shape if step.kind == "ZeroPadding2D" else box.shape
                into[place] = target
    for place in reversed(range(len(boxes))):
        # Forwards, where a chain begins with small layers: the normalisation before a convolution.
        step, box = found[place], boxes[place]
        if into[place] != place or not _is_small(step):
            continue
        ends = [child for last in range(len(boxes)) if into[last] == place for child in children[last]]
        outside = [child for child in ends if into[child] != place]
        if len(outside) == 1 and len(boxes[into[outside[0]]].parents) == 1:
            target = into[outside[0]]
            _join(boxes[target], box, behind=False)
            boxes[target].parents = box.parents
            into = [target if owner == place else owner for owner in into]
    return _renumbered(boxes, into)


def _renumbered(boxes: list[Box], into: list[int]) -> list[Box]:
    kept = sorted(set(into))
    number = {old: new for new, old in enumerate(kept)}
    for old in kept:
        boxes[old].parents = [number[into[parent]] for parent in boxes[old].parents]
    return [boxes[old] for old in kept]


def _join(box: Box, small: Box, *, behind: bool) -> None:
    words = [*small.before, *([small.words] if small.words else []), *small.extras]
    if behind:
        box.extras += words
    else:
        box.before = words + box.before
    box.weights += small.weights


def _is_small(step: Step) -> bool:
    return step.kind in SMALL or step.kind == "Activation"


def _belongs_behind(step: Step, box: Box) -> bool:
    """Tell whether a small layer behind a merge goes with the layer that follows it: so that equal merges repeat."""
    return box.kind == "merge" and (box.words == MERGES["Concatenate"] or "Norm" in step.kind)


def _count(step: Step, counted: set[int]) -> int:
    if id(step.operation) in counted:
        return 0
    counted.add(id(step.operation))
    return sum(math.prod(weight.shape) for weight in getattr(step.operation, "weights", ()))


def _box(step: Step, weights: int) -> Box:
    kind, words, extras = _described(step)
    return Box(kind, words, [], extras, list(step.parents), step.shape, weights)


def _described(step: Step) -> tuple[str, str, list[str]]:
    """Return a step's kind, its words, and the activation that is part of it."""
    layer, name = step.operation, step.kind
    activation = _activation(layer)
    extras = [activation] if activation else []
    if name == "InputLayer":
        return "input", "image", []
    if name == "Activation":
        return "other", activation, []
    if name in MERGES:
        return "merge", MERGES[name], extras
    if name in SMALL:
        return "other", SMALL[name], []
    if is_graph(layer):
        return "model", "local response norm" if layer.name.startswith("lrn") else layer.name, []
    if name == "Dense":
        return "dense", f"dense {layer.units}", extras
    if hasattr(layer, "kernel_size") and "Conv" in name:
        return "conv", _convolution(layer, name), extras
    if name.startswith("Global"):
        return "pool", f"global {'max' if 'Max' in name else 'average'}", []
    if hasattr(layer, "pool_size"):
        return "pool", f"{'max' if 'Max' in name else 'average'} {_window(layer.pool_size)}{_stride(layer)}", []
    return "other", _spaced(name), extras


def _spaced(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() and place else letter for place, letter in enumerate(name))


def _activation(layer: Any) -> str:
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", "") if function is not None else ""
    return ACTIVATIONS.get(name, name)


def _convolution(layer: Any, name: str) -> str:
    if name == "DepthwiseConv2D":
        words = f"{_window(layer.kernel_size)} depthwise"
    elif name == "SeparableConv2D":
        words = f"{_window(layer.kernel_size)} separable, {layer.filters}"
    elif getattr(layer, "groups", 1) > 1:
        each = layer.groups == layer.filters
        words = f"{_window(layer.kernel_size)} depthwise" if each else f"{_window(layer.kernel_size)} grouped"
        words += "" if each else f", {layer.filters}"
    else:
        words = f"{_window(layer.kernel_size)} conv, {layer.filters}"
    return words + _stride(layer)


def _window(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))


def _stride(layer: Any) -> str:
    stride = layer.strides if isinstance(layer.strides, tuple) else (layer.strides,)
    return f" /{stride[0]}" if max(stride) > 1 else ""


# ---------------------------------------------------------------- where they stand


def _unit(boxes: list[Box], first: int) -> Unit:
    """Lay out the boxes of a unit: rows by the longest way, lanes so that no line passes through a box."""
    sources = [[max(parent - first, -1) for parent in box.parents] for box in boxes]
    for box, before in zip(boxes, sources, strict=True):
        box.row = 1 + max((boxes[parent].row if parent >= 0 else -1 for parent in before), default=-1)
    lanes = _place_boxes(boxes, sources)
    taken = {(box.row, box.lane) for box in boxes[:-1]}
    edges: list[Edge] = []
    for place, (box, before) in enumerate(zip(boxes, sources, strict=True)):
        for parent in before:
            above = boxes[parent].row if parent >= 0 else -1
            between = range(above + 1, box.row)
            lane = _free(taken, between, boxes[parent].lane if parent >= 0 else lanes) if between else 0
            taken |= {(row, lane) for row in between}
            edges.append(Edge(parent, place, lane))
    lanes = 1 + max((lane for _, lane in taken), default=0)
    return Unit(boxes, edges, boxes[-1].row + 1, lanes)


def _place_boxes(boxes: list[Box], sources: list[list[int]]) -> int:
    """Give each box a lane: the first child goes on in its parent's, another one gets a new one. Return how many."""
    lanes, goes_on = 0, set()
    for place, (box, before) in enumerate(zip(boxes[:-1], sources, strict=False)):
        parent = before[0] if before else -1
        if parent >= 0 and (len(before) > 1 or parent not in goes_on):
            box.lane = boxes[parent].lane
            goes_on.add(parent)
        else:
            # Boxes come branch by branch, so branches stand in their order and no lane is used twice.
            box.lane, lanes = lanes, lanes + 1
        if any((other.row, other.lane) == (box.row, box.lane) for other in boxes[:place]):
            box.lane, lanes = lanes, lanes + 1
    return lanes


def _free(taken: set[tuple[int, int]], rows: range, wanted: int) -> int:
    """Return the lane nearest to the wanted one that is free in all rows; to its right where two are as near."""
    lanes = sorted(range(wanted + len(taken) + 2), key=lambda lane: (abs(lane - wanted), -lane))
    return next(lane for lane in lanes if not any((row, lane) in taken for row in rows))


# ---------------------------------------------------------------- repetition


def _signature(unit: Unit) -> tuple[Any, ...]:
    """Return what makes two units look the same; behind a concatenation the number of channels grows."""
    boxes = tuple((box.words, *box.before, *box.extras, box.row, box.lane) for box in unit.boxes)
    edges = tuple((edge.source, edge.target, edge.lane) for edge in unit.edges)
    shape = unit.boxes[-1].shape
    return boxes, edges, shape[:2] if len(shape) == 3 else shape


def _repeated(units: list[Unit], longest: int = 4) -> list[Unit]:
    """Return the units with runs of equal ones, or of equal short sequences, taken together."""
    signatures = [_signature(unit) for unit in units]
    kept: list[Unit] = []
    place = 0
    while place < len(units):
        best, times = 1, 1
        for length in range(1, longest + 1):
            count = _run(signatures, place, length)
            if count > 1 and (count - 1) * length > (times - 1) * best:
                best, times = length, count
        chosen = units[place : place + best]
        for offset, unit in enumerate(chosen):
            same = units[place + offset : place + best * times : best]
            unit.times, unit.members = times, best if not offset else 0
            for number, box in enumerate(unit.boxes):
                box.weights = sum(one.boxes[number].weights for one in same)
            unit.boxes[-1].shape = same[-1].boxes[-1].shape
        kept += chosen
        place += best * times
    return kept


def _run(signatures: Sequence[tuple[Any, ...]], place: int, length: int) -> int:
    """Return how often the `length` units from a place on stand there one behind the other."""
    first = signatures[place : place + length]
    if len(first) < length:
        return 0
    count = 1
    while signatures[place + count * length : place + (count + 1) * length] == first:
        count += 1
    return count
