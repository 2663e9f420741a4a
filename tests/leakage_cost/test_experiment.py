"""The price of a leak: its splits, its arithmetic by hand and by simulation, and whole experiments."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from customcnn.cli import cli
from customcnn.cli.leakage import with_interval
from customcnn.data.leakage import DRAWN
from customcnn.data.manifest import Manifest, Record, scan, with_group_pattern
from customcnn.data.pack import CACHE
from customcnn.errors import CustomCNNError
from customcnn.leakage_cost import experiment as module
from customcnn.leakage_cost.experiment import Price, price_leak
from customcnn.leakage_cost.jackknife import (
    cell_scores,
    group_confusions,
    over_seeds,
    quantities,
    shared_covariance,
    summarize,
)
from customcnn.leakage_cost.paired_splits import make_arms
from customcnn.metrics.bootstrap import resampled
from customcnn.metrics.scores import evaluate_predictions
from customcnn.plots.leakage_cost import price_figure
from customcnn.runs.run_dir import RunDir, rows_to_csv
from tests.support.colors import SIZE, paint, recipe
from tests.support.errors import refused
from tests.support.folders import contents

FIGURES = ("image.own", "image.test", "image.inflation", "group.own", "group.test", "group.inflation", "price")


def manifest(sizes: dict[str, list[int]], **extra: str) -> Manifest:
    """Return a manifest without files: `{"a": [3, 2]}` is class a with a group of three images and one of two."""
    rows = [
        Record(f"{label}/{label}{g:02d}_{i:02d}.bmp", label, f"{label}{g:02d}", extra=extra)
        for label, groups in sizes.items()
        for g, size in enumerate(groups)
        for i in range(size)
    ]
    return Manifest(Path("data"), tuple(sorted(rows, key=lambda record: record.path)))


# ---------------------------------------------------------------- the two splits


@settings(max_examples=15)
@given(
    st.lists(st.integers(2, 9), min_size=3, max_size=9),
    st.lists(st.integers(2, 9), min_size=3, max_size=9),
    st.sampled_from([0.2, 0.3, 0.5]),
    st.integers(0, 99),
)
def test_what_is_held_out_is_the_same_and_new_to_both(a, b, test, seed):
    data = manifest({"a": a, "b": b})
    try:
        by = make_arms(data, test=test, ratio=0.7, seed=seed).by
    except CustomCNNError as error:  # few groups of unequal size: a class may leave fewer than two beside the test
        assert "Beside the groups held out, every class needs two" in str(error)
        return
    held = {way: {r.path for r in images.part("test").records} for way, images in by.items()}
    assert held["image"] == held["group"] != set()
    new = {r.group for r in by["group"].part("test").records}
    for images in by.values():
        assert [replace(r, split="") for r in images.records] == list(data.records), "every image is placed"
        assert not new & {r.group for r in images.records if r.split != "test"}
    assert by["image"].counts() == by["group"].counts(), "equal sizes, class by class"
    homes = {r.group: r.split for r in by["group"].records}
    assert all(homes[r.group] == r.split for r in by["group"].records), "by group, groups stay whole"
    assert all(by[way].part(part).classes == ["a", "b"] for way in by for part in ("train", "validation", "test"))


def test_the_sizes_of_ten_equal_groups_a_class():
    by = make_arms(manifest({"a": [10] * 10, "b": [10] * 10}), test=0.2, ratio=0.75, seed=1).by
    for images in by.values():
        assert images.counts() == {
            (part, label): n for part, n in (("train", 60), ("validation", 20), ("test", 20)) for label in ("a", "b")
        }
    shared = {r.group for r in by["image"].part("train").records} & {
        r.group for r in by["image"].part("validation").records
    }
    assert len(shared) > 10, "by image, most groups stand on both sides"


def test_a_test_part_that_leaves_a_class_one_group_is_refused():
    data = manifest({"a": [2, 2, 2], "b": [2, 3, 2]})
    assert refused(make_arms, data, test=0.5, ratio=0.7, seed=0) == (
        "Beside the groups held out, every class needs two: to train and to validate. Received: class 'b' with 1 "
        "beside --test 0.5. Add groups, or give a smaller --test."
    )


def test_the_seed_decides_both_splits():
    data = manifest({"a": [4] * 8, "b": [4] * 8})
    first = make_arms(data, test=0.25, ratio=0.7, seed=5)
    assert make_arms(data, test=0.25, ratio=0.7, seed=5) == first
    others = [make_arms(data, test=0.25, ratio=0.7, seed=seed).by for seed in range(6, 9)]
    for way in ("image", "group"):
        assert any(by[way] != first.by[way] for by in others)


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        (
            manifest({"a": [2, 2, 2], "b": [2, 2, 2]}),
            {"test": 0.0},
            "A share lies between 0 and 1, without both ends. Received: --test 0. Example: --test .5.",
        ),
        (
            manifest({"a": [2, 2, 2], "b": [2, 2, 2]}),
            {"ratio": 1.5},
            "A share lies between 0 and 1, without both ends. Received: --ratio 1.5. Example: --ratio .5.",
        ),
        (
            manifest({"a": [2, 2, 2]}),
            {},
            "Classification needs at least two classes. Received: 'data', 'a' only. "
            "Put the images of each class into a folder of its own.",
        ),
        (
            Manifest(
                Path("data"), (Record("train/a/1.bmp", "a", "1", "train"), Record("train/b/1.bmp", "b", "2", "train"))
            ),
            {},
            "A leak is priced on a folder that is not split, for it is split anew in two ways. Received: 'data', which "
            "has parts. Give the folder of class folders that it was made from.",
        ),
        (
            Manifest(Path("data"), (Record("a/1.bmp", "a", "1"), Record("b/1.bmp", "b"))),
            {},
            "A leak is priced where the group of every image is known. Received: none for 'data'. "
            "Use --group-pattern (cnmc, or a regular expression) or --groups FILE.csv.",
        ),
        (
            manifest({"a": [1] * 4, "b": [1] * 4}),
            {},
            "A leak needs groups of several images. Received: 'data', with 8 groups of one image each. "
            "Give groups that are larger: subjects, or photographs.",
        ),
        (
            manifest({"a": [3, 3, 3], "b": [4, 4]}),
            {},
            "Every class needs three groups: to train, to validate, to test. Received: class 'b' with 2. Add groups.",
        ),
    ],
)
def test_data_on_which_no_leak_is_priced(data, options, text):
    assert refused(make_arms, data, **{"test": 0.2, "ratio": 0.8, "seed": 1, **options}) == text


# ---------------------------------------------------------------- the arithmetic


def test_inflation_and_price_by_hand():
    cells = np.array([[[0.9, 0.6], [0.7, 0.65]], [[0.8, 0.7], [0.6, 0.7]]])
    found = {name: list(values) for name, values in quantities(cells).items()}
    assert list(found) == list(FIGURES)
    assert found["image.own"] == [0.9, 0.8] and found["group.test"] == [0.65, 0.7]
    assert found["image.inflation"] == pytest.approx([0.3, 0.1])
    assert found["group.inflation"] == pytest.approx([0.05, -0.1])
    assert found["price"] == pytest.approx([0.25, 0.2])


def predictions(seed: int = 0, images: int = 90, groups: int = 7) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(images):
        label = "abc"[rng.integers(3)]
        predicted = label if rng.random() < 0.6 else "abc"[rng.integers(3)]
        rows.append({"label": label, "predicted": predicted, "group": f"g{rng.integers(groups)}"})
    return rows


@pytest.mark.parametrize(
    ("score", "theirs"), [("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)]
)
def test_scores_with_and_without_a_group_are_those_of_scikit_learn(score, theirs):
    rows = predictions()
    names = sorted({row["group"] for row in rows})
    confusion = group_confusions(rows, "abc", {name: i for i, name in enumerate(names)})
    value, without = cell_scores(confusion[None, None], score)
    assert value.shape == (1, 1) and without.shape == (7, 1, 1)

    def of(some: list[dict[str, str]]) -> float:
        return theirs([row["label"] for row in some], [row["predicted"] for row in some])

    assert value[0, 0] == pytest.approx(of(rows), abs=1e-12)
    for i, name in enumerate(names):
        assert without[i, 0, 0] == pytest.approx(of([row for row in rows if row["group"] != name]), abs=1e-12)


def test_a_part_of_one_group_has_no_value_without_it():
    confusion = np.zeros((2, 2, 2))
    confusion[0] = [[3, 1], [0, 4]]
    value, without = cell_scores(confusion, "accuracy")
    assert value == 7 / 8 and np.isnan(without[0]) and without[1] == 7 / 8


def test_the_shared_covariance_of_equal_groups_is_that_of_their_means():
    """Where every seed scores every group, the jackknife of a mean is the textbook's covariance over n."""
    groups = np.random.default_rng(3).random((12, 4))
    without = (groups.sum(axis=0) - groups) / 11
    textbook = np.cov(groups, rowvar=False) / 12
    wanted = (textbook.sum() - np.trace(textbook)) / 12
    assert shared_covariance(without) == pytest.approx(wanted, abs=1e-15)
    assert shared_covariance(np.where(np.arange(12)[:, None] == 0, np.nan, without)) is None


