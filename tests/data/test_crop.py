"""Cropping: the same pixels in the same format, and no cell cut without a word."""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from customcnn.data.crop import crop_folder
from customcnn.data.manifest import Manifest, Record, read_manifest, scan
from customcnn.errors import CustomCNNError
from customcnn.images.decode import decode
from tests.support.commands import error_line, printed
from tests.support.errors import refused
from tests.support.folders import names_in


def crop(src, dst, size, **options):
    return crop_folder(scan(src), dst, size, **options)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def where(width, height):
    """A picture whose red is the column and whose green is the row."""
    pixels = np.full((height, width, 3), 7, np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return pixels


def scene(background, cell, box, size=20, noise=0):
    """A square of one colour with a rectangle (left, upper, right, lower) of another on it."""
    pixels = np.full((size, size, 3), background, np.int64)
    left, upper, right, lower = box
    pixels[upper:lower, left:right] = cell
    if noise:
        pixels = pixels + np.random.default_rng(0).integers(-noise, noise + 1, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    ("width", "height", "size", "left", "upper"),
    [(6, 6, 4, 1, 1), (7, 6, 4, 1, 1), (8, 5, 4, 2, 0), (5, 5, 4, 0, 0), (6, 6, 6, 0, 0), (9, 3, 1, 4, 1)],
)
def test_the_crop_is_the_centred_square(tmp_path, width, height, size, left, upper):
    save(tmp_path / "data/all/a.bmp", Image.fromarray(where(width, height)))
    crop(tmp_path / "data", tmp_path / "out", size, check=False)
    cropped = np.asarray(Image.open(tmp_path / "out/all/a.bmp"))
    assert cropped.shape == (size, size, 3)
    assert cropped[0, 0].tolist() == [left, upper, 7]
    assert cropped[-1, -1].tolist() == [left + size - 1, upper + size - 1, 7]


RNG = np.random.default_rng(5)
RGB = Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8))
GREY = Image.fromarray(RNG.integers(0, 256, (9, 9), dtype=np.uint8))
DEEP = Image.fromarray(RNG.integers(0, 65536, (9, 9), dtype=np.uint16))
PALETTE = RGB.quantize(16)
CLEAR = RGB.quantize(16)
CLEAR.info["transparency"] = 3
RGBA = Image.merge("RGBA", [*RGB.split(), Image.fromarray(RNG.integers(1, 256, (9, 9), dtype=np.uint8))])
LOSSLESS = [
    *[(".bmp", image) for image in (RGB, GREY, PALETTE, GREY.convert("1"))],
    *[(".png", image) for image in (RGB, GREY, DEEP, PALETTE, CLEAR, RGBA, RGBA.convert("LA"), GREY.convert("1"))],
    *[(".tif", image) for image in (RGB, GREY, DEEP, PALETTE, RGBA, RGB.convert("CMYK"), GREY.convert("1"))],
    *[(".ppm", image) for image in (RGB, GREY)],
    *[(".pnm", image) for image in (RGB, GREY)],
    *[(".gif", image) for image in (GREY, PALETTE, CLEAR)],
    *[(".webp", image) for image in (RGB, RGBA)],
]


@pytest.mark.parametrize(
    ("suffix", "image"),
    [pytest.param(suffix, image, id=f"{suffix[1:]}-{image.mode}-{i}") for i, (suffix, image) in enumerate(LOSSLESS)],
)
def test_every_lossless_format_keeps_its_pixels_format_and_mode(tmp_path, suffix, image):
    options = {"lossless": True} if suffix == ".webp" else {}
    save(tmp_path / f"data/all/a{suffix}", image, **options)
    result = crop(tmp_path / "data", tmp_path / "out", 4, check=False)
    assert (names_in(tmp_path / "out"), result.reformatted) == ([f"all/a{suffix}", "manifest.csv"], 0)
    before, after = Image.open(tmp_path / f"data/all/a{suffix}"), Image.open(tmp_path / f"out/all/a{suffix}")
    assert (after.format, after.mode) == (before.format, before.mode)
    # A palette may be renumbered: what counts is the colour, transparency included.
    seen = (lambda i: np.asarray(i.convert("RGBA"))) if before.mode == "P" else np.asarray
    np.testing.assert_array_equal(seen(after), seen(before.crop((2, 2, 6, 6))))


