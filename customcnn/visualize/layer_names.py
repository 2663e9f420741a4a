"""Which layers to show: by name or by pattern."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from customcnn.errors import CustomCNNError, show, show_names
from customcnn.explain.gradcam import cam_layers
from customcnn.explain.graph import steps
from customcnn.visualize.activations import STYLES, is_drawn
from customcnn.visualize.filters import kernels


def matching(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the names that are one of the patterns or fit one, in their own order; all of them for no pattern."""
    return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]


def drawn_layers(model: Any, kind: str, style: str = STYLES[0]) -> list[str]:
    """Return the names of the layers that a kind of picture can show; none for a kind that takes no layers.

    Args:
        model: a functional keras model.
        kind: of `customcnn.visualize.KINDS`.
        style: of the activation maps.
    """
    if kind in ("gradcam", "gradcam++"):
        return cam_layers(model)
    if kind == "filters":
        return [kernel.name for kernel in kernels(model)]
    if kind not in ("activations", "exciting"):
        return []
    style = style if kind == "activations" else STYLES[0]
    return [step.name for step in steps(model) if step.has_maps and is_drawn(step.operation, style)]


def require_layers(
    model: Any, patterns: Sequence[str], kinds: Sequence[str] = (), asked: Sequence[str] = (), style: str = STYLES[0]
) -> None:
    """Refuse a pattern that fits no layer with maps, and one with which there is nothing to draw.

    Args:
        model: a functional keras model.
        patterns: names of layers, or patterns of them.
        kinds: what is shown: each pattern fits a layer of one of them.
        asked: those that were named: each of them has a layer that fits.
        style: of the activation maps.

    Raises:
        CustomCNNError: there is one.
    """
    names = [step.name for step in steps(model) if step.has_maps]
    known = list(dict.fromkeys([*names, *cam_layers(model)]))
    for pattern in patterns:
        if not matching([pattern], known):
            near = get_close_matches(pattern, known, n=3) or known[-3:]
            raise CustomCNNError(
                f"--layers names layers with feature maps, or gives a pattern such as 'conv*'. Received: "
                f"{show(pattern)}, which fits none of {show(model.name)}. Near are {show_names(near)}."
            )
    drawn = {kind: found for kind in kinds if (found := drawn_layers(model, kind, style))}
    for pattern in patterns if drawn else ():
        if not any(matching([pattern], found) for found in drawn.values()):
            _refuse(model, [pattern], drawn, style)
    for kind in [kind for kind in asked if patterns and kind in drawn]:
        if not matching(patterns, drawn[kind]):
            _refuse(model, patterns, {kind: drawn[kind]}, style)


def _refuse(model: Any, patterns: Sequence[str], drawn: dict[str, list[str]], style: str) -> None:
    other = "activations" in drawn and style != "figure-21"
    way = "--style figure-21, which draws every layer with maps, or " if other else ""
    raise CustomCNNError(
        f"--layers names layers that --what {' or '.join(drawn)} draws. Received: {show_names(patterns)}, which fits "
        f"none of {show(model.name)}. Use {way}a layer such as {show(next(iter(drawn.values()))[0])}."
    )
