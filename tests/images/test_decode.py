"""Pixels of every mode and format, by hand: what is refused, what is converted, and what is written back unchanged."""

import io
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customcnn.images.decode import (
    FORMATS,
    MAX_PIXELS,
    BadImage,
    center_box,
    decode,
    encode,
    foreground,
    kind,
    lossless_format,
    open_image,
    read_image,
    resize,
    to_rgb,
)

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (17, 23, 4), dtype=np.uint8)
COLORS[:3, :, 3] = 0  # wholly transparent, whatever the colour
RGB = Image.fromarray(COLORS[..., :3].copy())


def file(image: Image.Image, format: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format=format, **options)
    return data.getvalue()


def rgb(data: bytes) -> list:
    return np.asarray(to_rgb(open_image(data, "x"))).tolist()


def row(*levels: object, mode: str = "L", dtype: type = np.uint8) -> Image.Image:
    """One row of pixels."""
    return Image.fromarray(np.array([levels], dtype), mode)


def grey(*levels: int) -> list:
    return [[[level] * 3 for level in levels]]


# ---------------------------------------------------------------- conversions, by hand


@pytest.mark.parametrize("format", ["BMP", "GIF", "PNG", "PPM", "TIFF"])
def test_grey_becomes_three_equal_channels(format):
    assert rgb(file(row(0, 1, 128, 255), format)) == grey(0, 1, 128, 255)


@pytest.mark.parametrize("format", ["BMP", "PNG", "PPM", "TIFF"])
def test_one_bit_becomes_black_and_white(format):
    image = row(0, 255, 255, 0).convert("1")
    assert open_image(file(image, format), "x").mode == "1"
    assert rgb(file(image, format)) == grey(0, 255, 255, 0)


# 257 levels become one; halfway between two goes up: 128 = 0.498 * 257, 129 = 0.502 * 257.
SIXTEEN_BIT, EIGHT_BIT = (0, 128, 129, 257, 32767, 32768, 65406, 65407, 65535), (0, 0, 1, 1, 127, 128, 254, 255, 255)


@pytest.mark.parametrize("format", ["PNG", "PPM", "TIFF"])
def test_sixteen_bit_grey_keeps_its_full_range(format):
    image = Image.fromarray(np.array([SIXTEEN_BIT], np.uint16))
    assert rgb(file(image, format)) == grey(*EIGHT_BIT)


def test_sixteen_bit_grey_of_the_other_byte_order():
    image = Image.frombytes("I;16B", (len(SIXTEEN_BIT), 1), np.array(SIXTEEN_BIT, ">u2").tobytes())
    assert rgb(file(image, "TIFF")) == grey(*EIGHT_BIT)


def test_thirty_two_bit_grey_within_sixteen_bits_is_read_as_such():
    assert rgb(file(Image.fromarray(np.array([SIXTEEN_BIT], np.int32)), "TIFF")) == grey(*EIGHT_BIT)


@pytest.mark.parametrize("level", [-1, 65536, 2**31 - 1])
def test_levels_beyond_sixteen_bits_are_refused_not_cut(level):
    with pytest.raises(BadImage) as caught:
        open_image(file(Image.fromarray(np.array([[0, level]], np.int32)), "TIFF"), "x.tif")
    assert caught.value.reason == "whole numbers beyond 16 bits, of unknown range"


