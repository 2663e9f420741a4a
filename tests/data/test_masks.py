"""Masks beside pictures: by their names, and by their few colours where names alone do not tell."""

import numpy as np
import pytest
from PIL import Image

from customcnn.data.manifest import scan
from customcnn.data.masks import find_masks
from tests.support.commands import printed
from tests.support.errors import refused


@pytest.fixture
def save(tmp_path):
    """Return a function that writes images: noise, as of photographs, or masks of three values."""

    folder = tmp_path / "data"

    def write(*names, mask=False):
        for i, name in enumerate(names):
            pixels = np.random.default_rng(i).integers(0, 3 if mask else 256, (12, 12), dtype=np.uint8)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels * 100 if mask else pixels).save(folder / name)
        return folder

    return write


def test_masks_that_are_called_like_their_pictures_are_named(save, shell):
    save(*(f"{label}/00{i}.bmp" for label in ("first", "second") for i in range(3)))
    root = save(*(f"{label}/00{i}.png" for label in ("first", "second") for i in range(3)), mask=True)
    assert refused(scan, root) == (
        "Class folders hold images and nothing else. Received: 'first/000.png' (a mask of '000.bmp'), "
        "'first/001.png' (a mask of '001.bmp'), 'first/002.png' (a mask of '002.bmp'), "
        "'second/000.png' (a mask of '000.bmp'), 'second/001.png' (a mask of '001.bmp') and 1 more. "
        "Remove them or use --skip-bad."
    )
    _, errors = printed(*shell("split", root, root.parent / "parts", "--skip-bad", "--ratio", 0.5))
    assert errors.startswith("Skipped: 'first/000.png' (a mask of '000.bmp'), ")
    assert "'second/001.png' (a mask of '001.bmp') and 1 more.\n" in errors
    found = scan(root, skip_bad=True)
    assert {record.path.rpartition(".")[2] for record in found.records} == {"bmp"}
    assert len(found.records) == len(found.skipped) == 6


def test_photographs_of_one_name_in_two_formats_are_photographs(save):
    root = save("all/1.bmp", "all/1.png", "hem/1.bmp")
    save("hem/2.bmp", "hem/2.png", mask=True)  # both of few colours: which would be the picture?
    assert len(scan(root).records) == 5


@pytest.mark.parametrize(
    "name",
    [
        *("1_mask.bmp", "1-Mask.png", "1.masks.tif", "1_segmentation.gif", "1_GT.bmp", "mask_1.bmp", "GT_1.bmp"),
        *("1Mask.bmp", "1_mask_0.bmp", "1_mask1.bmp", "1_cell_mask.bmp", "1_cp_masks.png", "1_labels.bmp"),
    ],
)
def test_a_name_tells_a_mask_where_the_picture_is_there(save, name):
    root = save("all/1.bmp", f"all/{name}", "hem/other_mask.bmp")
    assert find_masks(root, [f"all/{name}", "all/1.bmp", "hem/other_mask.bmp"]) == [
        (f"all/{name}", "a mask of '1.bmp'")
    ]


def test_a_folder_of_masks_is_no_class(save):
    save("train/original/1.jpg", "train/original/2.jpg", "train/Ground Truth/1.png", "train/Ground Truth/2_mask.png")
    root = save("test/original/1.jpg", "test/mask/1.png")
    found = scan(root, skip_bad=True)
    assert found.classes == ["original"]
    assert dict(found.skipped)["test/mask/1.png"] == "a mask: the images in 'test/original' have the same names"
    assert len(found.skipped) == 3


def test_a_class_that_is_called_masks_is_one_where_its_images_are_its_own(save):
    assert scan(save("masks/1.bmp", "masks/3.bmp", "faces/1.bmp", "faces/2.bmp")).classes == ["faces", "masks"]


def test_what_a_manifest_lists_is_not_looked_at(save):
    root = save("all/1.bmp", "all/1_mask.bmp", "hem/1.bmp")
    rows = "".join(f"{path},{path[:3]},,,\n" for path in ("all/1.bmp", "all/1_mask.bmp", "hem/1.bmp"))
    (root / "manifest.csv").write_text(f"path,label,group,split,sha256\n{rows}")
    assert len(scan(root).records) == 3
