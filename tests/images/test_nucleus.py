"""Stained cells: the white background, the black of turned photographs, the nucleus; on made and on real pictures."""

import numpy as np
import pytest
from PIL import Image

from customcnn.data.crop import crop_folder
from customcnn.data.manifest import scan
from customcnn.errors import CustomCNNError
from customcnn.images.nucleus import WHITE, cut_out, inside, nucleus, white_balance

VIOLET = (110, 60, 190)


def smear(nuclei: list[tuple[int, int, int]], background: tuple[int, int, int] = (200, 190, 180)) -> np.ndarray:
    """Return a 160 x 200 picture with violet discs, each (row, column, radius)."""
    picture = np.empty((160, 200, 3), np.uint8)
    picture[:] = background
    rows, columns = np.ogrid[:160, :200]
    for row, column, radius in nuclei:
        picture[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = VIOLET
    return picture


# ---------------------------------------------------------------- the background


@pytest.mark.parametrize("background", [(200, 190, 180), (120, 130, 140), (250, 250, 250)])
def test_the_background_becomes_white_in_every_channel(background):
    balanced = white_balance(smear([(80, 100, 20)], background))
    np.testing.assert_allclose(balanced[0, 0], WHITE, rtol=1e-6)


def test_channels_are_scaled_by_hand():
    balanced = white_balance(smear([(80, 100, 20)]))
    wanted = [110 * 230 / 200, 60 * 230 / 190, 190 * 230 / 180]
    np.testing.assert_allclose(balanced[80, 100], wanted, rtol=1e-6)


def test_a_black_picture_is_left_alone():
    black = np.zeros((40, 40, 3), np.uint8)
    assert not inside(black).any()
    np.testing.assert_array_equal(white_balance(black), 0)


def test_black_corners_are_outside_and_dark_pixels_of_a_cell_are_not():
    picture = smear([(80, 100, 20)])
    picture[:30, :40] = 0
    picture[80, 100] = 0
    valid = inside(picture)
    assert not valid[:30, :40].any() and valid[80, 100] and valid[60:-3, 60:-3].all()


# ---------------------------------------------------------------- the nucleus


@pytest.mark.parametrize("place", [(80, 100), (30, 40), (140, 180), (5, 5)])
def test_the_nucleus_is_found(place):
    picture = smear([(*place, 18)])
    found = nucleus(white_balance(picture), inside(picture))
    if place == (5, 5):  # half of the disc lies outside: its centre of mass is further in
        assert all(5 <= value <= 14 for value in found)
    else:
        assert found == pytest.approx(place, abs=1)


def test_the_larger_of_two_is_taken():
    picture = smear([(40, 40, 9), (100, 140, 20)])
    assert nucleus(white_balance(picture), inside(picture)) == pytest.approx((100, 140), abs=1)


def test_red_cells_are_not_nuclei():
    picture = smear([(100, 140, 12)])
    picture[20:70, 20:70] = (220, 150, 150)
    assert nucleus(white_balance(picture), inside(picture)) == pytest.approx((100, 140), abs=1)


def test_without_a_nucleus_it_is_the_centre():
    picture = smear([])
    assert nucleus(white_balance(picture), inside(picture)) == (80, 100)


# ---------------------------------------------------------------- the crop


@pytest.mark.parametrize("size", [1, 64, 65, 300])
def test_the_nucleus_stands_in_the_middle(size):
    crop = cut_out(smear([(80, 100, 18)]), size)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
    np.testing.assert_array_equal(crop[size // 2, size // 2], [126, 73, 243])


def test_outside_the_photograph_it_is_white():
    picture = smear([(20, 20, 12)])
    picture[:, 190:] = 0
    crop = cut_out(picture, 100)
    np.testing.assert_array_equal(crop[:25, :25], WHITE)


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_photograph_gives_the_same_crop_turned(turns):
    """Up to the one pixel by which the middle of an even square lies beside the nucleus."""
    picture = smear([(60, 90, 18), (62, 108, 14)])
    straight, turned = cut_out(picture, 65), cut_out(np.rot90(picture, turns), 65)
    difference = np.abs(np.rot90(straight, turns).astype(int) - turned).max(axis=2)
    assert (difference > 0).mean() < 0.05


# ---------------------------------------------------------------- folders


def test_a_folder_is_cropped_about_its_nuclei(tmp_path):
    src = tmp_path / "src"
    (src / "a").mkdir(parents=True)
    Image.fromarray(smear([(80, 100, 18)])).save(src / "a" / "1.jpg", quality=95)
    Image.fromarray(smear([(80, 100, 18)])).save(src / "a" / "2.png")
    result = crop_folder(scan(src), tmp_path / "dst", 64, about="nucleus")
    assert [record.path for record in result.manifest.records] == ["a/1.jpg.png", "a/2.png"]
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "dst" / "a" / "2.png")), cut_out(smear([(80, 100, 18)]), 64)
    )


def test_about_something_else(tmp_path):
    (tmp_path / "src" / "a").mkdir(parents=True)
    Image.fromarray(smear([])).save(tmp_path / "src" / "a" / "1.png")
    with pytest.raises(CustomCNNError, match=r"about the centre or the nucleus\. Received: 'edge'\."):
        crop_folder(scan(tmp_path / "src"), tmp_path / "dst", 64, about="edge")
    assert not (tmp_path / "dst").exists()


@pytest.mark.docs
def test_real_photographs_keep_their_stain(shared_data):
    """In most of 200 photographs the crop holds most of what is stained in the whole."""
    files = sorted((shared_data / "blood-cells").rglob("*.jpeg"))[::16][:200]

    def stain(balanced: np.ndarray) -> float:
        return float(np.clip((balanced[..., 2] - balanced[..., 1] - 25.0) / 65, 0, 1).sum())

    shares = []
    for path in files:
        picture = np.asarray(Image.open(path).convert("RGB"))
        valid = inside(picture)
        whole = white_balance(picture, valid) * valid[..., None]
        shares.append(stain(cut_out(picture, 128).astype(float)) / max(stain(whole), 1))
    assert np.median(shares) > 0.9 and np.mean(np.array(shares) > 0.5) > 0.95
