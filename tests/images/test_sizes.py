"""Sizes of images from their headers, and the sentence about those that are plainly of another size."""

import pytest
from PIL import Image

from customcnn.images.sizes import SAMPLED, side_range, size_note, size_of, sizes_in


def test_the_size_is_read_from_the_header(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (5, 3)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    assert size_of(path) == (5, 3), "the pixels are not needed"
    path.write_bytes(b"no image")
    assert size_of(path) is size_of(tmp_path / "nowhere") is None


def test_the_range_of_sides(make_folder, tmp_path):
    folder = make_folder({"a": 3}, size=8)
    Image.new("RGB", (20, 6)).save(folder / "a" / "wide.bmp")
    paths = sorted(path.name for path in (folder / "a").iterdir())
    sizes = sizes_in(folder / "a", [*paths, "nowhere.png"])
    assert sizes == {"0.bmp": (8, 8), "1.bmp": (8, 8), "2.bmp": (8, 8), "wide.bmp": (20, 6), "nowhere.png": None}
    assert side_range(sizes.values()) == (6, 20)
    assert side_range([]) is side_range([None]) is None
    assert len(sizes_in(tmp_path, [str(number) for number in range(SAMPLED + 1)])) == SAMPLED // 2 + 1


@pytest.mark.parametrize(
    ("sides", "size", "other"),
    [
        ((400, 450), (450, 400), False),
        ((400, 450), (440, 364), False),
        ((400, 450), (363, 400), True),
        ((400, 450), (400, 496), True),
        ((400, 450), (2592, 1944), True),
        ((400, 400), (450, 450), True),
        ((400, 450), None, False),
        (None, (2592, 1944), False),
    ],
)
def test_what_is_plainly_another_size(sides, size, other):
    assert bool(size_note(sides, {"x": size})) == other


def test_the_note_names_five_and_a_count():
    note = size_note((400, 450), {f"{number}.png": (2592, 1944) for number in range(9)} | {"a.png": (400, 420)})
    assert note.startswith("9 of 10 images are plainly of another size than the training images, whose sides have 400 ")
    assert "pixels: '0.png' (2,592 x 1,944), '1.png' (" in note and "'4.png' (2,592 x 1,944) and 4 more." in note
    assert size_note((20, 20), {"a": (9, 9), "b": (20, 20)}).startswith("1 of 2 images is plainly of another size")
