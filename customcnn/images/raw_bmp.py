"""Plain BMP files, read and written without a decoder: as arrays that lie in the file's own bytes."""

import struct
from functools import lru_cache

import numpy as np
from PIL import Image

from customcnn.images.decode import MAX_PIXELS, encode
from customcnn.io.remote_path import Address, Folder

HEADER = 54
"""Bytes before the pixels of a BMP without a palette."""


class BmpMemory:
    """Memory for one BMP that is read and one that is written, used again by the next: new memory costs more than both.

    What a method returns is valid until it is called again.
    """

    def __init__(self) -> None:
        self._read = self._written = np.empty(0, np.uint8)

    def read(self, path: Folder) -> np.ndarray | None:
        """Return the pixels of a BMP that needs no decoder: whole, 24 bits, without palette and compression.

        Returns:
            uint8 (H, W, 3), blue, green, red; None for any other file, for one that cannot be read, and at an address.
        """
        if isinstance(path, Address):
            return None
        try:
            with path.open("rb", buffering=0) as file:
                head = file.read(HEADER)
                if len(head) < HEADER or head[:2] != b"BM":
                    return None
                start, size, width, height, *rest = struct.unpack_from("<10xIIiiHHI12xI", head)
                plain = (start, size, *rest) == (HEADER, 40, 1, 24, 0, 0) and min(width, height) > 0
                if not plain or width * height > MAX_PIXELS:
                    return None
                length = _stride(width) * height
                if len(self._read) != length + 1:
                    self._read = np.empty(length + 1, np.uint8)
                if file.readinto(self._read.data) != length:  # a byte more would be read too
                    return None
        except OSError:
            return None
        return _pixels(self._read[:length], height, width)

    def empty(self, height: int, width: int) -> tuple[memoryview, np.ndarray]:
        """Return a BMP and its pixels, to be written into; then its bytes are those that `decode.encode` gives.

        Returns:
            The file's bytes, and a view of them: uint8 (H, W, 3), blue, green, red.
        """
        length = HEADER + _stride(width) * height
        if len(self._written) != length:
            self._written = np.zeros(length, np.uint8)
        self._written[:HEADER] = np.frombuffer(_header(height, width), np.uint8)
        self._written[HEADER:].reshape(height, -1)[:, 3 * width :] = 0  # an image of another shape may have been there
        return self._written.data, _pixels(self._written[HEADER:], height, width)


def _stride(width: int) -> int:
    return -(-3 * width // 4) * 4  # rows end at whole words


def _pixels(body: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = body.reshape(height, _stride(width))
    return rows[::-1, : 3 * width].reshape(height, width, 3)  # the lowest row stands first


@lru_cache(maxsize=64)
def _header(height: int, width: int) -> bytes:
    return encode(Image.new("RGB", (width, height)), "BMP")[:HEADER]  # whatever Pillow writes there
