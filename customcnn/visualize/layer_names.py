"""Which layers to show: by name or by pattern."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from customcnn.errors import CustomCNNError, show, show_all
from customcnn.explain.gradcam import cam_layers
from customcnn.explain.graph import steps


def matching(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the names that are one of the patterns or fit one, in their own order; all of them for no pattern."""
    return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]


def require_layers(model: Any, patterns: Sequence[str]) -> None:
    """Refuse a pattern that fits no layer with maps.

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
                f"{show(pattern)}, which fits none of {show(model.name)}. Near are {show_all(near)}."
            )
