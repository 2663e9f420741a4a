"""Pixels: decode, check, crop and resize. Files or arrays in, arrays out."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from customcnn.errors import CustomCNNError, listed, show
from customcnn.images import exif, jpeg, libtiff
from customcnn.images.limits import MAX_BYTES, BoundedFile, TooMuchWork
from customcnn.io.remote_path import Folder

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # to Pillow, MPO is a kind of JPEG
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 50_000_000
"""An image of more pixels is refused before it is decoded: no cell needs them, and they would fill the memory."""

# Our own limit is lower and an error, so Pillow's warning about large images would only be noise; so would what its
# decoders say about a damaged file beside the error that we raise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
libtiff.silence()

DECODING = 2
"""Raised whenever the same files come out as other pixels: what was decoded before is then decoded anew."""

REDUCED = "customcnn_reduced"
"""Key of `Image.info` where Pillow gave 8 bits of a file's 16, as it does for PNGs in colour: the file's own kind."""

ROTATED = "customcnn_rotated"
"""Key of `Image.info` where an image was made upright, as its EXIF orientation asks."""

TWELVE_BITS = 4095
"""The greatest level of 12 bits: cameras write such levels into 16-bit files."""


class BadImage(CustomCNNError):
    """A file that cannot be used as an image; `reason` says why in a few words."""

    def __init__(self, path: str | Folder, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"Images are single pictures of a known format. Received: {show(path)}, {reason}.")

    def __reduce__(self) -> tuple[type["BadImage"], tuple[str | Folder, str]]:
        return BadImage, (self.path, self.reason)  # errors cross from worker processes by pickle


def bad_images(bad: Sequence[tuple[str, str]], *, answered: int) -> CustomCNNError:
    """Return the error about images that have no answer, (name, reason) of each, beside others that have one."""
    if len(bad) == 1 and not answered:
        return BadImage(*bad[0])
    named = listed([f"{show(name)}, {reason}" for name, reason in bad])
    way = f" The {answered:,} others are answered. Remove it or use --skip-bad." if answered else " Check the files."
    way = way if len(bad) == 1 else way.replace("Remove it", "Remove them")
    return CustomCNNError(f"Images are single pictures of a known format. Received: {named}.{way}")


def open_image(data: bytes, path: str | Folder) -> Image.Image:
    """Open and fully decode one image, upright: its EXIF orientation is applied.

    Args:
        data: the file's bytes.
        path: its name, for messages.

    Returns:
        The Pillow image, pixels loaded, in the file's own mode; `format` is the file's format.

    Raises:
        BadImage: not an image, damaged, animated, of floating-point or 32-bit levels, above MAX_PIXELS pixels, or more
            work than a picture is (see `customcnn.images.limits`).
    """
    if not data:
        raise BadImage(path, "an empty file")
    if len(data) > MAX_BYTES:
        raise BadImage(path, f"a file of more than {MAX_BYTES >> 20} MiB")
    with _as_bad_image(path):
        if data.startswith(jpeg.START):
            jpeg.examine(data)  # before Pillow unpacks it
        image = BoundedFile(data).open(FORMATS)
    _check(image, path)
    with _as_bad_image(path):
        decoded = _decoded(image, data)
    _check_levels(decoded, path)
    if (image.format == "PNG" and data[24] == 16 and data[25] in (2, 4, 6)) or _is_deep_tiff(image):
        if image.format == "PNG":  # IHDR: bits, colour type
            decoded.info[REDUCED] = f"16-bit {image.mode}"
        _check_reduced(decoded, path)
    return _upright(decoded)


def _decoded(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Decode what Pillow has opened; a damaged file is an error in every decoder."""
    if data.startswith(jpeg.START) and (pixels := jpeg.decode(data)) is not None:
        decoded = Image.fromarray(pixels)
        decoded.format, decoded.info = image.format, image.info
        return decoded
    if image.format == "TIFF":
        jpeg.check_tiff(image, data)
    _load(image)
    return image


def load(image: Image.Image, name: str | Folder) -> Image.Image:
    """Decode what a program has opened or made, where it is one picture of a known range.

    Args:
        image: opened or decoded by Pillow. Its pixels are loaded; otherwise it stays as it is.
        name: its name, for messages.

    Returns:
        The image, upright: itself, or a copy where its EXIF orientation asks for another.

    Raises:
        BadImage: as by `open_image`, or it has no pixels.
    """
    _check(image, name)
    with _as_bad_image(name):
        _load(image)
    _check_levels(image, name)
    return _upright(image)