def test_seeds_that_share_nothing_have_the_t_interval_of_scipy():
    values = np.array([0.2, 0.25, 0.1, 0.31, 0.22])
    found = over_seeds(values, np.tile(values, (8, 1)))
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert found["value"] == pytest.approx(0.216) and found["degrees"] == pytest.approx(4)
    assert found["shared_variance"] == pytest.approx(0, abs=1e-15)
    assert found["standard_deviation"] == pytest.approx(np.std(values, ddof=1))


def test_an_interval_by_hand():
    # Without each of three groups in turn, both seeds come to .1, .2, .3.
    without = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]])
    found = over_seeds([0.1, 0.3], without)
    # S^2 = .02, so .01 over two seeds; c = 2/3 * (.01 + 0 + .01) = .04/3; min(2, 3) - 1 degrees of freedom for both.
    common = 0.04 / 3
    assert found["shared_variance"] == pytest.approx(common)
    total = 0.01 + common
    degrees = total**2 / (0.01**2 / 1 + common**2 / 1)
    half = stats.t.ppf(0.975, degrees) * total**0.5
    assert found["degrees"] == pytest.approx(degrees)
    assert (found["low"], found["high"]) == pytest.approx((0.2 - half, 0.2 + half))
    bounded = over_seeds([0.1, 0.3], without, bounds=(0, 0.5))
    assert (bounded["low"], bounded["high"]) == (0, 0.5)


