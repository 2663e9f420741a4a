"""The audit: what is shared between parts is found, and what is not shared is not."""

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customcnn.audit import DISTANCE, audit, report
from customcnn.audit.duplicates import _candidates, _Look, near_across, perceptual_hashes
from customcnn.audit.text import NOT_DEEP
from customcnn.data.manifest import Record, scan
from customcnn.data.synthetic import draw_samples
from customcnn.errors import CustomCNNError
from customcnn.images.dihedral import eight_views
from tests.support.audit_pictures import cell, save, with_groups


def pairs(found):
    return {(pair.first, pair.second) for pair in found.near_duplicates}


# ---------------------------------------------------------------- views


def test_eight_views_by_hand():
    views = [view.tolist() for view in eight_views(np.array([[1, 2], [3, 4]]))]
    assert views == [
        [[1, 2], [3, 4]],
        [[2, 4], [1, 3]],
        [[4, 3], [2, 1]],
        [[3, 1], [4, 2]],
        [[2, 1], [4, 3]],
        [[4, 2], [3, 1]],
        [[3, 4], [1, 2]],
        [[1, 3], [2, 4]],
    ]


# ---------------------------------------------------------------- near-duplicates


def test_every_turn_and_flip_is_found_and_nothing_else(tmp_path):
    expected = set()
    for i in range(6):
        save(tmp_path / f"train/all/{i}.png", cell(i))
        for k, view in enumerate(eight_views(cell(i))):
            name = f"validation/all/{i}-{k}" + (".jpg" if k == 0 else ".png")
            save(tmp_path / name, view)
            expected.add((f"train/all/{i}.png", name))
    found = audit(scan(tmp_path), workers=1)
    assert pairs(found) == expected
    assert all(pair.correlation >= 0.97 and pair.distance <= DISTANCE for pair in found.near_duplicates)
    assert found.identical == []
    assert found.leaks


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_copy_saved_again_as_jpeg_is_found_in_any_turn(tmp_path, quality):
    expected = set()
    for i in range(16):
        save(tmp_path / f"train/all/{i:02}.png", cell(i))
        save(tmp_path / f"test/all/{i:02}.jpg", eight_views(cell(i))[i % 8], quality=quality)
        expected.add((f"test/all/{i:02}.jpg", f"train/all/{i:02}.png"))
    assert pairs(audit(scan(tmp_path), workers=1)) == expected


def test_copies_of_other_size_format_mode_and_brightness_are_found(tmp_path):
    original = Image.fromarray(cell(3))
    save(tmp_path / "train/all/a.png", original)
    save(tmp_path / "validation/all/half.png", original.resize((48, 48)))
    save(tmp_path / "validation/all/grey.tif", original.convert("L").transpose(Image.Transpose.ROTATE_90))
    save(tmp_path / "validation/all/dark.bmp", Image.fromarray((cell(3) * 0.8).astype(np.uint8)))
    save(tmp_path / "validation/all/other.bmp", cell(4))
    found = pairs(audit(scan(tmp_path), workers=1))
    assert found == {("train/all/a.png", f"validation/all/{name}") for name in ("half.png", "grey.tif", "dark.bmp")}


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_hashes_are_those_of_imagehash(seed, smooth):
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (5, 5) if smooth else (32, 32), dtype=np.uint8))
    thumbnail = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC))
    theirs = [imagehash.phash(Image.fromarray(np.ascontiguousarray(view))).hash for view in eight_views(thumbnail)]
    ours = np.unpackbits(perceptual_hashes(thumbnail).view(np.uint8)).reshape(8, 8, 8)
    np.testing.assert_array_equal(ours, theirs)


def test_different_drawn_cells_are_not_near_duplicates(tmp_path):
    draw_samples(tmp_path / "cells", subjects=10, cells=10, size=120, seed=1)
    records = scan(tmp_path / "cells").records
    assert len(records) == 200
    for i, record in enumerate(records):
        target = tmp_path / "data" / ("train", "validation")[i % 2] / record.path
        target.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cells" / record.path).rename(target)
    found = audit(scan(tmp_path / "data"), workers=1)
    assert found.near_duplicates == []
    assert found.identical == []


def test_near_duplicates_within_one_part_are_no_leak(tmp_path):
    save(tmp_path / "train/all/a.png", cell(1))
    save(tmp_path / "train/all/b.png", cell(1)[::-1])
    save(tmp_path / "train/all/c.png", cell(1))
    save(tmp_path / "validation/all/d.png", cell(2))
    found = audit(scan(tmp_path), workers=1)
    assert not found.leaks


