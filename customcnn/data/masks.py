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

MASK_NAME = re.compile(r"(.+?)[-_ .](?:masks?|seg|segmentation|gt|ground_?truth)", re.IGNORECASE)
MASK_FOLDERS = {"mask", "masks", "segmentation", "segmentations", "gt", "groundtruth", "annotation", "annotations"}


def find_masks(root: Folder, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Find masks among images.

    A mask is called like its picture with `_mask` or the like behind; or like its picture, with another suffix and few
    colours (only such pairs are opened); or it lies in a folder called masks or the like, all of whose files are called
    like those of another class.

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
            if (match := MASK_NAME.fullmatch(stem)) and match[1] in by_stem:
                found |= dict.fromkeys(alike, _reason(by_stem[match[1]][0]))
            pairs += [(name, other) for name in alike for other in alike if name != other]
    pairs = [pair for pair in pairs if pair[0] not in found]
    masks = on_files(partial(_is_mask, root), pairs, None, reads=lambda pair: root / pair[0])
    found |= {name: _reason(other) for (name, other), is_one in zip(pairs, masks, strict=True) if is_one}
    for folder in folders:
        if re.sub(r"[\W_]", "", folder.rpartition("/")[2]).lower() in MASK_FOLDERS:
            found |= _as_another(folder, paths)
    return sorted(found.items())


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0].lower()


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
    pictures = {match[1] if (match := MASK_NAME.fullmatch(stem)) else stem for stem in beside.pop(folder)}
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
