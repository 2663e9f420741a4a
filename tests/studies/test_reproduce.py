"""Studies: their files, their data, and the tables that set the published numbers beside the measured ones."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customcnn.data.leakage import find_leakage
from customcnn.data.manifest import Manifest, Record, scan
from customcnn.data.split import shares, split_folder
from customcnn.data.synthetic import draw_files
from customcnn.errors import CustomCNNError
from customcnn.metrics.scores import evaluate_predictions
from customcnn.progress import silent
from customcnn.studies import row_runner as study_rows
from customcnn.studies.prepare import assign, limited, prepare
from customcnn.studies.reproduce import reproduce
from customcnn.studies.results import Changes, Reproduction, Result, scores_of
from customcnn.studies.row_runner import Stopwatch, why
from customcnn.studies.study_file import Preparation, find_study, read_study
from customcnn.studies.tables import csv_rows, html, markdown, summaries, write_tables
from tests.support.errors import refused

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SUBJECTS = {"train": ("1", "2", "3"), "validation": ("4", "5"), "test": ("6", "7")}

FACTS = """
[paper]
small = { accuracy = 0.75, recall_hem = 0.5 }
large_percent = 93.02
parameters = 1000
"""

STUDY = """
title = "A small study"
published = "facts.toml"
table = "paper"
parts = ["validation", "test"]
notes = ["It splits by image."]

[shipped]
folders = ["fold_0"]
command = "prepare {data} parts"

[data.plain]
split = "image"
ratio = 0.5
keep = ["test"]
group_pattern = "cnmc"

[[row]]
name = "small"
note = "The first."
published.validation = { accuracy = "small.accuracy", "recall.hem" = "small.recall_hem" }
published.network = { parameters = "parameters" }

[[row]]
name = "large"
recipe = "large.toml"
published.test = { accuracy = "large_percent" }

[[mark]]
name = "somebody else"
published.test = { accuracy = "small.accuracy" }
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A study of two recipes."""
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "facts.toml").write_text(FACTS)
    (tmp_path / "paper" / "study.toml").write_text(STUDY)
    recipe = 'model = "small"\ninput_size = 32\nepochs = 2\nbatch_size = 8\n'
    (tmp_path / "paper" / "small.toml").write_text(recipe)
    (tmp_path / "paper" / "large.toml").write_text(f"{recipe}dropout = 0.5\n")
    return tmp_path / "paper"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """Drawn cells in the challenge's parts: two or three subjects of each class in a part, four cells each."""
    data = tmp_path_factory.mktemp("study") / "cells"
    names = [
        (f"{part}/{label}/UID_{sign}{subject}_1_{cell}_{label}.bmp", label, f"{sign}{subject}")
        for part, subjects in SUBJECTS.items()
        for label, sign in (("all", ""), ("hem", "H"))
        for subject in subjects
        for cell in range(1, 5)
    ]
    hashes = draw_files(names, data, size=45, workers=1)
    records = [
        Record(path, label, subject, path.split("/")[0], digest, {"origin": "drawn"})
        for (path, label, subject), digest in zip(names, hashes, strict=True)
    ]
    Manifest(data, tuple(sorted(records, key=lambda r: r.path))).write(data / "manifest.csv")
    return data


@pytest.fixture
def cells(drawn, tmp_path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "cells"))


# ---------------------------------------------------------------- study.toml


