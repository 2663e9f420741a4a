"""Runs side by side: tests against statsmodels and scipy, the paired bootstrap, what is refused, what is written."""

import csv
import json
from itertools import product

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from customcnn.cli import cli
from customcnn.data.manifest import scan, with_group_pattern
from customcnn.evaluation.compare import compare, read_tested, verdict, warnings, write
from customcnn.evaluation.evaluate import evaluate
from customcnn.metrics.paired_tests import compare_answers, holm, mcnemar, p_text, sign_flip
from customcnn.metrics.scores import evaluate_predictions
from customcnn.recipe.recipe import Recipe
from customcnn.runs.run_dir import RunDir, rows_to_csv
from customcnn.training.train import train
from tests.support.colors import SIZE, paint, recipe
from tests.support.commands import error_line, printed
from tests.support.errors import refused

CLASSES = ["all", "hem"]


def answers(right, labels, units, resamples=50, level=0.95, seed=0):
    """Compare runs by the images that they have right."""
    return compare_answers(
        np.array(right, bool), np.array(labels), np.array(units), resamples=resamples, level=level, seed=seed
    )


@st.composite
def pairs_of_runs(draw, most=30):
    """Two runs' right answers, labels, and units that are numbered from 0 without gaps."""
    size = draw(st.integers(2, most))
    rows = st.lists(st.booleans(), min_size=size, max_size=size)
    labels = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    units = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    return [draw(rows), draw(rows)], labels, np.unique(units, return_inverse=True)[1]


def write_run(folder, predicted, labels, groups=None, *, names=None, seed=None, classes=CLASSES, shuffle=0, **changes):
    """Write what evaluate leaves: predictions.csv and metrics.json, and a recipe where a seed is given."""
    folder.mkdir(parents=True)
    names = names or [f"validation/{classes[label]}/{index}.png" for index, label in enumerate(labels)]
    probabilities = np.full((len(labels), len(classes)), 0.2 / (len(classes) - 1))
    probabilities[np.arange(len(labels)), predicted] = 0.8
    rows = [
        {
            "path": name,
            "label": classes[label],
            "group": groups[index] if groups else "",
            "predicted": classes[predicted[index]],
            **{f"probability_{c}": float(p) for c, p in zip(classes, probabilities[index], strict=True)},
        }
        for index, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    order = np.random.default_rng(shuffle).permutation(len(rows)) if shuffle else range(len(rows))
    run = RunDir(folder)
    run.predictions.write_text(rows_to_csv([rows[index] for index in order]))
    metrics = evaluate_predictions(np.array(labels), probabilities, classes, groups=groups, resamples=1)
    metrics |= {"model": "small", "weights": "best", "part": "validation", "data": "data", "notes": []}
    run.metrics.write_text(json.dumps(metrics | {"chosen_on_this_part": False} | changes))
    if seed is not None:
        run.recipe.write_text(Recipe("small", seed=seed).to_toml())
    return folder


def noisy(labels, share, seed):
    """Predictions that are wrong on about a share of the images."""
    return np.asarray(labels) ^ (np.random.default_rng(seed).random(len(labels)) < share)


@pytest.fixture
def two(tmp_path):
    """Runs a and b on 60 images of 12 groups: a errs rarely, b often."""
    labels = np.tile([0, 1], 30)
    groups = [f"g{index // 5:02d}" for index in range(60)]
    a = write_run(tmp_path / "a", noisy(labels, 0.05, 1), labels, groups)
    return a, write_run(tmp_path / "b", noisy(labels, 0.5, 2), labels, groups)


# ---------------------------------------------------------------- tests


def test_mcnemar_by_hand():
    # 2 of 10: 2 (1 + 10 + 45) / 1024
    assert mcnemar(2, 8) == mcnemar(8, 2) == pytest.approx(112 / 1024, abs=1e-15)
    assert mcnemar(0, 5) == 1 / 16
    assert mcnemar(0, 0) == mcnemar(3, 3) == mcnemar(4, 3) == 1


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_that_of_statsmodels_and_scipy(b, c):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    from scipy.stats import binomtest

    assert mcnemar(b, c) == pytest.approx(tables.mcnemar([[7, b], [c, 9]], exact=True).pvalue, rel=1e-6, abs=1e-12)
    if b + c:
        assert mcnemar(b, c) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-6, abs=1e-12)


