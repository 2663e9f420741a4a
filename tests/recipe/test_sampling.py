"""Sampling: how often each image is taken in an epoch, that the seed alone decides which, and what a class weighs."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.recipe.sampling import Sampling, class_weights, epoch_rows
from tests.support.errors import refused

LABELS = np.array([0, 1, 0, 0, 1, 0, 2, 2, 0, 2])
"""Class 0: rows 0, 2, 3, 5, 8; class 1: rows 1, 4; class 2: rows 6, 7, 9."""

ROWS = np.arange(len(LABELS))


def taken(seed: int = 120, labels: np.ndarray = LABELS, rows: np.ndarray = ROWS, **values: object) -> list[int]:
    return epoch_rows(labels, rows, Sampling(**values), seed).tolist()


def sizes(rows: list[int], labels: np.ndarray = LABELS) -> dict[int, int]:
    """Return how many of the rows each class has."""
    return dict(sorted(Counter(labels[rows].tolist()).items()))


# ---------------------------------------------------------------- which rows an epoch takes


def test_nothing_asked_for_gives_every_row_once():
    assert taken() == list(range(10))
    assert taken(rows=np.array([9, 1, 3])) == [1, 3, 9]


def test_undersampling_takes_so_many_of_each_class_at_most():
    rows = taken(undersample=3)
    assert sizes(rows) == {0: 3, 1: 2, 2: 3}
    assert rows == sorted(set(rows))


def test_oversampling_takes_the_smallest_class_k_times():
    # Class 1 is the smallest: rows 1 and 4.
    assert taken(oversample="2") == [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9]
    assert taken(oversample="3.0") == [0, 1, 1, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9]
    assert taken(oversample="1") == list(range(10))


def test_a_fraction_of_the_smallest_class_is_drawn():
    # 1.5 times two images are three: one of rows 1 and 4 stands twice.
    assert taken(oversample="1.5") in ([0, 1, 1, *range(2, 10)], [0, 1, 2, 3, 4, 4, *range(5, 10)])
    # 1.25 times two are 2.5: halves up.
    assert sizes(taken(oversample="1.25")) == {0: 5, 1: 3, 2: 3}
    assert sizes(taken(oversample="1.24")) == {0: 5, 1: 2, 2: 3}


def test_balance_repeats_every_class_up_to_the_largest():
    rows = taken(oversample="balance")
    assert sizes(rows) == {0: 5, 1: 5, 2: 5}
    times = Counter(rows)
    assert [times[row] for row in (0, 2, 3, 5, 8)] == [1] * 5
    assert sorted(times[row] for row in (1, 4)) == [2, 3]  # twice, and one of them once more
    assert sorted(times[row] for row in (6, 7, 9)) == [1, 2, 2]


def test_undersampling_comes_first():
    # 3, 2 and 3 are left: class 1 stays the smallest, and three is what balance aims at.
    assert sizes(taken(undersample=3, oversample="2")) == {0: 3, 1: 4, 2: 3}
    assert sizes(taken(undersample=3, oversample="balance")) == {0: 3, 1: 3, 2: 3}
    # What is repeated is what undersampling has left.
    assert set(taken(undersample=1, oversample="3")) == set(taken(undersample=1))


def test_of_equally_small_classes_the_first_is_taken_more_often():
    assert sizes(taken(undersample=2, oversample="2")) == {0: 4, 1: 2, 2: 2}


def test_only_the_classes_of_the_training_rows_count():
    # Class 1 has no training image: class 2 is the smallest.
    rows = taken(rows=np.array([0, 2, 3, 6, 7]), oversample="2")
    assert rows == [0, 2, 3, 6, 6, 7, 7]


@pytest.mark.parametrize("oversample", ["none", "2", "balance"])
def test_no_rows(oversample):
    found = epoch_rows(LABELS, ROWS[:0], Sampling(undersample=1, oversample=oversample), 0)
    assert (found.tolist(), found.dtype) == ([], np.int64)


def test_the_trim_of_the_six_backbone_study():
    # 9,594 training images; 3,050 are 90 % of the 3,389 hem, so that all of these stay.
    labels = np.repeat([0, 1], [6544, 3050])
    assert sizes(taken(labels=labels, rows=np.arange(len(labels)), undersample=3050), labels) == {0: 3050, 1: 3050}


def test_hem_doubled_as_in_the_fourteen_network_study():
    labels = np.repeat([0, 1], [7272, 3389])
    rows = taken(labels=labels, rows=np.arange(len(labels)), oversample="2")
    assert sizes(rows, labels) == {0: 7272, 1: 6778}
    assert set(Counter(row for row in rows if row >= 7272).values()) == {2}


# ---------------------------------------------------------------- what decides


def test_the_seed_decides():
    labels = np.repeat([0, 1], [200, 90])
    rows = np.arange(290)
    for values in ({"undersample": 50}, {"oversample": "1.5"}, {"oversample": "balance"}):
        assert taken(7, labels, rows, **values) == taken(7, labels, rows, **values)
        assert taken(7, labels, rows, **values) != taken(8, labels, rows, **values)


def test_the_order_of_the_rows_does_not_matter():
    labels = np.repeat([0, 1], [200, 90])
    rows = np.arange(290)
    mixed = np.random.default_rng(3).permutation(rows)
    values = {"undersample": 150, "oversample": "balance"}
    assert taken(7, labels, mixed, **values) == taken(7, labels, rows, **values)


def test_a_larger_undersample_keeps_what_a_smaller_one_has():
    labels = np.zeros(200, int)
    assert set(taken(labels=labels, rows=np.arange(200), undersample=20)) < set(
        taken(labels=labels, rows=np.arange(200), undersample=60)
    )


def test_a_class_is_drawn_whatever_the_others_are():
    labels = np.repeat([0, 1], [200, 90])
    alone = taken(labels=labels, rows=np.arange(200), undersample=30)
    assert alone == taken(labels=labels, rows=np.arange(290), undersample=30)[:30]


def test_every_image_may_be_drawn():
    drawn = {row for seed in range(60) for row in taken(seed, undersample=1)}
    assert drawn == set(range(10))


factors = st.one_of(st.sampled_from(["none", "balance"]), st.integers(4, 40).map(lambda quarters: str(quarters / 4)))
"""Quarters are exact as floats, so that the test's own arithmetic is."""