def test_flat_images_are_not_taken_for_each_other(tmp_path):
    for part, level in (("train", 0), ("validation", 200), ("test", 255)):
        save(tmp_path / f"{part}/all/a.png", np.full((40, 40, 3), level, np.uint8))
    assert audit(scan(tmp_path), workers=1).near_duplicates == []


# ---------------------------------------------------------------- the index


def looks_of(hashes):
    detail = np.zeros((32, 32), np.float32)
    detail[0, 0] = 1
    return [_Look(np.array(eight, np.uint64), detail, str(i)) for i, eight in enumerate(hashes)]


def records_of(parts):
    return tuple(Record(f"{i:03}.png", "all", split=part) for i, part in enumerate(parts))


@st.composite
def indexed(draw):
    """Some images of eight hashes each, many of them a few bits away from those of an earlier image."""
    hashes = []
    for _ in range(draw(st.integers(2, 10))):
        eight = draw(st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8))
        if hashes and draw(st.booleans()):
            near = draw(st.sampled_from(hashes))[draw(st.integers(0, 7))]
            for bit in draw(st.sets(st.integers(0, 63), max_size=DISTANCE + 1)):
                near ^= 1 << bit
            eight[draw(st.integers(0, 7))] = near
        hashes.append(eight)
    parts = draw(st.lists(st.sampled_from(["train", "test"]), min_size=len(hashes), max_size=len(hashes)))
    return hashes, parts


@given(indexed())
def test_the_index_misses_no_pair_that_brute_force_finds(case):
    hashes, parts = case

    def near(i, j):
        return any((hashes[i][0] ^ other).bit_count() <= DISTANCE for other in hashes[j])

    expected = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if parts[i] != parts[j] and (near(i, j) or near(j, i))
    }
    assert _candidates(records_of(parts), looks_of(hashes)) == expected


def test_a_pair_is_found_whichever_of_the_two_comes_first():
    # The hash of one image is near that of a turn of the other, but not the other way round.
    far = [2**64 - 1 - i for i in range(8)]
    one, other = [0, *far[1:]], [0x5555555555555555, *far[:6], 0b111]
    for hashes in ([one, other], [other, one]):
        found = near_across(records_of(["train", "test"]), looks_of(hashes))
        assert [(pair.first, pair.second, pair.distance) for pair in found] == [("000.png", "001.png", 3)]


# ---------------------------------------------------------------- groups, identical files, labels


def test_shared_groups_are_named_with_their_parts_and_counted(make_folder):
    src = make_folder({"train/all": 3, "train/hem": 2, "validation/all": 2, "validation/hem": 1, "test/hem": 1})
    groups = {
        "train/all/0.bmp": "A",
        "train/all/1.bmp": "A",
        "validation/all/0.bmp": "A",
        "test/hem/0.bmp": "H",
        "train/hem/1.bmp": "H",
        "validation/hem/0.bmp": "H",
    }
    with_groups(src, lambda path: groups.get(path, path))
    found = audit(scan(src), workers=1)
    assert found.groups_known
    assert found.shared_groups == {"A": ["train", "validation"], "H": ["test", "train", "validation"]}
    assert found.images_in_shared_groups == {"train": 3, "validation": 2, "test": 1}
    assert found.images == {
        "train": {"all": 3, "hem": 2},
        "validation": {"all": 2, "hem": 1},
        "test": {"hem": 1},
    }
    assert found.leaks


def test_groups_that_some_images_lack_are_compared_and_said_to_be_unknown(make_folder):
    src = make_folder({"train/all": 2, "validation/all": 1})
    with_groups(src, lambda path: "" if path == "train/all/1.bmp" else "A")
    found = audit(scan(src), workers=1)
    assert not found.groups_known
    assert found.shared_groups == {"A": ["train", "validation"]}


def test_identical_bytes_are_found_across_parts_and_classes(tmp_path):
    for name in ("train/all/a", "train/all/again", "validation/all/b", "test/hem/c"):
        save(tmp_path / f"{name}.png", cell(1))
    save(tmp_path / "train/hem/d.png", cell(2))
    save(tmp_path / "train/hem/twin.png", cell(2))
    found = audit(scan(tmp_path), workers=1)
    assert found.identical == [["test/hem/c.png", "train/all/a.png", "train/all/again.png", "validation/all/b.png"]]
    assert found.near_duplicates == [], "what is identical is not told twice"


def test_a_near_duplicate_of_another_class_is_flagged(tmp_path):
    save(tmp_path / "train/all/a.png", cell(1))
    save(tmp_path / "validation/hem/b.png", cell(1)[:, ::-1])
    save(tmp_path / "train/hem/c.png", cell(2))
    save(tmp_path / "validation/hem/d.png", cell(2).swapaxes(0, 1))
    found = audit(scan(tmp_path), workers=1)
    assert {(p.first, p.second, p.same_label) for p in found.near_duplicates} == {
        ("train/all/a.png", "validation/hem/b.png", False),
        ("train/hem/c.png", "validation/hem/d.png", True),
    }