def test_mcnemar_of_many_images():
    from scipy.stats import binom

    assert mcnemar(9_800, 10_200) == pytest.approx(2 * binom.cdf(9_800, 20_000, 0.5), rel=1e-6)
    assert 0 <= mcnemar(0, 5_000) < 1e-300


@given(st.lists(st.integers(-6, 6), max_size=8))
def test_sign_flip_is_the_share_of_all_choices_of_signs(differences):
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=len(differences))]
    share = np.mean([total >= abs(sum(differences)) for total in sums])
    assert sign_flip(np.array(differences, dtype=int)) == pytest.approx(share, abs=1e-12)


def test_sign_flip_is_that_of_scipy():
    from scipy.stats import permutation_test

    differences = np.array([4, -1, 3, 0, 5, 2, -2, 6, 1, 3])
    other = permutation_test(
        (differences, np.zeros(10)), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(differences) == pytest.approx(other.pvalue, abs=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_sign_flip_of_single_images_is_mcnemars_test(b, c):
    assert sign_flip(np.repeat([1, -1, 0], [b, c, 5])) == pytest.approx(mcnemar(b, c), abs=1e-12)


@pytest.mark.statistics
@settings(max_examples=15)  # theirs takes a tenth of a second
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1], abs=1e-12)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5]) == [0.5]


def test_the_sign_flip_test_keeps_its_level_over_groups_and_mcnemars_does_not():
    """No difference, but the images of a group come out alike: 20 groups of 10."""
    rng, found = np.random.default_rng(5), {"p": 0, "mcnemar": 0}
    units = np.repeat(np.arange(20), 10)
    for _ in range(300):
        right = rng.random((2, 200)) < rng.beta(1, 1, (2, 20)).repeat(10, axis=1)
        (pair,) = answers(right, np.tile([0, 1], 100), units, resamples=1)
        for key in found:
            found[key] += pair[key] < 0.05
    assert found["p"] / 300 <= 0.08
    assert found["mcnemar"] / 300 > 0.2


# ---------------------------------------------------------------- differences


def test_differences_by_hand():
    # 6 images of class 0, 2 of class 1; the first has 5 and 1 right, the second 3 and 2
    labels = [0] * 6 + [1] * 2
    right = [[1, 1, 1, 1, 1, 0, 1, 0], [1, 1, 0, 0, 0, 1, 1, 1]]
    (pair,) = answers(right, labels, range(8))
    assert pair["accuracy"]["value"] == pytest.approx(6 / 8 - 5 / 8, abs=1e-12)
    assert pair["balanced_accuracy"]["value"] == pytest.approx((5 / 6 + 1 / 2) / 2 - (3 / 6 + 1) / 2, abs=1e-12)
    assert (pair["only_first"], pair["only_second"]) == (3, 2)
    assert pair["mcnemar"] == pair["p"] == pair["holm"] == 1


@settings(max_examples=40)
@given(pairs_of_runs(), st.integers(0, 50))
def test_the_paired_bootstrap_is_that_of_rows_drawn_one_by_one(data, seed):
    from sklearn.metrics import accuracy_score, recall_score

    right, labels, units = np.array(data[0]), np.array(data[1]), data[2]
    (pair,) = answers(right, labels, units, resamples=20, seed=seed)
    count = units.max() + 1
    if count == 1:
        assert pair["accuracy"]["low"] is None and pair["p"] == 1
        return
    rng, drawn = np.random.default_rng(seed), []
    predicted = np.where(right, labels, 3)
    for _ in range(20):
        rows = np.concatenate([np.flatnonzero(units == unit) for unit in rng.integers(count, size=count)])
        true, (a, b) = labels[rows], predicted[:, rows]
        present = np.unique(true)
        recalls = [recall_score(true, x, labels=present, average="macro", zero_division=0) for x in (a, b)]
        drawn.append([accuracy_score(true, a) - accuracy_score(true, b), recalls[0] - recalls[1]])
    for key, values in zip(("accuracy", "balanced_accuracy"), np.transpose(drawn), strict=True):
        row = pair[key]
        assert row["low"] == pytest.approx(min(np.quantile(values, 0.025), row["value"]), abs=1e-9)
        assert row["high"] == pytest.approx(max(np.quantile(values, 0.975), row["value"]), abs=1e-9)