@given(st.lists(st.integers(0, 4), max_size=60), st.data(), st.integers(0, 12), factors, st.integers(0, 2**32 - 1))
def test_the_counts_are_exact_for_any_labels(labels, data, undersample, oversample, seed):
    labels = np.array(labels, dtype=np.int64)
    rows = np.array(
        data.draw(st.lists(st.sampled_from(range(len(labels))), unique=True) if len(labels) else st.just([]))
    )
    found = epoch_rows(labels, rows.astype(np.int64), Sampling(undersample, oversample), seed)
    assert found.dtype == np.int64
    assert found.tolist() == sorted(found.tolist())

    expected = Counter(labels[rows.astype(int)].tolist())
    if undersample:
        expected = Counter({label: min(count, undersample) for label, count in expected.items()})
    left = dict(expected)
    if expected and oversample == "balance":
        expected = Counter(dict.fromkeys(expected, max(expected.values())))
    elif expected and oversample != "none":
        smallest = min(sorted(expected), key=expected.__getitem__)
        expected[smallest] = math.floor(expected[smallest] * float(oversample) + 0.5)
    times = Counter(found.tolist())
    assert set(times) <= set(rows.tolist())
    for label, count in expected.items():
        own = [times[row] for row in times if labels[row] == label]
        assert (len(own), sum(own)) == (left[label], count)
        assert max(own) - min(own) <= 1  # every image equally often, but for the remainder


# ---------------------------------------------------------------- what a class weighs