def test_a_study_is_read(folder):
    study = read_study(folder / "study.toml")
    assert [row.name for row in study.rows] == ["small", "large"]
    assert study.rows[0].recipe == folder / "small.toml" and study.rows[1].recipe == folder / "large.toml"
    assert study.rows[0].published == {
        "validation": {"accuracy": 0.75, "recall.hem": 0.5},
        "network": {"parameters": 1000},
    }
    assert study.rows[1].published["test"]["accuracy"] == pytest.approx(0.9302)
    assert study.marks[0].recipe is None and study.scores == ("accuracy",)
    assert study.preparations["plain"].shares.as_list() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "title =",
            "titel =",
            r"A study has known keys only\. Received: 'titel' in .*study\.toml'\. Did you mean title\?",
        ),
        ('title = "A small study"', "title = 3", r"Key title of a study is text\. Received: 3 in "),
        ('title = "A small study"\n', "", r"A study has a title\. Received: .* without it\."),
        ('"paper"', '"papers"', r"Published numbers stand in tables\. Received: 'papers', not in "),
        ("small.accuracy", "small.acuracy", r"Received: paper\.small\.acuracy in row small of .*, which is no number"),
        ('name = "large"', 'name = "small"', r"Rows have names of their own\. Received: 'small' twice in "),
        ('name = "large"', 'name = "../large"', r"A row has a name of small letters, digits and dashes"),
        ('"large.toml"', '"other.toml"', r"A row's recipe stands beside study\.toml\. Received: '.*other\.toml'"),
        ('split = "image"', 'split = "cell"', r"A study knows own, image, group, name here\. Received: 'cell'"),
        (
            'split = "image"',
            'split = "name"\ntest = 0.1',
            r"By name there are two shares.* Received: a test share of 0\.1",
        ),
        ("ratio = 0.5", "ration = 0.5", r"Received: 'ration' in \[data\.plain\] of .*\. Did you mean ratio\?"),
        ("ratio = 0.5", "ratio = 1.5", r"A share lies between 0 and 1"),
        ("ratio = 0.5", "crop = [500, 450]", r"A crop is an edge and the whole, in pixels\. Received: \[500, 450\]"),
        ("ratio = 0.5", "augment = { cuont = 3 }", r"Received: 'cuont' in augment.* Did you mean count\?"),
        ("ratio = 0.5", "augment = { rotate = 90 }", r"--rotate lies in 0\.\.25 degrees"),
        ('["validation", "test"]', '["fold"]', r"A study knows train, validation, test here"),
        ("published.network", "published.nowhere", r"A study knows train, validation, test, training, network"),
        ('note = "The first."', 'kind = "guess"', r"A study knows train, crossval, tune here\. Received: 'guess'"),
        ('note = "The first."', 'data = "other"', r"A study knows plain here\. Received: 'other'"),
        ('note = "The first."', "options = { folds = 5 }", r"Received: 'folds' in options"),
    ],
)
def test_what_a_study_may_not_hold(folder, old, new, message):
    assert old in STUDY
    (folder / "study.toml").write_text(STUDY.replace(old, new, 1))
    with pytest.raises(CustomCNNError, match=message):
        read_study(folder / "study.toml")


def test_a_study_is_a_folder_or_one_of_its_recipes(folder, tmp_path):
    assert find_study(folder) == find_study(folder / "study.toml") == (folder / "study.toml", None)
    assert find_study(folder / "large.toml") == (folder / "study.toml", ["large"])
    (folder / "third.toml").write_text('model = "small"\n')
    with pytest.raises(CustomCNNError, match=r"of which .*study\.toml' has none\. Train it with customcnn train"):
        find_study(folder / "third.toml")
    with pytest.raises(CustomCNNError, match=r"A study is a folder with a study\.toml, or one of its recipes"):
        find_study(tmp_path / "nothing.toml")
    with pytest.raises(CustomCNNError, match="A study is made of TOML files"):
        read_study(tmp_path / "study.toml")


# ---------------------------------------------------------------- which images


def record(part: str, label: str, group: str, number: int) -> Record:
    return Record(f"{part}/{label}/{group}-{number}.bmp", label, group, part)


def test_a_limit_takes_from_every_group_in_turn():
    records = [
        record("train", "all", group, n) for group, count in (("a", 5), ("b", 1), ("c", 3)) for n in range(count)
    ]
    chosen = limited(records, 5)
    assert Counter(r.group for r in chosen) == {"a": 2, "b": 1, "c": 2}
    assert limited(list(reversed(records)), 5) == chosen
    assert limited(records, 0) == sorted(records, key=lambda r: r.path)


@given(
    st.lists(st.tuples(st.sampled_from(["train", "test"]), st.sampled_from("xy"), st.sampled_from("abc")), max_size=30),
    st.integers(1, 6),
)
def test_a_limit_holds_in_each_part_and_class(rows, limit):
    records = [record(*row, number) for number, row in enumerate(rows)]
    chosen = Counter((r.split, r.label) for r in limited(records, limit))
    assert chosen == {key: min(count, limit) for key, count in Counter((p, c) for p, c, _ in rows).items()}


