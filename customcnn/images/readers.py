"""Image files to pixels at the size of a network: by Pillow; faster, with the same bytes, where the extra `fast` is."""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from customcnn.images.decode import MAX_PIXELS, kind, open_image, read_image, resize, to_rgb
from customcnn.io.remote_path import Folder

Reader = Callable[[Folder, tuple[int, int]], tuple[np.ndarray, str]]
"""A file and (height, width) go in; uint8 (height, width, 3) and the file's `kind` come out, or a `BadImage`."""

WORTH = 1_000
"""Images from which on it pays to load Numba, which takes a second."""


def reader(count: int) -> Reader:
    """Return the fastest reader for so many images; all readers give the same bytes."""
    return quick_read if count >= WORTH and is_quick() else read


def is_quick() -> bool:
    """Tell whether Numba and simplejpeg are installed."""
    try:
        import numba  # noqa: F401
        import simplejpeg  # noqa: F401
    except ImportError:
        return False
    return True


def read(path: Folder, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Decode and resize one file by Pillow; see `Reader`."""
    image = read_image(path)
    return np.asarray(resize(to_rgb(image), size)), kind(image)


def quick_read(path: Folder, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Decode and resize one file: a JPEG by simplejpeg, any other by Pillow, and resize by Numba; see `Reader`."""
    from customcnn.images.fast_resize import resize as quick_resize

    try:
        data = path.read_bytes()
    except OSError:
        return read(path, size)  # which says why
    pixels = _from_jpeg(data)
    if pixels is not None:
        return quick_resize(pixels, size), "RGB"
    image = open_image(data, path)
    return quick_resize(np.array(to_rgb(image)), size), kind(image)


def _from_jpeg(data: bytes) -> np.ndarray | None:
    """Return the pixels of a JPEG in colour, uint8 (H, W, 3); None for whatever Pillow had better look at."""
    if not data.startswith(b"\xff\xd8\xff") or not _same_jpegs():
        return None
    import simplejpeg

    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        return simplejpeg.decode_jpeg(data) if colors == "YCbCr" and height * width <= MAX_PIXELS else None
    except ValueError:  # damaged
        return None


@cache
def _same_jpegs() -> bool:
    """Tell whether simplejpeg and Pillow decode alike here: both carry a libjpeg of their own, of any version."""
    import simplejpeg

    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    for subsampling in range(3):
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "JPEG", quality=80, subsampling=subsampling)
        decoded = np.asarray(open_image(data.getvalue(), "a test"))
        if not np.array_equal(simplejpeg.decode_jpeg(data.getvalue()), decoded):
            return False
    return True
