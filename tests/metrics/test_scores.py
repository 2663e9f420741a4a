"""Scores against scikit-learn and by hand, their intervals by property and by simulation, the report by eye."""

import json
import re
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customcnn.errors import CustomCNNError
from customcnn.metrics import bootstrap
from customcnn.metrics.scores import (
    confusion_matrix,
    evaluate_predictions,
    format_report,
    roc_auc,
    scores,
    two_columns,
)
from customcnn.metrics.validation import check_classes, default_positive
from tests.support.errors import refused

EXACT = {"rel": 0, "abs": 1e-12}
PER_CLASS = ("precision", "recall", "f1")
AVERAGES = [f"{average}_{score}" for average in ("macro", "weighted") for score in PER_CLASS]
HEADLINES = ["accuracy", "balanced_accuracy", *AVERAGES, "cohen_kappa", "roc_auc"]


def certain(labels, predicted, classes=2):
    """Probabilities of .9 for what is predicted."""
    rest = 0.1 / (classes - 1)
    return np.where(np.arange(classes) == np.asarray(predicted)[:, None], 0.9, rest)


def from_matrix(matrix):
    """Labels and predictions that have this confusion matrix."""
    matrix = np.asarray(matrix)
    rows, columns = np.indices(matrix.shape)
    return np.repeat(rows.ravel(), matrix.ravel()), np.repeat(columns.ravel(), matrix.ravel())


@st.composite
def predictions(draw, least=1, most=40):
    """Labels and probabilities with many ties, weights that may be 0, and group names."""
    count, size = draw(st.integers(2, 4)), draw(st.integers(least, most))
    labels = draw(st.lists(st.integers(0, count - 1), min_size=size, max_size=size))
    marks = draw(st.lists(st.lists(st.integers(0, 4), min_size=count, max_size=count), min_size=size, max_size=size))
    marks = np.array(marks, dtype=float) + 0.25
    weights = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    groups = draw(st.lists(st.sampled_from(["H10", "H9", "9", "a b"]), min_size=size, max_size=size))
    return np.array(labels), marks / marks.sum(axis=1, keepdims=True), np.array(weights, dtype=float), groups


def reference(labels, predicted, weights=None):
    """Every score of a confusion matrix by scikit-learn."""
    from sklearn import metrics as sk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = {
            "accuracy": sk.accuracy_score(labels, predicted, sample_weight=weights),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, sample_weight=weights),
            "cohen_kappa": sk.cohen_kappa_score(labels, predicted, sample_weight=weights),
        }
        for average in ("macro", "weighted"):
            found = sk.precision_recall_fscore_support(
                labels, predicted, average=average, zero_division=0, sample_weight=weights
            )
            result |= {f"{average}_{key}": value for key, value in zip(PER_CLASS, found[:3], strict=True)}
    return result


# ---------------------------------------------------------------- scores


def test_confusion_matrix_by_hand():
    matrix = confusion_matrix(np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 0, 2]), 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert matrix.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "predicted"), [([0, 2], [0, 0]), ([0, 0], [-1, 0]), ([0.0, 1.0], [0, 1]), ([0, 1], [0]), ([[0]], [[0]])]
)
def test_confusion_matrix_refuses_what_is_no_class_index(labels, predicted):
    with pytest.raises(ValueError):
        confusion_matrix(np.array(labels), np.array(predicted), 2)


def test_the_matrix_of_the_report():
    found = scores(np.array([[1370, 77], [71, 603]]))
    assert found["accuracy"] == pytest.approx(1973 / 2121, **EXACT)
    assert round(float(found["accuracy"]), 4) == 0.9302
    assert found["precision"][1] == pytest.approx(603 / 680, **EXACT)
    assert found["recall"][1] == pytest.approx(603 / 674, **EXACT)
    assert found["f1"][1] == pytest.approx(1206 / 1354, **EXACT)
    assert found["precision"][0] == pytest.approx(1370 / 1441, **EXACT)
    assert found["balanced_accuracy"] == pytest.approx((1370 / 1447 + 603 / 674) / 2, **EXACT)
    assert found["macro_precision"] == pytest.approx((1370 / 1441 + 603 / 680) / 2, **EXACT)
    assert found["weighted_recall"] == pytest.approx(1973 / 2121, **EXACT)
    assert found["weighted_precision"] == pytest.approx((1447 * 1370 / 1441 + 674 * 603 / 680) / 2121, **EXACT)
    chance = (1447 * 1441 + 674 * 680) / 2121**2
    assert found["cohen_kappa"] == pytest.approx((1973 / 2121 - chance) / (1 - chance), **EXACT)


