"""The audit of data that is not split, and inside the parts of data that is: copies, labels, shares, groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.audit import audit, duplicates, report
from customcnn.audit.classes import differing_shares, groups_of
from customcnn.audit.union_find import Trees, linked
from customcnn.data.manifest import Record, scan
from customcnn.images.dihedral import eight_views
from tests.support.audit_pictures import cell, save, with_groups


def linked_sets(links):
    return sorted(sorted(same) for same in linked((pair.first, pair.second) for pair in links))


# ---------------------------------------------------------------- sets from pairs


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15))))
def test_sets_are_those_of_a_walk_along_the_pairs(pairs):
    expected = {}
    for item in {i for pair in pairs for i in pair}:
        reached, waiting = {item}, [item]
        while waiting:
            at = waiting.pop()
            more = {b for a, b in [*pairs, *((b, a) for a, b in pairs)] if a == at} - reached
            reached |= more
            waiting += more
        expected[item] = frozenset(reached)
    assert {frozenset(same) for same in linked(pairs)} == set(expected.values())


def test_trees_join_once():
    trees = Trees()
    assert [trees.join(a, b) for a, b in [(1, 2), (3, 4), (2, 3), (1, 4), (5, 5)]] == [True, True, True, False, False]
    assert trees.root(4) == trees.root(1)
    assert trees.root(9) == 9


# ---------------------------------------------------------------- copies in data that is not split


def test_copies_are_found_anywhere_in_data_that_is_not_split(tmp_path):
    for i in range(5):
        save(tmp_path / f"all/{i}.png", cell(i))
    save(tmp_path / "all/0-again.png", cell(0))
    for k, view in enumerate(eight_views(cell(1))[1:]):
        save(tmp_path / f"{'all' if k % 2 else 'hem'}/1-{k}.png", view)
    save(tmp_path / "hem/2.jpg", cell(2)[::-1], quality=75)
    found = audit(scan(tmp_path), workers=1)
    assert not found.split
    assert found.images == {"data": {"all": 9, "hem": 5}}
    assert found.identical == [["all/0-again.png", "all/0.png"]]
    eight = sorted(["all/1.png", *(f"{'all' if k % 2 else 'hem'}/1-{k}.png" for k in range(7))])
    assert linked_sets(found.near_duplicates) == [eight, ["all/2.png", "hem/2.jpg"]]
    assert len(found.near_duplicates) == 7 + 1, "as many pairs as link them"
    assert not found.leaks, "there are no parts, and no groups that promise anything"
    assert "Copies were found" in report(found)


def test_data_without_copies_says_so_and_what_was_not_looked_for(tmp_path):
    for i in range(6):
        save(tmp_path / f"{'all' if i % 2 else 'hem'}/{i}.png", cell(i))
    lines = report(audit(scan(tmp_path), workers=1)).splitlines()
    assert "identical files: 0" in lines
    assert "near-duplicates (turned, flipped or saved again): 0" in lines
    assert lines[-2] == "No copies were found."
    assert "turned by other angles" in lines[-1]


def test_one_part_alone_is_no_split(make_folder):
    found = audit(scan(make_folder({"train/all": 2, "train/hem": 1})), workers=1)
    assert not found.split
    assert found.images == {"data": {"all": 2, "hem": 1}}


def test_many_copies_of_one_picture_are_linked_not_paired(monkeypatch):
    """Work grows with the images: no pair is looked at whose images are known to belong together."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    looks = []
    for i in range(60):
        thumbnail = picture.copy()
        thumbnail[0, 0] = i
        looks.append(duplicates._Look(np.full(8, 7, np.uint64), thumbnail, str(i)))
    records = tuple(Record(f"{i:02}.png", "all") for i in range(60))
    looked = []
    correlations = duplicates._correlations
    monkeypatch.setattr(
        duplicates, "_correlations", lambda *args: [looked.append(1) or pair for pair in correlations(*args)]
    )
    found = duplicates.near_links(records, looks, range(60))
    assert len(found) == 59
    assert len(looked) == 59
    assert len(linked_sets(found)) == 1


def test_within_parts_is_looked_when_asked(tmp_path):
    save(tmp_path / "train/all/a.png", cell(1))
    save(tmp_path / "train/all/b.png", cell(1)[::-1])
    save(tmp_path / "train/all/c.png", cell(1))
    save(tmp_path / "validation/all/d.png", cell(2))
    data = scan(tmp_path)
    plain, within = audit(data, workers=1), audit(data, within=True, workers=1)
    assert plain.near_within is None
    assert plain.repeated == within.repeated == {"train": 1, "validation": 0}
    assert [(pair.first, pair.second) for pair in within.near_within] == [("train/all/a.png", "train/all/b.png")]
    assert not within.leaks
    assert "near-duplicates within parts: 1" in report(within)
    assert "near-duplicates within parts" not in report(plain)


def test_any_number_of_workers_finds_the_same_in_the_whole(tmp_path):
    for i in range(24):
        save(tmp_path / f"all/{i:02}.png", cell(i))
        save(tmp_path / f"hem/{i:02}.jpg", eight_views(cell(i))[i % 8])
    one, two = (audit(scan(tmp_path), workers=workers) for workers in (1, 2))
    assert one == two
    assert len(one.near_duplicates) == 24


