"""Masks that data sets for segmentation lay beside their pictures: they are no images of a class."""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import groupby

from customcnn.errors import show
from customcnn.images.decode import BadImage, read_image, to_rgb
from customcnn.io.parallel import on_files
from customcnn.io.remote_path import Folder

FEW_COLORS = 16
"""A mask has a colour for each of a few regions; a photograph has hundreds."""

_WORD = (
    r"(?:(?:(?:cell|cp|instance|binary)[-_ .]?)?masks?|seg|segmentations?|gt|ground_?truth|labels?|binary"
    r"|annotations?|instances?|pred|predictions?)"
)
MASK_NAME = re.compile(
    rf"(?:(.+?)[-_ .]{_WORD}(?:[-_ .]?\d+)?|{_WORD}[-_ .](.+)|(.+?)masks?)",
    re.IGNORECASE,
)
"""The name of a mask; one of its groups is the name of its picture. `NAME_cp_masks` is Cellpose's."""

MASK_FOLDER = re.compile(r".*mask.*|seg|segmentations?|gt|groundtruth|labels?|binary|annotations?|instances?")
"""What a folder of masks is called, in lower case, without signs between the words."""


def find_masks(root: Folder, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Find masks among images.

    A mask is called like its picture with `_mask` or the like behind or before; or like its picture, with another
    suffix and few colours (only such pairs are opened); or it lies in a folder called masks or the like, all of whose
    files are called like those of another class.

    Args:
        root: the folder of the images.
        paths: of the images, relative to it, sorted.

    Returns:
        (path, reason) of every mask, sorted.
    """
    found: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    folders = []
    for folder, inside in groupby(paths, lambda path: path.rpartition("/")[0]):
        folders.append(folder)
        names = [*inside]
        stems = [_stem(name) for name in names]
        if len({*stems}) == len(stems) and not any(map(MASK_NAME.fullmatch, stems)):
            continue  # as nearly always, and millions of names need no more memory
        by_stem: dict[str, list[str]] = defaultdict(list)
        for stem, name in zip(stems, names, strict=True):
            by_stem[stem].append(name)
        for stem, alike in by_stem.items():
            if (picture := _picture(stem)) in by_stem and picture != stem:
                found |= dict.fromkeys(alike, _reason(by_stem[picture][0]))
            pairs += [(name, other) for name in alike for other in alike if name != other]
    pairs = [pair for pair in pairs if pair[0] not in found]
    masks = on_files(partial(_is_mask, root), pairs, None, reads=lambda pair: root / pair[0])
    found |= {name: _reason(other) for (name, other), is_one in zip(pairs, masks, strict=True) if is_one}
    for folder in folders:
        if MASK_FOLDER.fullmatch(re.sub(r"[\W_]", "", folder.rpartition("/")[2]).lower()):
            found |= _as_another(folder, paths)
    return sorted(found.items())


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0].lower()


def _picture(stem: str) -> str:
    """Return the name of the picture that a mask of this name is of; the name itself where it is none of a mask."""
    match = MASK_NAME.fullmatch(stem)
    return next(filter(None, match.groups())) if match else stem


def _reason(picture: str) -> str:
    return f"a mask of {show(picture.rpartition('/')[2])}"


def _as_another(folder: str, paths: Sequence[str]) -> dict[str, str]:
    """Return the files of a folder, with the reason, where they are called like those of a folder beside it."""
    parent = folder.rpartition("/")[0]
    beside: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        place = path.rpartition("/")[0]
        if place.rpartition("/")[0] == parent:
            beside[place].add(_stem(path))
    pictures = {_picture(stem) for stem in beside.pop(folder)}
    for other, stems in beside.items():
        if pictures <= stems:
            reason = f"a mask: the images in {show(other)} have the same names"
            return dict.fromkeys((path for path in paths if path.rpartition("/")[0] == folder), reason)
    return {}


def _is_mask(root: Folder, pair: tuple[str, str]) -> bool:
    name, other = pair
    return _has_few_colors(root / name) and not _has_few_colors(root / other)


def _has_few_colors(path: Folder) -> bool:
    try:
        return to_rgb(read_image(path)).getcolors(FEW_COLORS) is not None
    except BadImage:  # named where it is used
        return False
