"""The report's split to the image, groups kept whole, and a destination that appears whole or not at all."""

import csv
import itertools
import os
import random
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customcnn.data.manifest import PARTS, read_manifest, read_rows, scan, with_group_file, with_group_pattern
from customcnn.data.split import (
    Shares,
    check_files,
    leakages,
    shares,
    split_by_group,
    split_by_image,
    split_by_name,
    split_folder,
)
from customcnn.errors import CustomCNNError
from customcnn.images.decode import BadImage, read_image
from customcnn.io.atomic import sha256
from tests.support.commands import error_line, printed
from tests.support.errors import refused
from tests.support.folders import names_in

EIGHTY = Shares(0.8, 0.2)


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, (0.8, 0.2, 0.0)),
        ({"ratio": 0.7}, (0.7, 0.3, 0.0)),
        ({"val": 0.25}, (0.75, 0.25, 0.0)),
        ({"test": 0.2}, (0.7, 0.1, 0.2)),
        ({"val": 0.05, "test": 0.05}, (0.9, 0.05, 0.05)),
        ({"ratio": 0.9, "test": 0.05}, (0.9, 0.05, 0.05)),
        ({"ratio": 0.9, "val": 0.05}, (0.9, 0.05, 0.05)),
        ({"ratio": 0.9, "val": 0.05, "test": 0.05}, (0.9, 0.05, 0.05)),
        ({"ratio": 0.8, "val": 0.2}, (0.8, 0.2, 0.0)),
        ({"ratio": 0.8, "val": 0.2, "test": 0}, (0.8, 0.2, 0.0)),
        ({"ratio": 0.7, "val": 0.2, "test": 0.1}, (0.7, 0.2, 0.1)),
    ],
)
def test_what_is_not_given_is_the_rest(given, expected):
    found = shares(**given)
    assert (found.train, found.validation, found.test) == expected
    assert found.as_list() == [share for share in expected if share]


@pytest.mark.parametrize("option", ["ratio", "val"])
@pytest.mark.parametrize("value, shown", [(0, "0"), (1, "1"), (1.5, "1.5"), (-0.2, "-0.2"), (float("nan"), "nan")])
def test_a_share_lies_between_0_and_1(option, value, shown):
    assert refused(shares, **{option: value}) == (
        f"A share lies between 0 and 1, without both ends. Received: --{option} {shown}. Example: --ratio .8."
    )


@pytest.mark.parametrize("value, shown", [(1, "1"), (1.5, "1.5"), (-0.1, "-0.1")])
def test_a_test_share_may_be_0_but_not_1(value, shown):
    assert refused(shares, test=value) == f"A share lies between 0 and 1. Received: --test {shown}. Example: --test .1."


@pytest.mark.parametrize(
    "given, received",
    [
        ((0.8, 0.3, None), "0.8 + 0.3 + 0 = 1.1"),
        ((0.8, 0.1, 0.2), "0.8 + 0.1 + 0.2 = 1.1"),
        ((0.5, 0.2, 0.2), "0.5 + 0.2 + 0.2 = 0.9"),
        ((0.9, None, 0.1), "0.9 + 0 + 0.1 = 1"),
        ((0.9, None, 0.5), "0.9 + 0 + 0.5 = 1.4"),
        ((None, 0.7, 0.7), "0 + 0.7 + 0.7 = 1.4"),
    ],
)
def test_shares_sum_to_1(given, received):
    assert refused(shares, *given) == (
        "The shares of train, validation and test are above 0 and sum to 1. "
        f"Received: {received}. Give two of --ratio, --val, --test or all three."
    )


# ---------------------------------------------------------------- by image, the report's rule


@pytest.fixture(scope="module")
def cnmc(shared_data) -> tuple[list[str], list[str]]:
    """The labels and subjects of C-NMC's 10,661 training cells."""
    rows = [row for row in read_rows(shared_data / "cnmc-2019-files.csv", ("path", "label")) if row["part"] == "train"]
    return [row["label"] for row in rows], [row["subject"] for row in rows]


@pytest.fixture(scope="module")
def blood(shared_data) -> tuple[list[str], list[str]]:
    """The labels and originals of the 3,289 blood cells."""
    rows = read_rows(shared_data / "blood-cells-originals.csv", ("path", "group"))
    return [row["path"].split("/")[0] for row in rows], [row["group"] for row in rows]


