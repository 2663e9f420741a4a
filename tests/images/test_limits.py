"""Files that are small and would take minutes or gigabytes to decode are refused within a second or two."""

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from customcnn.images.decode import BadImage, open_image, to_rgb
from customcnn.images.readers import quick_read, read


def saved(format: str, mode: str = "L", size: tuple[int, int] = (8, 8), **options: object) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size).save(data, format, **options)
    return data.getvalue()


def jpeg_of_scans(count: int, edge: int = 8) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = saved("JPEG", size=(edge, edge), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + (count - data.count(b"\xff\xda")) * last + data[-2:]


def jpeg_segments(*segments: bytes) -> bytes:
    data = saved("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def segment(code: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(payload) + 2) + payload


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_chunks(before: bytes = b"", behind: bytes = b"") -> bytes:
    data = saved("PNG")
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + before + data[start:end] + behind + data[end:]


def gif_blocks(extensions: bytes = b"", frames: int = 1) -> bytes:
    data = saved("GIF")
    start = data.rindex(b",")
    return data[:start] + extensions + frames * data[start:-1] + b";"


def directory(entries: dict[int, tuple[int, int, int]], following: int = 0) -> bytes:
    """A directory of a TIFF, little-endian: tag to (type, count, value)."""
    rows = (struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return struct.pack("<H", len(entries)) + b"".join(rows) + struct.pack("<I", following)


def tiff(count: int = 1, height: int = 8, **more: tuple[int, int, int]) -> bytes:
    """A grey TIFF of 8 columns and so many directories; further entries by their tag after an underscore."""
    entries = {256: (3, 1, 8), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8)}
    entries |= {277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, 8 * height)}
    entries |= {int(tag[1:]): entry for tag, entry in more.items()}
    length = len(directory(entries))
    data = b"II*\0" + struct.pack("<I", 8)
    return (
        data
        + b"".join(directory(entries, 8 + (n + 1) * length if n < count - 1 else 0) for n in range(count))
        + bytes(8 * height)
    )


def exif_of_overlapping_values() -> bytes:
    """5,000 entries of an EXIF block, each as large as the whole block: 320 MB in 64 kB."""
    length = 65_000
    entries = {300 + n: (1, length, 0) for n in range(5_000)}
    return b"Exif\0\0" + (b"II*\0\x08\0\0\0" + directory(entries)).ljust(length, b"\0")


STRIPS = 60_000
HOSTILE = {
    "JPEG of 3,000 scans": lambda: jpeg_of_scans(3_000),
    "JPEG of 70 scans of 16 million pixels": lambda: jpeg_of_scans(70, 4000),
    "JPEG of a million segments": lambda: jpeg_segments(segment(0xE5, b"") * 1_000_000),
    "JPEG with EXIF that unpacks to 320 MB": lambda: jpeg_segments(segment(0xE1, exif_of_overlapping_values())),
    "JPEG with an index that unpacks to 320 MB": lambda: jpeg_segments(
        segment(0xE2, b"MPF\0" + exif_of_overlapping_values()[6:])
    ),
    "PNG of 300,000 texts": lambda: png_chunks(chunk(b"tEXt", b"a\0b") * 300_000),
    "PNG of 300,000 texts behind the pixels": lambda: png_chunks(behind=chunk(b"tEXt", b"a\0b") * 300_000),
    "PNG of 300,000 unknown chunks": lambda: png_chunks(chunk(b"abCd") * 300_000),
    "GIF of a million frames": lambda: gif_blocks(frames=1_000_000),
    "GIF of 200,000 comments": lambda: gif_blocks(b"\x21\xfe\x01a\x00" * 200_000),
    "TIFF of 20,000 directories": lambda: tiff(20_000),
    "TIFF of 500 values of the same megabyte": lambda: tiff(
        1, 130_000, **{f"_{40_000 + n}": (1, 1_000_000, 0) for n in range(500)}
    ),
    "TIFF of 60,000 strips": lambda: tiff(1, STRIPS, _273=(4, STRIPS, 200), _278=(4, 1, 1), _279=(4, STRIPS, 200)),
    "PPM of 40 million levels that are computed one by one": lambda: b"P5 8000 5000 254\n" + bytes(40_000_000),
    "PPM of 15 million levels in words": lambda: b"P2 5000 3000 255\n" + b"0 " * 15_000_000,
    "BMP of 20 million runs": lambda: runs_of_bmp(4000, 5000),
}


def runs_of_bmp(width: int, height: int) -> bytes:
    rows = (b"\x01\x00" * width + b"\0\0") * height
    header = struct.pack(
        "<IHHIIiiHHIIiiII", 1078 + len(rows), 0, 0, 1078, 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0
    )
    return b"BM" + header + bytes(1024) + rows


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_quickly(name):
    data = HOSTILE[name]()
    begin = time.process_time()
    with pytest.raises(BadImage) as caught:
        to_rgb(open_image(data, "x"))
    assert time.process_time() - begin < 2
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_many_frames_are_refused_by_their_number_alone(format):
    frames = [Image.new("L", (2, 2), n % 250) for n in range(1_000)]
    data = io.BytesIO()
    frames[0].save(data, format, save_all=True, append_images=frames[1:])
    begin = time.process_time()
    with pytest.raises(BadImage, match="an animation or a stack of several pictures"):
        open_image(data.getvalue(), "x")
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize("read", [read, quick_read])
def test_both_readers_bound_the_scans(tmp_path, read):
    (tmp_path / "a.jpg").write_bytes(jpeg_of_scans(101))
    with pytest.raises(BadImage, match="a JPEG of more than 100 scans"):
        read(tmp_path / "a.jpg", (4, 4))
    (tmp_path / "a.jpg").write_bytes(saved("JPEG", progressive=True))
    assert read(tmp_path / "a.jpg", (4, 4))[0].shape == (4, 4, 3)


def test_a_file_too_large_to_be_an_image_is_not_read(tmp_path):
    with (tmp_path / "a.tif").open("wb") as file:
        file.truncate(2**40)  # a hole: a terabyte that takes no room
    begin = time.process_time()
    for reader in (read, quick_read):
        with pytest.raises(BadImage, match="a file of more than 512 MiB"):
            reader(tmp_path / "a.tif", (4, 4))
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    "data",
    [
        jpeg_segments(segment(0xE1, b"Exif\0\0" + bytes(60_000)), *[segment(0xE2, bytes(60_000))] * 40),
        png_chunks(chunk(b"tEXt", b"a\0b") * 500),
        gif_blocks(b"\x21\xfe\xff" + bytes(255) + b"\0"),
        tiff(1, 3000, _273=(4, 3000, 200), _278=(4, 1, 1), _279=(4, 3000, 200)),
        saved("TIFF", size=(3000, 2000), compression="tiff_lzw"),
        saved("PNG", size=(3000, 2000), compress_level=0),
        b"P5 300 300 4095\n" + bytes(180_000),
    ],
)
def test_ordinary_files_stay_within_the_limits(data):
    assert to_rgb(open_image(data, "x")).mode == "RGB"
