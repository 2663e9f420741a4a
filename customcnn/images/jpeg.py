"""JPEGs, decoded by simplejpeg: it takes libjpeg's warnings for errors, where Pillow uses what is left of a file.

libjpeg warns where data is missing or cannot be what was written, and fills the rest of the picture with grey.
"""

import io
import re
import struct
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from customcnn.images import exif
from customcnn.images.limits import TooMuchWork

START = b"\xff\xd8\xff"

MAX_SCANS = 100
"""A progressive JPEG has about ten; each goes over all pixels."""

MAX_SCANNED = 1_000_000_000
"""Pixels of all scans together: some 2 seconds."""

MAX_SEGMENTS = 10_000
MAX_METADATA = 2**24  # bytes of unpacked values

_MARKER = re.compile(rb"\xff[\x01\xc0-\xcf\xd8-\xfe]")  # those that stand between scans, not within them
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DIRECTORIES = {0xE1: b"Exif\0\0", 0xE2: b"MPF\0"}  # segments of which Pillow unpacks every value
_COLORSPACES = {"YCbCr": "RGB", "Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}  # any other: as the file has it


def examine(data: bytes) -> tuple[int, int]:
    """Return the number of pixels and the EXIF orientation, 1 to 8, of a JPEG that is bounded work to decode.

    Raises:
        TooMuchWork: it has too many scans or segments, or metadata that unpacks to very much.
    """
    blocks = {prefix: b"" for prefix in _DIRECTORIES.values()}
    place, scans, pixels = 2, 0, 0
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(data, place)
        code = data[match.end() - 1] if match else 0xD9
        if not match or code == 0xD9:
            break
        place = match.end()
        if code in (0x01, 0xD8):
            continue
        body = place + 2
        place += max(2, int.from_bytes(data[place:body]))
        if code in _FRAMES:
            height, width = struct.unpack(">HH", data[body + 1 : body + 5].ljust(4, b"\0"))
            pixels = max(pixels, height * width)
        elif code == 0xDA:
            scans += 1
            if scans > MAX_SCANS or scans * pixels > MAX_SCANNED:
                raise TooMuchWork(f"a JPEG of more than {scans - 1} scans")
        elif code in _DIRECTORIES and data.startswith(prefix := _DIRECTORIES[code], body):
            blocks[prefix] += data[body + len(prefix) : place]
    else:
        raise TooMuchWork(f"a JPEG of more than {MAX_SEGMENTS:,} segments")
    if sum(map(exif.unpacked_bytes, blocks.values())) > MAX_METADATA:
        raise TooMuchWork(f"with metadata that unpacks to more than {MAX_METADATA >> 20} MiB")
    return pixels, exif.orientation(blocks[_DIRECTORIES[0xE1]])


def decode(data: bytes) -> np.ndarray | None:
    """Decode a JPEG, or check it, as strictly as libjpeg can.

    Args:
        data: of a JPEG that `examine` has accepted and that has no more than `MAX_PIXELS` pixels.

    Returns:
        uint8 (H, W, 3), RGB, as stored: not yet upright. None for what Pillow has to decode: it is no JPEG in colour,
        or the two libraries do not decode alike here.

    Raises:
        ValueError: it is damaged; says how.
    """
    import simplejpeg

    try:
        colors = simplejpeg.decode_jpeg_header(data, strict=False)[2]
    except (ValueError, KeyError):  # damaged, or of a sampling that it does not know, but Pillow may
        return None
    pixels: np.ndarray = simplejpeg.decode_jpeg(data, _COLORSPACES.get(colors, "RGB"))
    return pixels if colors == "YCbCr" and _same_jpegs() else None


def check_tiff(image: Image.Image, data: bytes) -> None:
    """Check the JPEGs of which a TIFF may be made, its strips or tiles, as strictly.

    Args:
        image: a TIFF, opened by Pillow.
        data: its file.

    Raises:
        ValueError, TooMuchWork: as of `decode` and `examine`.
    """
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    if tags.get(259) != 7:  # Compression
        return
    tables = tags.get(347, b"")[:-2] or START[:2]  # JPEGTables, less its end marker
    places = zip(tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or (), strict=False)
    for start, length in places:
        stream = tables + data[start + 2 : start + length]
        examine(stream)
        decode(stream)


@cache
def _same_jpegs() -> bool:
    """Tell whether simplejpeg and Pillow decode alike here: both carry a libjpeg of their own, of any version."""
    import simplejpeg

    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    for subsampling in range(3):
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "JPEG", quality=80, subsampling=subsampling)
        decoded = np.asarray(Image.open(data))
        if not np.array_equal(simplejpeg.decode_jpeg(data.getvalue()), decoded):
            return False
    return True