def test_the_numbers_of_the_report(cnmc):
    labels, _ = cnmc
    assert Counter(labels) == {"all": 7272, "hem": 3389}
    assert Counter(zip(split_by_image(labels, EIGHTY, 120), labels, strict=True)) == {
        ("train", "all"): 5817,
        ("train", "hem"): 2711,
        ("validation", "all"): 1455,
        ("validation", "hem"): 678,
    }


def test_the_numbers_of_the_study_with_three_parts(cnmc):
    labels, _ = cnmc
    chosen = split_by_image(labels, shares(0.9, 0.05, 0.05), 120)
    assert Counter(chosen) == {"train": 9594, "validation": 534, "test": 533}


def test_the_seed_by_hand():
    # random.Random(120) shuffles 0..9 so that 3 and 8 come last: they validate.
    order = list(range(10))
    random.Random(120).shuffle(order)
    assert order[8:] == [3, 8]
    chosen = split_by_image(["a"] * 10, EIGHTY, 120)
    assert [i for i, part in enumerate(chosen) if part == "validation"] == [3, 8]


def test_seeds_differ_and_classes_do_not_touch_each_other():
    labels = ["a", "b"] * 50
    chosen = split_by_image(labels, EIGHTY, 1)
    assert chosen == split_by_image(labels, EIGHTY, 1)
    assert chosen != split_by_image(labels, EIGHTY, 2)
    assert [part for part, label in zip(chosen, labels, strict=True) if label == "a"] == (
        split_by_image(["a"] * 50, EIGHTY, 1)
    )


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
    st.sampled_from([EIGHTY, Shares(0.5, 0.5), Shares(0.9, 0.05, 0.05), Shares(0.34, 0.33, 0.33)]),
    st.integers(0, 5),
)
def test_every_image_is_in_one_part_and_every_class_in_each(labels, parts, seed):
    sizes = {}
    for label, n in Counter(labels).items():
        train = int(parts.train * n)
        validation = n - train if not parts.test else (n - train + 1) // 2  # equal shares; an odd rest validates
        sizes[label] = (train, validation, n - train - validation)[: 3 if parts.test else 2]
    if any(0 in size for size in sizes.values()):
        assert refused(split_by_image, labels, parts, seed).startswith("Every part needs an image of every class. ")
        return
    counts = Counter(zip(labels, split_by_image(labels, parts, seed), strict=True))
    for label, size in sizes.items():
        assert tuple(counts[label, part] for part in PARTS[: len(size)]) == size
    assert sum(counts.values()) == len(labels)


def test_by_name_the_first_of_each_class_validate_as_in_keras():
    """`ImageDataGenerator(validation_split=.2)`: int(.2 * n) of the sorted names, from the front; no seed matters."""
    labels = ["a"] * 11 + ["b"] * 5
    assert split_by_name(labels, 0.2) == ["validation"] * 2 + ["train"] * 9 + ["validation"] + ["train"] * 4
    assert refused(split_by_name, ["a"] * 9 + ["b"] * 4, 0.2) == (
        "Every split needs an image of every class. Received: class 'b' with 4 images, of which a share of 0.2 is "
        "none. Add images."
    )


@pytest.mark.parametrize(
    "n, parts, received",
    [
        (1, EIGHTY, "with 1 image, which gives train 0, validation 1"),
        (4, Shares(0.2, 0.8), "with 4 images, which gives train 0, validation 4"),
        (2, Shares(0.5, 0.25, 0.25), "with 2 images, which gives train 1, validation 1, test 0"),
    ],
)
def test_a_class_with_too_few_images(n, parts, received):
    assert refused(split_by_image, ["all"] * 20 + ["hem"] * n, parts, 120) == (
        f"Every part needs an image of every class. Received: class 'hem' {received}. Add images or change --ratio."
    )


# ---------------------------------------------------------------- by group


def imbalance(labels: list[str], chosen: np.ndarray, share: float = 0.2) -> float:
    """The sum over the classes of how far the chosen share is from the wanted one."""
    names = np.array(labels)
    return sum(abs(chosen[names == label].mean() - share) for label in set(labels))


