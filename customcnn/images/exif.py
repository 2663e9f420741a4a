"""EXIF blocks, and others that are built as a directory of a TIFF: read without unpacking their values."""

import struct
from collections.abc import Iterator

from PIL import Image

ORIENTATION = 0x0112

BLOCKS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""Keys of `Image.info` under which an orientation may stand."""

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By orientation, what makes an image upright."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes, by type
_NUMBERS = {1: "B", 3: "H", 4: "I"}


def orientation(block: bytes) -> int:
    """Return the orientation that an EXIF block states, 1 to 8; 1, upright, where it states none or is damaged."""
    order = _order(block)
    for tag, kind, _, at in _entries(block):
        if tag == ORIENTATION and kind in _NUMBERS:
            (value,) = struct.unpack_from(order + _NUMBERS[kind], block, at)
            return value if value in TRANSPOSITIONS else 1
    return 1


def unpacked_bytes(block: bytes) -> int:
    """Return how many bytes the values of a block have: of a hostile one many times its own, for they may overlap."""
    return sum(min(count * _SIZES.get(kind, 0), len(block)) for _, kind, count, _ in _entries(block))


def exif_of(image: Image.Image) -> bytes:
    """Return the EXIF block of an image that Pillow has decoded; nothing for a TIFF, which has its tags instead."""
    block = image.info.get("exif")
    if isinstance(block, bytes):
        return block.removeprefix(b"Exif\0\0")
    words = image.info.get("Raw profile type exif")  # ImageMagick's, in a PNG: a name, a length, hexadecimal digits
    try:
        return bytes.fromhex("".join(words.split("\n")[3:])).removeprefix(b"Exif\0\0") if words else b""
    except ValueError:
        return b""


def _order(block: bytes) -> str:
    return {b"II": "<", b"MM": ">"}.get(block[:2], "")


def _entries(block: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, count and place of the value for each entry of the first directory, as far as there are any."""
    order = _order(block)
    if not order:
        return
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values, _ = struct.unpack_from(f"{order}HHII", block, at)
            yield tag, kind, values, at + 8
    except struct.error:  # it ends before that
        return
