"""Calibration's scores against scikit-learn, torchmetrics and by hand; the temperature against scipy; the diagram."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import minimize_scalar

from customcnn.errors import CustomCNNError
from customcnn.metrics.calibration import (
    HIGHEST,
    LOWEST,
    apply_temperature,
    calibration,
    fit_temperature,
    log_probabilities,
)
from customcnn.plots.reliability import plot_reliability, reliability_figure

SCORES = ("ece", "ece_adaptive", "brier", "log_loss")


def drawn(count: int, classes: int = 3, seed: int = 0, sharp: float = 1.0):
    """Labels drawn from probabilities, and the probabilities raised to a power: sharper than true above 1."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.ones(classes), count)
    labels = np.array([rng.choice(classes, p=row) for row in true], dtype=np.int64)
    return labels, apply_temperature(true, 1 / sharp)


def names(classes: int) -> list[str]:
    return [f"c{number}" for number in range(classes)]


@st.composite
def predictions(draw):
    """Labels, probabilities with ties, and groups."""
    classes, size = draw(st.integers(2, 4)), draw(st.integers(1, 30))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size))
    marks = draw(
        st.lists(st.lists(st.integers(0, 3), min_size=classes, max_size=classes), min_size=size, max_size=size)
    )
    groups = draw(st.lists(st.sampled_from("abcd"), min_size=size, max_size=size))
    marks = np.array(marks, dtype=float) + 0.25
    return np.array(labels), marks / marks.sum(axis=1, keepdims=True), groups


# ---------------------------------------------------------------- scores


def test_by_hand():
    labels = np.array([0, 1, 1, 0])
    said = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.35, 0.65]])
    found = calibration(labels, said, ["all", "hem"], positive="hem", bins=2, resamples=20)
    # one bin, .5 to 1: mean confidence .7625, two of four right
    assert found["ece"]["value"] == pytest.approx(0.2625, abs=1e-12)
    # two bins of two images: .65 and .7 with one right, .8 and .9 with one right
    assert found["ece_adaptive"]["value"] == pytest.approx((abs(0.675 - 0.5) + abs(0.85 - 0.5)) / 2, abs=1e-12)
    assert found["brier"]["value"] == pytest.approx(2 * (0.1**2 + 0.8**2 + 0.3**2 + 0.65**2) / 4, abs=1e-12)
    assert found["log_loss"]["value"] == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.35]).mean(), abs=1e-12)
    empty, full = found["reliability"]
    assert empty == {"low": 0.0, "high": 0.5, "images": 0, "confidence": None, "accuracy": None}
    assert full == {"low": 0.5, "high": 1.0, "images": 4, "confidence": pytest.approx(0.7625), "accuracy": 0.5}
    own = found["positive_class"]
    assert own["name"] == "hem" and own["brier"]["value"] == pytest.approx(found["brier"]["value"] / 2)
    assert [row["images"] for row in own["reliability"]] == [2, 2]
    assert [row["accuracy"] for row in own["reliability"]] == [0.5, 0.5]


def test_a_confidence_of_1_is_in_the_last_bin():
    found = calibration(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), ["a", "b"], resamples=5)
    assert found["reliability"][-1]["images"] == 2 and found["ece"]["value"] == 0.5


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_brier_and_log_loss_are_those_of_scikit_learn(classes):
    from sklearn.metrics import brier_score_loss, log_loss

    labels, said = drawn(200, classes, seed=classes, sharp=1.7)
    found = calibration(labels, said, names(classes), resamples=5)
    one_hot = np.eye(classes)[labels]
    assert found["brier"]["value"] == pytest.approx(((said - one_hot) ** 2).sum() / 200, abs=1e-12)
    assert found["log_loss"]["value"] == pytest.approx(log_loss(labels, said, labels=range(classes)), abs=1e-9)
    if classes == 2:
        assert found["positive_class"]["brier"]["value"] == pytest.approx(brier_score_loss(labels, said[:, 1]))
        other = calibration(labels, said, names(2), positive="c0", resamples=5)["positive_class"]
        assert other["name"] == "c0" and other["brier"]["value"] == pytest.approx(found["brier"]["value"] / 2)
        seen = [row for row in other["reliability"] if row["images"]]
        assert sum(row["accuracy"] * row["images"] for row in seen) == pytest.approx((labels == 0).sum())