@pytest.mark.parametrize("data", ["cnmc", "blood"])
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_no_fold_of_scikit_learn_is_better(data, request):
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = request.getfixturevalue(data)
    folds = [
        np.isin(np.arange(len(labels)), inside)
        for splitter in (StratifiedGroupKFold(5), StratifiedGroupKFold(5, shuffle=True, random_state=0))
        for _, inside in splitter.split(labels, labels, groups)
    ]
    best = min(imbalance(labels, fold) for fold in folds)
    for seed in (0, 120):
        chosen = np.array(split_by_group(labels, groups, EIGHTY, seed)) == "validation"
        assert imbalance(labels, chosen) <= best
        assert not set(np.array(groups)[chosen]) & set(np.array(groups)[~chosen])


@pytest.mark.parametrize("data, limit", [("cnmc", 0.001), ("blood", 0.03)])
def test_three_parts_of_real_groups(data, limit, request):
    labels, groups = request.getfixturevalue(data)
    chosen = np.array(split_by_group(labels, groups, Shares(0.8, 0.1, 0.1), 120))
    assert imbalance(labels, chosen == "validation", 0.1) < limit
    assert imbalance(labels, chosen == "test", 0.1) < limit


def test_whole_groups_by_hand():
    # Of a: 8 + 2 images, of b: 4 + 1. Only one choice gives both classes their fifth.
    labels, groups = list("aaaaaaaaaabbbbb"), list("uuuuuuuuvvwwwwx")
    for seed in range(5):
        chosen = split_by_group(labels, groups, EIGHTY, seed)
        assert {group for group, part in zip(groups, chosen, strict=True) if part == "validation"} == {"v", "x"}


images = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=2, max_size=80)
some_shares = st.sampled_from(
    [EIGHTY, Shares(0.5, 0.5), Shares(0.9, 0.1), Shares(0.8, 0.1, 0.1), Shares(0.9, 0.05, 0.05)]
)


@given(images, some_shares, st.integers(0, 3), st.randoms(use_true_random=False))
def test_groups_stay_whole_and_every_part_has_every_class(pairs, parts, seed, chance):
    labels, groups = [label for label, _ in pairs], [f"g{number}" for _, number in pairs]
    try:
        chosen = split_by_group(labels, groups, parts, seed)
    except CustomCNNError as error:
        assert str(error).startswith("Every part needs a group of every class. Received: ")
        return
    assert len(chosen) == len(labels)
    part_of = dict(zip(groups, chosen, strict=True))
    assert chosen == [part_of[group] for group in groups]
    wanted = set(PARTS[: len(parts.as_list())])
    for label in set(labels):
        assert {part for part, other in zip(chosen, labels, strict=True) if other == label} == wanted
    # The order of the images does not matter.
    chance.shuffle(pairs)
    again = split_by_group([label for label, _ in pairs], [f"g{number}" for _, number in pairs], parts, seed)
    assert again == [part_of[f"g{number}"] for _, number in pairs]


def test_the_best_of_all_splits_is_found_where_there_are_few_groups():
    """Against every possible split: the same cost, and an error only where there is none."""
    rng = np.random.default_rng(0)
    outcomes = Counter()
    while sum(outcomes.values()) < 150:
        counts = rng.choice([0, 0, 1, 2, 5, 20, 50], (rng.integers(2, 8), rng.integers(1, 4)))
        parts = [EIGHTY, Shares(0.5, 0.5), Shares(0.8, 0.1, 0.1), Shares(0.9, 0.05, 0.05)][rng.integers(4)]
        counts = counts[counts.sum(axis=1) > 0]
        if len(counts) < 2 or (counts.sum(axis=0) == 0).any():
            continue
        wanted = np.array(parts.as_list())[:, None] * counts.sum(axis=0)

        def cost(choice, counts=counts, wanted=wanted):
            filled = np.zeros(wanted.shape)
            np.add.at(filled, np.array(choice), counts)
            imbalances = (filled - wanted) ** 2 / (wanted * counts.sum(axis=0))
            return np.inf if (filled == 0).any() else imbalances.sum()

        best = min(map(cost, itertools.product(range(len(wanted)), repeat=len(counts))))
        images = [(f"c{c}", g) for (g, c), n in np.ndenumerate(counts) for _ in range(n)]
        labels, groups = [label for label, _ in images], [f"g{g}" for _, g in images]
        try:
            chosen = dict(zip(groups, split_by_group(labels, groups, parts, 0), strict=True))
        except CustomCNNError:
            assert best == np.inf, (counts, parts)
            outcomes["impossible"] += 1
            continue
        assert cost([PARTS.index(chosen[f"g{g}"]) for g in range(len(counts))]) <= best + 1e-9, (counts, parts)
        outcomes["found"] += 1
    assert min(outcomes["found"], outcomes["impossible"]) > 20


