"""What names mean: splits in any spelling, classes of any Unicode form, and what systems leave behind."""

import pytest

from customcnn.data.names import PARTS, composed, find_below, holds_splits, is_litter, split_of, without_split


def test_splits_have_several_names_in_any_case():
    assert [split_of(name) for name in ("train", "Training", "TRAIN")] == ["train"] * 3
    assert [split_of(name) for name in ("val", "VALID", "Validation")] == ["validation"] * 3
    assert [split_of(name) for name in ("TEST", "Testing")] == ["test"] * 2
    assert [split_of(name) for name in ("all", "value", "trained", "")] == [""] * 4
    assert [split_of(part) for part in PARTS] == [*PARTS]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ([], False),
        (["train"], True),
        (["TRAIN", "val"], True),
        (["train", "val", "notes"], True),
        (["train", "notes"], False),
        (["valid", "invalid"], False),
        (["all", "hem"], False),
    ],
)
def test_folders_are_splits_all_or_two_of_them(folders, expected):
    assert holds_splits(folders) == expected


def test_a_path_before_the_split():
    assert without_split("val/all/1.bmp", "validation") == without_split("all/1.bmp", "") == "all/1.bmp"
    assert without_split("all/1.bmp", "train") == "all/1.bmp"
    assert without_split("train", "train") == "train"


def test_what_systems_leave_is_litter(tmp_path):
    left = [".DS_Store", "._1.bmp", "__MACOSX", "@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN", "Icon\r"]
    left += ["@Recycle", "~snapshot", "found.000", "Temporary Items", "__pycache__"]
    left += ["System Volume Information", "Thumbs.db", "THUMBS.DB", "desktop.ini", ".ipynb_checkpoints"]
    assert all(map(is_litter, left))
    assert not any(map(is_litter, ["all", "1.bmp", "MACOSX", "lost"]))
    for folder in ("cells/fold_0", "__MACOSX/cells/fold_0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.bmp").touch()
    assert [*find_below(tmp_path, "*.bmp")] == [tmp_path / "cells/fold_0/1.bmp"]


def test_names_that_a_mac_decomposes_are_one():
    assert composed("Zu\u0308rich") == composed("Z\u00fcrich") == "Z\u00fcrich"
    assert composed("\udcff") == "\udcff"
