"""EXIF orientation is applied once, when a file is decoded, whatever its format and whoever decodes it."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from customcnn.audit.duplicates import _look_at
from customcnn.data.augment import augment_folder
from customcnn.data.crop import crop_folder
from customcnn.data.manifest import scan
from customcnn.data.pack import pack
from customcnn.images.decode import BadImage, decode, kind, open_image, read_image, to_rgb
from customcnn.images.readers import quick_read, read
from customcnn.inference.inputs import as_pixels

PIXELS = np.zeros((16, 32, 3), np.uint8)
PIXELS[:8, :8] = 255  # a white mark in the upper left corner
# Orientation to where the mark is when the image is shown: what the EXIF standard calls the 0th row and column.
SHOWN = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
FORMATS: dict[str, dict[str, Any]] = {
    "jpg": {"quality": 100, "subsampling": 0},
    "png": {},
    "webp": {"lossless": True},
    "tif": {},
}


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def saved(suffix: str, orientation: int, image: Image.Image | None = None) -> bytes:
    data = io.BytesIO()
    format = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    (image or Image.fromarray(PIXELS)).save(data, format, exif=exif(orientation), **FORMATS[suffix])
    return data.getvalue()


def upright(pixels: np.ndarray, orientation: int) -> bool:
    row, column = SHOWN[orientation]
    return pixels.shape == ((16, 32, 3), (32, 16, 3))[orientation > 4] and bool(pixels[row, column].min() > 250)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_orientation_of_every_format(suffix, orientation, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(saved(suffix, orientation))
    assert upright(decode(path), orientation)
    size = (16, 32) if orientation < 5 else (32, 16)
    for reader in (read, quick_read):
        pixels, its_kind = reader(path, size)
        assert upright(pixels, orientation)
        assert its_kind == ("RGB" if orientation == 1 else "RGB rotated by EXIF")
    for picture in (path, path.read_bytes(), Image.open(path)):
        assert upright(as_pixels(picture, size)[0], orientation)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_of_it_is_not_rotated_again(suffix, tmp_path):
    for label in ("a", "b"):
        (tmp_path / "cells" / label).mkdir(parents=True)
        (tmp_path / "cells" / label / f"1.{suffix}").write_bytes(saved(suffix, 6))
    cropped = crop_folder(scan(tmp_path / "cells"), tmp_path / "cropped", 16, check=False).manifest
    whole = np.asarray(to_rgb(read_image(tmp_path / "cells" / "a" / f"1.{suffix}")))
    np.testing.assert_array_equal(decode(tmp_path / "cropped" / cropped.records[0].path), whole[8:24])
    made = augment_folder(scan(tmp_path / "cells"), tmp_path / "augmented", 2, seed=1, workers=1).manifest
    for record in made.records:
        pixels = decode(tmp_path / "augmented" / record.path)
        assert sorted(pixels.shape) == [3, 16, 32] and kind(read_image(tmp_path / "augmented" / record.path)) == "RGB"
    packed = pack(scan(tmp_path / "cells"), (32, 16))
    assert upright(packed.images[0], 6)
    assert packed.converted == {"RGB rotated by EXIF": 2}
    (look, _) = _look_at(tmp_path / "cells", scan(tmp_path / "cells").records)
    assert look.thumbnail[0, -1] > 250


def test_a_picture_of_the_users_own_stays_as_it_was():
    image = Image.open(io.BytesIO(saved("png", 6)))
    as_pixels(image, (4, 4))
    assert image.size == (32, 16) and image.getexif()[0x0112] == 6


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_modes_and_formats_are_kept(mode):
    image = Image.new("I;16", (32, 16), 9_000) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    turned = open_image(saved("png", 8, image), "x")
    assert (turned.format, turned.mode, turned.size) == ("PNG", mode, (16, 32))
    assert kind(turned) == f"{mode} rotated by EXIF"


def test_the_old_way_of_imagemagick_in_png():
    from PIL.PngImagePlugin import PngInfo

    block = exif(6).tobytes()
    info, data = PngInfo(), io.BytesIO()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    Image.fromarray(PIXELS).save(data, "PNG", pnginfo=info)
    assert open_image(data.getvalue(), "x").size == (16, 32)


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0XX*\0\x08\0\0\0\x01\0",
        b"Exif\0\0" + struct.pack("<2sHIHHHIH", b"II", 42, 8, 1, 0x0112, 3, 1, 9),
        b"Exif\0\0" + struct.pack("<2sHIHHHIH", b"II", 42, 8, 1, 0x0112, 2, 1, 6),
    ],
)
def test_a_damaged_orientation_is_none(block):
    data = saved("jpg", 1)
    data = data[:2] + struct.pack(">BBH", 255, 0xE1, len(block) + 2) + block + data[2:]
    try:
        assert open_image(data, "x").size == (32, 16)
    except BadImage as error:
        assert error.reason.startswith("damaged")