def test_many_groups_are_split_quickly():
    # Every image a group of its own, as of augmented images.
    labels = ["a"] * 7272 + ["b"] * 3389
    chosen = np.array(split_by_group(labels, [str(i) for i in range(len(labels))], EIGHTY, 1))
    assert imbalance(labels, chosen == "validation") < 0.001


@pytest.mark.parametrize(
    "groups, parts, received",
    [
        ("uvww", EIGHTY, "class 'b' with 1 group for 2 parts"),
        ("uvwx", Shares(0.6, 0.2, 0.2), "class 'a' with 2 groups for 3 parts"),
    ],
)
def test_a_class_with_too_few_groups(groups, parts, received):
    assert refused(split_by_group, list("aabb"), list(groups), parts, 1) == (
        f"Every part needs a group of every class. Received: {received}. Add groups or split --by image."
    )


def test_groups_that_cannot_be_parted():
    # Three classes, each in two of three groups: of any two groups on one side, some class is wholly there.
    labels, groups = list("aabbcc"), list("uvvwuw")
    text = refused(split_by_group, labels, groups, Shares(0.5, 0.5), 1)
    start, end = (
        "Every part needs a group of every class. Received: groups that leave class ",
        (". Change the shares or split --by image."),
    )
    assert text.startswith(start) and text.endswith(end)
    assert text[len(start) : -len(end)] in [f"'{label}' out of {part}" for label in "abc" for part in PARTS[:2]]


# ---------------------------------------------------------------- folders


@pytest.fixture
def cells(make_folder) -> Path:
    """Ten images of `all` by three subjects and ten of `hem` by three others."""
    return make_folder(
        {
            "all": [f"UID_{1 + i % 3}_{i}_1_all.bmp" for i in range(10)],
            "hem": [f"UID_H{1 + i % 3}_{i}_1_hem.bmp" for i in range(10)],
        },
        "cells",
    )


@pytest.mark.parametrize("link", ["copy", "hard", "symlink"])
def test_a_folder_is_split(cells, tmp_path, link):
    result = split_folder(scan(cells), tmp_path / "parts", EIGHTY, link=link)
    assert result.skipped == []
    assert result.manifest == scan(tmp_path / "parts")
    assert result.manifest.counts() == {
        ("train", "all"): 8,
        ("train", "hem"): 8,
        ("validation", "all"): 2,
        ("validation", "hem"): 2,
    }
    assert names_in(tmp_path / "parts") == sorted(["manifest.csv", *(r.path for r in result.manifest.records)])
    for record in result.manifest.records:
        placed, source = tmp_path / "parts" / record.path, cells / record.path.split("/", 1)[1]
        assert placed.read_bytes() == source.read_bytes()
        assert placed.is_symlink() == (link == "symlink")
        assert placed.samefile(source) == (link != "copy")
        assert record.sha256 == sha256(source.read_bytes())
    assert len(scan(cells).records) == 20


def test_the_manifest_that_is_written(cells, tmp_path):
    split_folder(with_group_pattern(scan(cells), "cnmc"), tmp_path / "parts", EIGHTY, by="group")
    with (tmp_path / "parts" / "manifest.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label", "group", "split", "sha256"]
    assert len(rows) == 20 and rows == sorted(rows)
    parts = defaultdict(set)
    for path, label, group, part, digest in rows:
        assert path.startswith(f"{part}/{label}/UID_{group}_")
        assert digest == sha256((tmp_path / "parts" / path).read_bytes())
        parts[group].add(part)
    assert all(len(where) == 1 for where in parts.values())