@settings(max_examples=40)
@given(pairs_of_runs())
def test_exchanged_runs_have_the_opposite_difference(data):
    right, labels, units = data
    (one,), (other,) = answers(right, labels, units), answers(right[::-1], labels, units)
    assert (one["p"], one["mcnemar"], one["holm"]) == (other["p"], other["mcnemar"], other["holm"])
    assert (one["only_first"], one["only_second"]) == (other["only_second"], other["only_first"])
    for key in ("accuracy", "balanced_accuracy"):
        assert one[key]["value"] == pytest.approx(-other[key]["value"], abs=1e-12)
        if one[key]["low"] is not None:
            assert one[key]["low"] == pytest.approx(-other[key]["high"], abs=1e-12)
            assert one[key]["low"] <= one[key]["value"] <= one[key]["high"]


@settings(max_examples=20)
@given(pairs_of_runs())
def test_identical_runs_do_not_differ(data):
    (pair,) = answers([data[0][0]] * 2, *data[1:])
    assert pair["p"] == pair["mcnemar"] == pair["holm"] == 1
    assert pair["only_first"] == pair["only_second"] == 0
    for key in ("accuracy", "balanced_accuracy"):
        assert pair[key]["value"] == 0
        assert pair[key]["low"] in (0, None) and pair[key]["high"] in (0, None)


def test_every_pair_has_the_same_draws_and_holm_spans_all_pairs():
    rng = np.random.default_rng(0)
    right, labels, units = rng.random((4, 80)) < [[0.9], [0.8], [0.5], [0.5]], np.tile([0, 1], 40), np.arange(80) // 4
    found = answers(right, labels, units)
    assert [(pair["first"], pair["second"]) for pair in found] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert [pair["holm"] for pair in found] == pytest.approx(holm([pair["p"] for pair in found]))
    (alone,) = answers(right[[1, 3]], labels, units)
    assert alone["accuracy"] == found[4]["accuracy"]


def coverage(groups: int, images: int, rounds: int, known: bool) -> float:
    """Return how often the interval holds the true difference of .1: two runs with .8 and .7 of each group right."""
    rng, held = np.random.default_rng(11), 0
    units = np.repeat(np.arange(groups), images)
    labels = np.tile([0, 1], groups * images // 2)
    for _ in range(rounds):
        easy = rng.normal(0, 0.1 if known else 0, groups).repeat(images)
        right = rng.random((2, len(units))) < np.array([[0.8], [0.7]]) + np.stack([easy, -easy]).clip(-0.2, 0.2)
        own = units if known else np.arange(len(units))
        (pair,) = answers(right, labels, own, resamples=400)
        held += pair["accuracy"]["low"] <= 0.1 <= pair["accuracy"]["high"]
    return held / rounds


@pytest.mark.statistics
@pytest.mark.parametrize(("groups", "images", "known"), [(120, 4, True), (200, 1, False)])
def test_coverage_of_the_paired_bootstrap(groups, images, known):
    assert 0.93 <= coverage(groups, images, 1000, known) <= 0.97


# ---------------------------------------------------------------- runs


def test_a_comparison_of_two_runs(two):
    found = compare(two, resamples=200)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["images"], found["groups"]) == (60, 12)
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"]) == tuple(map(str, two))
    assert pair["test"] == "exact sign-flip test over groups"
    for row, run in zip(found["runs"], two, strict=True):
        metrics = json.loads((run / "metrics.json").read_text())
        assert row["accuracy"]["value"] == metrics["accuracy"]["value"]
        assert (row["model"], row["part"], row["images"]) == ("small", "validation", 60)
    difference = found["runs"][0]["accuracy"]["value"] - found["runs"][1]["accuracy"]["value"]
    assert pair["accuracy"]["value"] == pytest.approx(difference, abs=1e-12)
    assert pair["verdict"].startswith(f"{two[0]} is better than {two[1]} by {difference:.3f} (")
    assert any("McNemar's test takes images as independent" in note for note in found["notes"])