def test_class_weights():
    # Shares 1/2, 1/6 and 1/3 of six images; 6 / (3 classes * 3, 1, 2 images).
    weights = class_weights(np.array([0, 0, 0, 1, 2, 2]), 3)
    assert weights.tolist() == pytest.approx([2 / 3, 2, 1])
    assert weights.dtype == np.float32


def test_class_weights_of_cnmc():
    # 10,661 cells: 10661 / (2 * 7272) and 10661 / (2 * 3389).
    assert class_weights(np.repeat([0, 1], [7272, 3389]), 2).tolist() == pytest.approx([0.733017, 1.572883], abs=1e-6)


def test_a_class_without_images_weighs_nothing_and_changes_nothing():
    assert class_weights(np.array([0, 0, 0, 2]), 4).tolist() == pytest.approx([2 / 3, 0, 2, 0])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50))
def test_the_mean_weight_is_1_and_every_class_weighs_the_same(labels):
    labels = np.array(labels)
    each = class_weights(labels, 6)[labels]
    assert each.mean() == pytest.approx(1, abs=1e-5)
    sums = [each[labels == label].sum() for label in np.unique(labels)]
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-5)


def test_weights_after_balancing_are_1():
    rows = taken(oversample="balance")
    assert class_weights(LABELS[rows], 3).tolist() == [1, 1, 1]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "oversample", ["", "twice", "0.5", "0", "-2", "1001", "1e3", "nan", "inf", "9" * 400, "2 ", "2\n"]
)
def test_an_oversampling_that_is_refused(oversample):
    message = refused(Sampling, oversample=oversample)
    rule = "none, balance, or how often the smallest class is taken, 1 to 1000"
    assert message == f"Recipe key sampling.oversample: {rule}. Received: {oversample!r}."


@pytest.mark.parametrize("oversample", ["none", "balance", "1", "2", "1.5", "1000"])
def test_an_oversampling_that_is_taken(oversample):
    assert Sampling(oversample=oversample).oversample == oversample


# ---------------------------------------------------------------- so many views in an epoch


def test_views_keep_the_classes_shares():
    assert sizes(taken(views=20)) == {0: 10, 1: 4, 2: 6}
    assert sizes(taken(views=4)) == {0: 2, 1: 1, 2: 1}
    labels = np.repeat([0, 1], [5817, 2711])
    rows = taken(labels=labels, rows=np.arange(len(labels)), views=20_000)
    assert sizes(rows, labels) == {0: 13642, 1: 6358}
    assert set(Counter(rows).values()) == {2, 3}


def test_views_share_out_what_undersampling_has_left():
    rows = taken(undersample=2, views=12)
    assert sizes(rows) == {0: 4, 1: 4, 2: 4}
    assert set(Counter(rows).values()) == {2}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(5, 300), st.integers(0, 2**32 - 1))
def test_views_use_every_image_of_a_class_equally_often(labels, views, seed):
    labels = np.array(labels, dtype=np.int64)
    found = taken(seed, labels, np.arange(len(labels)), views=views)
    assert len(found) == views
    assert found == taken(seed, labels, np.arange(len(labels)), views=views) == sorted(found)
    times = Counter(found)
    for label in set(labels.tolist()):
        own = [times[row] for row in np.flatnonzero(labels == label).tolist()]
        assert sum(own) >= 1
        assert max(own) - min(own) <= 1


def test_the_seed_decides_which_images_are_viewed_once_more():
    labels = np.zeros(100, int)
    assert taken(1, labels, np.arange(100), views=130) != taken(2, labels, np.arange(100), views=130)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"views": -1}, "0 or more. Received: -1."),
        (
            {"views": 9, "oversample": "balance"},
            "0 beside oversample, for both say how long an epoch is. Received: 9.",
        ),
        ({"views": 2}, "0, or at least 1 for each of 3 classes. Received: 2."),
    ],
)
def test_views_that_are_refused(values, message):
    assert refused(taken, **values) == f"Recipe key sampling.views: {message}"
