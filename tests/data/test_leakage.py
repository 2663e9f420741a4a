"""What two parts share, counted by hand, and the sentence that says so."""

from pathlib import Path

import pytest

from customcnn.data.leakage import DRAWN, find_leakage, notes
from customcnn.data.manifest import Manifest, Record


def part(*images: str) -> list[Record]:
    """Records from "group" or "group:hash"."""
    return [
        Record(f"a/{i}", "a", group, sha256=digest)
        for i, (group, _, digest) in enumerate(image.partition(":") for image in images)
    ]


TRAIN = part("1", "1", "2:aa", "3:bb", ":cc")


def test_groups_and_files_in_common_are_counted():
    # Images of groups 1, 2, 2 are shared; hash aa twice and bb once are known to the network.
    found = find_leakage(TRAIN, part("1:xx", "2:aa", "2:aa", "4:bb", "5", ":dd"), "validation")
    assert found.as_dict() == {
        "part": "validation",
        "images": 6,
        "groups_known": False,
        "shared_groups": 2,
        "images_in_shared_groups": 3,
        "identical_files": 3,
        "warning": (
            "Inflated by leakage: 3 of 6 validation images belong to 2 groups that the network was trained on; "
            "3 of 6 are files that it was trained on, byte for byte. "
            "Split by group for a score that holds for new ones."
        ),
    }


def test_groups_alone():
    found = find_leakage(part("1", "2"), part("2"), "test")
    assert found.groups_known
    assert found.warning == (
        "Inflated by leakage: 1 of 1 test images belong to 1 group that the network was trained on. "
        "Split by group for a score that holds for new ones."
    )


def test_files_alone():
    found = find_leakage(part("1:aa"), part("2:aa", "3:ab"), "test")
    assert (found.shared_groups, found.images_in_shared_groups, found.identical_files) == (0, 0, 1)
    assert found.warning == (
        "Inflated by leakage: 1 of 2 are files that it was trained on, byte for byte. "
        "Split by group for a score that holds for new ones."
    )


def test_large_numbers_are_grouped_by_thousands():
    found = find_leakage(part(*["1"] * 3, "2"), part(*["1"] * 2133), "validation")
    assert found.warning and "2,133 of 2,133 validation images belong to 1 group" in found.warning


@pytest.mark.parametrize("other", [part("4", "5:dd"), part("", ""), []])
def test_nothing_in_common(other):
    # An unknown group is not a group, and a file without a hash is not like another without one.
    found = find_leakage(TRAIN, other, "validation")
    assert (found.shared_groups, found.images_in_shared_groups, found.identical_files) == (0, 0, 0)
    assert found.warning is None


def test_whether_groups_are_known_needs_both_sides():
    assert find_leakage(part("1"), part("2"), "test").groups_known
    assert not find_leakage(part("1", ""), part("2"), "test").groups_known
    assert not find_leakage(part("1"), part("2", ""), "test").groups_known


def test_records_may_come_from_a_generator():
    assert find_leakage((r for r in part("1")), (r for r in part("1", "2")), "test").images_in_shared_groups == 1


def test_notes_tell_leakage_and_drawn_cells():
    leaky, clean = find_leakage(part("1"), part("1"), "test"), find_leakage(part("1"), part("2"), "test")
    plain = Manifest(Path("data"), tuple(part("1")))
    drawn = Manifest(Path("data"), (*part("1"), Record("b", "b", extra={"origin": "drawn"})))
    assert notes(plain, clean) == []
    assert notes(plain, leaky) == [leaky.warning]
    assert notes(drawn, clean) == [DRAWN]
    assert notes(drawn, leaky) == [leaky.warning, DRAWN]
    assert DRAWN == "Drawn cells, not patients: this score says nothing about leukemia."