def test_the_order_of_the_rows_changes_nothing(tmp_path, two):
    labels = np.tile([0, 1], 30)
    groups = [f"g{index // 5:02d}" for index in range(60)]
    other = write_run(tmp_path / "other" / "a", noisy(labels, 0.05, 1), labels, groups, shuffle=3)
    found, again = compare(two), compare([other, two[1]])
    assert [row["accuracy"] for row in found["runs"]] == [row["accuracy"] for row in again["runs"]]
    keys = ("accuracy", "balanced_accuracy", "p", "mcnemar", "holm")
    assert [found["pairs"][0][key] for key in keys] == [again["pairs"][0][key] for key in keys]


def test_a_runs_own_intervals_are_those_of_evaluate(two):
    found = compare(two, resamples=300, level=0.9, seed=4)
    for row, run in zip(found["runs"], two, strict=True):
        t = read_tested(run)
        expected = evaluate_predictions(
            np.array([CLASSES.index(label) for label in t.labels]), t.probabilities, CLASSES,
            groups=t.groups, resamples=300, level=0.9, seed=4,
        )  # fmt: skip
        assert [row[key] for key in ("accuracy", "roc_auc")] == [expected[key] for key in ("accuracy", "roc_auc")]


def test_without_groups_the_verdict_rests_on_mcnemars_test(tmp_path):
    labels = np.tile([0, 1], 100)
    runs = [write_run(tmp_path / n, noisy(labels, s, k), labels) for n, s, k in (("a", 0.1, 1), ("b", 0.4, 2))]
    found = compare(runs, resamples=100)
    (pair,) = found["pairs"]
    assert found["groups"] is None and pair["test"] == "McNemar's exact test"
    assert pair["p"] == pair["mcnemar"] == mcnemar(pair["only_first"], pair["only_second"])
    assert found["interval"]["scores"].startswith("Wilson for proportions")
    assert found["interval"]["differences"] == "paired percentile bootstrap over images"
    assert found["notes"][0].startswith("no group labels given")


def test_groups_that_one_run_knows_hold_for_all(tmp_path, two):
    labels = np.tile([0, 1], 30)
    unknown = write_run(tmp_path / "c", noisy(labels, 0.5, 2), labels)
    found, both = compare([unknown, two[0]], resamples=50), compare([two[1], two[0]], resamples=50)
    assert found["groups"] == 12
    assert found["pairs"][0]["accuracy"] == both["pairs"][0]["accuracy"]


def test_few_groups_can_show_nothing_and_one_gives_no_interval(tmp_path):
    labels = np.tile([0, 1], 20)
    for count in (1, 4):
        groups = [f"g{index % count}" for index in range(40)]
        a = write_run(tmp_path / str(count) / "a", labels, labels, groups)
        b = write_run(tmp_path / str(count) / "b", 1 - labels, labels, groups)
        found = compare([a, b], resamples=50)
        (pair,) = found["pairs"]
        assert pair["accuracy"]["value"] == 1
        assert "no difference shown" in pair["verdict"]
        assert pair["p"] == 2 ** (1 - count)
        assert f"{count} group{'s' * (count > 1)} can show no difference: no p could be below" in found["notes"][1]
        assert (pair["accuracy"]["low"] is None) == (count == 1)
    assert found["interval"]["differences"] == "paired percentile bootstrap over groups"


def test_verdicts_by_hand():
    row = {"value": -0.03, "low": -0.05, "high": -0.01}
    pair = {"first": "a", "second": "b", "accuracy": row, "holm": 0.0123}
    assert verdict(pair, 0.95) == "b is better than a by 0.030 (0.010 to 0.050), p = 0.012 after Holm"
    assert verdict(pair, 0.99) == "a and b: no difference shown; -0.030 (-0.050 to -0.010), p = 0.012 after Holm"
    assert verdict({**pair, "holm": 1e-9}, 0.99).endswith("p < 0.0001 after Holm")
    assert [p_text(p) for p in (1.0, 0.05, 0.00051, 0.00001)] == ["1.000", "0.050", "0.0005", "< 0.0001"]


# ---------------------------------------------------------------- seeds