@pytest.mark.parametrize(("classes", "bins"), [(2, 15), (3, 15), (4, 7)])
@pytest.mark.statistics
def test_the_expected_calibration_error_is_that_of_torchmetrics(classes, bins):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    labels, said = drawn(500, classes, seed=bins, sharp=2.0)
    said = said.astype(np.float32).astype(np.float64)
    expected = functional.multiclass_calibration_error(
        torch.tensor(said), torch.tensor(labels), num_classes=classes, n_bins=bins, norm="l1"
    )
    found = calibration(labels, said, names(classes), bins=bins, resamples=5)
    assert found["ece"]["value"] == pytest.approx(float(expected), abs=1e-6)


def test_the_reliability_rows_are_those_of_scikit_learn():
    from sklearn.calibration import calibration_curve

    labels, said = drawn(400, 2, seed=9, sharp=1.5)
    rows = calibration(labels, said, names(2), bins=10, resamples=5)["positive_class"]["reliability"]
    rows = [row for row in rows if row["images"]]
    accuracy, confidence = calibration_curve(labels, said[:, 1], n_bins=10)
    np.testing.assert_allclose([row["accuracy"] for row in rows], accuracy, atol=1e-12)
    np.testing.assert_allclose([row["confidence"] for row in rows], confidence, atol=1e-12)


def test_sharper_probabilities_are_worse_calibrated():
    values = [calibration(*drawn(3000, sharp=sharp), names(3), resamples=5) for sharp in (1, 1.5, 3)]
    for key in SCORES:
        assert sorted(one[key]["value"] for one in values) == [one[key]["value"] for one in values]
    assert values[0]["ece"]["value"] < 0.03


@settings(max_examples=50)
@given(predictions(), st.integers(0, 2**32 - 1), st.booleans())
def test_order_changes_nothing_and_intervals_hold_the_estimate(data, seed, known):
    labels, said, groups = data
    order = np.random.default_rng(seed).permutation(len(labels))
    given_groups = (groups, [groups[i] for i in order]) if known else (None, None)
    one = calibration(labels, said, names(said.shape[1]), groups=given_groups[0], resamples=30)
    other = calibration(labels[order], said[order], names(said.shape[1]), groups=given_groups[1], resamples=30)
    assert one == other
    json.dumps(one, allow_nan=False)
    for key in SCORES:
        low, value, high = (one[key][word] for word in ("low", "value", "high"))
        assert value >= 0 and (low is None or low <= value <= high)
    assert sum(row["images"] for row in one["reliability"]) == len(labels)
    assert (one["interval"]["resamples"] == 0) == ((len(set(groups)) if known else len(labels)) == 1)


def test_groups_widen_the_intervals():
    labels, said = drawn(200, 2, seed=3)
    # every image eight times, in one group each: no more is known than without the copies
    groups = [f"g{number // 8}" for number in range(1600)]
    copies = np.repeat(np.arange(200), 8)
    by_group = calibration(labels[copies], said[copies], names(2), groups=groups)["brier"]
    by_image = calibration(labels[copies], said[copies], names(2))["brier"]
    alone = calibration(labels, said, names(2))["brier"]
    assert by_group == pytest.approx(alone, rel=0.05)
    assert by_image["high"] - by_image["low"] < 0.5 * (by_group["high"] - by_group["low"])


@pytest.mark.statistics
@pytest.mark.parametrize("key", ["brier", "log_loss"])
def test_coverage_of_the_intervals(key):
    """Groups of several sizes with a shift of their own; the truth is the mean over very many of them."""

    def sample(groups: int, seed: int):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(3, 9, groups)
        units = np.repeat(np.arange(groups), sizes)
        logits = rng.normal(0, 1, len(units)) + rng.normal(0, 1, groups)[units]
        true = 1 / (1 + np.exp(-logits))
        labels = (rng.random(len(units)) < true).astype(int)
        said = 1 / (1 + np.exp(-1.5 * rng.normal(logits, 0.5)))
        return labels, np.stack([1 - said, said], axis=1), [f"g{unit}" for unit in units]

    labels, said, groups = sample(200_000, 10**6)
    truth = calibration(labels, said, names(2), resamples=1)[key]["value"]
    hits = 0
    for seed in range(1000):
        labels, said, groups = sample(200, seed)
        found = calibration(labels, said, names(2), groups=groups, resamples=300)[key]
        hits += found["low"] <= truth <= found["high"]
    assert 0.93 <= hits / 1000 <= 0.97