def test_nothing_divided_by_nothing_is_0_and_no_mean_of_nothing_exists():
    found = scores(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))  # class 1 is predicted only, class 2 not even that
    assert found["precision"].tolist() == [1, 0, 0]
    assert found["recall"].tolist() == [0.75, 0, 0]
    assert found["balanced_accuracy"] == 0.75  # over the class that occurs
    assert found["macro_recall"] == 0.375  # over the two that occur or are predicted
    assert found["weighted_precision"] == 1
    empty = scores(np.zeros((2, 2)))
    assert all(np.isnan(empty[key]) for key in HEADLINES if key != "roc_auc")
    assert np.isnan(scores(np.array([[5, 0], [0, 0]]))["cohen_kappa"])


@settings(deadline=None, max_examples=50)
@given(predictions())
def test_scores_are_those_of_scikit_learn(data):
    from sklearn.metrics import confusion_matrix as sk_confusion
    from sklearn.metrics import precision_recall_fscore_support

    labels, probabilities, _, _ = data
    predicted, count = probabilities.argmax(axis=1), probabilities.shape[1]
    matrix = confusion_matrix(labels, predicted, count)
    assert (matrix == sk_confusion(labels, predicted, labels=range(count))).all()
    found = scores(matrix)
    for key, value in reference(labels, predicted).items():
        assert float(found[key]) == pytest.approx(value, nan_ok=True, **EXACT), key
    single = precision_recall_fscore_support(labels, predicted, labels=range(count), zero_division=0)
    for key, value in zip(PER_CLASS, single[:3], strict=True):
        assert found[key] == pytest.approx(value, **EXACT)


@settings(deadline=None, max_examples=50)
@given(predictions(least=4))
def test_scores_of_many_weighted_matrices_at_once(data):
    labels, probabilities, weights, _ = data
    predicted, count = probabilities.argmax(axis=1), probabilities.shape[1]
    weights += 0.5  # scikit-learn also averages over labels that have no weight
    cells = np.eye(count)[labels][:, :, None] * np.eye(count)[predicted][:, None, :]
    plain = cells.sum(axis=0)
    weighted = np.einsum("n,nij->ij", weights, cells)
    found = scores(np.stack([plain, weighted])[:, None])  # (2, 1, C, C)
    assert found["accuracy"].shape == (2, 1)
    assert found["recall"].shape == (2, 1, count)
    for row, of in enumerate((None, weights)):
        expected = reference(labels, predicted, of)
        if len(set(labels) | set(predicted)) == 1:
            del expected["cohen_kappa"]  # 0/0 up to rounding
        for key, value in expected.items():
            assert found[key][row, 0] == pytest.approx(value, **EXACT), key


# ---------------------------------------------------------------- ROC AUC


def test_roc_auc_by_hand():
    # the two of class 1 beat 3, tie 1 and lose 0 of the 2 * 2 pairs: 3.5 / 4
    first = np.array([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8]])
    labels = np.array([0, 0, 1, 1])
    assert roc_auc(labels, first) == 0.875
    assert roc_auc(1 - labels, first) == 0.125
    assert roc_auc(labels, first * [0, 1]) == 0.875  # of two classes the second column is read
    # the tied ones twice: 2*1 + 2*2/2 + 1*1 + 1*2 = 7 of 3 * 3
    assert roc_auc(labels, first, np.array([1.0, 2.0, 2.0, 1.0])) == pytest.approx(7 / 9, **EXACT)
    assert roc_auc(labels, first, np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])).tolist()[0] == 1
    assert np.isnan(roc_auc(labels, first, np.array([1.0, 1.0, 0.0, 0.0])))
    assert np.isnan(roc_auc(np.zeros(4, int), first))


