"""Folders and CSV files: what is found, what is refused and named, and that nothing is lost on the way to the disk."""

import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.data.manifest import (
    COLUMNS,
    Manifest,
    Record,
    fingerprint,
    read_manifest,
    read_rows,
    require_classes,
    scan,
    with_group_file,
    with_group_pattern,
)
from customcnn.data.names import split_of
from customcnn.io.remote_path import parse_folder
from tests.support.errors import refused


def paths(manifest: Manifest) -> list[str]:
    return [record.path for record in manifest.records]


def of(*names: str) -> Manifest:
    return Manifest(Path("data"), tuple(Record(name, name.split("/")[0]) for name in names))


# ---------------------------------------------------------------- folders


def test_class_folders_are_found_sorted(make_folder):
    manifest = scan(make_folder({"hem": ["b.bmp", "a.bmp"], "all": 2}))
    assert paths(manifest) == ["all/0.bmp", "all/1.bmp", "hem/a.bmp", "hem/b.bmp"]
    assert [record.label for record in manifest.records] == ["all", "all", "hem", "hem"]
    assert manifest.classes == ["all", "hem"]
    assert manifest.parts == [] and not manifest.groups_known and not manifest.drawn
    assert manifest.counts() == {("", "all"): 2, ("", "hem"): 2}


def test_parts_of_a_split_are_found(make_folder):
    manifest = scan(make_folder({"validation/hem": 1, "train/all": 3, "train/hem": 2, "validation/all": 1}))
    assert manifest.parts == ["train", "validation"]
    assert manifest.counts() == {
        ("train", "all"): 3,
        ("train", "hem"): 2,
        ("validation", "all"): 1,
        ("validation", "hem"): 1,
    }
    assert paths(manifest.part("validation")) == ["validation/all/0.bmp", "validation/hem/0.bmp"]
    assert manifest.part("test").records == ()
    assert manifest.part("train").root == manifest.root


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("TRAIN", "Valid", "TEST"), ("Training", "Validation", "Testing")]
)
def test_splits_may_have_other_names(make_folder, names):
    root = make_folder({f"{name}/{label}": 1 for name in names for label in ("all", "hem")})
    manifest = scan(root)
    assert manifest.parts == ["train", "validation", "test"]
    assert paths(manifest.part("validation")) == [f"{names[1]}/all/0.bmp", f"{names[1]}/hem/0.bmp"]
    manifest.write(root / "manifest.csv")
    assert scan(root) == manifest
    # A manifest of other tools may name the splits as the folders are.
    content = (root / "manifest.csv").read_text()
    (root / "manifest.csv").write_text(content.replace(",validation,", f",{names[1]},"))
    assert scan(root) == manifest


def test_a_folder_beside_splits_is_named_and_the_splits_are_used(make_folder):
    root = make_folder({"train/all": 1, "val/all": 1, "notes/all": 1})
    assert "Received: 'notes' (a folder beside those of the splits). Remove it" in refused(scan, root)
    assert paths(scan(root, skip_bad=True)) == ["train/all/0.bmp", "val/all/0.bmp"]


def test_an_address_is_read_as_a_folder_is(make_folder):
    """Its splits, its litter, what is beside the splits, and classes that a Mac has named."""
    pytest.importorskip("fsspec")
    names = ["TRAIN/Zu\u0308", "val/Z\u00fc", "val/b", "__MACOSX/TRAIN/b", "val/b/@eaDir", "notes/b"]
    root = make_folder(dict.fromkeys(names, 1))
    there = parse_folder("memory://manifest/names")
    for path in root.rglob("*.bmp"):
        (there / path.relative_to(root).as_posix()).put(path.read_bytes())
    here, far = scan(root, skip_bad=True), scan(there, skip_bad=True)
    assert (far.records, far.skipped) == (here.records, here.skipped)
    assert here.counts() == {("train", "Z\u00fc"): 1, ("validation", "Z\u00fc"): 1, ("validation", "b"): 1}