def test_what_cannot_be_scored():
    labels, said = drawn(10)
    with pytest.raises(CustomCNNError, match="at least one image") as caught:
        calibration(labels[:0], said[:0], names(3))
    assert "\n" not in str(caught.value)
    with pytest.raises(CustomCNNError, match="for 1 of 10 images"):
        calibration(labels, np.where(np.arange(10)[:, None] == 3, np.nan, said), names(3))
    with pytest.raises(CustomCNNError, match="one of two classes"):
        calibration(labels, said, names(3), positive="c1")
    for wrong in ((labels, said[:, :2], names(3)), (labels[1:], said, names(3)), (labels + 5, said, names(3))):
        with pytest.raises(ValueError, match="Received"):
            calibration(*wrong)
    with pytest.raises(ValueError, match="sum to 1"):
        calibration(labels, said * 2, names(3))
    with pytest.raises(ValueError, match="bin"):
        calibration(labels, said, names(3), bins=0)


# ---------------------------------------------------------------- temperature


@pytest.mark.parametrize("sharp", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_temperature_is_where_scipy_finds_it(classes, sharp):
    from sklearn.metrics import log_loss

    labels, said = drawn(400, classes, seed=1, sharp=sharp)
    best = minimize_scalar(
        lambda t: log_loss(labels, apply_temperature(said, np.exp(t)), labels=range(classes)),
        bounds=(-3, 3),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert fit_temperature(log_probabilities(said), labels) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_the_temperature_undoes_what_sharpened():
    labels, said = drawn(20_000, 3, seed=2, sharp=2.0)
    assert fit_temperature(log_probabilities(said), labels) == pytest.approx(2.0, rel=0.05)


def test_logits_may_be_shifted():
    labels, said = drawn(50, 3, seed=2)
    logits = log_probabilities(said)
    shifted = logits + np.random.default_rng(0).normal(0, 30, (50, 1))
    assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-9)


@pytest.mark.parametrize("sure", [0.6, 0.99, 1.0])
def test_it_stays_finite_where_no_image_is_wrong_or_every_one(sure):
    labels = np.array([0, 1, 0, 1])
    said = np.where(np.eye(2)[labels] == 1, sure, 1 - sure)
    assert fit_temperature(log_probabilities(said), labels) == LOWEST
    assert fit_temperature(log_probabilities(said), 1 - labels) == HIGHEST
    assert np.isfinite(apply_temperature(said, LOWEST)).all() and np.isfinite(apply_temperature(said, HIGHEST)).all()


def test_a_temperature_of_one_image_and_of_equal_probabilities():
    assert fit_temperature(np.log([[0.7, 0.3]]), np.array([0])) == LOWEST
    assert LOWEST <= fit_temperature(np.zeros((4, 3)), np.array([0, 1, 2, 0])) <= HIGHEST


@given(st.floats(LOWEST, HIGHEST), st.integers(0, 1000))
def test_a_temperature_keeps_the_order_of_the_classes(temperature, seed):
    _, said = drawn(20, 4, seed)
    cooled = apply_temperature(said, temperature)
    np.testing.assert_allclose(cooled.sum(axis=1), 1)
    np.testing.assert_array_equal(cooled.argmax(axis=1), said.argmax(axis=1))


def test_logits_that_cannot_be_fitted():
    with pytest.raises(CustomCNNError, match="finite"):
        fit_temperature(np.array([[np.inf, 0.0]]), np.array([0]))
    with pytest.raises(CustomCNNError, match="at least one image"):
        fit_temperature(np.empty((0, 2)), np.empty(0, int))
    with pytest.raises(ValueError, match="Class indexes"):
        fit_temperature(np.zeros((2, 2)), np.array([0, 2]))


# ---------------------------------------------------------------- the diagram


def test_the_diagram(tmp_path):
    labels, said = drawn(300, 2, sharp=2.0)
    results = {"before": calibration(labels, said, names(2), resamples=5)}
    results["after, 1 $ more"] = calibration(labels, apply_temperature(said, 2.0), names(2), resamples=5)
    for path in (tmp_path / "one.png", tmp_path / "two.png"):
        plot_reliability(results, path, title="a title", notes=["a warning"])
    with Image.open(tmp_path / "one.png") as image:
        assert min(image.size) > 300
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    figure = reliability_figure(results)
    upper = figure.axes[0]
    assert upper.get_title() == f"before: ECE {results['before']['ece']['value']:.3f}"
    seen = [row for row in results["before"]["reliability"] if row["images"]]
    curve = upper.lines[1]
    np.testing.assert_allclose(curve.get_xdata(), [row["confidence"] for row in seen])
    np.testing.assert_allclose(curve.get_ydata(), [row["accuracy"] for row in seen])
    assert [bar.get_height() for bar in figure.axes[2].patches] == [row["images"] for row in seen]


def test_a_diagram_needs_a_result():
    with pytest.raises(ValueError, match="none"):
        reliability_figure({})