def test_roc_auc_of_three_classes_is_the_mean_over_those_that_occur():
    labels = np.array([0, 0, 1, 1])  # class 2 does not occur; class 0 against the rest: 3 of 4; class 1: 4 of 4
    probabilities = np.array([[0.6, 0.1, 0.3], [0.3, 0.1, 0.6], [0.4, 0.5, 0.1], [0.2, 0.5, 0.3]])
    assert roc_auc(labels, probabilities) == pytest.approx((3 / 4 + 1) / 2, **EXACT)
    assert np.isnan(roc_auc(np.zeros(4, int), probabilities))


@settings(deadline=None, max_examples=50)
@given(predictions(least=4))
def test_roc_auc_is_that_of_scikit_learn(data):
    from sklearn.metrics import roc_auc_score

    labels, probabilities, weights, _ = data
    count = probabilities.shape[1]
    labels = np.concatenate([np.arange(count), labels])  # every class occurs with a weight
    probabilities = np.concatenate([probabilities[np.arange(count) % len(weights)], probabilities])
    weights = np.concatenate([np.ones(count), weights])
    score = probabilities[:, 1] if count == 2 else probabilities
    found = roc_auc(labels, probabilities, np.stack([np.ones(len(labels)), weights]))
    assert found.shape == (2,)
    assert found[0] == roc_auc(labels, probabilities)
    assert found[0] == pytest.approx(roc_auc_score(labels, score, multi_class="ovr"), **EXACT)
    if count == 2:
        assert found[1] == pytest.approx(roc_auc_score(labels, score, sample_weight=weights), **EXACT)
    else:
        ones = [roc_auc_score(labels == k, probabilities[:, k], sample_weight=weights) for k in range(count)]
        assert found[1] == pytest.approx(np.mean(ones), **EXACT)


# ---------------------------------------------------------------- evaluate_predictions


def test_the_report_end_to_end():
    labels, predicted = from_matrix([[1370, 77], [71, 603]])
    found = evaluate_predictions(labels, certain(labels, predicted), ["all", "hem"], resamples=200)
    assert found["images"] == 2121
    assert found["groups"] is None
    assert found["errors"] == 148
    assert found["classes"] == ["all", "hem"]
    assert found["positive"] == "all"
    assert found["confusion_matrix"] == [[1370, 77], [71, 603]]
    assert round(found["accuracy"]["value"], 4) == 0.9302
    assert found["per_class"]["all"]["support"] == 1447
    own = found["positive_class"]
    assert own["name"] == "all"
    assert own["precision"]["value"] == pytest.approx(1370 / 1441, **EXACT)
    assert own["recall"] == own["sensitivity"] == found["per_class"]["all"]["recall"]
    assert own["sensitivity"]["value"] == pytest.approx(1370 / 1447, **EXACT)
    assert own["specificity"]["value"] == pytest.approx(603 / 674, **EXACT)
    assert found["log_loss"] == pytest.approx(-(1973 * np.log(0.9) + 148 * np.log(0.1)) / 2121, **EXACT)
    assert found["interval"] == {
        "level": 0.95, "method": "Wilson for proportions, else percentile bootstrap over images",
        "resamples": 200, "seed": 0,
    }  # fmt: skip
    # Wilson: (p + z2 / 2n -+ z sqrt(p q / n + z2 / 4n2)) / (1 + z2 / n) with p = 1973/2121, n = 2121, z2 = 3.841459
    assert found["accuracy"]["low"] == pytest.approx(0.918583, abs=1e-6)
    assert found["accuracy"]["high"] == pytest.approx(0.940304, abs=1e-6)
    # one image per draw: close to the normal interval of the same share
    assert found["weighted_f1"]["low"] == pytest.approx(0.9194, abs=0.003)
    assert found["weighted_f1"]["high"] == pytest.approx(0.9410, abs=0.003)
    turned = evaluate_predictions(labels, certain(labels, predicted), ["all", "hem"], positive="hem", resamples=2)
    assert turned["positive"] == turned["positive_class"]["name"] == "hem"
    assert turned["positive_class"]["sensitivity"]["value"] == pytest.approx(603 / 674, **EXACT)


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (["all", "hem"], "all"),
        (["hem", "all"], "all"),
        (["ALL", "HEM"], "ALL"),
        (["all", "blast"], "blast"),
        (["a", "b"], "b"),
        (["all", "hem", "x"], ""),
    ],
)
def test_the_positive_class_where_none_is_named(classes, positive):
    assert default_positive(classes) == positive
    assert check_classes(classes, None)[1] == (positive or None)