def test_runs_that_differ_in_the_seed_alone_are_gathered(tmp_path):
    labels = np.tile([0, 1], 50)
    runs = [write_run(tmp_path / f"s{n}", noisy(labels, 0.2, n), labels, seed=n) for n in (1, 2, 3)]
    twice = write_run(tmp_path / "twice", noisy(labels, 0.9, 9), labels, seed=3)
    alone = write_run(tmp_path / "alone", noisy(labels, 0.2, 8), labels)
    inside = write_run(runs[0] / "inside", noisy(labels, 0.2, 1), labels)
    (entry,) = compare([*runs, twice, alone], resamples=5)["recipes"]
    assert entry["runs"] == [str(run) for run in runs] and entry["seeds"] == [1, 2, 3]
    values = [json.loads((run / "metrics.json").read_text())["accuracy"]["value"] for run in runs]
    assert entry["accuracy"] == {
        "n": 3,
        "mean": pytest.approx(np.mean(values)),
        "sd": pytest.approx(np.std(values, ddof=1)),
        "low": min(values),
        "high": max(values),
    }
    # what evaluate --out wrote inside a run is of that run's recipe
    (entry,) = compare([inside, runs[1]], resamples=5)["recipes"]
    assert entry["seeds"] == [1, 2]


@pytest.mark.parametrize("change", ["recipe", "images", "weights", "tta"])
def test_runs_that_differ_in_more_than_the_seed_are_not_gathered(tmp_path, change):
    labels = np.tile([0, 1], 5)
    a = write_run(tmp_path / "a", labels, labels, seed=1)
    b = write_run(
        tmp_path / "b", labels, labels, seed=2, **{"weights": {"weights": "last"}, "tta": {"tta": True}}.get(change, {})
    )
    if change == "recipe":
        (b / "recipe.toml").write_text(Recipe("small", seed=2, dropout=0.3).to_toml())
    if change == "images":
        (b / "manifest.csv").write_text("path,label,group,split,sha256\n")
    assert compare([a, b], resamples=5)["recipes"] == []


# ---------------------------------------------------------------- what is refused


def test_other_images_are_named(tmp_path):
    labels, names = [0, 1, 0, 1], ["p", "q", "r", "s"]
    a = write_run(tmp_path / "a", labels, labels, names=names)
    b = write_run(tmp_path / "b", labels, labels, names=["p", "q", "t", "u\n"])
    assert refused(compare, [a, b]) == (
        "Runs are compared on the images that all of them were tested on. Received: "
        f"{str(b)!r} lacks 2 of the 4 images of {str(a)!r} ('r', 's') and has 2 that it lacks ('t', 'u\\n'). "
        "Evaluate them on the same part of the same data."
    )
    many = write_run(tmp_path / "many", [0] * 30, [0] * 30, names=[*names, *(f"x{n:02d}" for n in range(26))])
    text = refused(compare, [a, many])
    assert f"{str(many)!r} has 26 that it lacks ('x00', " in text and "'x04' and 21 more)" in text


def test_other_labels_and_groups_are_named(tmp_path):
    names = ["p", "q", "r"]
    a = write_run(tmp_path / "a", [0, 1, 0], [0, 1, 0], ["g", "g", "h"], names=names)
    b = write_run(tmp_path / "b", [0, 1, 0], [0, 0, 0], ["g", "g", "h"], names=names)
    c = write_run(tmp_path / "c", [0, 1, 0], [0, 1, 0], ["g", "h", "h"], names=names)
    text = refused(compare, [a, b])
    assert "Received: 1 image with other labels in" in text and "('q'). Evaluate them on the same data." in text
    text = refused(compare, [a, c])
    assert "An image has the same group in all runs. Received: 1 image with other groups in" in text
    assert text.endswith("('q'). Evaluate them with the same --group-pattern or --groups.")


def test_a_part_as_a_folder_of_its_own_is_the_same_images(tmp_path):
    labels = [0, 1, 0, 1]
    a = write_run(tmp_path / "a", labels, labels)
    names = [f"{CLASSES[label]}/{index}.png" for index, label in enumerate(labels)]
    b = write_run(tmp_path / "b", labels, labels, names=names, part="given", data="data/validation")
    found = compare([a, b], resamples=5)
    assert found["images"] == 4
    assert "the images came from data, data/validation: they are matched by path" in found["notes"][-1]
    # the same names in another part are other images
    moved = [f"test/{name}" for name in names]
    elsewhere = write_run(tmp_path / "c", labels, labels, names=moved, part="test")
    assert "lacks 4 of the 4" in refused(compare, [a, elsewhere])