def test_seeds_that_go_against_each_other_do_not_narrow_the_interval():
    without = np.array([[0.1, 0.3], [0.3, 0.1], [0.2, 0.2]])
    assert shared_covariance(without) < 0
    assert over_seeds([0.1, 0.3], without)["shared_variance"] == 0


def test_equal_seeds_on_which_no_group_has_a_say_have_no_width():
    found = over_seeds([0.5, 0.5], np.full((3, 2), 0.5))
    assert (found["low"], found["value"], found["high"], found["degrees"]) == (0.5, 0.5, 0.5, 1)


def experiment(rng: np.random.Generator, seeds: int = 3, groups: int = 12, per: int = 8) -> np.ndarray:
    """Return confusions as `summarize` takes them: two classes, every cell scores some of the groups."""
    counts = np.zeros((seeds, 2, 2, groups, 2, 2), dtype=np.int64)
    for cell in np.ndindex(seeds, 2, 2):
        for g in rng.permutation(groups)[: groups // 2]:
            label = g % 2
            hits = rng.binomial(per, 0.7)
            counts[*cell, g, label, label], counts[*cell, g, label, 1 - label] = hits, per - hits
    return counts


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(["accuracy", "balanced_accuracy"]))
def test_orders_change_nothing_intervals_hold_the_estimate_and_ways_are_symmetric(seed, score):
    rng = np.random.default_rng(seed)
    counts = experiment(rng)
    found = summarize(counts, score)
    assert tuple(found) == FIGURES
    for name, figure in found.items():
        low, high = (0, 1) if name.endswith(("own", "test")) else (-2, 2)
        assert low <= figure["low"] <= figure["value"] <= figure["high"] <= high
    shuffled = summarize(counts[rng.permutation(3)][:, :, :, rng.permutation(12)], score)
    swapped = summarize(counts[:, ::-1], score)
    for name, figure in found.items():
        for key in ("value", "low", "high"):
            assert shuffled[name][key] == pytest.approx(figure[key], abs=1e-12)
    assert swapped["price"]["value"] == pytest.approx(-found["price"]["value"], abs=1e-12)
    assert swapped["price"]["low"] == pytest.approx(-found["price"]["high"], abs=1e-12)
    assert swapped["image.inflation"]["high"] == pytest.approx(found["group.inflation"]["high"], abs=1e-12)