def test_a_jpeg_becomes_a_png_with_the_decoded_pixels(tmp_path):
    save(tmp_path / "data/all/a.jpg", RGB, quality=80)
    save(tmp_path / "data/all/b.JPEG", GREY)
    save(tmp_path / "data/all/c.jpg", RGB.convert("CMYK"))
    result = crop(tmp_path / "data", tmp_path / "out", 4, check=False)
    assert names_in(tmp_path / "out") == ["all/a.jpg.png", "all/b.JPEG.png", "all/c.jpg.png", "manifest.csv"]
    assert [record.path for record in result.manifest.records] == ["all/a.jpg.png", "all/b.JPEG.png", "all/c.jpg.png"]
    assert result.reformatted == 3
    for name in ("a.jpg", "b.JPEG"):
        after = Image.open(tmp_path / f"out/all/{name}.png")
        assert after.format == "PNG"
        decoded = np.asarray(Image.open(tmp_path / f"data/all/{name}"))
        np.testing.assert_array_equal(np.asarray(after), decoded[2:6, 2:6])
    # PNG knows no CMYK: the crop is what every other step would make of the JPEG.
    np.testing.assert_array_equal(decode(tmp_path / "out/all/c.jpg.png"), decode(tmp_path / "data/all/c.jpg")[2:6, 2:6])


def test_a_jpeg_whose_new_name_is_taken_is_refused(tmp_path):
    save(tmp_path / "data/all/a.jpg", RGB)
    save(tmp_path / "data/all/a.jpg.png", RGB)
    assert refused(crop, tmp_path / "data", tmp_path / "out", 4, check=False) == (
        "A crop that becomes a PNG has .png added to its name. Received: 'all/a.jpg', beside images that have "
        "that name already. Rename one of each two."
    )
    assert names_in(tmp_path) == ["data/all/a.jpg", "data/all/a.jpg.png"]


def test_a_lossy_webp_stays_webp_and_loses_nothing_more(tmp_path):
    save(tmp_path / "data/all/a.webp", RGB, quality=60)
    crop(tmp_path / "data", tmp_path / "out", 4, check=False)
    before, after = Image.open(tmp_path / "data/all/a.webp"), Image.open(tmp_path / "out/all/a.webp")
    assert after.format == "WEBP"
    np.testing.assert_array_equal(np.asarray(after), np.asarray(before)[2:6, 2:6])


# ---------------------------------------------------------------- what is refused