def test_three_classes_have_no_positive_one():
    labels, predicted = from_matrix(np.full((3, 3), 2))
    found = evaluate_predictions(labels, certain(labels, predicted, 3), ["a", "b", "c"], resamples=5)
    assert found["positive"] is None
    assert "positive_class" not in found
    assert list(found["per_class"]) == ["a", "b", "c"]


def test_the_first_class_is_predicted_on_ties():
    found = evaluate_predictions(np.array([0, 1]), np.full((2, 2), 0.5), ["a", "b"], resamples=5)
    assert found["confusion_matrix"] == [[1, 0], [1, 0]]


@settings(deadline=None, max_examples=50)
@given(predictions())
def test_log_loss_is_that_of_scikit_learn(data):
    from sklearn.metrics import log_loss

    labels, probabilities, _, _ = data
    classes = [f"c{index}" for index in range(probabilities.shape[1])]
    found = evaluate_predictions(labels, probabilities, classes, resamples=1)
    assert found["log_loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(len(classes))), **EXACT)


def test_outputs_become_shares_of_one():
    """One sigmoid by its two sides, two sigmoids by their shares, and all alike where each of them is 0."""
    assert two_columns(np.array([[0.25]])).tolist() == [[0.75, 0.25]]
    found = two_columns(np.array([[0.6, 0.2], [0.9, 0.9], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(found, [[0.75, 0.25], [0.5, 0.5], [0.5, 0.5]], atol=1e-7)


def test_a_certain_error_has_a_finite_log_loss():
    found = evaluate_predictions(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ["a", "b"], resamples=1)
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps) / 2, **EXACT)


# ---------------------------------------------------------------- intervals


@settings(deadline=None, max_examples=60)
@given(predictions(), st.booleans(), st.sampled_from([0.5, 0.95]), st.randoms(use_true_random=False))
def test_intervals_hold_the_estimate_and_do_not_depend_on_the_order(data, grouped, level, random):
    labels, probabilities, _, groups = data
    classes = [f"c{index}" for index in range(probabilities.shape[1])]
    names = groups if grouped else None
    found = evaluate_predictions(labels, probabilities, classes, groups=names, resamples=30, level=level, seed=3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for row in [found[key] for key in HEADLINES] + [
        found["per_class"][name][key] for name in classes for key in PER_CLASS
    ]:
        if row["low"] is None:
            assert row["high"] is None
        else:
            assert row["low"] <= row["value"] <= row["high"]
            assert (-1 if row is found["cohen_kappa"] else 0) <= row["low"]
            assert row["high"] <= 1
    order = list(range(len(labels)))
    random.shuffle(order)
    names = [groups[index] for index in order] if grouped else None
    again = evaluate_predictions(
        labels[order], probabilities[order], classes, groups=names, resamples=30, level=level, seed=3
    )
    assert again == found  # to the last bit


@settings(deadline=None, max_examples=10)
@given(predictions(least=6, most=25), st.booleans())
def test_intervals_are_those_of_rows_drawn_one_by_one(data, grouped):
    from sklearn.metrics import roc_auc_score

    labels, probabilities, _, groups = data
    classes = [f"c{index}" for index in range(probabilities.shape[1])]
    groups = np.array(groups if grouped else np.lexsort((*probabilities.T, labels)).argsort().astype(str).tolist())
    numbers = sorted(set(groups)) if grouped else [str(index) for index in range(len(labels))]
    found = evaluate_predictions(
        labels, probabilities, classes, groups=list(groups) if grouped else None, resamples=20, seed=5
    )
    if len(numbers) == 1:
        assert found["accuracy"]["low"] is None
        return
    rng, drawn = np.random.default_rng(5), []
    for _ in range(20):
        chosen = rng.integers(len(numbers), size=len(numbers))
        rows = np.concatenate([np.flatnonzero(groups == numbers[index]) for index in chosen])
        sample = reference(labels[rows], probabilities[rows].argmax(axis=1))
        present = [k for k in range(len(classes)) if 0 < (labels[rows] == k).sum() < len(rows)]
        present = [1] * (1 in present) if len(classes) == 2 else present
        ones = [roc_auc_score(labels[rows] == k, probabilities[rows, k]) for k in present]
        drawn.append(sample | {"roc_auc": np.mean(ones) if ones else np.nan})
    for key in HEADLINES if grouped else [key for key in HEADLINES if key not in ("accuracy", "weighted_recall")]:
        values = np.array([sample[key] for sample in drawn])
        values = values[~np.isnan(values)]
        row = found[key]
        if row["value"] is None or not len(values):
            assert row["low"] is row["high"] is None
            continue
        assert row["low"] == pytest.approx(min(np.quantile(values, 0.025), row["value"]), abs=1e-9), key
        assert row["high"] == pytest.approx(max(np.quantile(values, 0.975), row["value"]), abs=1e-9), key
        assert row.get("undefined_resamples", 0) == 20 - len(values)


@settings(deadline=None, max_examples=30)
@given(predictions(), st.sampled_from([0.5, 0.95]))
def test_proportions_of_single_images_have_wilsons_interval(data, level):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    labels, probabilities, _, _ = data
    count = probabilities.shape[1]
    predicted, classes = probabilities.argmax(axis=1), [f"c{index}" for index in range(count)]
    found = evaluate_predictions(labels, probabilities, classes, resamples=5, level=level)
    right = labels == predicted
    rows = [(found["accuracy"], right), (found["weighted_recall"], right)]
    for index, name in enumerate(classes):
        rows.append((found["per_class"][name]["recall"], right[labels == index]))
        rows.append((found["per_class"][name]["precision"], right[predicted == index]))
    for row, hits in rows:
        if not len(hits):
            assert row == {"value": 0, "low": None, "high": None}
            continue
        low, high = proportion.proportion_confint(hits.sum(), len(hits), 1 - level, method="wilson")
        assert (row["low"], row["high"]) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
        assert row["value"] == pytest.approx(hits.mean(), **EXACT)
    if count == 2:
        assert found["positive_class"]["sensitivity"] == found["per_class"]["c1"]["recall"]
        assert found["positive_class"]["specificity"] == found["per_class"]["c0"]["recall"]


def test_an_interval_is_widened_to_hold_the_estimate():
    labels, predicted = from_matrix([[6, 4], [3, 7]])
    probabilities, groups = certain(labels, predicted), [str(index) for index in range(20)]
    rows = [  # one resample each: its score is both ends before they are widened
        evaluate_predictions(labels, probabilities, ["a", "b"], groups=groups, resamples=1, seed=seed)["accuracy"]
        for seed in range(10)
    ]
    assert {(row["low"] < 0.65, row["high"] > 0.65) for row in rows} >= {(True, False), (False, True)}
    assert all(row["low"] == 0.65 or row["high"] == 0.65 for row in rows)


def test_a_class_that_was_not_drawn_leaves_its_scores_undefined():
    # three groups of two; only the last one holds class b: it misses in (2/3) ** 3 = 30 % of the resamples
    labels, groups = np.array([0, 0, 0, 0, 1, 1]), ["x", "x", "y", "y", "z", "z"]
    found = evaluate_predictions(labels, certain(labels, [0, 0, 0, 1, 1, 1]), ["a", "b"], groups=groups)
    missing = found["per_class"]["b"]["recall"]["undefined_resamples"]
    assert missing / 2000 == pytest.approx(8 / 27, abs=0.03)
    assert found["per_class"]["b"]["recall"] == {"value": 1, "low": 1, "high": 1, "undefined_resamples": missing}
    assert found["per_class"]["b"]["precision"]["undefined_resamples"] == missing
    assert found["per_class"]["b"]["f1"]["undefined_resamples"] == missing
    # a is missing in (1/3) ** 3, so that the area is undefined in 9 of 27
    assert found["roc_auc"]["undefined_resamples"] / 2000 == pytest.approx(9 / 27, abs=0.03)
    assert "undefined_resamples" not in found["accuracy"]


def test_a_class_that_is_never_predicted_has_no_interval_of_precision():
    found = evaluate_predictions(np.array([0, 0, 1]), certain([0] * 3, [0, 0, 0]), ["a", "b"], resamples=50)
    assert found["per_class"]["b"]["precision"] == {"value": 0, "low": None, "high": None}
    assert found["per_class"]["b"]["recall"]["low"] == 0
    groups = ["x", "y", "z"]
    found = evaluate_predictions(
        np.array([0, 0, 1]), certain([0] * 3, [0, 0, 0]), ["a", "b"], groups=groups, resamples=50
    )
    assert found["per_class"]["b"]["precision"] == {"value": 0, "low": None, "high": None, "undefined_resamples": 50}


def test_a_missing_class_gives_no_area():
    found = evaluate_predictions(np.array([0, 0, 0]), certain([0] * 3, [0, 0, 1]), ["a", "b"], resamples=50)
    assert found["roc_auc"] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("labels", "groups", "method", "count"),
    [
        ([0], None, "Wilson for proportions, else none (one image only)", None),
        ([0], ["H3"], "none (one group only)", 1),
        ([0, 1, 1], ["H3"] * 3, "none (one group only)", 1),
    ],
)
def test_one_group_or_image_gives_no_bootstrap(labels, groups, method, count):
    found = evaluate_predictions(np.array(labels), certain(labels, labels), ["a", "b"], groups=groups)
    # of one hit in one image, Wilson's lower end is 1 / (1 + z2)
    low = pytest.approx(1 / (1 + 1.959964**2), abs=1e-6) if groups is None else None
    for row in (found["accuracy"], found["per_class"]["a"]["recall"]):
        assert row == {"value": 1, "low": low, "high": None if groups else 1}
    assert found["macro_recall"] == found["weighted_f1"] == {"value": 1, "low": None, "high": None}
    assert found["interval"] == {"level": 0.95, "method": method, "resamples": 0, "seed": 0}
    assert found["groups"] == count


def test_images_of_one_group_say_less_than_as_many_groups():
    rng = np.random.default_rng(0)
    wrong = np.repeat(rng.random(20) < 0.3, 30)  # all images of a group are right, or all are wrong
    labels = rng.integers(0, 2, 600)
    groups = [f"H{index // 30}" for index in range(600)]
    probabilities = certain(labels, labels ^ wrong)
    grouped = evaluate_predictions(labels, probabilities, ["a", "b"], groups=groups)["accuracy"]
    single = evaluate_predictions(labels, probabilities, ["a", "b"])["accuracy"]
    assert grouped["value"] == single["value"]
    # a whole group counts as one image: the interval is sqrt(30) = 5.5 times as wide
    assert (grouped["high"] - grouped["low"]) / (single["high"] - single["low"]) == pytest.approx(5.5, abs=0.6)


def test_the_seed_decides_and_the_chunks_do_not(monkeypatch):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 50)
    probabilities = rng.dirichlet(np.ones(3), 50)
    groups = [f"g{index % 9}" for index in range(50)]
    first, second = (
        evaluate_predictions(labels, probabilities, ["a", "b", "c"], groups=groups, resamples=40, seed=seed)
        for seed in (0, 1)
    )
    assert first["accuracy"] != second["accuracy"]
    monkeypatch.setattr(bootstrap, "CHUNK", 150)  # 3 resamples at once
    again = evaluate_predictions(labels, probabilities, ["a", "b", "c"], groups=groups, resamples=40, seed=0)
    assert again == first


def test_memory_stays_small():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 50_000)
    second = rng.random(50_000)
    probabilities = np.stack([1 - second, second], axis=1)
    tracemalloc.start()
    try:
        evaluate_predictions(labels, probabilities, ["a", "b"], resamples=30)  # all weights: 12 MB an array
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.statistics
def test_coverage_over_groups():
    """60 groups of 20 images, each group with an accuracy of its own from Beta(4, 1): the truth is .8."""
    rng = np.random.default_rng(7)
    groups = [f"{index // 20:02d}" for index in range(1200)]
    labels = np.tile([0, 1], 600)
    covered = {"groups": 0, "images": 0}
    for _ in range(400):
        right = rng.random(1200) < np.repeat(rng.beta(4, 1, size=60), 20)
        probabilities = certain(labels, np.where(right, labels, 1 - labels))
        for name, known in (("groups", groups), ("images", None)):
            row = evaluate_predictions(labels, probabilities, ["a", "b"], groups=known, resamples=400)["accuracy"]
            covered[name] += row["low"] <= 0.8 <= row["high"]
    assert 0.90 <= covered["groups"] / 400 <= 0.98
    assert covered["images"] / 400 < 0.80  # why it is groups that are drawn