def test_a_folder_that_a_mac_has_unpacked_is_the_same(make_folder):
    root = make_folder({"Z\u00fcrich": ["\u00e9.bmp"], "b": 1})
    scan(root).write(root / "manifest.csv")
    (root / "Z\u00fcrich" / "\u00e9.bmp").rename(root / "Z\u00fcrich" / "e\u0301.bmp")
    (root / "Z\u00fcrich").rename(root / "Zu\u0308rich")
    found = scan(root)
    assert found.classes == ["Z\u00fcrich", "b"]
    assert paths(found) == ["Zu\u0308rich/e\u0301.bmp", "b/0.bmp"]


def test_every_suffix_of_an_image_counts_in_any_case(make_folder):
    names = ["a.bmp", "b.BMP", "c.Png", "d.jpg", "e.jpeg", "f.tif", "g.TIFF", "h.webp", "i.gif", "j.ppm"]
    root = make_folder({"all": names, "hem": 1})
    assert len(scan(root).records) == 11


def test_litter_is_not_seen(make_folder):
    left = ["__MACOSX/all", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "all/@eaDir/0.bmp"]
    root = make_folder({"all": 1, "hem": 1, ".cache": 3, **dict.fromkeys(left, 1)})
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "all/.DS_Store", "all/._0.bmp", "hem/THUMBS.DB"):
        (root / name).write_bytes(b"litter")
    assert paths(scan(root)) == ["all/0.bmp", "hem/0.bmp"]


def test_a_link_to_an_image_or_a_folder_is_one(make_folder, tmp_path):
    root = make_folder({"all": 1, "hem": 1})
    (root / "all" / "link.bmp").symlink_to("0.bmp")
    (root / "more").symlink_to(make_folder({"x": 1}, "elsewhere") / "x")
    assert paths(scan(root)) == ["all/0.bmp", "all/link.bmp", "hem/0.bmp", "more/0.bmp"]


NAMES = [
    "with space.bmp",
    " lead.bmp",
    'it\'s "quoted".bmp',
    "new\nline.bmp",
    "re\rturn.bmp",
    "both\r\n.bmp",
    "a,b.bmp",
]
NAMES += ["Zölle 細胞.bmp", "e\u0301.bmp", "back\\slash.bmp", "-n.bmp", "#1.bmp", os.fsdecode(b"caf\xe9.bmp")]


def test_any_file_name_is_found_and_kept_by_the_manifest(make_folder):
    root = make_folder({"all": NAMES, "class with\nnewline": NAMES, os.fsdecode(b"\xff"): 1})
    found = scan(root)
    assert len(found.records) == 2 * len(NAMES) + 1
    found.write(root / "manifest.csv")
    assert scan(root) == found
    for record in found.records:
        assert (root / record.path).is_file()


# ---------------------------------------------------------------- folders that are refused


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_missing_folder(tmp_path, kind):
    if kind == "file":
        (tmp_path / "data").write_text("a file")
    assert refused(scan, tmp_path / "data") == (
        f"Data is a folder of class folders. Received: '{tmp_path}/data', which is no folder. Check its name."
    )


def test_an_empty_folder(tmp_path):
    for skip_bad in (False, True):
        assert refused(scan, tmp_path, skip_bad=skip_bad) == (
            f"Data is a folder of class folders with images in them. Received: '{tmp_path}', which holds none. "
            "Put the images of each class into a folder of its own."
        )


def test_everything_that_does_not_belong_is_named_in_one_line(make_folder):
    root = make_folder({"all": 2, "hem": 1, "hem/nested": 1, "empty": 0})
    (root / "notes.txt").write_text("notes")
    (root / "all" / "labels.csv").write_text("labels")
    (root / "all" / "no suffix").write_text("")
    (root / "hem" / "new\nline.txt").write_text("")
    assert refused(scan, root) == (
        "Class folders hold images and nothing else. Received: "
        "'all/labels.csv' (not an image by its name), "
        "'all/no suffix' (not an image by its name), "
        "'empty' (a class folder without images), "
        r"'hem/nested' (a folder inside a class folder), "
        r"'hem/new\nline.txt' (not an image by its name) and 1 more. "
        "Remove them or use --skip-bad. Folders of splits are named train, validation (or val) and test."
    )
    assert paths(scan(root, skip_bad=True)) == ["all/0.bmp", "all/1.bmp", "hem/0.bmp"]


