"""What a network can be asked about: files and folders, a file's bytes, Pillow images, arrays."""

import io
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from customcnn.errors import CustomCNNError, show
from customcnn.images.decode import SUFFIXES, kind, load, open_image, resize, to_rgb
from customcnn.images.readers import Reader, read
from customcnn.images.sizes import size_of

Picture = str | PathLike[str] | bytes | Image.Image | np.ndarray
"""One image: a file, a file's bytes, a Pillow image, or uint8 (H, W, 3) or (H, W)."""


def as_pixels(picture: Picture, size: tuple[int, int], read: Reader = read) -> tuple[np.ndarray, str]:
    """Return an image as a network takes it, the same for a file, its bytes, and what Pillow makes of it.

    Args:
        picture: one image.
        size: height and width in pixels.
        read: what reads files.

    Returns:
        uint8 (H, W, 3), and the image's `kind`.

    Raises:
        BadImage: what is no image, or has levels of unknown range; see `customcnn.images.decode.open_image`.
        CustomCNNError: something else, or an array of another type or shape.
    """
    if isinstance(picture, str | PathLike):
        return read(Path(picture), size)
    if isinstance(picture, bytes):
        image = open_image(picture, "the bytes given")
    elif isinstance(picture, np.ndarray):
        image = load(_from_array(picture), "the array given")
    elif isinstance(picture, Image.Image):
        image = load(picture, "the Pillow image given")
    else:
        raise CustomCNNError(
            "An image is a file, a file's bytes, a Pillow image or an array. "
            f"Received: {type(picture).__name__}. Give one of them."
        )
    return np.asarray(resize(to_rgb(image), size)), kind(image)


def _from_array(pixels: np.ndarray) -> Image.Image:
    shape_fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not shape_fits or not pixels.size:
        raise CustomCNNError(
            "An image as an array is uint8 (H, W, 3) in RGB, or (H, W) in grey, 0 to 255. "
            f"Received: {pixels.dtype} {pixels.shape}. Convert it."
        )
    return Image.fromarray(pixels)


def extent(picture: Picture) -> tuple[int, int] | None:
    """Return width and height of an image in pixels, as its header has them; None where that is not known."""
    if isinstance(picture, str | PathLike):
        return size_of(Path(picture))
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    return picture.size if isinstance(picture, Image.Image) else size_of(io.BytesIO(picture))


def listed(images: Picture | Iterable[Picture]) -> list[Picture]:
    """Return images one by one: folders as the files directly inside them, an array of several as several.

    Raises:
        CustomCNNError: nothing is given, a path is missing, or a folder holds no image.
    """
    found: list[Picture] = []
    for picture in cast(Iterable[Picture], images) if is_several(images) else [cast(Picture, images)]:
        found += expand([Path(picture)]) if isinstance(picture, str | PathLike) else [picture]
    return found or [*expand([])]


def is_several(images: object) -> bool:
    """Tell whether this is a collection of images, and not one: uint8 (N, H, W, 3), paths as an array, any iterable."""
    if isinstance(images, np.ndarray):
        return images.ndim == 4 or (images.ndim == 1 and images.dtype.kind in "OU")
    return isinstance(images, Iterable) and not isinstance(images, str | bytes | PathLike | Image.Image)


def expand(images: Sequence[Path]) -> list[Path]:
    """Return the files, with every folder replaced by the images directly inside it.

    Raises:
        CustomCNNError: nothing is given, a path is missing, or a folder holds no image.
    """
    paths: list[Path] = []
    for path in images:
        inside = _inside(path) if path.is_dir() else [path]
        if not inside or not inside[0].exists():
            what = "a folder without images" if path.is_dir() else "which does not exist"
            raise CustomCNNError(
                f"Images are given as files, or as folders of them. Received: {show(path)}, {what}. Check its name."
            )
        paths += inside
    if not paths:
        raise CustomCNNError("Images are given as files, or as folders of them. Received: none. Name one.")
    return paths


def _inside(folder: Path) -> list[Path]:
    # Names that begin with a dot are litter, as in `scan`.
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def name_of(picture: Picture, place: int) -> str:
    """Return how an image is called in answers: by its file, or by its place, from 0."""
    return str(picture) if isinstance(picture, Path) else f"image {place + 1}"