def test_parts_are_pooled_kept_and_left_out(drawn):
    data = scan(drawn)
    parts = {r.path: r.split for r in assign(data, Preparation("image", ratio=0.75))}
    assert Counter(parts.values()) == {"train": 30, "validation": 10}
    assert not any(path.startswith("test/") for path in parts)
    kept = assign(data, Preparation("image", ratio=0.75, keep=("test",)))
    assert Counter(r.split for r in kept) == {"train": 30, "validation": 10, "test": 16}
    grouped = assign(data, Preparation("group", ratio=0.6))
    sides = {part: {r.group for r in grouped if r.split == part} for part in ("train", "validation")}
    assert not sides["train"] & sides["validation"]
    own = assign(data, Preparation())
    assert Counter(r.split for r in own) == {"train": 24, "validation": 16, "test": 16}


def test_by_name_the_first_of_each_class_validate_whatever_the_folder_has_in_which_part(drawn):
    data = scan(drawn)
    parts = assign(data, Preparation("name", ratio=0.75, keep=("test",)))
    for label in ("all", "hem"):
        names = sorted(r.path.split("/")[-1] for r in data.records if r.label == label and r.split != "test")
        held = [r.path.split("/")[-1] for r in parts if r.label == label and r.split == "validation"]
        assert sorted(held) == names[: len(names) // 4]
    assert Counter(r.split for r in parts) == {"train": 30, "validation": 10, "test": 16}


def test_a_folder_in_parts_is_split_anew_as_customcnn_split_splits_it_whole(drawn, tmp_path):
    whole = tmp_path / "whole"
    for file in drawn.glob("[tv][ra]*/*/*.bmp"):  # train and validation
        (whole / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, whole / file.parent.name)
    made = split_folder(scan(whole), tmp_path / "parts", shares(0.7), seed=120, workers=1).manifest
    parts = assign(scan(drawn), Preparation("image", ratio=0.7))
    assert {Path(r.path).name: r.split for r in parts} == {Path(r.path).name: r.split for r in made.records}


def test_a_study_that_takes_the_parts_as_they_are_needs_some(make_folder):
    data = scan(make_folder({"all": 3, "hem": 3}))
    with pytest.raises(CustomCNNError, match=r"takes the parts that its data has\. Received: .* without 'train', 'val"):
        assign(data, Preparation())
    with pytest.raises(CustomCNNError, match="This study splits by group and needs the group of every image"):
        assign(data, Preparation("group"))


# ---------------------------------------------------------------- what is made of them


def test_parts_crops_and_samples(drawn, tmp_path):
    how = Preparation("image", ratio=0.5, keep=("test",), crop=(400, 450), augment={"count": 100, "flips": False})
    made = prepare(scan(drawn), how, tmp_path / "data", limit=3, workers=1)
    assert made == scan(tmp_path / "data" / "augmented")
    # 6 of 20 training images: 30 of 100 samples.
    assert Counter(r.split for r in made.records) == {"train": 30, "validation": 6, "test": 6}
    with Image.open(made.root / made.records[0].path) as image:
        assert image.size == (40, 40)
    assert made.drawn and made.groups_known and all(record.sha256 for record in made.records)
    before = (tmp_path / "data" / "augmented").stat().st_mtime_ns
    assert prepare(scan(drawn), how, tmp_path / "data", limit=3, workers=1) == made
    assert (tmp_path / "data" / "augmented").stat().st_mtime_ns == before


def test_a_stage_that_was_cut_off_goes_on_from_the_one_before(drawn, tmp_path):
    how = Preparation("image", ratio=0.5, crop=(400, 450), augment={"count": 10})
    made = prepare(scan(drawn), how, tmp_path / "data", workers=1)
    shutil.rmtree(tmp_path / "data" / "augmented")
    shutil.rmtree(tmp_path / "data" / "cropped")
    assert prepare(scan(drawn), how, tmp_path / "data", workers=1) == made


def test_a_folder_without_parts_and_groups(make_folder, tmp_path):
    data = scan(make_folder({"all": 6, "hem": 4}))
    made = prepare(data, Preparation("image", ratio=0.5, group_pattern="cnmc"), tmp_path / "data", workers=1)
    assert made.counts() == {
        ("train", "all"): 3,
        ("train", "hem"): 2,
        ("validation", "all"): 3,
        ("validation", "hem"): 2,
    }
    assert not made.groups_known


def test_groups_are_read_from_names_where_there_is_no_manifest(cells, tmp_path):
    (cells / "manifest.csv").unlink()
    made = prepare(scan(cells), Preparation(group_pattern="cnmc"), tmp_path / "data", workers=1)
    assert made.groups_known and {r.group for r in made.part("test").records} == {"6", "7", "H6", "H7"}


def test_the_smaller_class_is_enlarged_before_the_split_and_its_copies_leak(make_folder, tmp_path):
    classes = {"train/all": 8, "train/hem": 3, "validation/all": 2, "validation/hem": 1, "test/hem": 1}
    folder = make_folder(classes, size=32)
    data = scan(folder)
    data = replace(data, records=tuple(replace(r, group=r.path) for r in data.records))
    how = Preparation("image", ratio=0.5, keep=("test",), minority="balance")
    made = prepare(data, how, tmp_path / "data", workers=1)
    counts = made.counts()
    assert counts["train", "all"] + counts["validation", "all"] == 10
    assert counts["train", "hem"] + counts["validation", "hem"] == 10 and counts["test", "hem"] == 1
    copies = [r for r in made.records if "-aug" in r.path]
    assert len(copies) == 6 and all(r.label == "hem" and r.split != "test" for r in copies)
    assert len({r.sha256 for r in made.records}) == sum(classes.values()) + 6
    leak = find_leakage(made.part("train").records, made.part("validation").records, "validation")
    assert leak.shared_groups > 0
    assert prepare(data, how, tmp_path / "again", workers=2).records == made.records


def test_images_of_one_name_in_two_parts_are_told_apart(make_folder, tmp_path):
    data = scan(make_folder({"train/all": 3, "train/hem": 2, "validation/all": 1, "validation/hem": 1}))
    made = prepare(data, Preparation("image", ratio=0.5), tmp_path / "data", workers=1)
    names = sorted(record.path.partition("/")[2] for record in made.records)
    assert [name for name in names if name.startswith("hem")] == [
        "hem/1.bmp",
        "hem/train-0.bmp",
        "hem/validation-0.bmp",
    ]
    assert len(names) == len(set(names)) == 7


# ---------------------------------------------------------------- running, with the training left out

METRICS = evaluate_predictions(
    np.array([0, 0, 1, 1]),
    np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]),
    ["all", "hem"],
    groups=["a", "b", "c", "d"],
    resamples=20,
)


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """Replace the training of a row: it is noted, and its result is of one epoch. `large` fails the first time."""
    names: list[str] = []

    def train(work, recipe):
        names.append(work.row.name)
        if work.row.name == "large" and names.count("large") == 1:
            raise MemoryError
        work.run.path.mkdir(parents=True)
        scores = {part: scores_of(METRICS) for part in ("validation", "test")}
        metrics = {part: {**METRICS, "chosen_on_this_part": part == "validation"} for part in scores}
        return Result(work.row.name, "done", "", recipe.to_toml(), scores, metrics, epochs=1, notes=["Mind this."])

    monkeypatch.setattr(study_rows, "_train", train)
    monkeypatch.setattr(study_rows, "forget_networks", lambda: None)
    return names