def test_a_wrong_part_is_refused(two):
    assert compare(two, part="validation", resamples=5)["images"] == 60
    text = refused(compare, two, part="test")
    assert text.startswith("--part names the part that all runs were tested on. Received: test; ")
    assert "on 'validation'." in text


@pytest.mark.parametrize("count", [1, 2])
def test_two_different_runs_are_needed(two, count):
    assert refused(compare, [two[0]] * count).startswith("A comparison has two runs or more, each once.")


@pytest.mark.parametrize(("option", "value"), [("resamples", 0), ("level", 1.0), ("level", 95.0)])
def test_options_out_of_range(two, option, value):
    assert f"Received: --{option} {value:g}." in refused(compare, two, **{option: value})


@pytest.mark.parametrize("file", ["predictions.csv", "metrics.json"])
def test_a_run_that_was_not_evaluated(two, file):
    (two[1] / file).unlink()
    assert refused(compare, two).endswith(f"Received: {str(two[1])!r} without them. Evaluate it first.")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"classes": 3, "images": 60, "errors": 1}'])
def test_a_damaged_metrics_file(two, text):
    (two[0] / "metrics.json").write_text(text)
    assert refused(compare, two).endswith("Evaluate it again.")


def test_damaged_predictions(two):
    file = two[0] / "predictions.csv"
    good = file.read_text()
    lines = good.splitlines(keepends=True)
    other = lines[1].replace("all,g", "sun,g", 1)
    wrong = lines[1].rsplit(",", 3)[0] + ",none,0.8,0.2\n"
    texts = [lines[0], "".join([*lines, lines[-1]]), "".join(lines[:-1]), good.replace("0.8", "much")]
    texts += ["".join([lines[0], other, *lines[2:]]), "".join([lines[0], wrong, *lines[2:]])]
    for text in texts:
        assert text != good
        file.write_text(text)
        assert refused(compare, two).endswith("Evaluate it again.")
    file.write_text("path,label\n")
    assert "without group, predicted" in refused(compare, two)


# ---------------------------------------------------------------- the command