# ---------------------------------------------------------------- bad input


def test_no_images():
    with pytest.raises(CustomCNNError, match=r"^Scores need at least one image\. Received: 0 images\. Name a folder"):
        evaluate_predictions(np.array([]), np.zeros((0, 2)), ["a", "b"])


def test_a_diverged_network():
    probabilities = np.array([[np.nan, np.nan], [0.5, 0.5], [np.inf, 0.0]])
    with pytest.raises(CustomCNNError, match=r"NaN or infinite ones for 2 of 3 images\. .* lower learning rate"):
        evaluate_predictions(np.array([0, 1, 1]), probabilities, ["a", "b"])


@pytest.mark.parametrize("classes", [["all", "hem"], ["all", "hem", "x"]])
def test_a_positive_class_that_is_none(classes):
    names = ", ".join(map(repr, classes))
    positive = "blast\n" if len(classes) == 2 else "hem"
    assert refused(
        evaluate_predictions, np.array([0]), np.full((1, len(classes)), 1 / len(classes)), classes, positive=positive
    ) == (
        f"A positive class is one of two classes. Received: {positive!r}, and the classes {names}. "
        "Name one of two, or leave it out."
    )


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([0, 2])},
        {"labels": np.array([0])},
        {"probabilities": np.full((2, 3), 1 / 3)},
        {"probabilities": np.array([[0.9, 0.9], [0.1, 0.9]])},
        {"probabilities": np.array([[1.5, -0.5], [0.1, 0.9]])},
        {"classes": ["a", "a"]},
        {"classes": ["a"], "probabilities": np.ones((2, 1)), "labels": np.array([0, 0])},
        {"groups": ["x"]},
        {"groups": ["x", ""]},
        {"resamples": 0},
        {"level": 1.0},
        {"level": 95},
    ],
)
def test_arrays_that_do_not_belong_together(change):
    good = {"labels": np.array([0, 1]), "probabilities": np.eye(2), "classes": ["a", "b"], "groups": ["x", "y"]}
    evaluate_predictions(**good, resamples=2)
    with pytest.raises(ValueError):
        evaluate_predictions(**({**good, "resamples": 2} | change))


