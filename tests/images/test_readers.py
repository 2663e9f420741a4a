"""The quick reader gives Pillow's bytes: for every kind of file, for every size, and for what is damaged its error."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from customcnn.data.manifest import scan
from customcnn.data.pack import pack, stream
from customcnn.images import jpeg, readers
from customcnn.images.decode import BadImage
from customcnn.images.readers import quick_read, read, reader

resample = pytest.importorskip("customcnn.images.fast_resize", reason="Numba is not installed")

edges = st.integers(1, 90)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return smooth and noisy pixels, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


@given(edges, edges, edges, edges, st.integers(0, 3))
@settings(max_examples=150)
def test_resize_gives_the_bytes_of_pillow(height, width, new_height, new_width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    wanted = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resample.resize(pixels, (new_height, new_width)), np.asarray(wanted))


@pytest.mark.parametrize("size", [(150, 150), (224, 224), (62, 75)])
@pytest.mark.parametrize("shape", [(240, 320), (450, 450), (400, 400), (363, 360), (150, 150), (2000, 3)])
def test_the_usual_sizes_are_not_left_to_pillow(shape, size):
    assert resample._passes(shape, size) is not None
    pixels = picture(*shape)
    wanted = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resample.resize(pixels, size), np.asarray(wanted))


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_even_image_stays_even(value):
    assert np.unique(resample.resize(np.full((123, 77, 3), value, np.uint8), (50, 60))).tolist() == [value]


def test_weights_by_hand():
    first, shares = resample.weights(4, 2)
    # Centres at 1 and 3, triangles of half-width 2: 1/8 3/8 3/8 1/8, cut at the edge and made to sum to 1.
    one = 1 << resample.BITS
    assert first.tolist() == [0, 1]
    assert shares.tolist() == [
        [round(one * 3 / 7), round(one * 3 / 7), round(one * 1 / 7)],
        [round(one * 1 / 7), round(one * 3 / 7), round(one * 3 / 7)],
    ]


FILES = {
    "444.jpg": ("RGB", {"quality": 90, "subsampling": 0}),
    "422.jpg": ("RGB", {"quality": 75, "subsampling": 1}),
    "420.jpg": ("RGB", {"quality": 40, "subsampling": 2}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "grey.jpg": ("L", {}),
    "cmyk.jpg": ("CMYK", {}),
    "rgb.bmp": ("RGB", {}),
    "rgb.png": ("RGB", {}),
    "alpha.png": ("RGBA", {}),
    "palette.png": ("P", {}),
    "grey16.png": ("I;16", {}),
    "rgb.tif": ("RGB", {}),
    "lossy.webp": ("RGB", {"quality": 80}),
}


@pytest.mark.parametrize("size", [(31, 40), (64, 64), (97, 130)])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(tmp_path, name, size):
    mode, options = FILES[name]
    image = Image.fromarray(picture(97, 130))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(tmp_path / name, **options)
    pixels, kind = read(tmp_path / name, size)
    quick, quick_kind = quick_read(tmp_path / name, size)
    assert kind == quick_kind
    np.testing.assert_array_equal(quick, pixels)


def test_simplejpeg_is_used(monkeypatch, tmp_path):
    import simplejpeg

    assert jpeg._same_jpegs()
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda data, *_: np.full((40, 50, 3), 7, np.uint8))
    assert np.unique(quick_read(tmp_path / "a.jpg", (20, 20))[0]).tolist() == [7]


def test_a_simplejpeg_that_decodes_otherwise_is_not_used(monkeypatch, tmp_path):
    import simplejpeg

    Image.fromarray(picture(40, 50)).save(tmp_path / "a.jpg")
    decode = simplejpeg.decode_jpeg
    jpeg._same_jpegs.cache_clear()
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda data, *_: decode(data) ^ 1)
    try:
        np.testing.assert_array_equal(
            quick_read(tmp_path / "a.jpg", (20, 20))[0], read(tmp_path / "a.jpg", (20, 20))[0]
        )
    finally:
        jpeg._same_jpegs.cache_clear()


@pytest.mark.parametrize("kept", [0, 3, 200, 0.5, 0.9])
def test_damaged_files_have_the_same_errors(tmp_path, kept):
    data = io.BytesIO()
    Image.fromarray(picture(97, 130)).save(data, "JPEG")
    whole = data.getvalue()
    path = tmp_path / "bad.jpg"
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(BadImage) as plain:
        read(path, (20, 20))
    with pytest.raises(BadImage) as quick:
        quick_read(path, (20, 20))
    assert str(quick.value) == str(plain.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadImage):
        quick_read(tmp_path / "none.jpg", (20, 20))


def test_packs_are_the_same_bytes(make_folder, tmp_path, monkeypatch):
    one = make_folder({"a": 40, "b": 30})
    for path in one.rglob("*.bmp"):
        Image.open(path).resize((50, 40)).save(path.with_suffix(".jpg"))
    assert reader(readers.WORTH - 1) is read and reader(readers.WORTH) is quick_read
    plain = np.array(pack(scan(one), (30, 30)).images)
    for path in (one / ".customcnn").rglob("*"):
        if path.is_file():
            path.unlink()
    monkeypatch.setattr(readers, "WORTH", 1)
    np.testing.assert_array_equal(np.array(pack(scan(one), (30, 30)).images), plain)
    np.testing.assert_array_equal(stream(scan(one), (30, 30)).images[:], plain)


def test_where_nothing_can_be_written_numba_is_done_without(tmp_path):
    """It keeps what it compiles beside the source or in the home directory, or fails; a container may have neither."""
    read_only = ["unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"]
    if subprocess.run([*read_only, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets us make nothing read-only")
    code = "from customcnn.images.readers import is_quick; assert not is_quick()"
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {"HOME": "/nowhere", "XDG_CACHE_HOME": "/nowhere"}
    done = subprocess.run([*read_only, sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


NUMBA_ALONE = """
import sys
from customcnn.images.numba_loader import load_numba
numba = load_numba()
numba.core.config.reload_config()
assert not numba.core.config.CACHE_DIR, numba.core.config.CACHE_DIR
import yaml
"""


def test_no_file_of_the_working_directory_configures_numba(tmp_path):
    """It could name the folder of compiled code, which is unpickled."""
    pytest.importorskip("yaml")
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: here\n")
    done = subprocess.run([sys.executable, "-c", NUMBA_ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