def test_an_image_smaller_than_the_square_is_refused_and_named(tmp_path):
    save(tmp_path / "data/all/good.bmp", Image.fromarray(where(9, 9)))
    save(tmp_path / "data/all/low.bmp", Image.fromarray(where(9, 7)))
    save(tmp_path / "data/hem/narrow.bmp", Image.fromarray(where(7, 9)))
    assert refused(crop, tmp_path / "data", tmp_path / "out", 8, check=False) == (
        "A crop lies inside the image. Received: --size 8 for 'all/low.bmp' (9 x 7), 'hem/narrow.bmp' (7 x 9). "
        "Give a smaller --size."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("size", [0, -3])
def test_a_square_without_pixels_is_refused(make_folder, tmp_path, size):
    with pytest.raises(CustomCNNError, match=f"at least one pixel. Received: --size {size}. Give --size 1 or more"):
        crop(make_folder({"all": 1}), tmp_path / "out", size)


@pytest.mark.parametrize(
    ("background", "cell", "noise"),
    [
        pytest.param((255, 255, 255), (90, 40, 130), 0, id="white"),
        pytest.param((0, 0, 0), (90, 40, 130), 0, id="black"),
        pytest.param((230, 225, 235), (90, 40, 130), 15, id="noisy"),
        pytest.param((120, 120, 120), (120, 120, 160), 0, id="grey, one channel differs"),
    ],
)
def test_the_check_names_the_images_whose_cell_would_be_cut(tmp_path, background, cell, noise):
    # The crop of 14 keeps pixels 3 to 16 of 20.
    save(tmp_path / "data/all/inside.png", scene(background, cell, (3, 3, 17, 17), noise=noise))
    save(tmp_path / "data/all/left.png", scene(background, cell, (2, 5, 10, 15), noise=noise))
    save(tmp_path / "data/hem/below.png", scene(background, cell, (5, 5, 15, 18), noise=noise))
    save(tmp_path / "data/hem/edge.png", scene(background, cell, (16, 0, 20, 8), noise=noise))
    save(tmp_path / "data/hem/empty.png", scene(background, cell, (0, 0, 0, 0), noise=noise))
    assert refused(crop, tmp_path / "data", tmp_path / "out", 14, max_cut=0) == (
        "A crop cuts away at most 0 % of an image's foreground. Received: --size 14, which cuts more from "
        "'hem/edge.png' (84 %), 'all/left.png' (12 %), 'hem/below.png' (7.7 %). "
        "Give a larger --size or --max-cut, or --no-check to cut any of it."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert len(crop(tmp_path / "data", tmp_path / "out", 14, check=False).manifest.records) == 5


def speck(tmp_path):
    """A cell of 96 pixels, and 4 pixels of something else in the corner: .04 of the foreground lies outside of 14."""
    pixels = np.asarray(scene((0, 0, 0), (200, 80, 200), (4, 4, 16, 12))).copy()
    pixels[:2, :2] = 200, 80, 200
    save(tmp_path / "data/all/speck.bmp", Image.fromarray(pixels))
    save(tmp_path / "data/hem/whole.bmp", scene((0, 0, 0), (200, 80, 200), (4, 4, 16, 12)))
    return tmp_path / "data"


def test_a_little_foreground_is_cut_away_and_told(tmp_path):
    result = crop(speck(tmp_path), tmp_path / "out", 14)
    assert result.cut == [("all/speck.bmp", pytest.approx(0.04))]
    assert Image.open(tmp_path / "out/all/speck.bmp").size == (14, 14)
    assert crop(tmp_path / "data", tmp_path / "any", 14, check=False).cut == []


def test_max_cut_says_how_much_is_a_little(tmp_path):
    assert "'all/speck.bmp' (4 %). Give a larger --size or --max-cut" in refused(
        crop, speck(tmp_path), tmp_path / "out", 14, max_cut=0.03
    )
    assert names_in(tmp_path) == ["data/all/speck.bmp", "data/hem/whole.bmp"]
    assert refused(crop, tmp_path / "data", tmp_path / "out", 14, max_cut=float("nan")) == (
        "A share lies between 0 and 1. Received: --max-cut nan. Example: --max-cut .1."
    )


def test_the_command_names_what_it_has_cut(tmp_path, shell):
    output, errors = printed(*shell("crop", speck(tmp_path), tmp_path / "out", "--size", 14, "--json"))
    assert errors == "Note: some foreground was cut away from 1 image: 'all/speck.bmp' (4 %).\n"
    assert json.loads(output)["cut"] == [{"path": "all/speck.bmp", "share": pytest.approx(0.04)}]
    error_line(*shell("crop", tmp_path / "data", tmp_path / "more", "--size", 14, "--max-cut", 0.01))


def test_a_real_cell_with_debris_at_its_edge_is_cropped(shared_data, tmp_path):
    name = "UID_1_2_1_all.bmp"
    (tmp_path / "data/all").mkdir(parents=True)
    (tmp_path / "data/all" / name).symlink_to(shared_data / "cnmc-2019/C-NMC_Leukemia/training_data/fold_0/all" / name)
    assert crop(tmp_path / "data", tmp_path / "out", 400).cut == [(f"all/{name}", pytest.approx(0.01, abs=0.002))]


def test_each_image_is_judged_on_its_own_background(tmp_path):
    save(tmp_path / "data/all/black.png", scene((0, 0, 0), (200, 80, 200), (5, 5, 15, 15)))
    save(tmp_path / "data/all/white.png", scene((255, 255, 255), (200, 80, 200), (5, 5, 15, 15)))
    save(tmp_path / "data/all/grey.png", Image.fromarray(np.full((20, 20), 40, np.uint8)))
    assert len(crop(tmp_path / "data", tmp_path / "out", 12).manifest.records) == 3


def test_the_whole_image_is_never_a_cut(tmp_path):
    save(tmp_path / "data/all/a.png", scene((0, 0, 0), (200, 80, 200), (0, 0, 9, 9)))
    crop(tmp_path / "data", tmp_path / "out", 20)
    assert (tmp_path / "out/all/a.png").is_file()


# ---------------------------------------------------------------- folders and manifests


def test_parts_groups_and_further_columns_are_kept_and_the_hashes_are_new(make_folder, tmp_path):
    src = make_folder({"train/all": 2, "train/hem": 1, "validation/all": 1, "validation/hem": 1})
    before = scan(src)
    records = tuple(
        Record(r.path, r.label, f"G{i}", r.split, "0" * 64, {"site": f"s{i}", "origin": "drawn"})
        for i, r in enumerate(before.records)
    )
    Manifest(src, records).write(src / "manifest.csv")
    result = crop(src, tmp_path / "out", 4, check=False)
    for old, new in zip(records, result.manifest.records, strict=True):
        assert (new.path, new.label, new.group, new.split) == (old.path, old.label, old.group, old.split)
        assert new.extra == old.extra
        assert new.sha256 == hashlib.sha256((tmp_path / "out" / new.path).read_bytes()).hexdigest()
    assert read_manifest(tmp_path / "out/manifest.csv").records == result.manifest.records
    assert scan(tmp_path / "out").records == result.manifest.records
    assert result.manifest.root == tmp_path / "out"


def test_names_with_anything_in_them_are_kept(tmp_path):
    names = ["with space.png", "quo'te\".png", "new\nline.png", "ünïcode 细胞.png", "comma,.png"]
    for name in names:
        save(tmp_path / "data/all" / name, scene((0, 0, 0), (200, 80, 200), (5, 5, 15, 15)))
    crop(tmp_path / "data", tmp_path / "out", 12)
    assert [r.path for r in read_manifest(tmp_path / "out/manifest.csv").records] == sorted(f"all/{n}" for n in names)
    assert {path.name for path in (tmp_path / "out/all").iterdir()} == set(names)


def test_a_bad_file_is_an_error_that_names_all_or_is_skipped(make_folder, tmp_path):
    src = make_folder({"all": 3, "hem": 2})
    (src / "all/empty.png").touch()
    (src / "all/text.png").write_text("no image")
    whole = io.BytesIO()
    RGB.save(whole, "PNG")
    (src / "hem/cut.png").write_bytes(whole.getvalue()[:-60])
    message = refused(crop, src, tmp_path / "out", 4, check=False)
    for name in ("'all/empty.png' (an empty file)", "'all/text.png' (not an image", "'hem/cut.png' (damaged"):
        assert name in message
    assert not (tmp_path / "out").exists()
    result = crop(src, tmp_path / "out", 4, check=False, skip_bad=True)
    assert sorted(path for path, _ in result.skipped) == ["all/empty.png", "all/text.png", "hem/cut.png"]
    assert len(result.manifest.records) == 5
    assert names_in(tmp_path / "out") == [*(r.path for r in result.manifest.records), "manifest.csv"]


def test_nothing_but_bad_files_is_an_error_even_when_skipping(tmp_path):
    (tmp_path / "data/all").mkdir(parents=True)
    (tmp_path / "data/all/a.png").touch()
    with pytest.raises(CustomCNNError, match=r"at least one image that can be used\. Received: none"):
        crop(tmp_path / "data", tmp_path / "out", 4, skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_a_destination_with_something_in_it_is_kept_unless_replaced(make_folder, tmp_path):
    src = make_folder({"all": 1, "hem": 1})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    with pytest.raises(CustomCNNError, match=r"is not empty\. Use --replace"):
        crop(src, tmp_path / "out", 4, check=False)
    assert names_in(tmp_path / "out") == ["mine.txt"]
    crop(src, tmp_path / "out", 4, check=False, replace_dst=True)
    assert names_in(tmp_path / "out") == ["all/0.bmp", "hem/0.bmp", "manifest.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


@pytest.mark.parametrize("dst", ["data", "data/all", ".."])
def test_source_and_destination_are_apart(make_folder, tmp_path, dst):
    src = make_folder({"all": 1})
    with pytest.raises(CustomCNNError, match="separate folders"):
        crop(src, src.parent / dst, 4, check=False)


def test_any_number_of_workers_makes_the_same_folder(make_folder, tmp_path):
    src = make_folder({"all": 9, "hem": 8})
    for workers in (1, 2, 8):
        crop(src, tmp_path / f"out{workers}", 5, check=False, workers=workers)
    for name in names_in(tmp_path / "out1"):
        contents = {(tmp_path / f"out{workers}" / name).read_bytes() for workers in (1, 2, 8)}
        assert len(contents) == 1
    assert names_in(tmp_path / "out1") == names_in(tmp_path / "out2") == names_in(tmp_path / "out8")


def sixteen_bit_png(path):
    """Write a 16-bit RGB PNG, which Pillow cannot: a 4 x 4 image of one colour."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + struct.pack(">3H", 0x1234, 0x8000, 0xFFFF) * 4) * 4
    header = struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(data)


def test_sixteen_bit_colour_is_not_cut_down_in_silence(make_folder, tmp_path):
    """Pillow reads such a PNG with 8 bits: a crop would lose the others, a network never sees them."""
    from customcnn.images.decode import kind, read_image

    root = make_folder({"all": 1, "hem": 1})
    sixteen_bit_png(root / "all" / "deep.png")
    image = read_image(root / "all" / "deep.png")
    assert kind(image) == "16-bit RGB" and image.getpixel((0, 0)) == (0x12, 0x80, 0xFF)
    with pytest.raises(CustomCNNError, match=r"'all/deep\.png' \(16-bit RGB, which cannot be cropped without loss\)"):
        crop_folder(scan(root), tmp_path / "cropped", 2, check=False)