def test_half_precision_probabilities_are_fine():
    probabilities = np.array([[0.2, 0.8], [0.7, 0.3]], dtype=np.float16)
    found = evaluate_predictions(np.array([1, 0]), probabilities, ["a", "b"], resamples=3)
    assert found["errors"] == 0


# ---------------------------------------------------------------- the text


REPORT = """\
8 images of 1 group, 2 errors

                                 value  95 % interval
accuracy                         0.750  -
balanced accuracy                0.733  -
macro precision                  0.733  -
macro recall                     0.733  -
macro F1                         0.733  -
weighted precision               0.750  -
weighted recall                  0.750  -
weighted F1                      0.750  -
Cohen's kappa                    0.467  -
ROC AUC                          0.733  -
sensitivity (recall of all)      0.800  -
specificity (recall of hem)      0.667  -
log loss                         0.655
intervals: none (one group only)
positive class: all (precision 0.800, recall 0.800)

class  precision  recall     F1  support
all        0.800   0.800  0.800        5
hem        0.667   0.667  0.667        3

confusion matrix (rows: true class, columns: predicted class)
     all  hem
all    4    1
hem    1    2"""


def test_format_report_by_hand():
    # kappa: agreement 6/8, by chance (5*5 + 3*3)/64 = 34/64: (48 - 34)/(64 - 34) = 14/30
    # area: 2*4 pairs won, 2*1 + 1*4 tied, 1*1 lost, no: of 3*5 = 15: 2*4 + (2*1 + 1*4)/2 = 11: .733
    # log loss: (6 * -ln .9 + 2 * -ln .1) / 8 = (0.632 + 4.605) / 8
    labels, predicted = from_matrix([[4, 1], [1, 2]])
    found = evaluate_predictions(labels, certain(labels, predicted), ["all", "hem"], groups=["H3"] * 8)
    assert format_report(found) == REPORT