def test_the_shared_variance_is_near_that_of_a_bootstrap_over_groups():
    """Groups drawn anew, the same for all seeds and cells, and no network trained anew."""
    counts = simulated(np.random.default_rng(1), groups=200, gain_spread=0.2)
    draws = next(resampled(200, 2000, 0, width=200))
    drawn = np.einsum("bg,jwcgxy->bjwcxy", draws, counts)[..., None, :, :]
    covariance = np.cov(quantities(cell_scores(drawn, "accuracy")[0])["price"], rowvar=False)
    wanted = (covariance.sum() - np.trace(covariance)) / 20
    found = summarize(counts, "accuracy")["price"]["shared_variance"]
    assert found == pytest.approx(wanted, rel=0.1)


# ---------------------------------------------------------------- coverage


GAIN, SKILL = 0.15, 0.6
TRUTH = dict.fromkeys(FIGURES, 0.0) | {"image.own": SKILL + GAIN, "image.inflation": GAIN, "price": GAIN}
TRUTH |= dict.fromkeys(("image.test", "group.own", "group.test"), SKILL)


def simulated(
    rng: np.random.Generator,
    *,
    groups: int = 48,
    per: int = 40,
    seeds: int = 5,
    ease: float = 0.1,
    gain_spread: float = 0.05,
    network: float = 0.02,
    mix: float = 0.05,
) -> np.ndarray:
    """Draw an experiment: groups differ in how easy they are and in what knowing them gains, networks in their skill.

    Args:
        rng: of the data set and of its seeds.
        groups: so many, of `per` images each; a fifth tests, a fifth of the rest validates.
        seeds: splits and networks.
        ease: standard deviation of the groups' easiness.
        gain_spread: of the gain from knowing a group, whose mean is GAIN.
        network: of the skill of a network.
        mix: of how a network does on a group, over both.
    """
    easy, gain = rng.normal(0, ease, groups), rng.normal(GAIN, gain_spread, groups)
    test, validation = round(0.2 * groups), round(0.16 * groups)
    counts = np.zeros((seeds, 2, 2, groups, 2, 2), dtype=np.int64)
    for seed in range(seeds):
        order = rng.permutation(groups)
        held, rest = order[:test], order[test:]
        for way in range(2):
            skill = SKILL + easy + rng.normal(0, network) + rng.normal(0, mix, groups)
            own = (rest, per // 5, skill + gain) if way == 0 else (rest[:validation], per, skill)
            for cell, (who, images, right) in enumerate((own, (held, per, skill))):
                hits = rng.binomial(images, np.clip(right[who], 0, 1))
                counts[seed, way, cell, who, 0, 0], counts[seed, way, cell, who, 0, 1] = hits, images - hits
    return counts


@pytest.mark.statistics
@pytest.mark.parametrize(
    ("options", "naive"),
    [
        ({}, (0.93, 0.97)),
        ({"groups": 16}, (0.90, 0.97)),
        ({"ease": 0.02, "mix": 0.0, "gain_spread": 0.15, "seeds": 20}, (0.5, 0.8)),
        ({"groups": 256, "per": 13}, (0.90, 0.97)),
    ],
    ids=["usual", "few groups", "many seeds", "photographs"],
)
def test_intervals_cover_the_truth_as_often_as_they_say(options, naive):
    """And a plain t interval over the seeds does not, where groups differ in what knowing them gains.

    The means of single scores may be covered a little more often: their degrees of freedom are guessed low.
    """
    rng = np.random.default_rng(7)
    held: Counter[str] = Counter()
    draws = 1200
    for _ in range(draws):
        found = summarize(simulated(rng, **options), "accuracy")
        for name, figure in found.items():
            held[name] += figure["low"] <= TRUTH[name] <= figure["high"]
        plain = stats.ttest_1samp(found["price"]["seeds"], GAIN).pvalue >= 0.05
        held["plain"] += plain
    for name in FIGURES:
        high = 0.97 if name == "price" or name.endswith("inflation") else 0.98
        assert 0.93 <= held[name] / draws <= high, (name, held)
    assert naive[0] <= held["plain"] / draws <= naive[1], held


# ---------------------------------------------------------------- experiments with stand-ins for the training


class Stub:
    """Stands for `train` and `evaluate`: a network that knows every group it was trained on, and half of the rest."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.seeds: list[int] = []
        self.scored: list[str] = []
        self.break_in = ""

    def train(self, data, run, recipe, *, resume, workers, progress, say):
        assert resume
        self.trained.append(last_two(run.path))
        self.seeds.append(recipe.seed)
        run.path.mkdir(parents=True, exist_ok=True)
        run.recipe.write_text(recipe.to_toml())
        data.write(run.manifest)
        if self.break_in == last_two(run.path):
            raise KeyboardInterrupt
        say("Warning: of one run")

    def evaluate(self, run, data, *, part, weights, out, resamples, **others):
        self.scored.append(f"{last_two(run.path)} {part}")
        known = {record.group for record in data.part("train").records}
        scored = data.part(part).records
        labels = np.array([data.classes.index(record.label) for record in scored])
        even = [int(Path(record.path).stem[-1]) % 2 == 0 for record in scored]
        right = np.array([record.group in known or fine for record, fine in zip(scored, even, strict=True)])
        predicted = np.where(right, labels, 1 - labels)
        groups = [record.group for record in scored]
        metrics = evaluate_predictions(labels, np.eye(2)[predicted], data.classes, groups=groups, resamples=resamples)
        shared = len(known & set(groups))
        target = RunDir(out or run.path)
        target.path.mkdir(exist_ok=True)
        rows = [
            {"path": r.path, "label": r.label, "group": r.group, "predicted": data.classes[p]}
            for r, p in zip(scored, predicted, strict=True)
        ]
        target.predictions.write_text(rows_to_csv(rows))
        epoch = run.read_recipe().epochs if weights == "last" else 1
        beside = {"epoch": epoch, "drawn": data.drawn, "leakage": {"shared_groups": shared}}
        target.metrics.write_text(json.dumps(metrics | beside))
        target.reliability.write_bytes(b"picture")


def last_two(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.fixture
def stub_with_pictures(monkeypatch) -> Stub:
    stub = Stub()
    monkeypatch.setattr(module, "train", stub.train)
    monkeypatch.setattr(module, "evaluate", stub.evaluate)
    monkeypatch.setattr(module, "forget_networks", lambda: None)
    return stub


@pytest.fixture
def stub(stub_with_pictures, monkeypatch) -> Stub:
    """Without pictures, which take longer than all the rest."""
    monkeypatch.setattr("customcnn.plots.leakage_cost.plot_price", lambda *args, **options: None)
    return stub_with_pictures


@pytest.fixture
def data() -> Manifest:
    """Five groups of ten images in each class."""
    return manifest({"a": [10] * 5, "b": [10] * 5})


def run_stub(data: Manifest, out: Path, **options: object) -> Price:
    return price_leak(data, out, recipe(epochs=2), **{"seeds": 2, "ratio": 0.5, "resamples": 20, **options})


ALL_RUNS = ["seed-120/by-image", "seed-120/by-group", "seed-121/by-image", "seed-121/by-group"]


def test_what_comes_out(stub_with_pictures, data, tmp_path):
    stub = stub_with_pictures
    said: list[str] = []
    result = run_stub(data, tmp_path / "price", say=said.append)
    assert stub.trained == ALL_RUNS
    assert stub.scored == [f"{run} {part}" for run in ALL_RUNS for part in ("validation", "test")]
    assert stub.seeds == [120, 120, 121, 121], "both ways begin with the same weights, every seed with others"
    found = json.loads((tmp_path / "price" / "leakage.json").read_text())
    assert found == result.found and found["seeds"] == 2 and found["epochs"] == 2 and found["groups"] == 10
    assert {path.name for path in (tmp_path / "price").iterdir()} == {
        *("experiment.json", "leakage.json", "leakage.csv", "price.png", "seed-120", "seed-121")
    }
    assert Image.open(tmp_path / "price" / "price.png").format == "PNG"
    assert said[0] == (
        "Seed 120 (1 of 2), by image: 40 images of 8 groups train, 40 of 8 validate, 20 of 2 others test."
    )
    assert said[1] == (
        "Seed 120 (1 of 2), by group: 40 images of 4 groups train, 40 of 4 validate, 20 of 2 others test."
    )
    assert len(said) == 4


def test_a_network_that_knows_its_groups_has_a_price_of_one_half(stub, data, tmp_path):
    """It is right about all images of groups that it has seen, and about the even ones of the others."""
    found = run_stub(data, tmp_path / "price").found
    for score in ("accuracy", "balanced_accuracy"):
        wanted = {"image.own": 1, "image.test": 0.5, "group.own": 0.5, "group.test": 0.5}
        wanted |= {"image.inflation": 0.5, "group.inflation": 0, "price": 0.5}
        for key, value in wanted.items():
            figure = found[score][key]
            assert figure["seeds"] == [value, value]
            assert (figure["low"], figure["value"], figure["high"]) == (value, value, value)
    assert [run["shared_groups"] for run in found["runs"]] == [8, 0, 8, 0]
    with (tmp_path / "price" / "leakage.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["split"]) for row in rows] == [
        ("120", "image"), ("120", "group"), ("121", "image"), ("121", "group")
    ]  # fmt: skip
    assert [row["inflation_accuracy"] for row in rows] == ["0.5", "0.0", "0.5", "0.0"]
    assert [(row["train_images"], row["train_groups"]) for row in rows[:2]] == [("40", "8"), ("40", "4")]
    assert rows[0]["test_images"] == rows[1]["test_images"] == "20"


@pytest.mark.parametrize("broken", ALL_RUNS)
def test_resumed_it_comes_to_the_same_bytes(stub, data, tmp_path, broken):
    run_stub(data, tmp_path / "whole")
    stub.trained.clear()
    stub.break_in = broken
    with pytest.raises(KeyboardInterrupt):
        run_stub(data, tmp_path / "price")
    assert not (tmp_path / "price" / "leakage.json").exists()
    stub.break_in = ""
    stub.trained.clear()
    run_stub(data, tmp_path / "price", resume=True)
    assert stub.trained == ALL_RUNS[ALL_RUNS.index(broken) :]
    assert contents(tmp_path / "price") == contents(tmp_path / "whole")
    stub.trained.clear()
    said: list[str] = []
    run_stub(data, tmp_path / "price", resume=True, say=said.append)
    assert said == ["Nothing to do: 4 networks are trained and scored."] and not stub.trained


def test_what_was_damaged_or_is_open_is_done_again(stub, data, tmp_path):
    out = tmp_path / "price"
    run_stub(data, out)
    before = contents(out)
    for path in ("seed-120/by-group/test/metrics.json", "seed-121/by-image/reliability.png"):
        (out / path).unlink()
    scored = out / "seed-121" / "by-group" / "predictions.csv"
    scored.write_text("\n".join(scored.read_text().splitlines()[:-1]) + "\n")
    stub.trained.clear()
    run_stub(data, out, resume=True)
    assert stub.trained == ALL_RUNS[1:] and contents(out) == before


def test_more_seeds_go_on_from_those_that_are_there(stub, data, tmp_path):
    run_stub(data, tmp_path / "price")
    stub.trained.clear()
    found = run_stub(data, tmp_path / "price", resume=True, seeds=3).found
    assert stub.trained == ["seed-122/by-image", "seed-122/by-group"] and found["seeds"] == 3
    assert found == run_stub(data, tmp_path / "three", seeds=3).found


def test_more_epochs_are_scored_again(stub, data, tmp_path):
    run_stub(data, tmp_path / "price", weights="last")
    stub.trained.clear()
    found = price_leak(
        data, tmp_path / "price", recipe(epochs=3), seeds=2, ratio=0.5, weights="last", resamples=20, resume=True
    ).found
    assert stub.trained == ALL_RUNS and [run["epoch"] for run in found["runs"]] == [3] * 4
    assert not found["chosen_on_validation"]


def test_what_stands_in_the_way(stub, data, tmp_path):
    out = tmp_path / "price"
    run_stub(data, out)
    assert refused(run_stub, data, out) == (
        f"Leakage experiment {str(out)!r} exists. Use --resume to go on with it, or --replace to delete it."
    )
    assert refused(run_stub, data, out, resume=True, test=0.4, seed=1) == (
        "A leakage experiment is resumed with its own settings. Received: test 0.4 where it was 0.2, seed 1 where it "
        "was 120. Choose another --out."
    )
    assert refused(run_stub, data, tmp_path / "one", seeds=1) == (
        "An interval over seeds needs two of them at least. Received: --seeds 1. Give 2 or more."
    )
    assert not (tmp_path / "one").exists()
    run_stub(data, out, replace_old=True)


def test_drawn_images_carry_their_note(stub, tmp_path):
    said: list[str] = []
    drawn = manifest({"a": [10] * 5, "b": [10] * 5}, origin="drawn")
    assert run_stub(drawn, tmp_path / "price", say=said.append).notes == [DRAWN]
    assert said[0] == f"Warning: {DRAWN}"


def test_a_picture_of_one_interval_that_is_undefined():
    figures = summarize(experiment(np.random.default_rng(0)), "accuracy")
    figures["price"] |= {"low": None, "high": None}
    lines, bars = price_figure(figures).axes
    assert [text.get_text() for text in lines.get_legend().get_texts()] == ["split by image", "split by group"]
    shown = [text.get_text().splitlines()[-1] for text in bars.get_xticklabels()]
    assert shown == [f"{figures[key]['value']:+.3f}" for key in ("image.inflation", "group.inflation", "price")]
    assert len(bars.collections) == 2, "two intervals, and none for the price"
    assert with_interval("price", figures["price"]) == shown[2]


# ---------------------------------------------------------------- the command


@pytest.fixture
def folder(make_folder) -> Path:
    """Class folders of tiny images whose names give the group: `g0_0.bmp`."""
    names = [f"{g}_{i}.bmp" for g in range(5) for i in range(4)]
    return make_folder({"all": [f"a{n}" for n in names], "hem": [f"h{n}" for n in names]})


PATTERN = r"/([ah]\d)_"


def test_the_command_prints_seeds_cells_and_price(stub, folder, tmp_path):
    line = ["leakage", str(folder), "--model", "small", "--set", f"input_size={SIZE}", "--epochs", "2", "--seeds", "2"]
    line += ["--ratio", ".5", "--group-pattern", PATTERN, "--out", str(tmp_path / "price")]
    first = CliRunner().invoke(cli, line)
    assert first.exit_code == 0, first.output
    text = [" ".join(row.split()) for row in first.stdout.splitlines()]
    assert text[2] == "120 1.000 0.500 +0.500 0.500 0.500 +0.000 +0.500"
    assert "split by image 1.000 (1.000 to 1.000) 0.500 (0.500 to 0.500) +0.500 (+0.500 to +0.500)" in text
    assert text.count("price of the leak +0.500 (+0.500 to +0.500)") == 2
    assert text[-1] == f"Folder: {tmp_path / 'price'}"
    assert "Note: the best epoch was chosen on each network's own validation part" in first.stderr
    # Resumed, it takes everything as it was begun.
    again = ["leakage", str(folder), "--group-pattern", PATTERN, "--out", str(tmp_path / "price"), "--resume"]
    found = CliRunner().invoke(cli, again)
    assert found.exit_code == 0, found.output
    assert found.stdout == first.stdout and "Nothing to do: 4 networks" in found.stderr
    as_json = CliRunner().invoke(cli, [*again, "--json"])
    assert json.loads(as_json.stdout) == json.loads((tmp_path / "price" / "leakage.json").read_text())
    assert CliRunner().invoke(cli, [*again, "--replace"]).exit_code == 2
    last = CliRunner().invoke(cli, [*line[:-1], str(tmp_path / "last"), "--score", "last"])
    assert "the best epoch was chosen" not in last.stderr


def test_the_command_refuses_what_has_no_groups(folder, tmp_path):
    result = CliRunner().invoke(cli, ["leakage", str(folder), "--model", "small", "--out", str(tmp_path / "price")])
    assert isinstance(result.exception, CustomCNNError)
    assert "A leak is priced where the group of every image is known. Received: none for" in str(result.exception)
    assert not (tmp_path / "price").exists()


# ---------------------------------------------------------------- real trainings


@pytest.mark.kill
def test_real_trainings_share_one_pack_and_resume_to_the_same_bytes(tmp_path):
    root = paint(tmp_path / "data", {"all": 20, "hem": 20})
    data = with_group_pattern(scan(root), r"((?:all|hem)/\d)")  # 0, 10 to 19 and so on: groups of 1 and 11 images
    small = recipe(epochs=2)
    options = {"seeds": 2, "resamples": 20}
    whole = price_leak(data, tmp_path / "whole", small, **options)
    assert len(list((data.root / CACHE).iterdir())) == 1

    def stop(line: str) -> None:
        if (tmp_path / "price" / "seed-121" / "by-image" / "last.keras").is_file():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        price_leak(data, tmp_path / "price", small, say=stop, **options)
    price_leak(data, tmp_path / "price", small, resume=True, **options)
    for file in ("leakage.json", "leakage.csv", "price.png"):
        assert (tmp_path / "price" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    for run in whole.found["runs"]:
        folder = RunDir(tmp_path / "whole" / f"seed-{run['seed']}" / f"by-{run['split']}")
        own = json.loads(folder.metrics.read_text())
        test = json.loads((folder.path / "test" / "metrics.json").read_text())
        assert test["leakage"]["shared_groups"] == 0 and test["part"] == "test"
        place = whole.found["accuracy"][f"{run['split']}.own"]["seeds"][run["seed"] - 120]
        assert place == own["accuracy"]["value"]