def test_images_without_class_folders(make_folder):
    root = make_folder({".": 1})
    assert refused(scan, root) == (
        "Class folders hold images and nothing else. Received: '0.bmp' (a file beside the class folders). "
        "Remove it or use --skip-bad."
    )


def test_a_split_folder_mixed_with_others(make_folder):
    root = make_folder({"train/all": 1, "train/hem": 1, "hem": 1})
    assert refused(scan, root).startswith(
        "Class folders hold images and nothing else. "
        "Received: 'train/all' (a folder inside a class folder), 'train/hem' (a folder inside a class folder). "
    )


def test_stray_files_in_a_split_folder(make_folder):
    root = make_folder({"train/all": 1, "train/hem": 1, "validation/all": 1, "test/hem": 0})
    (root / "train" / "notes.txt").write_text("")
    assert "Received: 'test/hem' (a class folder without images), 'train/notes.txt' (a file beside the" in refused(
        scan, root
    )
    assert len(scan(root, skip_bad=True).records) == 3


def test_what_is_no_file_is_named_and_never_opened(make_folder, tmp_path):
    root = make_folder({"all": 1, "hem": 1})
    os.mkfifo(root / "all" / "pipe.bmp")
    (root / "all" / "broken.bmp").symlink_to("nowhere.bmp")
    assert refused(scan, root) == (
        "Class folders hold images and nothing else. Received: 'all/broken.bmp' (a broken link or not a file), "
        "'all/pipe.bmp' (a broken link or not a file). Remove them or use --skip-bad."
    )
    assert paths(scan(root, skip_bad=True)) == ["all/0.bmp", "hem/0.bmp"]


def test_one_class_only(make_folder):
    root = make_folder({"all": 2})
    assert refused(require_classes, scan(root)) == (
        f"Classification needs at least two classes. Received: '{root}', 'all' only. "
        "Put the images of each class into a folder of its own."
    )
    assert require_classes(of("b/1", "a/1", "b/2")) == ["a", "b"]


# ---------------------------------------------------------------- CSV

# Text as file names and their groups hold it: any Unicode, and any bytes that are not UTF-8.
text = st.text(st.characters(exclude_categories=["Cs"])) | st.binary().map(os.fsdecode)
tricky = text | st.lists(st.sampled_from(["\r", "\n", '"', ",", " ", "a", "\ufeff", "\0", ";"])).map("".join)
splits = tricky.map(lambda name: split_of(name) or name)  # as reading spells them
cells = st.tuples(tricky, tricky, splits, tricky, tricky)
columns = tricky.filter(lambda name: name not in COLUMNS)


inside = tricky.filter(lambda path: not path.startswith("/") and ".." not in path.split("/"))


@given(st.dictionaries(inside, cells, max_size=5), st.lists(columns, unique=True, max_size=2))
def test_nothing_is_lost_in_the_csv(folder, rows, extra):
    found = [
        Record(path, *row[:4], dict(zip(extra, reversed(row), strict=False))) for path, row in sorted(rows.items())
    ]
    manifest = Manifest(folder, tuple(found))
    manifest.write(folder / "manifest.csv")
    assert read_manifest(folder / "manifest.csv") == manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("csv")


