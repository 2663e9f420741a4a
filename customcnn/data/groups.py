"""The group of every image: how a CSV names images and groups, and which names are known."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from customcnn.data.names import composed
from customcnn.data.tables import read_rows
from customcnn.errors import CustomCNNError, show, show_names

GROUP_PATTERNS = {"cnmc": r"(?:^|/)UID_(H?\d+)_\d+_\d+_(?:all|hem)\b"}
"""Patterns by name. `cnmc`: the subject in `UID_<subject>_<image>_<cell>_<class>.bmp`, as in C-NMC 2019."""


def group_key(group: str) -> str:
    """Return what two spellings of one group have in common: `H3`, `h3`, `H3 ` and a full-width `Ｈ3` are one subject.

    Characters that take no room, such as the zero-width spaces of spreadsheets and web pages, do not count.
    """
    seen = "".join(char for char in unicodedata.normalize("NFKC", group) if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFKC", seen.strip().casefold())


def unify(groups: Iterable[str]) -> list[str]:
    """Return the groups with one spelling each: the first one, without spaces around it; "" stays unknown."""
    first = {"": ""}
    return [first.setdefault(group_key(group), group.strip()) for group in groups]


def read_groups(path: Path, images: Sequence[Sequence[str]]) -> list[str]:
    """Read the groups of images from a CSV with the columns path and group.

    An image is looked for by its path as it is. Where that is not listed, the path of a row may also have folders of
    one place in front (`/data/cells/all/1.bmp`, `C:\\cells\\all\\1.bmp`), backslashes, or decomposed Unicode letters.

    Args:
        path: the CSV; see `customcnn.data.tables.read_rows`.
        images: for each image the paths that it may be listed under, with forward slashes, the likeliest first.

    Returns:
        The group of each image, in one spelling each; "" where it is not listed.

    Raises:
        CustomCNNError: as by `read_rows`, or an image has two groups.
    """
    listed = read_rows(path, ("path", "group"))
    groups: dict[str, str] = {}
    for row, group in zip(listed, unify(row["group"] for row in listed), strict=True):
        if groups.setdefault(row["path"], group) != group:
            raise _two_groups(path, row["path"])
    found = [next((groups[name] for name in names if groups.get(name)), "") for names in images]
    missing = {composed(name) for names, group in zip(images, found, strict=True) if not group for name in names}
    if missing:
        tails = _tails(path, groups, missing)
        found = [
            group or next((tails[key] for name in names if (key := composed(name)) in tails), "")
            for names, group in zip(images, found, strict=True)
        ]
    if not any(found):
        raise CustomCNNError(
            f"A groups file lists every image. Received: {show(path)}, which lists {show_names(groups) or 'none'}, "
            f"where the images are {show_names(names[0] for names in images)}. "
            "Write the paths as they are below that folder."
        )
    return found


def _tails(path: Path, groups: Mapping[str, str], wanted: set[str]) -> dict[str, str]:
    """Return the groups by those of the wanted paths with which a row's path ends, all below one folder."""
    tails: dict[str, str] = {}
    places = set()
    for name, group in groups.items():
        steps = composed(name).replace("\\", "/").split("/")
        for i in range(len(steps)):
            tail = "/".join(steps[i:])
            if tail in wanted:
                places.add("/".join(steps[:i]))
                if tails.setdefault(tail, group) != group:
                    raise _two_groups(path, tail)
                break
    # Of two folders with files of the same names, a row of the one would be taken for an image of the other.
    return tails if len(places - {"", "."}) < 2 else {}


def _two_groups(path: Path, name: str) -> CustomCNNError:
    return CustomCNNError(f"An image has one group. Received: {show(path)}, which gives {show(name)} two of them.")
