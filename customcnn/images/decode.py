"""Pixels: decode, check, crop and resize. Files or arrays in, arrays out."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from customcnn.errors import CustomCNNError, show
from customcnn.io.remote_path import Folder

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # to Pillow, MPO is a kind of JPEG
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 50_000_000
"""An image of more pixels is refused before it is decoded: no cell needs them, and they would fill the memory."""

# Our own limit is lower and an error, so Pillow's warning about large images would only be noise; so would what its
# decoders say about a damaged file beside the error that we raise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

REDUCED = "customcnn_reduced"
"""Key of `Image.info` where Pillow gave 8 bits of a file's 16, as it does for PNGs in colour: the file's own kind."""


class BadImage(CustomCNNError):
    """A file that cannot be used as an image; `reason` says why in a few words."""

    def __init__(self, path: str | Folder, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"Images are single pictures of a known format. Received: {show(path)}, {reason}.")

    def __reduce__(self) -> tuple[type["BadImage"], tuple[str | Folder, str]]:
        return BadImage, (self.path, self.reason)  # errors cross from worker processes by pickle


def open_image(data: bytes, path: str | Folder) -> Image.Image:
    """Open and fully decode one image.

    Args:
        data: the file's bytes.
        path: its name, for messages.

    Returns:
        The Pillow image, pixels loaded, in the file's own mode; `format` is the file's format.

    Raises:
        BadImage: not an image, truncated, animated, of floating-point or 32-bit levels, or above MAX_PIXELS pixels.
    """
    if not data:
        raise BadImage(path, "an empty file")
    with _as_bad_image(path):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    load(image, path)
    if image.format == "PNG" and data[24] == 16 and data[25] in (2, 4, 6):  # IHDR: bits, colour type
        image.info[REDUCED] = f"16-bit {image.mode}"
    return image


def load(image: Image.Image, name: str | Folder) -> None:
    """Decode what Pillow has opened, where it is one picture of a known range.

    Args:
        image: opened; or made by a program, and decoded already.
        name: its name, for messages.

    Raises:
        BadImage: as by `open_image`, or it has no pixels.
    """
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(name, f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    if not image.width * image.height:
        raise BadImage(name, "without pixels")
    if image.mode == "F":
        raise BadImage(name, "floating-point pixels of unknown range")
    with _as_bad_image(name):
        if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
            raise BadImage(name, f"an animation or a stack of {frames} pictures")
        image.load()
    if image.mode == "I" and not ((levels := np.asarray(image)).min() >= 0 and levels.max() <= 65535):
        raise BadImage(name, "whole numbers beyond 16 bits, of unknown range")


@contextmanager
def _as_bad_image(name: str | Folder) -> Iterator[None]:
    """Turn what Pillow raises about a file into a `BadImage`."""
    try:
        yield
    except (BadImage, MemoryError):  # an image that does not fit into the memory now may be a good one
        raise
    except Image.DecompressionBombError:
        raise BadImage(name, f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise BadImage(name, "not an image of a known format") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, EOFError and others
        raise BadImage(name, f"damaged ({' '.join(str(error).split()) or type(error).__name__})") from None


def read_image(path: Folder) -> Image.Image:
    """Open and fully decode one image file; see `open_image`.

    Raises:
        BadImage: as by `open_image`, or the file cannot be read.
    """
    return open_image(read_file(path), path)


def read_file(path: Folder) -> bytes:
    """Return the bytes of a file.

    Raises:
        BadImage: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImage(path, f"unreadable ({error.strerror})") from None


def kind(image: Image.Image) -> str:
    """Return an image's mode as its file has it: "RGB", "L", "I;16", "16-bit RGB", ...; all but "RGB" are converted."""
    return image.info.get(REDUCED, image.mode)


def converted_note(kinds: Mapping[str, int]) -> str:
    """Return the sentence about images that were not 8-bit RGB, counted by `kind`; "" if there were none."""
    listed = ", ".join(f"{count:,} of mode {mode}" for mode, count in sorted(kinds.items()) if mode != "RGB")
    return f"Note: converted to 8-bit RGB: {listed}." if listed else ""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB.

    Grey becomes three equal channels; 16-bit grey keeps its full range (65,535 becomes 255); a palette is looked up;
    transparent pixels are laid over black, the background of C-NMC's cells; CMYK is converted by Pillow.

    Args:
        image: a decoded Pillow image of any mode.

    Returns:
        A Pillow image of mode RGB; the same object if it was one without a transparent colour.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        image = Image.fromarray((levels.clip(0, 65535) / 257 + 0.5).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.copy().convert("RGBA")  # of a palette with transparency, convert changes the image itself
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image.convert("RGB")


def decode(path: Folder, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a file to an array.

    Args:
        path: an image file.
        size: height and width to resize to (see `resize`); None keeps the image's own.

    Returns:
        uint8 (H, W, 3), RGB, 0..255.

    Raises:
        BadImage: see `read_image`.
    """
    image = to_rgb(read_image(path))
    return np.asarray(image if size is None else resize(image, size))


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to height and width with Pillow's bilinear filter, which averages when it shrinks. The shape is not kept.

    Args:
        image: an RGB Pillow image.
        size: height and width in pixels.

    Returns:
        An image of that size; the same object if it has it already.
    """
    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def center_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Return left, upper, right, lower of the centred square of `size` pixels; an odd rest goes right and below."""
    left, upper = (width - size) // 2, (height - size) // 2
    return left, upper, left + size, upper + size


def lossless_format(image: Image.Image) -> str:
    """Return the format to save an image in without loss: its own, or PNG where its own would lose pixels."""
    if image.mode == "YCbCr":  # Pillow saves it in TIFF as JPEG only
        return "PNG"
    if image.format in ("BMP", "PNG", "PPM", "TIFF", "WEBP") or (image.format == "GIF" and image.mode in ("P", "L")):
        return image.format
    return "PNG"


def encode(image: Image.Image, format: str) -> bytes:
    """Encode an image without loss.

    Args:
        image: the pixels, in any mode that a file has; as PNG, which knows no CMYK and YCbCr, those are saved in RGB.
        format: from `lossless_format`.

    Returns:
        The file's bytes; the same pixels give the same bytes.
    """
    options: dict[str, dict[str, object]] = {
        "PNG": {"compress_level": 1},  # a few times faster than Pillow's 6, for files a tenth larger
        "TIFF": {"compression": "tiff_deflate"},
        "WEBP": {"lossless": True, "exact": True},  # exact: keep the colour under transparent pixels
    }
    if format == "PNG" and image.mode in ("CMYK", "YCbCr"):
        image = to_rgb(image)
    data = io.BytesIO()
    image.save(data, format=format, **options.get(format, {}))
    return data.getvalue()


def foreground(image: Image.Image) -> np.ndarray:
    """Mark the pixels that differ from the image's own background.

    The background is the median colour of the outermost ring of pixels; a pixel is foreground where a channel differs
    from it by more than 12 levels, or by more than 6 robust standard deviations of the ring where that is noisier.

    Args:
        image: a decoded Pillow image.

    Returns:
        bool (H, W).
    """
    pixels = np.asarray(to_rgb(image)).astype(np.int16)
    ring = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    background = np.median(ring, axis=0)
    deviation = 1.4826 * np.median(np.abs(ring - background), axis=0)  # the median absolute deviation, as a sigma
    return (np.abs(pixels - background) > np.maximum(12, 6 * deviation)).any(axis=2)