def test_the_csv_by_hand(tmp_path):
    manifest = Manifest(
        tmp_path,
        (
            Record("all/1.bmp", "all", "7", "", "ab", {"origin": "drawn"}),
            Record("hem/a,b.bmp", "hem", "H3", "", "cd", {"fold": "2"}),
        ),
    )
    manifest.write(tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_bytes() == (
        b'path,label,group,split,sha256,fold,origin\nall/1.bmp,all,7,,ab,,drawn\n"hem/a,b.bmp",hem,H3,,cd,2,\n'
    )
    assert manifest.drawn
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.csv"]
    # Columns that one record lacks are empty.
    assert [r.extra for r in read_manifest(tmp_path / "m.csv").records] == [
        {"fold": "", "origin": "drawn"},
        {"fold": "2", "origin": ""},
    ]


def test_a_csv_from_a_spreadsheet_is_read(tmp_path):
    (tmp_path / "m.csv").write_bytes(
        b"\xef\xbb\xbfsha256,split,group,label,path,note\r\n,,7,hem,hem/1.bmp,\r\n\r\n,,7,all,all/1.bmp\r\n"
    )
    assert read_manifest(tmp_path / "m.csv").records == (
        Record("all/1.bmp", "all", "7", extra={"note": ""}),
        Record("hem/1.bmp", "hem", "7", extra={"note": ""}),
    )


@pytest.mark.parametrize(
    "content, missing", [(b"", "path, label, group, split, sha256"), (b"path,group,label\n", "split, sha256")]
)
def test_a_csv_without_a_column(tmp_path, content, missing):
    (tmp_path / "m.csv").write_bytes(content)
    assert refused(read_manifest, tmp_path / "m.csv") == (
        f"The columns path, label, group, split, sha256 are needed. Received: '{tmp_path}/m.csv' without {missing}."
    )


def test_a_csv_that_is_none(tmp_path):
    (tmp_path / "m.csv").write_bytes(b'path,group\n"a"b,1\n')
    assert refused(read_rows, tmp_path / "m.csv", ["path"]).startswith(
        f"A CSV file is readable text. Received: '{tmp_path}/m.csv' ("
    )
    assert "No such file" in refused(read_rows, tmp_path / "missing\n.csv", ["path"])


def test_an_image_that_is_listed_twice(tmp_path):
    (tmp_path / "m.csv").write_text("path,label,group,split,sha256\na/1,a,,,\na/2,a,,,\na/1,b,,,\n")
    assert refused(read_manifest, tmp_path / "m.csv") == (
        f"A manifest lists an image once. Received: '{tmp_path}/m.csv', with two of 'a/1'."
    )


# ---------------------------------------------------------------- a folder with its manifest.csv


@pytest.fixture
def listed(make_folder):
    root = make_folder({"all": 2, "hem": 2})
    rows = [Record(r.path, r.label, f"s{i}", "", "f" * 64, {"fold": str(i)}) for i, r in enumerate(scan(root).records)]
    Manifest(root, tuple(rows)).write(root / "manifest.csv")
    return root


def test_groups_hashes_and_columns_come_from_the_manifest(listed):
    manifest = scan(listed)
    assert [r.group for r in manifest.records] == ["s0", "s1", "s2", "s3"]
    assert manifest.groups_known
    assert manifest.records[3] == Record("hem/1.bmp", "hem", "s3", "", "f" * 64, {"fold": "3"})


def test_where_manifest_and_folder_differ_all_is_named(listed):
    (listed / "all" / "0.bmp").rename(listed / "all" / "new.bmp")
    content = (listed / "manifest.csv").read_text()
    (listed / "manifest.csv").write_text(content.replace("hem/1.bmp,hem", "hem/1.bmp,all"))
    assert refused(scan, listed) == (
        "Class folders hold images and nothing else. Received: "
        "'all/0.bmp' (listed in manifest.csv, but missing), "
        "'all/new.bmp' (not listed in manifest.csv), "
        "'hem/1.bmp' (in the folder of 'hem', but 'all' in manifest.csv). "
        "Remove them or use --skip-bad."
    )
    assert paths(scan(listed, skip_bad=True)) == ["all/1.bmp", "hem/0.bmp"]


def test_a_part_that_differs_from_the_manifest_is_named(make_folder):
    root = make_folder({"train/all": 1, "train/hem": 1})
    (root / "manifest.csv").write_text(
        "path,label,group,split,sha256\ntrain/all/0.bmp,all,,test,\ntrain/hem/0.bmp,hem,,train,\n"
    )
    assert "'train/all/0.bmp' (in the folder of 'train/all', but 'test/all' in manifest.csv)" in refused(scan, root)
    assert paths(scan(root, skip_bad=True)) == ["train/hem/0.bmp"]


# ---------------------------------------------------------------- groups


def test_the_subject_of_a_cnmc_name():
    manifest = with_group_pattern(
        of(
            "all/UID_11_10_1_all.bmp", "hem/UID_H24_1_12_hem.bmp", "hem/uid_h3_1_1_hem.bmp", "all/UID_3_1_1_all.bmp.png"
        ),
        "cnmc",
    )
    assert [record.group for record in manifest.records] == ["11", "H24", "H3", "3"]


def test_every_subject_of_the_real_list(shared_data):
    with (shared_data / "cnmc-2019-files.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file) if row["part"] == "train"}
    manifest = Manifest(Path("data"), tuple(Record(path, row["label"]) for path, row in rows.items()))
    grouped = with_group_pattern(manifest, "cnmc")
    assert len(grouped.records) == 10_661
    assert all(record.group == rows[record.path]["subject"] for record in grouped.records)
    subjects = Counter(record.group for record in grouped.records)
    assert len(subjects) == 73
    assert subjects["H3"] == 36
    # The files that spell it "h3" are the whole of it: a reader that minds the case would lose the subject.
    assert sum("/UID_h3_" in record.path for record in grouped.records) == 36


def test_a_pattern_of_ones_own_is_searched_without_regard_to_case():
    manifest = with_group_pattern(of("a/img-X7.bmp", "b/IMG-x7.bmp", "b/img-y1.bmp"), r"img-(.\d)")
    assert [record.group for record in manifest.records] == ["X7", "X7", "Y1"]
    spaced = with_group_pattern(of("a/H3 /1.bmp", "a/h3/2.bmp"), "a/([^/]+)/")
    assert [record.group for record in spaced.records] == ["H3", "H3"]


@pytest.mark.parametrize("pattern, number", [("UID_", 0), (r"(\d)_(\d)", 2), ("", 0)])
def test_a_pattern_has_one_group(pattern, number):
    assert refused(with_group_pattern, of("a/1"), pattern) == (
        "A group pattern has one capturing group, in round brackets. "
        f"Received: {pattern!r}, which has {number}. Example: '_([0-9]+)_', or the name cnmc."
    )


@pytest.mark.parametrize("pattern", ["(", "[a", "(?P<a>x", "*", "(a){99999999999999999999}", "(\n"])
def test_a_pattern_is_a_regular_expression(pattern):
    assert refused(with_group_pattern, of("a/1"), pattern).startswith(
        f"A group pattern is a regular expression. Received: {pattern!r} ("
    )


def test_a_pattern_that_matches_nothing():
    assert refused(with_group_pattern, of("a/1", "b/2"), "x(.)") == (
        "A group pattern matches every path. Received: 'x(.)', which gives no image in 'data' a group."
    )


@pytest.mark.parametrize("pattern", [r"/([12])$", r"/([12]?)", r"/(?:([12])|.)"])
def test_a_pattern_that_matches_some_names_the_others(pattern):
    # An empty match is none.
    assert refused(with_group_pattern, of("a/1", "a/2", "b/3", "b/new\nline"), pattern) == (
        f"A group pattern matches every path. Received: {pattern!r}, which gives no group to 2 of them: "
        r"'b/3', 'b/new\nline'."
    )


def test_groups_from_a_file(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_bytes(b"\xef\xbb\xbfgroup,path,note\r\nP1,a/1,x\r\nP2,b/2,\r\nP1,a/1,again\r\nP9,not/here,\r\n")
    assert [record.group for record in with_group_file(of("a/1", "b/2"), path).records] == ["P1", "P2"]


def test_groups_of_files_of_any_name(make_folder, tmp_path):
    manifest = scan(make_folder({"all": NAMES, "hem": 1}))
    rows = [("path", "group"), *((record.path, f"g{i}") for i, record in enumerate(manifest.records))]
    with (tmp_path / "groups.csv").open("w", newline="", errors="surrogateescape") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    grouped = with_group_file(manifest, tmp_path / "groups.csv")
    assert [(record.path, record.group) for record in grouped.records] == rows[1:]


def test_groups_of_the_real_list(shared_data):
    with (shared_data / "blood-cells-originals.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    manifest = with_group_file(of(*names), shared_data / "blood-cells-originals.csv")
    assert len({record.group for record in manifest.records}) == 256
    assert len(manifest.records) == 3_289


@pytest.mark.parametrize(
    "content, error",
    [
        ("path,subject\na/1,x\n", "The columns path, group are needed. Received: {file} without group."),
        ("path,group\na/1,x\na/1,y\n", "An image has one group. Received: {file}, which gives 'a/1' two of them."),
        (
            "path,group\n",
            "A groups file lists every image. Received: {file}, which lists none, where the images are 'a/1', 'b/2'. "
            "Write the paths as they are below that folder.",
        ),
        (
            "path,group\na/1,x\nb/2,\n",
            "A groups file lists every image. Received: {file}, which gives no group to 1 of them: 'b/2'.",
        ),
    ],
)
def test_a_groups_file_that_does_not_fit(tmp_path, content, error):
    (tmp_path / "groups.csv").write_text(content)
    expected = error.format(file=f"'{tmp_path}/groups.csv'")
    assert refused(with_group_file, of("a/1", "b/2"), tmp_path / "groups.csv") == expected


# ---------------------------------------------------------------- fingerprints


def test_a_fingerprint_changes_with_every_image(make_folder):
    root = make_folder({"all": 2, "hem": 2})
    manifest = scan(root)
    assert fingerprint(manifest) == fingerprint(scan(root))
    first, *others = manifest.records
    seen = [fingerprint(manifest), fingerprint(with_group_pattern(manifest, r"(\d)"))]
    variants = replace(first, label="x"), replace(first, split="train"), replace(first, path="all/1.bmp")
    seen += [fingerprint(Manifest(root, (record, *others))) for record in variants]
    seen.append(fingerprint(Manifest(root, tuple(others))))
    image = root / "all" / "0.bmp"
    times = image.stat().st_atime_ns, image.stat().st_mtime_ns
    image.write_bytes(image.read_bytes() + b"\0")
    os.utime(image, ns=times)
    seen.append(fingerprint(manifest))
    os.utime(image, ns=(times[0], times[1] + 1_000_000))
    seen.append(fingerprint(manifest))
    assert len(set(seen)) == 8


def test_a_fingerprint_may_see_more_than_size_and_time(make_folder):
    root = make_folder({"all": 2, "hem": 1})
    for record in scan(root).records:
        os.utime(root / record.path, (0, 0))
    ways = ([], ["st_ino"], ["st_ctime_ns"])
    before = [fingerprint(scan(root), *also) for also in ways]
    for old, new in (("all/0.bmp", "aside"), ("all/1.bmp", "all/0.bmp"), ("aside", "all/1.bmp")):
        (root / old).rename(root / new)
    after = [fingerprint(scan(root), *also) for also in ways]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]


def test_a_fingerprint_of_a_missing_image(make_folder):
    root = make_folder({"all": ["a\nb.bmp"]})
    manifest = scan(root)
    (root / "all" / "a\nb.bmp").unlink()
    assert refused(fingerprint, manifest) == (
        r"Every image in the manifest can be read. Received: 'all/a\nb.bmp' (No such file or directory)."
    )


def test_what_was_left_out_is_kept_for_who_names_it(make_folder):
    root = make_folder({"all": 2, "hem": 2})
    (root / "all" / "notes.txt").write_text("no image")
    assert scan(root, skip_bad=True).skipped == (("all/notes.txt", "not an image by its name"),)


def test_a_groups_file_also_names_images_as_they_were_before_the_split(make_folder, tmp_path):
    root = make_folder({"train/all": 1, "train/hem": 1, "validation/all": 1, "validation/hem": 1})
    table = tmp_path / "groups.csv"
    table.write_text("path,group\nall/0.bmp,a\nhem/0.bmp,b\nvalidation/hem/0.bmp,c\n")
    found = {record.path: record.group for record in with_group_file(scan(root), table).records}
    expected = {
        "train/all/0.bmp": "a",
        "train/hem/0.bmp": "b",
        "validation/all/0.bmp": "a",
        "validation/hem/0.bmp": "c",
    }
    assert found == expected
