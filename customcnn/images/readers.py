"""Image files to pixels at the size of a network: by Pillow; faster, with the same bytes, where the extra `fast` is."""

from collections.abc import Callable

import numpy as np

from customcnn.images import jpeg
from customcnn.images.decode import MAX_PIXELS, kind, open_image, read_file, read_image, resize, to_rgb
from customcnn.images.limits import TooMuchWork
from customcnn.io.remote_path import Folder

Reader = Callable[[Folder, tuple[int, int]], tuple[np.ndarray, str]]
"""A file and (height, width) go in; uint8 (height, width, 3) and the file's `kind` come out, or a `BadImage`."""

WORTH = 1_000
"""Images from which on it pays to load Numba, which takes a second."""


def reader(count: int) -> Reader:
    """Return the fastest reader for so many images; all readers give the same bytes."""
    return quick_read if count >= WORTH and is_quick() else read


def is_quick() -> bool:
    """Tell whether Numba works."""
    try:
        import customcnn.images.fast_resize  # noqa: F401
    except (ImportError, RuntimeError):  # the latter: Numba finds no folder where it may keep what it compiles
        return False
    return True


def read(path: Folder, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Decode and resize one file by Pillow; see `Reader`."""
    image = read_image(path)
    return np.asarray(resize(to_rgb(image), size)), kind(image)


def quick_read(path: Folder, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Decode and resize one file: a JPEG without Pillow if that gives the same, and resize by Numba; see `Reader`."""
    from customcnn.images.fast_resize import resize as quick_resize

    data = read_file(path)
    pixels = _from_jpeg(data)
    if pixels is not None:
        return quick_resize(pixels, size), "RGB"
    image = open_image(data, path)
    return quick_resize(np.array(to_rgb(image)), size), kind(image)


def _from_jpeg(data: bytes) -> np.ndarray | None:
    """Return the pixels of a JPEG in colour, uint8 (H, W, 3); None for whatever `open_image` had better look at."""
    if not data.startswith(jpeg.START):
        return None
    try:
        pixels, orientation = jpeg.examine(data)
        return jpeg.decode(data) if orientation == 1 and pixels <= MAX_PIXELS else None
    except (ValueError, TooMuchWork):  # which `open_image` says again, and names the file
        return None
