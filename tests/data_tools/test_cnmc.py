"""data_tools/cnmc.py: the layout of the real release, filled with drawn cells."""

import csv
import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from customcnn.data.leakage import find_leakage
from customcnn.data.manifest import read_rows, scan
from customcnn.data.split import shares, split_folder
from customcnn.errors import CustomCNNError
from customcnn.model_selection.folds import make_folds

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("cnmc", ROOT / "data_tools" / "cnmc.py")
cnmc = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cnmc)


@pytest.fixture(scope="module")
def listing():
    path = ROOT.parent / "shared" / "data" / "cnmc-2019-files.csv"
    if not path.is_file():
        pytest.skip(f"the file list of the release is not at {path}")
    return path


@pytest.fixture(scope="module")
def release(tmp_path_factory, listing):
    """The whole release, 15,114 cells, drawn at 32 pixels."""
    folder = tmp_path_factory.mktemp("cnmc") / "release"
    cnmc.draw_release(listing, folder, size=32)
    return folder


@pytest.fixture
def few(tmp_path):
    """Eleven cells in the release's layout."""
    rows = [
        ("training_data/fold_0/all/UID_11_1_1_all.bmp", "train", "fold_0", "all", "11"),
        ("training_data/fold_0/hem/UID_H7_1_1_hem.bmp", "train", "fold_0", "hem", "H7"),
        ("training_data/fold_1/all/UID_12_1_1_all.bmp", "train", "fold_1", "all", "12"),
        ("training_data/fold_1/hem/UID_h3_1_1_hem.bmp", "train", "fold_1", "hem", "H3"),
        ("training_data/fold_2/all/UID_13_1_1_all.bmp", "train", "fold_2", "all", "13"),
        ("training_data/fold_2/hem/UID_H9_1_1_hem.bmp", "train", "fold_2", "hem", "H9"),
        *((f"validation_data/{cnmc.PRELIM}/{i}.bmp", "prelim_test", "", "", "") for i in (1, 2, 10)),
        *((f"testing_data/{cnmc.FINAL}/{i}.bmp", "final_test", "", "", "") for i in (1, 2)),
    ]
    path = tmp_path / "files.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "part", "fold", "label", "subject"), *rows])
    cnmc.draw_release(path, tmp_path / "release", size=32)
    return tmp_path / "release"


def test_what_systems_leave_in_a_release_is_not_seen(few):
    expected = cnmc.read_release(few)
    for name in ("training_data/fold_0/all/._UID_11_1_1_all.bmp", f"validation_data/{cnmc.PRELIM}/1.bmp"):
        (few / "__MACOSX" / name).parent.mkdir(parents=True)
        (few / "__MACOSX" / name).touch()
        (few / name).with_name(f"._{Path(name).name}").touch()
    assert cnmc.read_release(few) == expected


def test_a_labels_csv_from_a_spreadsheet_is_read(few):
    expected = cnmc.read_release(few)
    (table,) = few.rglob(cnmc.LABELS_CSV)
    lines = table.read_text().replace(",", ";").splitlines()
    table.write_text("\r\n".join([lines[0], *(line.replace(";", ";C:\\data\\", 1) for line in lines[1:])]), "utf-8-sig")
    assert cnmc.read_release(few) == expected


@pytest.mark.docs
def test_the_whole_release_is_found(release):
    cells = cnmc.read_release(release)
    assert cnmc.differences(cells) == []
    train = [cell for cell in cells if cell.fold.startswith("fold")]
    assert len(train) == 10_661
    assert Counter(cell.label for cell in train) == {"all": 7272, "hem": 3389}
    assert len({cell.subject for cell in train}) == 73
    assert sum(cell.subject == "H3" for cell in train) == 36
    by_fold = {fold: {c.subject for c in train if c.fold == fold} for fold in ("fold_0", "fold_1", "fold_2")}
    assert sum(map(len, by_fold.values())) == 73  # no subject in two folds
    assert len([cell for cell in cells if cell.fold == "prelim"]) == 1867
    assert len([cell for cell in cells if cell.fold == "final"]) == 2586


@pytest.mark.docs
def test_class_folders_of_the_whole_release(release, tmp_path):
    manifest = cnmc.to_class_folders(cnmc.read_release(release), tmp_path / "cells")
    assert scan(tmp_path / "cells").records == manifest.records
    assert len(manifest.records) == 10_661 and len({record.group for record in manifest.records}) == 73


def test_folds_labels_and_subjects_are_read(few):
    cells = {(cell.fold, cell.name): cell for cell in cnmc.read_release(few)}
    assert cells["fold_1", "UID_h3_1_1_hem.bmp"].subject == "H3"
    prelim = [cell for (fold, _), cell in cells.items() if fold == "prelim"]
    assert [cell.label for cell in prelim] == ["all", "all", "all"]
    assert len([key for key in cells if key[0] == "final"]) == 2