@pytest.mark.parametrize("format", ["BMP", "GIF", "PNG", "TIFF"])
def test_a_palette_is_looked_up(format):
    image = row(0, 1, 2, 1, mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert open_image(file(image, format), "x").mode == "P"
    assert rgb(file(image, format)) == [[[10, 20, 30], [40, 50, 60], [70, 80, 90], [40, 50, 60]]]


@pytest.mark.parametrize("format, transparency", [("GIF", 1), ("PNG", 1), ("PNG", bytes([255, 0, 128]))])
def test_transparent_colours_of_a_palette_are_black(format, transparency):
    image = row(0, 1, 2, mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    last = [70, 80, 90] if transparency == 1 else [35, 40, 45]
    assert rgb(file(image, format, transparency=transparency)) == [[[10, 20, 30], [0, 0, 0], last]]


@pytest.mark.parametrize(
    "mode, levels, color", [("L", (5, 7, 9), 7), ("RGB", ((1, 2, 3), (7, 7, 7), (7, 7, 8)), (7, 7, 7))]
)
def test_a_transparent_colour_is_black(mode, levels, color):
    expected = grey(5, 0, 9) if mode == "L" else [[[1, 2, 3], [0, 0, 0], [7, 7, 8]]]
    assert rgb(file(row(*levels, mode=mode), "PNG", transparency=color)) == expected


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_transparent_pixels_are_laid_over_black(format):
    image = row((200, 100, 50, 255), (200, 100, 50, 0), (200, 100, 50, 51), mode="RGBA")
    assert rgb(file(image, format, lossless=True)) == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_transparent_grey_is_laid_over_black(format):
    assert rgb(file(row((200, 255), (200, 0), (200, 51), mode="LA"), format)) == grey(200, 0, 40)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted(format):
    # No ink is white; all the black ink, or all three colours, is black; cyan ink takes the red away.
    inks = [(0, 0, 0, 0), (0, 0, 0, 255), (255, 255, 255, 0), (255, 0, 0, 0)]
    image = Image.new("CMYK", (64, 16))
    for i, ink in enumerate(inks):
        image.paste(ink, (16 * i, 0, 16 * i + 16, 16))
    data = file(image, format, **({"quality": 100} if format == "JPEG" else {}))
    assert open_image(data, "x").mode == "CMYK"
    got = np.asarray(to_rgb(open_image(data, "x"))).astype(int)[8, 8::16]
    assert np.abs(got - [[255] * 3, [0] * 3, [0] * 3, [0, 255, 255]]).max() <= (3 if format == "JPEG" else 0)


def test_rgb_is_passed_through():
    assert to_rgb(RGB) is RGB


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_a_conversion_leaves_the_image_as_it_was(mode):
    image = Image.fromarray(COLORS).convert(mode) if mode not in ("I;16", "PA") else Image.new(mode, (5, 5))
    if mode == "P":
        image.info["transparency"] = 3
    before = (image.mode, image.tobytes(), image.getpalette("RGB") if mode in ("P", "PA") else None, dict(image.info))
    palette = image.palette and (image.palette.mode, bytes(image.palette.palette))
    assert to_rgb(image).mode == "RGB"
    assert (image.mode, image.tobytes(), image.getpalette("RGB") if mode in ("P", "PA") else None, image.info) == before
    assert palette == (image.palette and (image.palette.mode, bytes(image.palette.palette)))


def test_decode_gives_rows_columns_channels(tmp_path):
    Image.fromarray(COLORS[..., :3]).save(tmp_path / "a.bmp")
    pixels = decode(tmp_path / "a.bmp")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, COLORS[..., :3])
    assert decode(tmp_path / "a.bmp", (4, 9)).shape == (4, 9, 3)


def test_resize_averages_when_it_shrinks():
    image = Image.fromarray(np.array([[[0, 10, 255]] * 2, [[100, 30, 255]] * 2], np.uint8))
    assert np.asarray(resize(image, (1, 1))).tolist() == [[[50, 20, 255]]]
    assert resize(image, (2, 2)) is image
    assert resize(image, (3, 5)).size == (5, 3)


# ---------------------------------------------------------------- refusals


def reason_of(data: bytes, name: str = "all/1.png") -> str:
    """Return why a file is no image, which its error says too."""
    with pytest.raises(BadImage) as caught:
        open_image(data, name)
    error = caught.value
    assert str(error) == f"Images are single pictures of a known format. Received: '{name}', {error.reason}."
    assert len(str(error).splitlines()) == 1
    return error.reason


def test_an_empty_file_is_refused():
    assert reason_of(b"") == "an empty file"


@pytest.mark.parametrize("data", [b"These are not pixels.\n", b"\x00" * 1000, b"%PDF-1.7", b"BM", b"\x89PNG\r\n\x1a\n"])
def test_what_is_not_an_image_is_refused_whatever_its_name(data):
    assert reason_of(data) == "not an image of a known format"


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_an_animation_is_refused(format):
    frames = [RGB, RGB.transpose(Image.Transpose.ROTATE_180), Image.new("RGB", RGB.size)]
    assert reason_of(file(frames[0], format, save_all=True, append_images=frames[1:])) == (
        "an animation or a stack of several pictures"
    )


@pytest.mark.parametrize("format", ["PPM", "TIFF"])
def test_floating_point_pixels_are_refused(format):
    image = Image.fromarray(np.zeros((2, 2), np.float32))
    assert reason_of(file(image, format)) == "floating-point pixels of unknown range"


def test_the_first_picture_of_a_jpeg_with_a_preview_is_read():
    data = file(RGB, "MPO", save_all=True, append_images=[Image.new("RGB", RGB.size)])
    image = open_image(data, "x.jpg")
    assert (image.format, image.size) == ("MPO", RGB.size)
    assert np.asarray(image).std() > 0


@pytest.mark.parametrize(
    "format, options",
    [
        ("BMP", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("PNG", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_truncated_file_never_gives_other_pixels(format, options):
    data = file(RGB, format, **options)
    whole = rgb(data)
    for length in {*range(0, len(data), 7), *range(len(data) - 30, len(data))}:
        try:
            got = rgb(data[:length])
        except BadImage:
            continue
        # What follows the pixels, a checksum or an end mark, may be missing.
        assert got == whole and length >= len(data) - 24
    assert reason_of(data[: len(data) // 2])


def test_a_damaged_file_says_how_on_one_line():
    assert reason_of(file(RGB, "BMP")[:-500]).startswith("damaged (image file is truncated")
    damaged = bytearray(file(RGB, "PNG"))
    damaged[60:90] = bytes(30)
    assert reason_of(bytes(damaged)).startswith("damaged (")


@given(st.sampled_from(FORMATS), st.data())
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_damaged_file_is_an_image_or_refused(format, data):
    image = bytearray(file(RGB, format))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert to_rgb(open_image(bytes(image), "x")).mode == "RGB"
    except BadImage as error:
        assert len(str(error).splitlines()) == 1


def test_warnings_of_the_decoders_do_not_stand_beside_our_error(tmp_path):
    (tmp_path / "a.tif").write_bytes(file(RGB, "TIFF")[:12])
    script = "import sys, pathlib, customcnn.images.decode as i\ntry: i.read_image(pathlib.Path(sys.argv[1]))\n"
    script += "except i.BadImage as e: print(e.reason)"
    run = subprocess.run([sys.executable, "-c", script, tmp_path / "a.tif"], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("not an image of a known format\n", "")


def test_a_lack_of_memory_is_not_the_fault_of_the_image():
    # It must not be skipped by --skip-bad: 50 MB are not to be had, and the image is whole.
    script = (
        "import io, resource\n"
        "from PIL import Image\n"
        "from customcnn.images.decode import open_image\n"
        "data = io.BytesIO()\n"
        "Image.new('1', (10_000, 5_000)).save(data, 'PNG')\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000,) * 2)\n"
        "try: open_image(data.getvalue(), 'x')\n"
        "except MemoryError: print('not enough memory')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("not enough memory\n", "")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadImage) as caught:
        read_image(tmp_path / "a.bmp")
    assert caught.value.reason == "unreadable (No such file or directory)"
    with pytest.raises(BadImage) as caught:
        read_image(tmp_path)
    assert caught.value.reason == "unreadable (Is a directory)"


def test_the_error_survives_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(BadImage("a\nb.png", "an empty file")))
    assert (error.path, error.reason) == ("a\nb.png", "an empty file")
    assert str(error) == r"Images are single pictures of a known format. Received: 'a\nb.png', an empty file."


# ---------------------------------------------------------------- too large


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A 1-bit PNG of any size; its compressed pixels may be missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def ppm(width: int, height: int) -> bytes:
    return b"P6 %d %d 255\n" % (width, height)


@pytest.mark.parametrize("claim", [png, bmp, ppm])
@pytest.mark.parametrize("size", [(40_000, 40_000), (10_000, 5_001), (2_000_000_000, 1)])
def test_a_huge_image_is_refused_before_it_is_decoded(claim, size):
    data = claim(*size)
    tracemalloc.start()
    begin = time.perf_counter()
    reason = reason_of(data)
    seconds = time.perf_counter() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason in ("more than 50,000,000 pixels", f"{size[0]} x {size[1]} pixels, more than 50,000,000")
    assert seconds < 1
    assert peak < 5_000_000


def test_a_true_image_of_40000_x_40000_is_refused_without_its_memory(tmp_path):
    deflate = zlib.compressobj(1)
    line = bytes(1 + 40_000 // 8)
    pixels = b"".join(deflate.compress(line * 1000) for _ in range(40)) + deflate.flush()
    (tmp_path / "huge.png").write_bytes(png(40_000, 40_000, pixels))
    script = (
        "import resource, sys, pathlib\n"
        "from customcnn.images.decode import BadImage, read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_image(pathlib.Path(sys.argv[1]))\n"
        "except BadImage as error: print(error.reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path / "huge.png"], capture_output=True, text=True)
    reason, kilobytes = run.stdout.splitlines()
    assert reason == "more than 50,000,000 pixels"
    assert int(kilobytes) < 30_000  # it would be 1,600,000
    assert run.stderr == ""


def test_an_image_of_the_greatest_size_is_decoded():
    assert MAX_PIXELS == 50_000_000
    assert reason_of(png(10_000, 5_000)).startswith("damaged")


# ---------------------------------------------------------------- written back

PILLOW = int(PIL.__version__.split(".")[0])
SAVED = [
    *((mode, format) for mode in ("1", "L", "P", "RGB") for format in ("BMP", "PNG", "TIFF")),
    *((mode, "PPM") for mode in ("1", "L", "I", "RGB")),
    *((mode, "GIF") for mode in ("L", "P", "P transparent")),
    *((mode, "PNG") for mode in ("LA", "RGBA", "I;16", "P transparent", "P half transparent", "RGB transparent")),
    *((mode, "TIFF") for mode in ("LA", "RGBA", "CMYK", "I;16", "I", "PA", "LAB")),
    *([("YCbCr", "TIFF")] if PILLOW >= 13 else []),  # older ones write such a file and then call it truncated
    *((mode, "WEBP") for mode in ("RGB", "RGBA")),
    *((mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
    ("RGB", "MPO"),
]


def saved(mode: str, format: str) -> bytes:
    name, _, transparency = mode.partition(" ")
    options: dict[str, object] = {"lossless": True, "exact": True} if format == "WEBP" else {}
    if name == "I":
        image = Image.fromarray(COLORS[..., 0].astype(np.int32) * 250)
    elif name == "I;16":
        image = Image.fromarray(COLORS[..., 0].astype(np.uint16) * 250)
    elif name == "PA":
        image = Image.fromarray(COLORS).convert("RGB").quantize(30).convert("PA")
    elif name == "LAB":
        image = Image.frombytes("LAB", RGB.size, RGB.tobytes())
    elif name in ("RGBA", "LA"):
        image = Image.fromarray(COLORS).convert(name)
    else:
        image = RGB.quantize(30) if name == "P" else RGB.convert(name)
    if transparency == "transparent":
        options["transparency"] = 3 if name == "P" else RGB.getpixel((3, 3))
    elif transparency:
        options["transparency"] = bytes(range(0, 240, 8))
    return file(image, format, **options)


@pytest.mark.parametrize("mode, format", SAVED)
@pytest.mark.parametrize("look_first", [False, True])
def test_an_image_is_written_back_without_loss(mode, format, look_first):
    data = saved(mode, format)
    image = open_image(data, "x")
    if look_first:
        foreground(image)  # as crop does: it must not change what is written
    kept = lossless_format(image)
    assert kept == (format if format not in ("JPEG", "MPO") and mode != "YCbCr" else "PNG")
    back = open_image(encode(image.crop((0, 0, *image.size)), kept), "x")
    assert back.format == kept
    assert np.asarray(to_rgb(back)).tolist() == rgb(data)
    original = open_image(data, "x")
    if original.mode not in ("CMYK", "YCbCr") or kept == format:
        # Not only as it is seen: what lies under transparent pixels is kept too.
        assert (back.mode, back.size) == (original.mode, original.size)
        if back.mode in ("P", "PA"):
            back, original = back.convert("RGBA"), original.convert("RGBA")
        assert back.tobytes() == original.tobytes()


@pytest.mark.parametrize("mode, format", SAVED)
def test_the_same_pixels_give_the_same_bytes(mode, format):
    image = open_image(saved(mode, format), "x")
    kept = lossless_format(image)
    first = encode(image.crop((1, 2, 20, 16)), kept)
    assert first == encode(image.crop((1, 2, 20, 16)), kept)
    assert rgb(first) == np.asarray(to_rgb(image))[2:16, 1:20].tolist()


def test_an_image_without_a_file_becomes_png():
    assert lossless_format(RGB) == "PNG"


# ---------------------------------------------------------------- the middle, and the foreground


@pytest.mark.parametrize(
    "width, height, size, box",
    [
        (450, 450, 400, (25, 25, 425, 425)),
        (451, 450, 400, (25, 25, 425, 425)),  # one column more is left on the right: 25 and 26
        (450, 453, 400, (25, 26, 425, 426)),  # 26 above, 27 below
        (320, 240, 101, (109, 69, 210, 170)),  # 109 and 110; 69 and 70
        (5, 4, 4, (0, 0, 4, 4)),
        (7, 7, 7, (0, 0, 7, 7)),
        (3, 2, 1, (1, 0, 2, 1)),
    ],
)
def test_the_box_about_the_centre(width, height, size, box):
    assert center_box(width, height, size) == box


def picture(*rows: str) -> np.ndarray:
    """Grey levels by letter: a dot is 0, a comma 12, a hash 13, an o 100."""
    return np.array([[{".": 0, ",": 12, "#": 13, "o": 100}[c] for c in line] for line in rows], np.uint8)


def test_foreground_is_what_differs_from_the_ring_by_more_than_twelve():
    levels = picture(
        ".....",
        ".,#..",
        "..oo.",
        ".....",
    )
    expected = np.isin(levels, (13, 100))
    np.testing.assert_array_equal(foreground(Image.fromarray(levels)), expected)
    # The same on white, and where one channel alone differs.
    np.testing.assert_array_equal(foreground(Image.fromarray(255 - levels)), expected)
    for channel in range(3):
        pixels = np.full((*levels.shape, 3), 128, np.uint8)
        pixels[..., channel] += levels
        np.testing.assert_array_equal(foreground(Image.fromarray(pixels)), expected)


def test_foreground_that_touches_the_border_is_found():
    levels = picture(
        "oo...",
        "oo...",
        ".....",
        ".....",
    )
    np.testing.assert_array_equal(foreground(Image.fromarray(levels)), levels == 100)


def test_a_noisier_background_needs_a_greater_difference():
    # The ring is 100 and 110 by turns: median 105 (or one of the two), deviation 1.4826 * 5 = 7.4, six of them 44.5.
    pixels = np.full((6, 6), 100, np.uint8)
    pixels[(np.indices((6, 6)).sum(axis=0) % 2).astype(bool)] = 110
    pixels[2:4, 2:4] = [[149, 150], [60, 61]]
    found = foreground(Image.fromarray(pixels))
    assert np.argwhere(found).tolist() == [[2, 3], [3, 2]]


def test_transparent_background_counts_as_black():
    pixels = np.full((5, 5, 4), 255, np.uint8)
    pixels[..., 3] = 0
    pixels[2, 2, 3] = 255
    assert np.argwhere(foreground(Image.fromarray(pixels))).tolist() == [[2, 2]]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_a_picture_that_is_all_border_has_a_foreground_too(size):
    assert not foreground(Image.new("RGB", size, (9, 9, 9))).any()


# ---------------------------------------------------------------- damaged, and still decoded by Pillow


def most_missing(**options: object) -> bytes:
    """A JPEG of which the last 70 % are missing but for the end marker."""
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert(options.pop("mode", "RGB"))
    data = file(noise, "JPEG", **options)
    return data[: int(0.3 * len(data))] + b"\xff\xd9"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"keep_rgb": True}])
def test_a_jpeg_that_libjpeg_warns_of_is_damaged(options):
    data = most_missing(**options)
    Image.open(io.BytesIO(data)).load()  # Pillow alone says nothing
    assert reason_of(data).startswith("damaged (")


def test_a_jpeg_with_flipped_bits_is_damaged():
    data = bytearray(file(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd3"  # a restart marker where none belongs
    assert reason_of(bytes(data)).startswith("damaged (")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"strip_size": 64 * 16 * 3}])
def test_a_damaged_jpeg_in_a_tiff_is_damaged(mode, options):
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert(mode)
    data = bytearray(file(noise, "TIFF", compression="jpeg", **options))
    assert open_image(bytes(data), "x").mode == mode
    tags = Image.open(io.BytesIO(data)).tag_v2
    middle = tags[273][-1] + tags[279][-1] - 200  # in the last strip
    data[middle : middle + 4] = b"\0\0\xff\xd9"
    Image.open(io.BytesIO(data)).load()
    assert reason_of(bytes(data)).startswith("damaged (")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_libtiff_writes_nothing_to_the_terminal(compression, capfd):
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = bytearray(file(noise, "TIFF", compression=compression))
    data[8:2000] = bytes(range(83)) * 24
    with pytest.raises(OSError):
        Image.open(io.BytesIO(data)).load()
    assert reason_of(bytes(data)).startswith("damaged (")
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- twelve bits in sixteen


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_twelve_bit_grey_in_sixteen_bits_keeps_its_full_range(format):
    image = Image.fromarray(np.array([[0, 8, 9, 16, 2048, 4087, 4095]], np.uint16))
    assert rgb(file(image, format)) == grey(0, 0, 1, 1, 128, 255, 255)  # 4,095 = 255 * 16.06
    assert kind(open_image(file(image, format), "x")) == "I;16 of 12 bits"
    brighter = Image.fromarray(np.array([[0, 4096]], np.uint16))
    assert rgb(file(brighter, format)) == grey(0, 16)
    assert kind(open_image(file(brighter, format), "x")) == "I;16"


def deep_color(*levels: int, bits: str = ">u2") -> bytes:
    """A PNG of 16-bit colour, one row."""
    row = b"\0" + np.repeat(np.array(levels, bits), 3).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(levels), 1, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


def test_twelve_bit_colour_in_sixteen_bits_is_refused_for_pillow_keeps_four_bits_of_it():
    for most in (4095, 255):  # of the latter it keeps none
        assert reason_of(deep_color(0, most)) == (
            "16-bit colour of which at most 12 bits are used: stretch it to the full range"
        )
    assert reason_of(deep_color(0, 0)), "black cannot be told from 8 bits of which Pillow keeps none"
    assert rgb(deep_color(0, 65535)) == grey(0, 255)