def test_a_row_that_fails_says_why_and_the_others_go_on(folder, cells, tmp_path, ran):
    said: list[str] = []
    study = read_study(folder / "study.toml")
    study = replace(study, rows=study.rows[::-1])
    found = reproduce(study, cells, tmp_path / "out", Changes(limit=2), workers=1, say=said.append, tables=write_tables)
    assert ran == ["large", "small"]
    assert [result.name for result in found.failed] == ["large"]
    assert said == [
        "Row 1 of 2, large",
        "Failed: large: Not enough memory. Give --set a smaller batch_size or input_size.",
        "Row 2 of 2, small",
        "Warning: small: Mind this.",
    ]
    assert "Failed: Not enough memory." in (tmp_path / "out" / "study.md").read_text()
    # A failed row is tried again, a finished one is not.
    said.clear()
    found = reproduce(study, cells, tmp_path / "out", Changes(limit=2), workers=1, say=said.append)
    assert ran == ["large", "small", "large"] and not found.failed
    assert said[-2:] == ["Row 2 of 2, small: done before.", "Warning: small: Mind this."]
    assert [r.status for r in found.results.values()] == ["done", "done"]


def test_ctrl_c_stops_at_once_and_the_next_call_goes_on(folder, cells, tmp_path, ran, monkeypatch):
    study = read_study(folder / "study.toml")
    train = study_rows._train

    def stopped(work, recipe):
        if work.row.name == "large":
            raise KeyboardInterrupt
        return train(work, recipe)

    monkeypatch.setattr(study_rows, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        reproduce(study, cells, tmp_path / "out", workers=1, tables=write_tables)
    assert "not run" in (tmp_path / "out" / "study.md").read_text()
    monkeypatch.setattr(study_rows, "_train", train)
    reproduce(study, cells, tmp_path / "out", workers=1)
    assert ran == ["small", "large"]


def test_a_reproduction_keeps_its_options(folder, cells, tmp_path, ran):
    study, out = read_study(folder / "study.toml"), tmp_path / "out"
    reproduce(study, cells, out, Changes(1, 2, ("batch_size=4",), ("small",)), workers=1)
    assert refused(reproduce, study, cells, out, Changes(2, 2, (), ("large",)), workers=1) == (
        "A reproduction is gone on with as it was begun. Received: --epochs 2 where it was 1, --set [] where it was "
        f"['batch_size=4']. Give the same as before, or choose another --out than '{out}'."
    )
    next(cells.rglob("*.bmp")).touch()
    with pytest.raises(CustomCNNError, match="Received: the images in DATA, which changed"):
        reproduce(study, cells, out, Changes(1, 2, ("batch_size=4",)), workers=1)


def test_other_rows_may_follow(folder, cells, tmp_path, ran):
    study, out = read_study(folder / "study.toml"), tmp_path / "out"
    found = reproduce(study, cells, out, Changes(only=("small",)), workers=1)
    assert {name: result.status for name, result in found.results.items()} == {"small": "done", "large": "not run"}
    reproduce(study, cells, out, Changes(only=("large",)), workers=1)
    assert ran == ["small", "large"]


def test_a_recipe_that_changed_after_its_row_was_done(folder, cells, tmp_path, ran):
    study, out = read_study(folder / "study.toml"), tmp_path / "out"
    reproduce(study, cells, out, workers=1)
    (folder / "small.toml").write_text('model = "small"\nepochs = 7\n')
    with pytest.raises(
        CustomCNNError, match=r"A row that is done keeps its recipe\. Received: small, .* Delete '.*small'"
    ):
        reproduce(study, cells, out, workers=1)


def test_a_recipe_key_that_is_new_since_a_row_was_done(folder, cells, tmp_path, ran):
    study, out = read_study(folder / "study.toml"), tmp_path / "out"
    for _ in range(2):  # `large` fails the first time
        reproduce(study, cells, out, workers=1)
    written = [*out.rglob("result.json")]
    assert len(written) == 2
    for path in written:
        stored = json.loads(path.read_text())
        lines = stored["recipe"].splitlines(keepends=True)
        stored["recipe"] = "".join(line for line in lines if not line.startswith("mlflow"))
        assert len(stored["recipe"]) < sum(map(len, lines))
        path.write_text(json.dumps(stored))
    ran.clear()
    reproduce(study, cells, out, workers=1)
    assert ran == []


def test_a_recipe_that_is_none_fails_its_row_only(folder, cells, tmp_path, ran):
    (folder / "small.toml").write_text("model = 3\n")
    found = reproduce(read_study(folder / "study.toml"), cells, tmp_path / "out", workers=1)
    assert found.results["small"].reason.startswith("Recipe key model is text. Received: 3 in ")
    assert ran == ["large"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (Changes(only=("smal",)), r"--only names rows of the study\. Received: 'smal'\. Did you mean small\?"),
        (
            Changes(settings=("lerning_rate=1",)),
            "Received: 'lerning_rate' in the command line. Did you mean learning_rate",
        ),
        (Changes(limit=-1), r"--limit is 1 or more\. Received: -1"),
    ],
)
def test_what_is_wrong_for_all_rows_is_said_before_anything_is_made(folder, cells, tmp_path, changes, message):
    with pytest.raises(CustomCNNError, match=message):
        reproduce(read_study(folder / "study.toml"), cells, tmp_path / "out", changes)
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used(folder, cells, tmp_path):
    study = read_study(folder / "study.toml")
    with pytest.raises(CustomCNNError, match="which is no folder"):
        reproduce(study, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(CustomCNNError, match="Source and destination are separate folders"):
        reproduce(study, cells, cells / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(CustomCNNError, match=r"is begun in an empty folder\. Received: '.*full', which is not empty"):
        reproduce(study, cells, tmp_path / "full")
    (tmp_path / "release" / "C-NMC" / "fold_0" / "all").mkdir(parents=True)
    assert refused(reproduce, study, tmp_path / "release", tmp_path / "out") == (
        f"A study takes class folders. Received: '{tmp_path}/release', the data as it is shipped (it holds 'fold_0'). "
        f"First run: prepare {tmp_path}/release parts"
    )


def test_errors_in_one_line():
    assert why(CustomCNNError("A rule. Received: x.")) == "A rule. Received: x."
    assert why(ValueError("first\nsecond")) == "ValueError: first"
    assert why(ValueError()) == "ValueError: "


def test_a_stopwatch_times_epochs_alone():
    watch = Stopwatch(silent)
    assert watch.median is None
    for label in ("pack", "epoch 1/2", "epoch 2/2", "evaluate"):
        with watch(3, label) as advance:
            advance(1)
    assert len(watch.seconds) == 2 and watch.median == pytest.approx(sum(watch.seconds) / 2)


# ---------------------------------------------------------------- the command


def test_the_command_ends_with_status_1_where_a_row_failed(folder, cells, tmp_path, ran, shell):
    line = ["reproduce", folder, cells, "--out", tmp_path / "out", "--limit", 2, "--workers", 1]
    status, output, errors = shell(*line)
    assert status == 1 and "Failed: large." in errors.splitlines()
    assert output.startswith("A small study (--limit 2)\n") and f"Page: {tmp_path / 'out' / 'study.html'}" in output
    status, output, errors = shell(*line)
    assert status == 0 and "Failed" not in errors
    assert (tmp_path / "out" / "study.csv").is_file()


def test_one_recipe_is_a_study_of_one_row(folder, cells, tmp_path, ran, shell, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output, _ = shell("reproduce", folder / "small.toml", cells, "--workers", 1)
    assert status == 0 and ran == ["small"]
    assert output.startswith("A small study (1 of 2 rows)\n") and "Page: runs/paper/study.html" in output


# ---------------------------------------------------------------- the tables


@pytest.fixture
def found(folder, tmp_path) -> Reproduction:
    study = read_study(folder / "study.toml")
    scores = {"accuracy": {"value": 0.5, "low": 0.25, "high": 0.75}, "recall.hem": {"value": None, "low": None}}
    leaky = {**METRICS, "leakage": {"warning": "It leaks."}, "chosen_on_this_part": True}
    small = Result(
        "small",
        "done",
        measured={"validation": scores, "network": {"parameters": {"value": 1234.0}, "trainable": {"value": 1000.0}}},
        metrics={"validation": leaky},
        folders={"validation": ""},
        epoch=1,
        epochs=2,
        seconds=0.25,
        notes=["It leaks."],
    )
    return Reproduction(
        study, Changes(epochs=2), tmp_path / "out", {"small": small, "large": Result("large", "failed", "Why.")}
    )


def test_the_summary_by_hand(found):
    assert summaries(found) == {
        "Scores of the validation part": [
            ["row", "accuracy, published", "accuracy, measured", "remarks"],
            ["small", "0.7500", "0.5000 (0.2500 to 0.7500)", "inflated by leakage, best epoch chosen here"],
            ["large", "–", "–", "failed"],
        ],
        "Scores of the test part": [
            ["row", "accuracy, published", "accuracy, measured", "remarks"],
            ["small", "–", "–", "the data has no test part"],
            ["large", "0.9302", "–", "failed"],
            ["somebody else", "0.7500", "–", "not trained here"],
        ],
    }


def test_sensitivity_stands_with_the_class_whose_recall_it_is(found):
    study = replace(found.study, scores=("sensitivity", "specificity"))
    head = summaries(replace(found, study=study))["Scores of the validation part"][0]
    assert head[1:3] == ["sensitivity (recall of all), measured", "specificity (recall of hem), measured"]


def test_the_markdown_by_hand(found):
    text = markdown(found)
    assert text.startswith(
        "# A small study (--epochs 2)\n\n"
        "> Not as in the study: --epochs 2. These numbers say nothing about the published ones.\n\n"
        "> It leaks.\n\nIt splits by image.\n\n## Scores of the validation part\n"
    )
    assert "| small | 1,234 | 1,000 | 1 of 2 | 0.2 |\n| large | – | – | – | – |\n" in text
    assert (
        "## small\n\nRecipe: small.toml. The first.\n\n"
        "| where | what | published | measured |\n| --- | --- | --- | --- |\n"
        "| validation part | accuracy | 0.7500 | 0.5000 (0.2500 to 0.7500) |\n"
        "| validation part | recall of hem | 0.5000 | – |\n"
        "| network | parameters | 1,000 | 1,234 |\n"
    ) in text
    assert "validation part\n\n4 images of 4 groups, 1 error\n" in text
    assert "## large\n\nRecipe: large.toml.\n\nFailed: Why.\n" in text
    assert text.endswith("| test part | accuracy | 0.7500 | – |\n") and "## somebody else\n\n| where " in text


def test_the_csv_by_hand(found):
    write_tables(found)
    rows = list(csv.DictReader((found.out / "study.csv").open()))
    assert rows[0] == {
        "row": "small",
        "status": "done",
        "place": "validation",
        "score": "accuracy",
        "published": "0.75",
        "measured": "0.5",
        "low": "0.25",
        "high": "0.75",
        "deviation": "",
        "remarks": "inflated by leakage, best epoch chosen here",
        "changes": "'--epochs 2",  # no formula for a spreadsheet
        "reason": "",
    }
    places = [(row["row"], row["place"], row["score"]) for row in csv_rows(found)]
    assert places[1:] == [
        ("small", "validation", "recall.hem"),
        ("small", "network", "parameters"),
        ("small", "network", "trainable"),
        ("large", "test", "accuracy"),
        ("somebody else", "test", "accuracy"),
    ]
    assert csv_rows(found)[-2]["reason"] == "Why."


def test_the_page_shows_the_pictures_that_are_there(found):
    run = found.run(found.study.rows[0])
    run.path.mkdir(parents=True)
    assert "<img" not in html(found)
    run.curves.touch()
    run.confusion.touch()
    text = html(found)
    assert 'src="./runs/small/curves.png"' in text and 'src="./runs/small/confusion.png"' in text
    assert "Not as in the study: --epochs 2." in text and text.count("<table") == 6
    assert "![Confusion matrix of small, validation part](runs/small/confusion.png)" in markdown(found)


# ---------------------------------------------------------------- the whole way

THIRD = """
[[row]]
name = "impossible"
recipe = "impossible.toml"
"""


@pytest.mark.docs
def test_a_study_is_reproduced_on_drawn_cells(folder, cells, tmp_path, shell):
    (folder / "study.toml").write_text(STUDY.replace("[[mark]]", f"{THIRD}\n[[mark]]"))
    (folder / "impossible.toml").write_text('model = "small"\ninput_size = 8\n')
    line = ["reproduce", folder, cells, "--out", tmp_path / "out", "--limit", 4, "--epochs", 1, "--set", "seed=7"]
    status, output, errors = shell(*line)
    assert status == 1 and errors.endswith("Failed: impossible.\n")
    assert "small needs an input of at least 22 x 22 pixels" in errors
    assert "Warning: small: Inflated by leakage: " in errors and "Drawn cells" in errors
    assert output.startswith("A small study (--epochs 1 --limit 4 --set seed=7)\n")
    result = json.loads((tmp_path / "out" / "runs" / "small" / "result.json").read_text())
    assert result["epochs"] == 1 and result["seconds"] > 0
    assert result["measured"]["network"]["parameters"]["value"] == result["measured"]["network"]["trainable"]["value"]
    assert set(result["measured"]["training"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert result["measured"]["test"]["accuracy"]["value"] is not None
    for file in ("metrics.json", "validation/metrics.json", "curves.png", "confusion.png", "validation/confusion.png"):
        assert (tmp_path / "out" / "runs" / "small" / file).is_file()
    history = tmp_path / "out" / "runs" / "small" / "history.csv"
    before = history.stat().st_mtime_ns
    again = shell(*line)
    assert again[0] == 1 and again[1] == output and history.stat().st_mtime_ns == before


@pytest.mark.docs
@pytest.mark.kill
def test_a_row_that_was_cut_off_is_resumed(folder, cells, tmp_path, monkeypatch):
    study = read_study(folder / "study.toml")
    changes = Changes(limit=3, only=("small",))
    whole = reproduce(study, cells, tmp_path / "whole", changes, workers=1)

    def stop(line: str) -> None:
        if line.strip().startswith("Epoch 1/2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(study, cells, tmp_path / "out", changes, workers=1, say=stop)
    said: list[str] = []
    resumed = reproduce(study, cells, tmp_path / "out", changes, workers=1, say=said.append)
    assert "  Resuming after epoch 1 of 2." in said
    assert resumed.results["small"].measured == whole.results["small"].measured


@pytest.mark.docs
def test_folds_and_searches_are_rows_too(folder, cells, tmp_path):
    pytest.importorskip("optuna")
    rows = """
[[row]]
name = "folds"
recipe = "small.toml"
kind = "crossval"
options = { folds = 2, by = "image" }
published.folds = { accuracy = "small.accuracy" }

[[row]]
name = "search"
recipe = "search.toml"
kind = "tune"
published.search = { epochs = "parameters" }
"""
    (folder / "search.toml").write_text(
        (folder / "small.toml").read_text() + "\n[search]\nlearning_rate = [0.001, 0.01]\n"
    )
    (folder / "study.toml").write_text(STUDY.replace("[[mark]]", f"{rows}\n[[mark]]"))
    changes = Changes(1, 3, (), ("folds", "search"))
    found = reproduce(
        read_study(folder / "study.toml"), cells, tmp_path / "out", changes, workers=1, tables=write_tables
    )
    assert not found.failed, found.failed
    folds = found.results["folds"].measured["folds"]
    assert 0 <= folds["accuracy"]["value"] <= 1 and folds["accuracy"]["deviation"] is not None
    best = found.results["search"].measured["search"]
    assert best["learning_rate"]["value"] in (0.001, 0.01) and set(best) >= {"val_accuracy", "val_loss"}
    tables = summaries(found)
    assert tables["Cross-validation"][1][0] == "folds" and "±" in tables["Cross-validation"][1][2]
    assert tables["Search"][1][:2] == ["search", "1,000"]
    assert [row[0] for row in tables["Scores of the validation part"]] == ["row", "small", "large"]
    text = html(found)
    assert "runs/folds/folds.png" in text and "runs/search/trials.png" in text


@pytest.mark.docs
def test_a_published_study_runs_on_drawn_cells_in_the_challenges_layout(cells, tmp_path):
    study = read_study(EXPERIMENTS / "small-cnn" / "study.toml")
    changes = Changes(1, 4, ("input_size=32",), ("baseline", "disjoint"))
    found = reproduce(study, cells, tmp_path / "out", changes, tables=write_tables)
    assert not found.failed, found.failed
    assert summaries(found)["Scores of the test part"][0][1] == "accuracy, published"
    assert (tmp_path / "out" / "study.json").is_file()