def _check(image: Image.Image, name: str | Folder) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(name, f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    if not image.width * image.height:
        raise BadImage(name, "without pixels")
    if image.mode == "F":
        raise BadImage(name, "floating-point pixels of unknown range")
    with _as_bad_image(name):  # whether there is a second frame, not how many: to count them may take minutes
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise BadImage(name, "an animation or a stack of several pictures")


def _check_levels(image: Image.Image, name: str | Folder) -> None:
    if image.mode == "I" and not ((levels := np.asarray(image)).min() >= 0 and levels.max() <= 65535):
        raise BadImage(name, "whole numbers beyond 16 bits, of unknown range")


def _is_deep_tiff(image: Image.Image) -> bool:
    bits = getattr(image, "tag_v2", {}).get(258, 8)  # BitsPerSample
    return image.mode in ("RGB", "RGBA") and max(bits if isinstance(bits, tuple) else (bits,)) > 8


def _check_reduced(image: Image.Image, name: str | Folder) -> None:
    """Refuse 8 to 12-bit colour in 16 bits: Pillow keeps the upper 8 bits of 16, and so four of them or none."""
    bands = zip(image.getbands(), np.atleast_2d(image.getextrema()), strict=True)
    if max(most for band, (_, most) in bands if band != "A") <= TWELVE_BITS >> 8:
        raise BadImage(name, "16-bit colour of which at most 12 bits are used: stretch it to the full range")


def _load(image: Image.Image) -> None:
    # Pillow itself makes TIFFs upright, and nothing else.
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    rotated = tags.get(exif.ORIENTATION) in exif.TRANSPOSITIONS
    image.load()
    if rotated:
        image.info[ROTATED] = True


def _upright(image: Image.Image) -> Image.Image:
    method = exif.TRANSPOSITIONS.get(exif.orientation(exif.exif_of(image)))
    if method is None:
        return image
    upright = image.transpose(method)
    # Without the block that asks for it, so that nobody does it twice.
    upright.info = {key: value for key, value in image.info.items() if key not in exif.BLOCKS} | {ROTATED: True}
    upright.format = image.format
    return upright


@contextmanager
def _as_bad_image(name: str | Folder) -> Iterator[None]:
    """Turn what Pillow raises about a file into a `BadImage`."""
    try:
        yield
    except (BadImage, MemoryError):  # an image that does not fit into the memory now may be a good one
        raise
    except TooMuchWork as error:
        raise BadImage(name, str(error)) from None
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
        BadImage: it cannot be read, or is larger than any image.
    """
    try:
        if isinstance(path, Path) and path.stat().st_size > MAX_BYTES:
            raise BadImage(path, f"a file of more than {MAX_BYTES >> 20} MiB")
        if isinstance(path, Path) and not (path.is_file() or path.is_dir()) and path.exists():
            raise BadImage(path, "no regular file")  # a named pipe would be waited for
        return path.read_bytes()
    except OSError as error:
        raise BadImage(path, f"unreadable ({error.strerror})") from None


def kind(image: Image.Image) -> str:
    """Return an image's mode as its file has it: "RGB", "L", "I;16", "16-bit RGB", ...; all but "RGB" are converted.

    What else is done to its pixels is said behind that: "RGB rotated by EXIF", "I;16 of 12 bits".
    """
    words = [image.info.get(REDUCED, image.mode)]
    if image.mode.startswith("I") and np.asarray(image).max() <= TWELVE_BITS:
        words.append("of 12 bits")
    if ROTATED in image.info:
        words.append("rotated by EXIF")
    return " ".join(words)


def converted_note(kinds: Mapping[str, int]) -> str:
    """Return the sentence about images that were not 8-bit RGB, counted by `kind`; "" if there were none."""
    listed = ", ".join(f"{count:,} of mode {mode}" for mode, count in sorted(kinds.items()) if mode != "RGB")
    return f"Note: converted to 8-bit RGB: {listed}." if listed else ""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB.

    Grey becomes three equal channels; 16-bit grey keeps its full range (65,535 becomes 255), or that of 12 bits where
    none of its levels is above (4,095 becomes 255); a palette is looked up;
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
        most = TWELVE_BITS if levels.max() <= TWELVE_BITS else 65535
        image = Image.fromarray((levels.clip(0, most) / (most / 255) + 0.5).astype(np.uint8))
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