# ---------------------------------------------------------------- labels and groups that disagree


def test_label_conflicts_come_with_identical_files_first(tmp_path):
    save(tmp_path / "all/near.png", cell(1))
    save(tmp_path / "hem/near.png", cell(1)[::-1])
    save(tmp_path / "all/same.png", cell(2))
    save(tmp_path / "hem/same.png", cell(2))
    save(tmp_path / "all/right.png", cell(3))
    save(tmp_path / "all/right-too.png", cell(3)[:, ::-1])
    found = audit(scan(tmp_path), workers=1)
    assert [(c.kind, c.paths, c.values) for c in found.label_conflicts] == [
        ("identical", ["all/same.png", "hem/same.png"], ["all", "hem"]),
        ("near-duplicate", ["all/near.png", "hem/near.png"], ["all", "hem"]),
    ]
    assert not found.leaks


def test_groups_that_tear_copies_apart_are_a_leak_to_come(tmp_path):
    for i in range(4):
        save(tmp_path / f"all/{i}.png", cell(i))
        save(tmp_path / f"hem/{i}.png", cell(i)[::-1])
    with_groups(tmp_path, lambda path: "A" if path == "all/0.png" else path[-5])
    found = audit(scan(tmp_path), workers=1)
    assert [(c.kind, c.paths, c.values) for c in found.torn] == [
        ("near-duplicate", ["all/0.png", "hem/0.png"], ["0", "A"])
    ]
    assert found.leaks
    assert report(found).splitlines()[-2].startswith("Leaks: a split by these groups")
    with_groups(tmp_path, lambda path: path[-5])
    whole = audit(scan(tmp_path), workers=1)
    assert whole.torn == []
    assert "These groups hold them together." in report(whole)


def test_group_sizes_by_hand():
    records = [
        Record(f"{i}.png", label, group) for i, (label, group) in enumerate(zip("aabbab", "XXXYYZ", strict=True))
    ]
    found = groups_of([*records, Record("none.png", "a")])
    assert (found.count, found.smallest, found.median, found.largest) == (3, 1, 2.0, 3)
    assert found.several_labels == ["X", "Y"]
    assert groups_of([Record("none.png", "a")]) is None


# ---------------------------------------------------------------- shares


def test_shares_by_hand():
    # 80 of 100 against 50 of 100: the standard error of the difference is sqrt(.65 * .35 * (1 / 100 + 1 / 100)) = .067.
    found = differing_shares({"train": {"all": 80, "hem": 20}, "validation": {"all": 50, "hem": 50}})
    assert [(s.part, s.label, s.share, s.elsewhere) for s in found] == [
        ("train", "all", 0.8, 0.5),
        ("train", "hem", 0.2, 0.5),
        ("validation", "all", 0.5, 0.8),
        ("validation", "hem", 0.5, 0.2),
    ]


@pytest.mark.parametrize(
    "images",
    [
        {"train": {"all": 8, "hem": 2}, "validation": {"all": 5, "hem": 5}},  # as far apart, but few
        {"train": {"all": 50_000, "hem": 50_000}, "validation": {"all": 54_000, "hem": 46_000}},  # 4 points
        {"data": {"all": 9, "hem": 100}},
    ],
)
def test_small_parts_and_small_differences_do_not_warn(images):
    assert differing_shares(images) == []


def test_a_class_that_a_part_lacks_is_warned_of(make_folder):
    found = audit(scan(make_folder({"train/all": 30, "train/hem": 30, "validation/all": 25})), workers=1)
    assert ("validation", "hem", 0.0, 0.5) in [(s.part, s.label, s.share, s.elsewhere) for s in found.shares]
    assert "Warning: class 'hem' is 0.0% of the validation images, but 50.0% of the others." in report(found)


def test_images_changed_since_the_manifest_was_written_are_named(tmp_path):
    for i in range(3):
        save(tmp_path / f"all/{i}.png", cell(i))
    rows = ["path,label,group,split,sha256", *(f"all/{i}.png,all,,,{'0' * 64 if i == 1 else ''}" for i in range(3))]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    found = audit(scan(tmp_path), workers=1)
    assert found.changed == ["all/1.png"]
    assert "changed since manifest.csv was written: 1 images" in report(found)


def test_turned_copies_in_the_whole_are_found_by_sketches_too(monkeypatch):
    monkeypatch.setattr(duplicates, "AFFORDED", -1)
    rng = np.random.default_rng(4)
    first = rng.integers(0, 256, (100, 32, 32), dtype=np.uint8)
    second = np.stack([eight_views(picture)[i % 8] for i, picture in enumerate(first)]).astype(np.int16)
    second = (second + rng.integers(-12, 13, second.shape)).clip(0, 255).astype(np.uint8)
    looks = [duplicates._Look(np.zeros(8, np.uint64), t, str(i)) for i, t in enumerate([*first, *second])]
    records = tuple(Record(f"{i:03}.png", "all") for i in range(200))
    found = duplicates.near_links(records, looks, range(200))
    assert [(pair.first, pair.second) for pair in found] == [(f"{i:03}.png", f"{i + 100:03}.png") for i in range(100)]
