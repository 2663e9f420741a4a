"""Groups from a CSV: spellings of one group, and paths as other systems and places write them."""

from pathlib import Path

import pytest

from customcnn.data.groups import unify
from customcnn.data.leakage import find_leakage
from customcnn.data.manifest import Manifest, Record, scan, with_group_file, with_group_pattern, with_known_groups
from tests.support.errors import refused

IMAGES = ("all/1.bmp", "all/2.bmp", "hem/1.bmp")


def grouped(tmp_path, *rows, images=IMAGES, split=""):
    (tmp_path / "groups.csv").write_text("path,group\n" + "".join(f"{row}\n" for row in rows))
    records = tuple(Record(path, path.split("/")[-2], split=split) for path in images)
    return [
        record.group for record in with_group_file(Manifest(Path("cells"), records), tmp_path / "groups.csv").records
    ]


def test_spellings_of_one_group_are_one():
    assert unify(["H3", "h3", "H3 ", "H4", "Zu\u0308rich", "z\u00fcrich", ""]) == ["H3"] * 3 + ["H4"] + [
        "Zu\u0308rich"
    ] * 2 + [""]


@pytest.mark.parametrize("other", ["H1\u200b", "\ufeffh1", "\uff28\uff11", "H1\xa0"])
def test_what_a_spreadsheet_adds_to_a_name_is_no_other_group(other):
    assert unify(["H1", other]) == ["H1", "H1"]


def test_a_pattern_composes_what_it_finds():
    records = (Record("a/e\u0301_1.bmp", "a"), Record("a/\u00e9_2.bmp", "a"))
    found = with_group_pattern(Manifest(Path("cells"), records), "/([^_/]+)_")
    assert len({record.group for record in found.records}) == 1


def test_a_subject_spelled_in_several_ways_stands_on_one_side(tmp_path):
    assert grouped(tmp_path, "all/1.bmp,H3", "all/2.bmp,h3", "hem/1.bmp,H3 ") == ["H3"] * 3


def test_a_manifest_and_two_tables_may_spell_a_group_differently(make_folder):
    root = make_folder({"all": 2, "hem": 1})
    rows = "all/0.bmp,all,H3,,\nall/1.bmp,all,h3 ,,\nhem/0.bmp,hem,H4,,\n"
    (root / "manifest.csv").write_text(f"path,label,group,split,sha256\n{rows}")
    assert [record.group for record in scan(root).records] == ["H3", "H3", "H4"]
    found = find_leakage([Record("a", "all", "H3")], [Record("b", "all", "h3"), Record("c", "all", "4")], "validation")
    assert (found.shared_groups, found.images_in_shared_groups) == (1, 1)


@pytest.mark.parametrize(
    "write",
    [
        "/data/cells/{}".format,
        "./{}".format,
        "cells/{}".format,
        lambda path: path.replace("/", "\\"),
        lambda path: "C:\\Users\\me\\cells\\" + path.replace("/", "\\"),
    ],
    ids=["absolute", "dot", "folder", "backslash", "windows"],
)
def test_paths_may_be_written_as_other_systems_do(tmp_path, write):
    rows = [f"{write(path)},{i}" for i, path in enumerate(IMAGES)]
    assert grouped(tmp_path, *rows) == ["0", "1", "2"]
    rows.append(f"{write('all/other.bmp')},9")
    split = grouped(tmp_path, *rows, images=[f"val/{path}" for path in IMAGES], split="validation")
    assert split == ["0", "1", "2"]


def test_decomposed_names_are_found(tmp_path):
    assert grouped(tmp_path, "Zu\u0308/1.bmp,a", images=["Z\u00fc/1.bmp"]) == ["a"]


def test_a_path_as_it_is_comes_first(tmp_path):
    rows = [f"{path},{i}" for i, path in enumerate(IMAGES)]
    assert grouped(tmp_path, "other/all/1.bmp,x", "back\\slash.bmp,y", *rows) == ["0", "1", "2"]


def test_rows_of_two_folders_are_not_taken_for_one(tmp_path):
    text = "TRAIN/all/1.bmp,a", "TRAIN/all/2.bmp,b", "TEST/hem/1.bmp,c"
    message = refused(grouped, tmp_path, *text)
    assert message.endswith(
        "which lists 'TRAIN/all/1.bmp', 'TRAIN/all/2.bmp', 'TEST/hem/1.bmp', where the images are 'all/1.bmp', "
        "'all/2.bmp', 'hem/1.bmp'. Write the paths as they are below that folder."
    )
    assert "gives 'all/1.bmp' two of them" in refused(grouped, tmp_path, "x/all/1.bmp,a", "y/all/1.bmp,b")


def test_names_of_cnmc_tell_their_subjects():
    records = (Record("all/UID_1_1_1_all.bmp", "all"), Record("hem/UID_h3_1_1_hem.bmp", "hem"))
    assert [record.group for record in with_known_groups(Manifest(Path("x"), records)).records] == ["1", "H3"]
    other = Manifest(Path("x"), (*records, Record("hem/1.bmp", "hem")))
    assert with_known_groups(other) is other
    known = Manifest(Path("x"), (Record("all/UID_1_1_1_all.bmp", "all", "mine"),))
    assert with_known_groups(known) is known