def test_the_command_prints_tables_verdicts_and_warnings(tmp_path):
    labels = np.tile([0, 1], 40)
    groups = [f"g{index // 4:02d}" for index in range(80)]
    runs = [
        write_run(tmp_path / f"s{n}", noisy(labels, share, n), labels, groups, seed=n, notes=notes, **chosen)
        for n, share, notes, chosen in (
            (1, 0.05, ["both", "only one"], {"chosen_on_this_part": True}), (2, 0.5, ["both"], {}),
        )
    ]  # fmt: skip
    done = CliRunner().invoke(cli, ["compare", *map(str, runs), "--resamples", "100"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "80 images of 20 groups, the same in every run"
    heads = [line.split("  ")[0] for line in lines]
    assert {"run", f"1 {runs[0]}", "one recipe", "difference", "accuracy", "1 - 2"} <= set(heads)
    assert f"seeds: 1 ({runs[0]}), 2 ({runs[1]})" in lines
    assert any(line.startswith(f"{runs[0]} is better than {runs[1]} by ") for line in lines)
    assert lines[-7:] == [
        "intervals: 95 %, 100 resamples, seed 0",
        "scores: percentile bootstrap over groups",
        "differences: paired percentile bootstrap over groups",
        "first only, second only: images that one of the two alone has right",
        "McNemar p: McNemar's exact test, images taken as independent",
        "groups p: exact sign-flip test over groups",
        "Holm p: groups p corrected for all pairs",
    ]
    errors = done.stderr.splitlines()
    assert errors[0].startswith("Note: McNemar's test takes images as independent")
    assert f"Note: the best epoch was chosen by its score on this part: {runs[0]}." in errors
    assert errors[-2:] == ["Warning: both", f"Warning: {runs[0]}: only one"]


def test_the_command_as_json_and_what_it_writes(two, tmp_path):
    out = tmp_path / "deep" / "out"
    done = CliRunner().invoke(cli, ["compare", *map(str, two), "--json", "--out", str(out), "--seed", "3"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["interval"]["seed"] == 3
    assert json.loads((out / "compare.json").read_text()) == found
    assert {path.name for path in out.iterdir()} == {"compare.json", "compare.csv", "compare.png"}
    with (out / "compare.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["accuracy_low"]) == found["pairs"][0]["accuracy"]["low"]
    assert row["verdict"] == found["pairs"][0]["verdict"]
    with Image.open(out / "compare.png") as image:
        assert image.width > 1000
    before = (out / "compare.png").read_bytes()
    write(found, out)
    assert (out / "compare.png").read_bytes() == before


def test_another_positive_class_of_the_same_predictions(two, shell):
    names = ("sensitivity", "specificity")
    (blasts, _), (healthy, _) = (compare(two, resamples=5, positive=name)["runs"] for name in (None, "hem"))
    assert blasts["sensitivity"] == healthy["specificity"] and blasts["specificity"] == healthy["sensitivity"]
    predicted = read_tested(two[0])
    own = np.array(predicted.labels) == "all"
    assert blasts["sensitivity"]["value"] == pytest.approx(predicted.right[own].mean())
    assert all(blasts[key] == healthy[key] for key in blasts if key not in names)
    output, _ = printed(*shell("compare", *two, "--positive", "hem", "--resamples", 5))
    assert "sensitivity (recall of hem)" in output and "specificity (recall of all)" in output
    message = error_line(*shell("compare", *two, "--positive", "blast"))
    assert message.startswith("A positive class is one of two classes. Received: 'blast'")


def test_runs_of_several_classes_have_no_positive_one(tmp_path):
    labels = [0, 1, 2] * 4
    runs = [write_run(tmp_path / name, labels, labels, classes=["a", "b", "c"]) for name in ("x", "y")]
    found = compare(runs, resamples=5)
    assert found["positive"] is None and "sensitivity" not in found["runs"][0]
    assert refused(compare, runs, positive="a", match="A positive class is one of two classes")


def test_the_picture_of_many_pairs_has_the_first_of_them(two, tmp_path):
    found = compare(two, resamples=5)
    write(found | {"pairs": found["pairs"] * 2000}, tmp_path / "many")
    with Image.open(tmp_path / "many" / "compare.png") as image:
        assert image.height < 6000
    assert len((tmp_path / "many" / "compare.csv").read_text().splitlines()) == 2001


def test_an_error_is_one_line(two, shell):
    assert error_line(*shell("compare", two[0], two[0])).startswith("A comparison has two runs")


def test_warnings_name_the_runs_unless_they_are_all():
    rows = [{"run": "a", "notes": ["x", "y"]}, {"run": "b", "notes": ["x"]}]
    assert warnings({"runs": rows}) == ["x", "a: y"]


# ---------------------------------------------------------------- trained networks


@pytest.mark.kill
def test_trained_runs_from_end_to_end(tmp_path):
    """Three seeds of one recipe on coloured noise, one tested into a folder of its own."""
    root = paint(tmp_path / "data", {"train/all": 10, "train/hem": 10, "validation/all": 12, "validation/hem": 12})
    data = with_group_pattern(scan(root), r"/([0-9])[0-9]*\.bmp")
    places = []
    for seed in (1, 2, 3):
        run = RunDir(tmp_path / f"seed-{seed}")
        train(data, run, recipe(seed=seed, input_size=SIZE))
        out = run.path / "validation" if seed == 3 else None
        evaluate(run, data, part="validation", resamples=20, out=out)
        places.append(out or run.path)
    done = CliRunner().invoke(cli, ["compare", *map(str, places), "--json", "--part", "validation"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["images"] == 24 and found["groups"] == 10
    assert [entry["seeds"] for entry in found["recipes"]] == [[1, 2, 3]]
    rights = []
    for place, row in zip(places, found["runs"], strict=True):
        metrics = json.loads((place / "metrics.json").read_text())
        assert row["accuracy"]["value"] == metrics["accuracy"]["value"]
        assert row["notes"] == metrics["notes"] and len(row["notes"]) == 1  # the groups stand on both sides
        with RunDir(place).predictions.open(newline="") as file:
            rights.append([line["label"] == line["predicted"] for line in csv.DictReader(file)])
    for pair, (a, b) in zip(found["pairs"], ((0, 1), (0, 2), (1, 2)), strict=True):
        assert pair["only_first"] == sum(x and not y for x, y in zip(rights[a], rights[b], strict=True))
        assert pair["accuracy"]["value"] == pytest.approx(np.mean(rights[a]) - np.mean(rights[b]))
