"""Wilson's interval against statsmodels and scipy, the bootstrap's pieces by hand, and what the intervals cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.metrics import bootstrap
from customcnn.metrics.bootstrap import in_order, numbered, percentile, resampled, wilson

LEVELS = (0.5, 0.9, 0.95, 0.99)


@st.composite
def counts(draw):
    """Hits and a total of at least 1."""
    total = draw(st.integers(1, 5000))
    return draw(st.integers(0, total)), total


# ---------------------------------------------------------------- Wilson


def test_wilson_by_hand():
    # z2 = 3.841459; 8 of 10: (.8 + .1920729 -+ 1.959964 sqrt(.016 + .00960365)) / 1.3841459
    found = wilson(8, 10)
    assert found["value"] == 0.8
    assert (found["low"], found["high"]) == (pytest.approx(0.490162, abs=1e-6), pytest.approx(0.943318, abs=1e-6))


@given(counts(), st.sampled_from(LEVELS))
def test_wilson_is_that_of_statsmodels_and_of_scipy(data, level):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    from scipy.stats import binomtest

    found = wilson(*data, level)
    ends = (found["low"], found["high"])
    assert ends == pytest.approx(proportion.proportion_confint(*data, 1 - level, method="wilson"), abs=1e-9)
    assert ends == pytest.approx(binomtest(*data).proportion_ci(level, method="wilson"), abs=1e-9)


@given(counts(), st.sampled_from(LEVELS))
def test_wilson_holds_the_estimate_stays_in_0_to_1_and_is_symmetric(data, level):
    hits, total = data
    found, turned = wilson(hits, total, level), wilson(total - hits, total, level)
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert found["low"] < found["high"]
    assert turned["low"] == pytest.approx(1 - found["high"], abs=1e-12)
    assert wilson(hits, total, 0.999)["low"] <= found["low"]


def test_wilson_of_nothing_of_all_and_of_none():
    assert wilson(0, 0) == {"value": None, "low": None, "high": None}
    assert wilson(0, 5)["low"] == 0 and wilson(5, 5)["high"] == 1
    assert wilson(5, 5)["low"] > 0.5
    for wrong in ((-1, 5), (6, 5), (1, 0)):
        with pytest.raises(ValueError, match=r"Hits lie in 0\.\.total"):
            wilson(*wrong)


@pytest.mark.parametrize(("share", "total"), [(0.9, 48), (0.8, 144), (0.97, 500), (0.5, 30)])
def test_coverage_of_wilson(share, total):
    """Exactly: the chance of each count, summed where the interval of that count holds the truth."""
    from scipy.stats import binom

    rows = [wilson(hits, total) for hits in range(total + 1)]
    held = np.array([row["low"] <= share <= row["high"] for row in rows])
    assert 0.93 <= binom.pmf(np.arange(total + 1), total, share)[held].sum() <= 0.97


# ---------------------------------------------------------------- the bootstrap


def test_numbered_by_hand():
    assert numbered(["b", "a", "b", "c"], 4).tolist() == [1, 0, 1, 2]
    for groups in (["a"], ["a", ""]):
        with pytest.raises(ValueError, match="Every image has a group name"):
            numbered(groups, 2)


def test_in_order_by_hand():
    labels, probabilities = np.array([1, 0, 0]), np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    found = in_order(labels, probabilities, ["x", "y", "x"])
    assert [part.tolist() for part in found] == [[0, 1, 0], [[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], [0, 0, 1]]
    assert in_order(labels, probabilities, None)[2].tolist() == [0, 1, 2]
    assert in_order(labels, probabilities, None)[0].tolist() == [0, 0, 1]


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 99))
def test_resamples_draw_as_many_as_there_are(count, resamples, seed):
    weights = [row for part in resampled(count, resamples, seed) for row in part]
    assert len(weights) == resamples
    assert all(row.sum() == count and (row >= 0).all() and (row == row.astype(int)).all() for row in weights)


def test_resamples_do_not_depend_on_how_many_come_at_a_time(monkeypatch):
    whole = np.concatenate(list(resampled(7, 20, 3)))
    monkeypatch.setattr(bootstrap, "CHUNK", 21)
    parts = list(resampled(7, 20, 3))
    assert len(parts) == 7 and (np.concatenate(parts) == whole).all()
    assert not (np.concatenate(list(resampled(7, 20, 4))) == whole).all()


def test_resamples_are_drawn_with_equal_chances():
    mean = np.concatenate(list(resampled(10, 4000, 0))).mean(axis=0)
    assert mean == pytest.approx(np.ones(10), abs=0.06)  # four standard errors: sqrt(.9 / 4000) = .015


def test_percentile_by_hand():
    sample = np.arange(101) / 100
    assert percentile(0.4, sample, 0.9) == {"value": 0.4, "low": pytest.approx(0.05), "high": pytest.approx(0.95)}
    assert percentile(0.99, sample, 0.9)["high"] == 0.99
    assert percentile(0.4, None) == percentile(0.4, np.array([])) == {"value": 0.4, "low": None, "high": None}
    assert percentile(np.nan, sample) == {"value": None, "low": None, "high": None}
    with_gaps = percentile(0.5, np.array([0.5, np.nan, 0.5, np.nan]))
    assert with_gaps == {"value": 0.5, "low": 0.5, "high": 0.5, "undefined_resamples": 2}


@given(
    st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=1, max_size=30), st.floats(0, 1), st.sampled_from(LEVELS)
)
def test_percentile_holds_the_estimate(sample, value, level):
    found = percentile(value, np.array(sample), level)
    if found["low"] is not None:
        assert found["low"] <= value <= found["high"]
    assert found.get("undefined_resamples", 0) == int(np.isnan(sample).sum())


def test_the_bootstrap_of_a_mean_is_that_of_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).random(60)
    sample = np.concatenate([weights @ values / 60 for weights in resampled(60, 20_000, 0)])
    found = percentile(values.mean(), sample)
    other = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    assert found["low"] == pytest.approx(other.confidence_interval.low, abs=0.004)
    assert found["high"] == pytest.approx(other.confidence_interval.high, abs=0.004)