def test_format_report_shows_intervals_and_what_is_undefined():
    found = evaluate_predictions(np.array([0, 0, 0, 1]), certain([0] * 4, [0, 0, 1, 1]), ["a", "b"], level=0.9, seed=4)
    found["accuracy"] = {"value": 0.75, "low": 0.25, "high": 1.0}
    found["roc_auc"] = {"value": None, "low": None, "high": None}
    found["cohen_kappa"] = {"value": -0.5, "low": -1.0, "high": 1.0, "undefined_resamples": 1}
    lines = [" ".join(line.split()) for line in format_report(found).splitlines()]
    assert lines[0] == "4 images, 1 error"
    assert lines[2].endswith("value 90 % interval")
    assert "accuracy 0.750 0.250 to 1.000" in lines
    assert "Cohen's kappa -0.500 -1.000 to 1.000 (undefined in 1 resample)" in lines
    assert "ROC AUC undefined -" in lines
    how = "Wilson for proportions, else percentile bootstrap over images, 2,000 resamples, seed 4"
    assert f"intervals: {how}" in lines


@pytest.mark.parametrize(("classes", "width", "numbered"), [(6, 12, False), (7, 2, True), (2, 13, True)])
def test_names_stand_over_the_matrix_where_they_fit(classes, width, numbered):
    names = [f"{index:0{width}d}" for index in range(classes)]
    found = evaluate_predictions(
        np.arange(classes), certain([0] * classes, range(classes), classes), names, resamples=1
    )
    headings = format_report(found).splitlines()[-classes - 1].split()
    assert headings == ([str(index + 1) for index in range(classes)] if numbered else names)