def test_what_the_parts_share_is_told(cells, tmp_path):
    grouped = with_group_pattern(scan(cells), "cnmc")
    (by_image,) = split_folder(grouped, tmp_path / "image", EIGHTY).leakage
    assert (by_image.part, by_image.images, by_image.groups_known) == ("validation", 4, True)
    assert by_image.images_in_shared_groups == 4 and by_image.warning
    (by_group,) = split_folder(grouped, tmp_path / "group", EIGHTY, by="group").leakage
    assert by_group.shared_groups == 0 and by_group.warning is None
    three = split_folder(grouped, tmp_path / "three", Shares(0.6, 0.2, 0.2), by="group").leakage
    assert [leakage.part for leakage in three] == ["validation", "test"]


@pytest.mark.parametrize("option", ["--group-pattern", "--groups"])
def test_giving_groups_means_by_group(cells, tmp_path, shell, option):
    with_group_pattern(scan(cells), "cnmc").write(tmp_path / "groups.csv")
    groups = "cnmc" if option == "--group-pattern" else tmp_path / "groups.csv"
    words = ["split", cells, tmp_path / "parts", option, groups]
    _, errors = printed(*shell(*words))
    assert errors == ""
    assert leakages(scan(tmp_path / "parts"))[0].shared_groups == 0
    _, errors = printed(*shell(*words, "--by", "image", "--replace"))
    assert errors.startswith("Warning: Inflated by leakage: 4 of 4 validation images belong to ")


def test_subjects_in_known_names_are_recognised_and_the_leak_is_told(cells, tmp_path, shell):
    _, errors = printed(*shell("split", cells, tmp_path / "parts"))
    assert errors.startswith("Warning: Inflated by leakage: 4 of 4 validation images belong to ")
    assert scan(tmp_path / "parts").groups_known
    # As it was before: by image, and each file where it was.
    split_folder(scan(cells), tmp_path / "before", shares())
    before, now = (sorted(r.path for r in scan(tmp_path / name).records) for name in ("before", "parts"))
    assert before == now
    printed(*shell("split", cells, tmp_path / "grouped", "--by", "group"))
    assert leakages(scan(tmp_path / "grouped"))[0].shared_groups == 0


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_same_seed_gives_the_same_split(cells, tmp_path, workers):
    split_folder(scan(cells), tmp_path / "a", EIGHTY, seed=3, workers=1)
    split_folder(scan(cells), tmp_path / "b", EIGHTY, seed=3, workers=workers)
    assert (tmp_path / "a" / "manifest.csv").read_bytes() == (tmp_path / "b" / "manifest.csv").read_bytes()
    split_folder(scan(cells), tmp_path / "c", EIGHTY, seed=4)
    assert names_in(tmp_path / "a") != names_in(tmp_path / "c")


def test_further_columns_are_kept(cells, tmp_path):
    rows = ["path,label,group,split,sha256,origin"]
    rows += [f"{record.path},{record.label},g{i},,stale,drawn" for i, record in enumerate(scan(cells).records)]
    (cells / "manifest.csv").write_text("\n".join(rows) + "\n")
    found = split_folder(scan(cells), tmp_path / "parts", EIGHTY).manifest
    assert read_manifest(tmp_path / "parts" / "manifest.csv") == found
    assert found.drawn and found.groups_known
    assert "stale" not in {record.sha256 for record in found.records}