# ---------------------------------------------------------------- report


def test_the_report_by_hand(tmp_path):
    # Of 32 x 32 pixels a thumbnail is the image itself: its turns correlate exactly.
    save(tmp_path / "train/all/a.png", cell(1, 32))
    save(tmp_path / "train/all/b.png", cell(2, 32))
    save(tmp_path / "train/hem/c.png", cell(3, 32))
    save(tmp_path / "validation/all/new\nline.png", np.rot90(cell(1, 32)))
    save(tmp_path / "validation/hem/b.png", cell(2, 32))
    save(tmp_path / "validation/hem/f.png", cell(4, 32))
    save(tmp_path / "validation/hem/turned.png", cell(2, 32)[::-1])
    with_groups(tmp_path, lambda path: "17" if path.endswith("b.png") else path)
    assert report(audit(scan(tmp_path), workers=1)).splitlines() == [
        "train: 3 images (all 2, hem 1)",
        "validation: 4 images (all 1, hem 3)",
        "label conflicts among duplicates: 2",
        "  'train/all/b.png', 'validation/hem/b.png' (identical files: all, hem)",
        "  'train/all/b.png', 'validation/hem/turned.png' (near-duplicates: all, hem)",
        "groups in more than one part: 1 (1 train images, 1 validation images)",
        "  '17': train, validation",
        "images of a group: 1 to 2 images each, median 1, in 6 groups",
        "groups with images of several classes: 1",
        "  '17'",
        "duplicates in different groups: 2",
        "  'train/all/a.png', 'validation/all/new\\nline.png' "
        "(near-duplicates: train/all/a.png, 'validation/all/new\\nline.png')",
        "  'train/all/b.png', 'validation/hem/turned.png' (near-duplicates: 17, validation/hem/turned.png)",
        "identical files across parts: 1",
        "  'train/all/b.png', 'validation/hem/b.png' (of different classes)",
        "near-duplicates across parts (turned, flipped or saved again): 2",
        "  'train/all/a.png', 'validation/all/new\\nline.png' (correlation 1.000)",
        "  'train/all/b.png', 'validation/hem/turned.png' (correlation 1.000, of different classes)",
        "files that repeat another of their own part: train 0, validation 0",
        "blank images (of fewer than 20 nobody can say what is usual): 0",
        "Leaks: a score on this split is inflated.",
        NOT_DEEP,
    ]


def test_the_report_of_a_clean_split(tmp_path):
    save(tmp_path / "train/all/a.png", cell(1))
    save(tmp_path / "test/hem/b.png", cell(2))
    assert report(audit(scan(tmp_path), workers=1)).splitlines() == [
        "train: 1 images (all 1)",
        "test: 1 images (hem 1)",
        "label conflicts among duplicates: 0",
        "groups: not known (give --group-pattern or --groups)",
        "identical files across parts: 0",
        "near-duplicates across parts (turned, flipped or saved again): 0",
        "files that repeat another of their own part: train 0, test 0",
        "blank images (of fewer than 20 nobody can say what is usual): 0",
        "Nothing shared was found.",
        NOT_DEEP,
    ]


def test_the_report_shows_the_first_five_of_each(tmp_path):
    for i in range(7):
        save(tmp_path / f"train/all/{i}.png", cell(i))
        save(tmp_path / f"test/all/{i}.png", cell(i))
    lines = report(audit(scan(tmp_path), workers=1)).splitlines()
    assert "identical files across parts: 7" in lines
    assert sum(line.startswith("  'test") for line in lines) == 5


# ---------------------------------------------------------------- the whole


def test_any_number_of_workers_finds_the_same(tmp_path):
    for i in range(8):
        save(tmp_path / f"train/all/{i}.png", cell(i))
        save(tmp_path / f"validation/all/{i}.jpg", eight_views(cell(i))[i])
    one, two = (audit(scan(tmp_path), workers=workers) for workers in (1, 2))
    assert one == two
    assert len(one.near_duplicates) == 8


def test_a_damaged_image_is_one_line(make_folder):
    src = make_folder({"train/all": 2, "validation/all": 1})
    (src / "train/all/1.bmp").write_bytes(b"no image")
    with pytest.raises(CustomCNNError, match=r"train/all/1\.bmp', not an image") as caught:
        audit(scan(src), workers=1)
    assert "\n" not in str(caught.value)
