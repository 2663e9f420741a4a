"""How large images are: read from their headers, without decoding them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from PIL import Image

from customcnn.errors import listed, show
from customcnn.images.decode import FORMATS
from customcnn.io.remote_path import Address, Folder

SAMPLED = 1_000
"""So many images of a folder are looked at, at most: a range needs no more."""

MARGIN = 1.1
"""A side beyond the range of the training images by more than this factor is plainly another size."""


def size_of(file: Folder | IO[bytes]) -> tuple[int, int] | None:
    """Return width and height of an image file in pixels; None where it is no image of a known format, or far away."""
    if isinstance(file, Address):  # a request for each header would take longer than it is worth
        return None
    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.size
    except Exception:  # Pillow raises OSError, SyntaxError, struct.error and others: who decodes it says why
        return None


def sizes_in(root: Folder, paths: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """Return width and height by path, of `SAMPLED` evenly spaced ones; see `size_of`.

    Args:
        root: the folder that the paths are relative to.
        paths: of image files.
    """
    step = -(-len(paths) // SAMPLED) or 1
    return {path: size_of(root / path) for path in paths[::step]}


def side_range(sizes: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    """Return the shortest and the longest side of images in pixels; None where no size is known."""
    known = [size for size in sizes if size]
    return (min(map(min, known)), max(map(max, known))) if known else None


def size_note(sides: tuple[int, int] | None, sizes: Mapping[str, tuple[int, int] | None]) -> str:
    """Return the sentence about images that are plainly of another size than those of the training; "" for none.

    Sides are compared without regard to which is the height, so that orientation does not matter.

    Args:
        sides: the range of the training images, from `side_range`; None where it is not known.
        sizes: width and height by the image's name.
    """
    if sides is None:
        return ""
    least, largest = sides[0] / MARGIN, sides[1] * MARGIN
    others = {name: size for name, size in sizes.items() if size and not (least <= min(size) and max(size) <= largest)}
    if not others:
        return ""
    are = "is" if len(others) == 1 else "are"
    return (
        f"{len(others):,} of {len(sizes):,} images {are} plainly of another size than the training images, whose sides "
        f"have {_range(sides)} pixels: {_named(others.items())}. A network of single cells says nothing about whole "
        "photographs: crop images as those of the training were."
    )


def _range(sides: tuple[int, int]) -> str:
    return f"{sides[0]:,}" if sides[0] == sides[1] else f"{sides[0]:,} to {sides[1]:,}"


def _named(others: Iterable[tuple[str, tuple[int, int]]]) -> str:
    return listed([f"{show(name)} ({width:,} x {height:,})" for name, (width, height) in others])