NAMES = ["with space", "it's", '"', "new\nline", "re\rturn", "Zölle 細胞", "a,b", os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("link", ["copy", "hard", "symlink"])
def test_names_of_any_kind(make_folder, tmp_path, link):
    classes = {"class with\nnewline": NAMES, os.fsdecode(b"\xff 'x'"): NAMES}
    root = make_folder({label: [f"{name}.bmp" for name in names] for label, names in classes.items()}, "so\nurce")
    result = split_folder(scan(root), tmp_path / "par\nts", Shares(0.5, 0.5), link=link)
    assert scan(tmp_path / "par\nts") == result.manifest
    assert len(result.manifest.records) == 16
    for record in result.manifest.records:
        assert (tmp_path / "par\nts" / record.path).read_bytes() == (root / record.path.split("/", 1)[1]).read_bytes()


def test_links_of_a_relative_source_hold(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (cells / "all" / "link.bmp").symlink_to("UID_1_0_1_all.bmp")
    for link in ("hard", "symlink"):
        result = split_folder(scan(Path("cells")), Path(f"deep/er/{link}"), EIGHTY, link=link)
        monkeypatch.chdir(tmp_path / "deep")
        for record in result.manifest.records:
            assert (tmp_path / "deep" / "er" / link / record.path).read_bytes()[:2] == b"BM"
        monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- what is refused


def test_a_destination_with_something_in_it(cells, tmp_path):
    split_folder(scan(cells), tmp_path / "parts", EIGHTY)
    before = names_in(tmp_path)
    assert refused(split_folder, scan(cells), tmp_path / "parts", EIGHTY, seed=5) == (
        f"Destination '{tmp_path}/parts' is not empty. Use --replace to write over it."
    )
    assert names_in(tmp_path) == before
    split_folder(scan(cells), tmp_path / "parts", Shares(0.6, 0.2, 0.2), replace_dst=True)
    assert scan(tmp_path / "parts").parts == ["train", "validation", "test"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cells", "parts"]


def test_a_source_that_is_split_already(cells, tmp_path):
    split_folder(scan(cells), tmp_path / "parts", EIGHTY)
    assert refused(split_folder, scan(tmp_path / "parts"), tmp_path / "again", EIGHTY) == (
        f"A folder is split once. Received: '{tmp_path}/parts', which has 'train', 'validation' already. "
        "Give the folder of class folders that it was made from."
    )


@pytest.mark.parametrize("where", [".", "new", "../cells/all", ".."])
@pytest.mark.parametrize("replace", [False, True])
def test_a_destination_inside_the_source_or_around_it(cells, where, replace):
    before = names_in(cells)
    assert refused(split_folder, scan(cells), cells / where, EIGHTY, replace_dst=replace).startswith(
        f"Source and destination are separate folders, neither inside the other. Received: '{cells}' and "
    )
    assert names_in(cells) == before


def test_groups_that_are_not_known(cells, tmp_path):
    assert refused(split_folder, scan(cells), tmp_path / "parts", EIGHTY, by="group") == (
        f"A split by group needs the group of every image. Received: none for '{cells}'. "
        "Use --group-pattern (cnmc, or a regular expression) or --groups FILE.csv."
    )


@pytest.mark.parametrize("wrong", [{"by": "groups"}, {"link": "soft"}])
def test_a_word_that_is_unknown(cells, tmp_path, wrong):
    with pytest.raises(ValueError, match=r"Received: '(groups|soft)'"):
        split_folder(scan(cells), tmp_path / "parts", EIGHTY, **wrong)
    assert not (tmp_path / "parts").exists()


def test_one_class_and_a_class_of_one(make_folder, tmp_path):
    one = make_folder({"all": 5}, "one")
    assert "at least two classes" in refused(split_folder, scan(one), tmp_path / "parts", EIGHTY)
    few = make_folder({"all": 5, "hem": 1}, "few")
    assert "class 'hem' with 1 image, which" in refused(split_folder, scan(few), tmp_path / "parts", EIGHTY)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["few", "one"]


@pytest.fixture
def spoilt(cells) -> dict[str, str]:
    """Put files that are no images among the cells; return them with the reasons."""
    whole = (cells / "all" / "UID_1_0_1_all.bmp").read_bytes()
    (cells / "all" / "empty.bmp").write_bytes(b"")
    (cells / "all" / "half.bmp").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadImage) as half:
        read_image(cells / "all" / "half.bmp")
    (cells / "hem" / "text.png").write_text("These are not pixels.")
    frames = [Image.new("L", (8, 8), level) for level in (0, 255)]
    frames[0].save(cells / "hem" / "moving.gif", save_all=True, append_images=frames[1:])
    huge = b"BM" + (54).to_bytes(4, "little") + bytes(4) + b"\x36\0\0\0\x28\0\0\0"
    huge += (40_000).to_bytes(4, "little") * 2 + b"\x01\0\x18\0" + bytes(24)
    (cells / "hem" / "huge.bmp").write_bytes(huge)
    return {
        "all/empty.bmp": "an empty file",
        "all/half.bmp": half.value.reason,
        "hem/huge.bmp": "more than 50,000,000 pixels",
        "hem/moving.gif": "an animation or a stack of several pictures",
        "hem/text.png": "not an image of a known format",
    }


@pytest.mark.parametrize("workers", [1, 4])
def test_all_bad_images_are_named_in_one_line(cells, tmp_path, spoilt, workers):
    named = ", ".join(f"'{path}' ({reason})" for path, reason in spoilt.items())
    assert refused(split_folder, scan(cells), tmp_path / "parts", EIGHTY, workers=workers) == (
        f"Class folders hold images and nothing else. Received: {named}. Remove them or use --skip-bad."
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells"]


def test_bad_images_are_skipped_and_told(cells, tmp_path, spoilt):
    result = split_folder(scan(cells), tmp_path / "parts", EIGHTY, skip_bad=True)
    assert dict(result.skipped) == spoilt
    assert len(result.manifest.records) == 20
    assert not [path for path in names_in(tmp_path / "parts") if Path(path).name in {Path(bad).name for bad in spoilt}]


def test_images_that_are_all_bad(make_folder, tmp_path):
    root = make_folder({"all": 1, "hem": 1})
    for path in ("all/0.bmp", "hem/0.bmp"):
        (root / path).write_text("")
    assert refused(check_files, scan(root), skip_bad=True) == (
        f"Data holds at least one image that can be used. Received: '{root}'."
    )
    Image.new("L", (3, 3)).save(root / "all" / "0.bmp")
    assert "at least two classes" in refused(split_folder, scan(root), tmp_path / "parts", EIGHTY, skip_bad=True)


# ---------------------------------------------------------------- disks


def test_a_full_disk(make_folder, tiny_disk, shell):
    root = make_folder({"all": 5, "hem": 5}, size=80)  # ten times 19 KB onto 64 KiB
    message = error_line(*shell("split", root, tiny_disk / "parts"))
    assert message.startswith("The system refused a file operation: No space left on device.")
    assert list(tiny_disk.iterdir()) == []


def test_a_read_only_disk(cells, tiny_disk, shell):
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    message = error_line(*shell("split", cells, tiny_disk / "parts"))
    assert message.startswith("The system refused a file operation: Read-only file system.")


def test_hard_links_to_another_disk(make_folder, tiny_disk, tmp_path):
    root = make_folder({"all": 5, "hem": 5}, "disk/cells", size=2)
    assert refused(split_folder, scan(root), tmp_path / "parts", EIGHTY, link="hard").startswith(
        f"Hard links join files of one file system. Received: '{root}/"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["disk"]
    assert len(split_folder(scan(root), tmp_path / "parts", EIGHTY, link="symlink").manifest.records) == 10


# ---------------------------------------------------------------- real photographs


def test_real_photographs_by_their_originals(shared_data, tmp_path):
    # The first photographs of each class: decoding all 3,289 would take some seconds.
    for folder in (shared_data / "blood-cells").iterdir():
        (tmp_path / "cells" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:60]:
            (tmp_path / "cells" / folder.name / path.name).symlink_to(path)
    manifest = with_group_file(scan(tmp_path / "cells"), shared_data / "blood-cells-originals.csv")
    by_group = split_folder(manifest, tmp_path / "parts", EIGHTY, by="group", link="symlink")
    assert sum(by_group.manifest.counts().values()) == 240
    for label in by_group.manifest.classes:
        assert 11 <= by_group.manifest.counts()["validation", label] <= 13
    assert by_group.leakage[0].warning is None
    by_image = split_folder(manifest, tmp_path / "leaky", EIGHTY, link="symlink")
    assert by_image.leakage[0].images_in_shared_groups > 24


def test_strays_and_damaged_images_are_named_at_once(make_folder, tmp_path):
    root = make_folder({"all": 3, "hem": 3})
    (root / "all" / "notes.txt").write_text("no image")
    (root / "hem" / "0.bmp").write_bytes(b"")
    manifest = scan(root, skip_bad=True)
    assert "'all/notes.txt' (not an image by its name), 'hem/0.bmp' (an empty file)" in refused(
        split_folder, manifest, tmp_path / "parts", shares(0.5)
    )
    result = split_folder(manifest, tmp_path / "parts", shares(0.5), skip_bad=True)
    assert [path for path, _ in result.skipped] == ["all/notes.txt", "hem/0.bmp"]