def test_long_and_many_class_names_are_numbered():
    names = [f"a very long name of a class, number {index:02d} of them all" for index in range(1, 31)]
    names[3] = "two\nlines"
    labels, predicted = from_matrix(np.full((30, 30), 1))
    found = evaluate_predictions(labels, certain(labels, predicted, 30), names, resamples=2)
    found["confusion_matrix"][2][29] = 12_345
    lines = format_report(found).splitlines()
    assert max(map(len, lines)) < 100
    row = " 3 a very lon...of them all "
    assert sum(line.startswith(row) for line in lines) == 5  # the table, and four blocks of the matrix
    assert any(line.startswith(r" 4 'two\nlines'") for line in lines)
    headings = [line.split() for line in lines if re.fullmatch(r"[ \d]+", line)]
    assert [row[-1] for row in headings] == ["9", "18", "27", "30"]
    assert lines[-28].endswith("       1       1  12,345")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=9, unique=True))
def test_the_text_is_less_than_100_columns_wide(names):
    labels = np.arange(len(names))
    found = evaluate_predictions(labels, certain(labels, labels, len(names)), names, resamples=2)
    found["confusion_matrix"][0][0] = 100_000
    text = format_report(found)
    assert max(map(len, text.split("\n"))) < 100
    assert text.count("\n") == len(text.splitlines()) - 1  # no name breaks a line