def test_the_labels_open_nothing_outside_of_their_folder(few):
    (table,) = few.rglob(cnmc.LABELS_CSV)
    name = read_rows(table, cnmc.LABELS_COLUMNS)[0]["new_names"]
    before = cnmc.read_release(few)
    table.write_text(table.read_text().replace(f",{name},", f",../../{name},"))
    assert cnmc.read_release(few) == before, "a name of a file, wherever its path leads"


def test_differences_name_what_is_missing(few):
    lines = cnmc.differences(cnmc.read_release(few))
    assert "fold_0 all: 1 cells where the release has 2,397" in lines
    assert "train hem: 3 subjects where the release has 26" in lines


def test_class_folders_keep_subject_and_fold_and_say_drawn(few, tmp_path):
    manifest = cnmc.to_class_folders(cnmc.read_release(few), tmp_path / "cells")
    again = scan(tmp_path / "cells")
    assert again.records == manifest.records and again.drawn and again.groups_known
    assert [(r.path, r.group, r.extra["fold"]) for r in again.records if r.label == "hem"] == [
        ("hem/UID_H7_1_1_hem.bmp", "H7", "fold_0"),
        ("hem/UID_H9_1_1_hem.bmp", "H9", "fold_2"),
        ("hem/UID_h3_1_1_hem.bmp", "H3", "fold_1"),
    ]


def test_the_folds_share_no_subject_and_a_split_keeps_them(few, tmp_path):
    cnmc.to_class_folders(cnmc.read_release(few), tmp_path / "cells")
    prepared = scan(tmp_path / "cells")
    assert not prepared.parts, "folds are a column, not a split: that is left to cross-validation"
    fold_of = {record.path: record.extra["fold"] for record in prepared.records}
    assert Counter(fold_of.values()) == {"fold_0": 2, "fold_1": 2, "fold_2": 2}
    assert len({(record.group, record.extra["fold"]) for record in prepared.records}) == len(prepared.records)
    for by in ("image", "group"):
        split_folder(prepared, tmp_path / by, shares(0.67), by=by)
        again = scan(tmp_path / by)
        assert {r.path.removeprefix(f"{r.split}/"): r.extra["fold"] for r in again.records} == fold_of
        assert again.groups_known and again.drawn


def test_the_folds_are_those_of_a_cross_validation(few, tmp_path):
    cnmc.to_class_folders(cnmc.read_release(few), tmp_path / "cells")
    folds = make_folds(scan(tmp_path / "cells"), by="fold")
    assert [fold.value for fold in folds] == ["fold_0", "fold_1", "fold_2"]
    for fold in folds:
        assert {record.extra["fold"] for record in fold.manifest.part("validation").records} == {fold.value}
        train, left_out = (fold.manifest.part(part).records for part in ("train", "validation"))
        assert find_leakage(train, left_out, "validation").warning is None


def test_prepare_says_where_the_cells_are_from(few, tmp_path, capsys):
    cnmc.cli(["prepare", str(few), str(tmp_path / "drawn")], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[-1] == "Drawn cells."
    (few / cnmc.DRAWN_MARK).unlink()
    cnmc.cli(["prepare", str(few), str(tmp_path / "cells")], standalone_mode=False)
    output, errors = capsys.readouterr()
    assert output.splitlines()[-2:] == [
        f"6 cells of 6 subjects in {tmp_path / 'cells'}",
        "C-NMC 2019 (ALL Challenge dataset of ISBI 2019), by A. Gupta and R. Gupta: "
        "https://doi.org/10.7937/tcia.2019.dc64i46r, CC BY 3.0.",
    ]
    assert "Warning: final: 2 cells where the release has 2,586\n" in errors


def test_the_challenges_split_shares_no_subject(few, tmp_path):
    manifest = cnmc.to_class_folders(cnmc.read_release(few), tmp_path / "parts", challenge=True)
    assert Counter(record.split for record in manifest.records) == {"train": 4, "validation": 2, "test": 3}
    for part in ("validation", "test"):
        leakage = find_leakage(manifest.part("train").records, manifest.part(part).records, part)
        assert leakage.groups_known and leakage.warning is None


def test_a_labels_csv_that_contradicts_itself(few):
    table = next(few.rglob(cnmc.LABELS_CSV))
    table.write_text(table.read_text().replace("_all.bmp,1.bmp,1", "_all.bmp,1.bmp,0"))
    with pytest.raises(CustomCNNError, match=r"In the labels CSV 1 is all and 0 is hem\. Received: .* with '0'\."):
        cnmc.read_release(few)


def test_a_label_without_its_image(few):
    next(few.rglob("10.bmp")).unlink()
    with pytest.raises(CustomCNNError, match=r"Received: none for '10\.bmp'\."):
        cnmc.read_release(few)


def test_a_name_that_is_not_understood(few):
    cell = next(few.rglob("UID_11_1_1_all.bmp"))
    cell.rename(cell.with_name("cell 11.bmp"))
    with pytest.raises(CustomCNNError, match=r"Cells are named UID_.*Received: 'cell 11\.bmp'\."):
        cnmc.read_release(few)


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_no_release(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CustomCNNError, match="The release"):
        cnmc.read_release(tmp_path / folder)
