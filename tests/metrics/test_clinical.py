"""Clinical reading against scikit-learn and statsmodels, by hand, by property and by simulation; the text by eye."""

import json
import math
import warnings
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customcnn.errors import CustomCNNError
from customcnn.metrics import bootstrap
from customcnn.metrics.clinical import DECISIONS, NO_VALUE, SPECIFICITIES, clinical
from customcnn.metrics.clinical_text import format_clinical
from customcnn.metrics.curves import (
    MOST_POINTS,
    Threshold,
    average_precision,
    choose_threshold,
    count,
    net_benefit,
    precision_recall_points,
    roc_area,
    roc_points,
    sensitivity_along,
    sensitivity_at,
    sweep,
    threshold_at,
)
from customcnn.metrics.scores import evaluate_predictions, roc_auc, scores
from tests.support.errors import refused

EXACT = {"rel": 0, "abs": 1e-12}
UNDEFINED = {"value": None, "low": None, "high": None}


def two(second):
    """Probabilities of two classes from those of the second."""
    second = np.asarray(second, dtype=float)
    return np.stack([1 - second, second], axis=1)


def made(images=300, classes=3, groups=20, seed=0):
    """Labels, probabilities and groups: each group has one class and a shift of its own."""
    rng = np.random.default_rng(seed)
    unit = np.arange(images) % groups
    labels = (rng.permutation(groups) % classes)[unit]
    marks = rng.normal(size=(groups, classes))[unit] * 0.5 + rng.normal(size=(images, classes))
    marks[np.arange(images), labels] += 1
    probabilities = np.exp(marks)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True), [f"s{number:02d}" for number in unit]


def swept(own, scores):
    images = sweep(np.asarray(own, dtype=bool), np.asarray(scores, dtype=float), np.arange(len(own)))
    return images, count(images, np.ones(len(own)))


def one(counts):
    return counts.true[None], counts.false[None]


@st.composite
def marked(draw, least=1, most=40):
    """Whether each image is of the class, a score with many ties, and a whole weight that may be 0."""
    size = draw(st.integers(least, most))
    own = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    marks = draw(st.lists(st.integers(0, 8), min_size=size, max_size=size))
    weights = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    return np.array(own), np.array(marks) / 8, np.array(weights, dtype=float)


@st.composite
def predictions(draw):
    count, size = draw(st.integers(2, 3)), draw(st.integers(1, 25))
    labels = draw(st.lists(st.integers(0, count - 1), min_size=size, max_size=size))
    marks = draw(st.lists(st.lists(st.integers(0, 4), min_size=count, max_size=count), min_size=size, max_size=size))
    marks = np.array(marks, dtype=float) + 0.25
    groups = draw(st.none() | st.lists(st.sampled_from(["H10", "H9", "9", "a b"]), min_size=size, max_size=size))
    site = draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=size, max_size=size))
    return np.array(labels), marks / marks.sum(axis=1, keepdims=True), groups, site


def every_interval(found):
    """Yield every {value, low, high} inside a result."""
    if isinstance(found, dict):
        if {"value", "low", "high"} <= set(found):
            yield found
        else:
            for inner in found.values():
                yield from every_interval(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from every_interval(inner)


# ---------------------------------------------------------------- curves and their areas


@given(marked())
def test_the_roc_curve_is_that_of_scikit_learn(data):
    from sklearn.metrics import roc_auc_score, roc_curve

    own, scores, _ = data
    images, counts = swept(own, scores)
    points = roc_points(images, counts)
    if own.all() or not own.any():
        assert points == {"false_positive_rate": [], "sensitivity": [], "threshold": []}
        assert np.isnan(roc_area(counts))
        return
    rates, sensitivities, thresholds = roc_curve(own, scores, drop_intermediate=False)
    known = dict(zip(thresholds[1:], zip(rates[1:], sensitivities[1:], strict=True), strict=True))
    mine = [*zip(points["false_positive_rate"], points["sensitivity"], points["threshold"], strict=True)]
    assert mine[0] == (0, 0, None) and mine[-1][:2] == (1, 1)
    assert all(known[t] == pytest.approx((x, y), **EXACT) for x, y, t in mine[1:])
    area = np.trapezoid(points["sensitivity"], points["false_positive_rate"])
    assert area == pytest.approx(roc_auc_score(own, scores), **EXACT)
    assert roc_area(counts) == pytest.approx(roc_auc_score(own, scores), **EXACT)


@given(marked())
def test_the_precision_recall_curve_is_that_of_scikit_learn(data):
    from sklearn.metrics import average_precision_score, precision_recall_curve

    own, scores, _ = data
    counts = swept(own, scores)[1]
    points = precision_recall_points(counts)
    if not own.any():
        assert points == {"recall": [], "precision": []} and np.isnan(average_precision(counts))
        return
    precision, recall, _ = precision_recall_curve(own, scores)
    assert points["recall"] == pytest.approx([0, *recall[-2::-1]], **EXACT)
    assert points["precision"] == pytest.approx([precision[-2], *precision[-2::-1]], **EXACT)
    area = (np.diff(points["recall"]) * points["precision"][1:]).sum()
    assert area == pytest.approx(average_precision_score(own, scores), **EXACT)
    assert average_precision(counts) == pytest.approx(area, **EXACT)


@given(marked())
def test_areas_of_a_resample_are_those_of_scikit_learn_with_weights(data):
    from sklearn.metrics import average_precision_score, roc_auc_score

    own, scores, weights = data
    images = sweep(own, scores, np.arange(len(own)))
    counts = count(images, np.stack([weights, np.ones(len(own))]))
    positives, negatives = weights[own].sum(), weights[~own].sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if positives:
            wanted = average_precision_score(own, scores, sample_weight=weights)
            assert average_precision(counts)[0] == pytest.approx(wanted, **EXACT)
        else:
            assert np.isnan(average_precision(counts)[0])
        if positives and negatives:
            assert roc_area(counts)[0] == pytest.approx(roc_auc_score(own, scores, sample_weight=weights), **EXACT)
            other = roc_auc(own.astype(int), two(scores), weights)
            assert roc_area(counts)[0] == pytest.approx(float(other), **EXACT)
        else:
            assert np.isnan(roc_area(counts)[0])


def test_areas_in_a_result():
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, probabilities, groups = made()
    found = clinical(labels, probabilities, ["a", "b", "c"], groups=groups, resamples=50)
    assert list(found["curves"]) == list(found["sensitivity_at"]) == ["a", "b", "c"]
    for index, name in enumerate("abc"):
        own = labels == index
        curve = found["curves"][name]
        wanted = roc_auc_score(own, probabilities[:, index])
        assert curve["roc"]["area"]["value"] == pytest.approx(wanted, **EXACT)
        wanted = average_precision_score(own, probabilities[:, index])
        assert curve["precision_recall"]["area"]["value"] == pytest.approx(wanted, **EXACT)
        assert curve["precision_recall"]["prevalence"] == own.mean()
    assert found["decision_curve"] is None and found["threshold"] is None and found["positive"] is None


def test_the_area_is_that_of_evaluate_with_the_same_interval():
    labels, probabilities, groups = made(classes=2)
    options = {"groups": groups, "resamples": 80, "seed": 3}
    area = clinical(labels, probabilities, ["a", "b"], **options)["curves"]["b"]["roc"]["area"]
    other = evaluate_predictions(labels, probabilities, ["a", "b"], **options)["roc_auc"]
    assert area == pytest.approx(other, **EXACT)


def test_long_curves_are_thinned_and_keep_their_shape():
    rng = np.random.default_rng(0)
    own = rng.random(20_000) < 0.3
    images, counts = swept(own, rng.normal(size=20_000) + own)
    points = roc_points(images, counts)
    assert MOST_POINTS / 2 < len(points["sensitivity"]) <= MOST_POINTS + 1
    area = np.trapezoid(points["sensitivity"], points["false_positive_rate"])
    assert area == pytest.approx(roc_area(counts), abs=1e-3)
    assert points["threshold"][1:] == sorted(points["threshold"][1:], reverse=True)
    points = precision_recall_points(counts)
    assert MOST_POINTS / 2 < len(points["recall"]) <= MOST_POINTS + 1
    area = (np.diff(points["recall"]) * points["precision"][1:]).sum()
    assert area == pytest.approx(average_precision(counts), abs=2e-3)
    assert points["recall"][0] == 0 and points["recall"][-1] == 1 and points["precision"][-1] == own.mean()


def test_one_score_for_all_is_a_straight_line():
    found = clinical(np.array([0, 0, 0, 1]), two([0.4] * 4), ["a", "b"], resamples=9)
    roc, curve = found["curves"]["b"]["roc"], found["curves"]["b"]["precision_recall"]
    assert (roc["false_positive_rate"], roc["sensitivity"], roc["threshold"]) == ([0, 1], [0, 1], [None, 0.4])
    assert roc["area"]["value"] == 0.5 and curve["area"]["value"] == 0.25
    assert (curve["recall"], curve["precision"]) == ([0, 1], [0.25, 0.25])
    assert roc["band"]["low"] == pytest.approx(roc["band"]["false_positive_rate"], abs=1e-8)
    assert [row["sensitivity"]["value"] for row in found["sensitivity_at"]["b"]] == [0, 0, 0]
    assert [row["threshold"] for row in found["sensitivity_at"]["b"]] == [None, None, None]


# ---------------------------------------------------------------- sensitivity at a fixed specificity


@given(marked(least=2), st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]))
def test_sensitivity_at_a_specificity_is_the_best_point_of_scikit_learns_curve(data, specificity):
    from sklearn.metrics import roc_curve

    own, scores, _ = data
    images, counts = swept(own, scores)
    found = sensitivity_at(type(counts)(*one(counts)), np.array([specificity]))[0, 0]
    if own.all() or not own.any():
        assert np.isnan(found)
        return
    rates, sensitivities, _ = roc_curve(own, scores, drop_intermediate=False)
    assert found == pytest.approx(sensitivities[rates <= 1 - specificity + 1e-9].max(), **EXACT)
    threshold = threshold_at(images, counts, specificity)
    if threshold is None:
        assert found == 0
    else:
        assert (scores[own] >= threshold).mean() == pytest.approx(found, **EXACT)
        assert (scores[~own] < threshold).mean() >= specificity - 1e-9
        higher = scores[scores > threshold]  # no higher threshold finds as many
        assert not len(higher) or (scores[own] >= higher.min()).mean() < found


def test_sensitivity_at_specificity_by_hand():
    # of ten others, specificity .9 allows one above the threshold, .95 none, .8 two
    labels = np.array([1, 0, 1, 0, 1, 0, *[0] * 7])
    second = np.array([0.95, 0.9, 0.8, 0.7, 0.6, 0.5, *[0.1] * 7])
    rows = clinical(labels, two(second), ["a", "b"], resamples=30)["sensitivity_at"]["b"]
    assert [row["specificity"] for row in rows] == SPECIFICITIES.tolist() == [0.8, 0.9, 0.95]
    assert [row["sensitivity"]["value"] for row in rows] == pytest.approx([1, 2 / 3, 1 / 3])
    assert [row["threshold"] for row in rows] == [0.6, 0.8, 0.95]


def test_each_resample_has_a_threshold_of_its_own():
    own, scores = np.array([1, 0, 1, 0], dtype=bool), np.array([0.9, 0.8, 0.7, 0.1])
    images = sweep(own, scores, np.arange(4))
    counts = count(images, np.array([[1.0, 0, 2, 2], [1, 1, 2, 0], [0, 2, 2, 0], [2, 0, 2, 0]]))
    found = sensitivity_at(counts, np.array([0.9]))[:, 0]
    assert found[:3].tolist() == [1, 1 / 3, 0] and np.isnan(found[3])  # in the last there is no other


@given(marked(least=2))
def test_the_band_lies_along_the_curve(data):
    own, scores, _ = data
    images, counts = swept(own, scores)
    if own.all() or not own.any():
        return
    points = roc_points(images, counts)
    corners = np.array(points["false_positive_rate"])
    upper = [max(y for x, y in zip(corners, points["sensitivity"], strict=True) if x == rate) for rate in corners]
    found = sensitivity_along(type(counts)(*one(counts)), corners)[0]
    assert found == pytest.approx(upper, abs=1e-6)


# ---------------------------------------------------------------- decision curve


def test_the_decision_curve_by_hand():
    # four images, one positive, called with .9; others .6, .3, .05
    labels = np.array([1, 0, 0, 0])
    curve = clinical(labels, two([0.9, 0.6, 0.3, 0.05]), ["a", "b"], resamples=20)["decision_curve"]
    at = {round(threshold, 2): place for place, threshold in enumerate(curve["threshold"])}
    assert curve["model"][at[0.5]] == pytest.approx(1 / 4 - 1 / 4 * 1, **EXACT)
    assert curve["model"][at[0.2]] == pytest.approx(1 / 4 - 2 / 4 * 0.25, **EXACT)
    assert curve["model"][at[0.75]] == pytest.approx(1 / 4, **EXACT)
    assert curve["model"][at[0.95]] == 0  # nobody is treated
    assert curve["all"][at[0.2]] == pytest.approx(1 / 4 - 3 / 4 * 0.25, **EXACT)
    assert curve["all"][at[0.25]] == pytest.approx(0, abs=1e-12)  # at the prevalence
    assert curve["none"] == 0
    assert curve["model"][at[0.9]] == pytest.approx(1 / 4, **EXACT)  # who scores the threshold is treated


@given(marked())
def test_net_benefit_counts_the_treated(data):
    own, scores, weights = data
    if not weights.sum():
        return
    images = sweep(own, scores, np.arange(len(own)))
    found = net_benefit(images, count(images, weights[None]), DECISIONS)[0]
    for threshold, value in zip(DECISIONS[::7], found[::7], strict=True):
        treated = scores >= threshold
        needed, needless = weights[treated & own].sum(), weights[treated & ~own].sum()
        wanted = (needed - needless * threshold / (1 - threshold)) / weights.sum()
        assert value == pytest.approx(wanted, **EXACT)


# ---------------------------------------------------------------- the threshold


def test_youdens_threshold_by_hand():
    labels, second = np.array([0, 0, 1, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.9])
    found = choose_threshold(labels, second)  # .6: 2/3 found, none wrongly; .3: all found, 1/3 wrongly: both .667
    assert found == Threshold(0.6, "youden", "validation")
    assert choose_threshold(labels, second, rule="sensitivity>=0.67").value == 0.3
    assert choose_threshold(labels, second, rule="sensitivity>=.66").value == 0.6
    assert choose_threshold(labels, second, rule="specificity>=1").value == 0.6
    assert choose_threshold(labels, second, rule="specificity>=0.6", chosen_on="fold").value == 0.3
    assert choose_threshold(labels == 1, second, rule="sensitivity>=1", chosen_on="fold").chosen_on == "fold"


@given(marked(least=2), st.sampled_from(["youden", "sensitivity>=0.8", "specificity>=0.8", "specificity>=0.0"]))
def test_a_chosen_threshold_is_the_best_by_its_rule(data, rule):
    from sklearn.metrics import roc_curve

    own, scores, _ = data
    if own.all() or not own.any():
        with pytest.raises(CustomCNNError, match=r"^A threshold is chosen on images of both classes\. Received: "):
            choose_threshold(own, scores, rule=rule)
        return
    rates, sensitivities, thresholds = (values[1:] for values in roc_curve(own, scores, drop_intermediate=False))
    if rule == "youden":
        merit = sensitivities - rates
    elif rule.startswith("sensitivity"):
        merit = np.where(sensitivities >= 0.8 - 1e-9, -rates, -2)
    else:
        merit = np.where(rates <= 1 - float(rule[-3:]) + 1e-9, sensitivities, 0)
        if not merit.max():
            with pytest.raises(CustomCNNError, match=r"^A threshold finds an image .* Choose another rule\.$"):
                choose_threshold(own, scores, rule=rule)
            return
    best = thresholds[merit >= merit.max() - 1e-9].max()
    assert choose_threshold(own, scores, rule=rule).value == best


@pytest.mark.parametrize("rule", ["", "Youden", "sensitivity>=2", "sensitivity>0.5", "specificity>=-1", "x\n"])
def test_rules_that_are_none(rule):
    assert refused(choose_threshold, np.array([0, 1]), np.array([0.1, 0.2]), rule=rule) == (
        f"A threshold rule is youden, sensitivity>=X or specificity>=X. Received: {rule!r}. Give one, X in 0..1."
    )


@pytest.mark.parametrize(
    ("labels", "scores"), [([0, 1, 2], [0.1] * 3), ([0, 1], [0.1]), ([[0, 1]], [[0.1, 0.2]]), ([0, 1], [0.1, math.nan])]
)
def test_thresholds_need_labels_and_scores_that_fit(labels, scores):
    with pytest.raises(ValueError):
        choose_threshold(np.array(labels), np.array(scores))


@pytest.mark.parametrize(("positive", "value"), [("b", 0.3), ("a", 0.6)])
def test_scores_at_a_threshold_without_groups_have_wilsons_intervals(positive, value):
    proportion = pytest.importorskip("statsmodels.stats.proportion").proportion_confint
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 90)
    probabilities = two(rng.random(90))
    own = int(positive == "b")
    found = clinical(labels, probabilities, ["a", "b"], positive=positive, threshold=value, resamples=40)["threshold"]
    called = probabilities[:, own] >= value
    is_own = labels == own
    right = called == is_own
    matrix = [[int(((labels == row) & (np.where(called, own, 1 - own) == c)).sum()) for c in (0, 1)] for row in (0, 1)]
    assert found["confusion_matrix"] == matrix
    for key, hits in (("sensitivity", right[is_own]), ("specificity", right[~is_own]), ("accuracy", right)):
        low, high = proportion(hits.sum(), len(hits), method="wilson")
        wanted = {"value": hits.mean(), "low": low, "high": high}
        assert found[key] == pytest.approx(wanted, abs=1e-9)
    assert found["balanced_accuracy"]["value"] == pytest.approx(float(scores(np.array(matrix))["balanced_accuracy"]))
    assert (found["value"], found["rule"], found["chosen_on"]) == (value, "given", "validation")


def test_scores_at_a_threshold_are_resampled_by_group():
    labels, probabilities, groups = made(classes=2)
    options = {"groups": groups, "threshold": Threshold(0.45, "youden"), "resamples": 60, "seed": 4}
    found = clinical(labels, probabilities, ["a", "b"], **options)["threshold"]
    units = bootstrap.numbered(groups, len(groups))
    drawn = np.concatenate([*bootstrap.resampled(20, 60, 4)])
    predicted = probabilities[:, 1] >= 0.45
    sample = []
    for weights in drawn:
        images = np.repeat(np.arange(len(labels)), weights[units].astype(int))
        sample.append(predicted[images][labels[images] == 1].mean())
    wanted = np.quantile(sample, [0.025, 0.975])
    assert [found["sensitivity"]["low"], found["sensitivity"]["high"]] == pytest.approx(wanted, **EXACT)
    assert found["rule"] == "youden"


def test_a_threshold_belongs_to_two_classes():
    labels, probabilities, _ = made()
    assert refused(clinical, labels, probabilities, ["a", "b", "c"], threshold=0.5, resamples=2) == (
        "A threshold belongs to one of two classes. Received: one for the classes 'a', 'b', 'c'. Leave it out."
    )
    with pytest.raises(ValueError, match="finite"):
        clinical(np.array([0, 1]), two([0.1, 0.9]), ["a", "b"], threshold=math.nan, resamples=2)


# ---------------------------------------------------------------- subjects


def test_subjects_by_hand():
    groups = ["P1", "P1", "P1", "P2", "P2", "H1", "H1", "M", "M"]
    labels = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1])
    second = [0.9, 0.8, 0.4, 0.6, 0.2, 0.45, 0.1, 0.5, 0.5]
    found = clinical(labels, two(second), ["hem", "all"], groups=groups, resamples=50)["subjects"]
    assert found["count"] == 3 and found["mixed"] == 1
    by_name = {row["group"]: row for row in found["rows"]}
    assert list(by_name) == ["H1", "P1", "P2"]
    assert by_name["P1"]["share"] == by_name["P1"]["accuracy"] == pytest.approx(2 / 3)
    assert by_name["P1"]["vote"] == pytest.approx({"hem": 0.3, "all": 0.7}) and by_name["P1"]["predicted"] == "all"
    assert by_name["P2"]["vote"]["all"] == pytest.approx(0.4) and by_name["P2"]["predicted"] == "hem"
    assert by_name["P2"]["label"] == "all" and by_name["P2"]["images"] == 2
    assert by_name["H1"]["share"] == 0 and by_name["H1"]["accuracy"] == 1
    assert found["confusion_matrix"] == [[1, 0], [1, 1]]
    assert found["accuracy"] == pytest.approx(bootstrap.wilson(2, 3))
    assert found["roc_auc"]["value"] == 1  # .275 below .4 and .7
    turned = clinical(labels, two(second), ["hem", "all"], groups=groups, positive="hem", resamples=50)["subjects"]
    assert [row["share"] for row in turned["rows"]] == pytest.approx([1, 1 / 3, 1 / 2])
    assert turned["roc_auc"]["value"] == 1


def test_subjects_of_three_classes_have_the_share_of_their_own():
    from sklearn.metrics import roc_auc_score

    labels, probabilities, groups = made()
    found = clinical(labels, probabilities, ["a", "b", "c"], groups=groups, resamples=50)["subjects"]
    assert found["count"] == 20 and found["mixed"] == 0
    names = [row["group"] for row in found["rows"]]
    votes = np.array([[row["vote"][name] for name in "abc"] for row in found["rows"]])
    truth = np.array(["abc".index(row["label"]) for row in found["rows"]])
    for name, vote, row in zip(names, votes, found["rows"], strict=True):
        inside = np.array(groups) == name
        assert vote == pytest.approx(probabilities[inside].mean(axis=0), **EXACT)
        assert row["share"] == row["accuracy"] == (probabilities[inside].argmax(axis=1) == labels[inside]).mean()
    wanted = np.mean([roc_auc_score(truth == index, votes[:, index]) for index in range(3)])
    assert found["roc_auc"]["value"] == pytest.approx(wanted, **EXACT)
    assert np.sum(found["confusion_matrix"]) == 20
    assert found["accuracy"]["value"] == (votes.argmax(axis=1) == truth).mean()


def test_no_groups_no_subjects_and_photographs_are_none():
    labels, probabilities = np.array([0, 1, 0, 1]), two([0.2, 0.6, 0.4, 0.7])
    assert clinical(labels, probabilities, ["a", "b"], resamples=5)["subjects"] is None
    found = clinical(labels, probabilities, ["a", "b"], groups=["x", "x", "y", "y"], resamples=5)
    assert found["subjects"] == {
        "count": 0,
        "mixed": 2,
        "accuracy": UNDEFINED,
        "confusion_matrix": [[0, 0], [0, 0]],
        "roc_auc": UNDEFINED,
        "rows": [],
    }
    assert "left out: 2 groups of several classes (photographs are no subjects)" in format_clinical(found)


# ---------------------------------------------------------------- strata


def test_strata_are_scored_alone_with_the_same_bootstrap():
    labels, probabilities, groups = made()
    site = [("north" if group < "s10" else "" if group < "s19" else "south") for group in groups]
    found = clinical(labels, probabilities, ["a", "b", "c"], groups=groups, strata={"site": site}, resamples=40, seed=2)
    rows = found["strata"]["site"]
    assert [(row["value"], row["images"], row["groups"]) for row in rows] == [
        (NO_VALUE, 135, 9),
        ("north", 150, 10),
        ("south", 15, 1),
    ]
    inside = np.array(site) == "north"
    own_groups = [group for group in groups if group < "s10"]
    alone = evaluate_predictions(
        labels[inside], probabilities[inside], ["a", "b", "c"], groups=own_groups, resamples=40, seed=2
    )
    for key in ("accuracy", "balanced_accuracy", "roc_auc"):
        assert rows[1][key] == alone[key]
    assert rows[1]["recall"] == {name: alone["per_class"][name]["recall"] for name in "abc"}
    assert rows[1]["interval"] == "percentile bootstrap over groups"
    assert rows[2]["interval"] == "none (one group only)"
    assert rows[2]["accuracy"]["low"] is None and rows[2]["accuracy"]["value"] is not None
    (label,) = set(labels[np.array(site) == "south"])
    assert [rows[2]["recall"][name] == UNDEFINED for name in "abc"] == [index != label for index in range(3)]


def test_strata_without_groups_have_wilsons_intervals():
    labels, probabilities = np.array([0, 0, 1, 1, 1]), two([0.1, 0.9, 0.8, 0.7, 0.2])
    strata = {"fold": ["1", "1", "1", "1", "2"]}
    first, second = clinical(labels, probabilities, ["a", "b"], strata=strata, resamples=5)["strata"]["fold"]
    assert first["accuracy"] == bootstrap.wilson(3, 4) and first["groups"] is None
    assert first["recall"] == {"a": bootstrap.wilson(1, 2), "b": bootstrap.wilson(2, 2)}
    assert second["accuracy"] == bootstrap.wilson(0, 1) and second["recall"]["a"] == UNDEFINED
    assert first["interval"] == "percentile bootstrap over images"


def test_a_stratum_has_a_value_for_each_image():
    with pytest.raises(ValueError, match=r"A stratum has a value for each of 2 images\. Received: 1 of 'site'"):
        clinical(np.array([0, 1]), two([0.1, 0.9]), ["a", "b"], strata={"site": ["x"]}, resamples=2)


# ---------------------------------------------------------------- the whole


@settings(max_examples=60)
@given(predictions(), st.randoms(use_true_random=False))
def test_the_order_tells_nothing_and_intervals_hold_their_estimate(data, random):
    labels, probabilities, groups, site = data
    names = ["a", "b", "c"][: probabilities.shape[1]]
    threshold = 0.5 if len(names) == 2 else None
    common = {"threshold": threshold, "resamples": 20, "seed": 1}
    found = clinical(labels, probabilities, names, groups=groups, strata={"site": site}, **common)
    json.dumps(found, allow_nan=False)
    assert max(map(len, format_clinical(found).split("\n"))) < 100
    for row in every_interval(found):
        if row["low"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
    order = random.sample(range(len(labels)), len(labels))
    again = clinical(
        labels[order],
        probabilities[order],
        names,
        groups=None if groups is None else [groups[i] for i in order],
        strata={"site": [site[i] for i in order]},
        **common,
    )
    assert json.dumps(again) == json.dumps(found)


def test_one_class_missing():
    found = clinical(np.array([0, 0]), two([0.2, 0.7]), ["a", "b"], threshold=0.5, resamples=10)
    roc, curve = found["curves"]["b"]["roc"], found["curves"]["b"]["precision_recall"]
    assert roc["area"] == curve["area"] == UNDEFINED and roc["band"] is None and roc["sensitivity"] == []
    assert curve["recall"] == [] and curve["prevalence"] == 0
    assert all(row["sensitivity"] == UNDEFINED and row["threshold"] is None for row in found["sensitivity_at"]["b"])
    assert found["threshold"]["sensitivity"] == UNDEFINED and found["threshold"]["specificity"]["value"] == 0.5
    assert found["decision_curve"]["model"][0] == pytest.approx(-1 / 99)
    json.dumps(found, allow_nan=False)
    assert "undefined  -" in format_clinical(found)
    only = clinical(np.array([1, 1]), two([0.2, 0.7]), ["a", "b"], resamples=10)["curves"]["b"]
    assert only["precision_recall"]["area"]["value"] == 1 and only["roc"]["area"] == UNDEFINED


def test_one_group_has_no_intervals():
    labels, probabilities = np.array([0, 1, 1]), two([0.2, 0.7, 0.4])
    found = clinical(labels, probabilities, ["a", "b"], groups=["x"] * 3, threshold=0.5)
    assert found["interval"]["method"] == found["interval"]["proportions"] == "none (one group only)"
    assert found["interval"]["resamples"] == 0
    assert {row["low"] for row in every_interval(found)} == {None}
    assert found["curves"]["b"]["roc"]["band"] is None and found["decision_curve"]["model_low"] is None
    assert "intervals: none (one group only)" in format_clinical(found)


def test_resamples_without_a_class_are_counted():
    labels, probabilities = np.array([0] * 9 + [1]), two([0.1] * 9 + [0.9])
    area = clinical(labels, probabilities, ["a", "b"], resamples=200)["curves"]["b"]["roc"]["area"]
    assert 30 < area["undefined_resamples"] < 110  # .9 ** 10 of 200: 70
    assert area["low"] == area["high"] == 1


def test_chunks_change_nothing(monkeypatch):
    labels, probabilities, groups = made(classes=2)
    options = {"groups": groups, "threshold": 0.4, "strata": {"x": groups}, "resamples": 30}
    first = clinical(labels, probabilities, ["a", "b"], **options)
    monkeypatch.setattr(bootstrap, "CHUNK", 1000)  # 3 resamples at once
    assert clinical(labels, probabilities, ["a", "b"], **options) == first
    assert clinical(labels, probabilities, ["a", "b"], **options, seed=1) != first


@pytest.mark.parametrize("change", [{"resamples": 0}, {"level": 1.0}, {"labels": np.array([0, 2])}, {"groups": ["x"]}])
def test_arrays_that_do_not_belong_together(change):
    good = {"labels": np.array([0, 1]), "probabilities": np.eye(2), "classes": ["a", "b"], "resamples": 2}
    with pytest.raises(ValueError):
        clinical(**(good | change))


def test_a_positive_class_that_is_none():
    with pytest.raises(CustomCNNError, match="A positive class is one of two classes"):
        clinical(np.array([0, 1]), np.eye(2), ["a", "b"], positive="c", resamples=2)


# ---------------------------------------------------------------- the text


TEXT = """\
clinical reading                                    value  95 % interval
positive class all, 0.667 of the images
  ROC area (guessing: .5)                           0.750  0.100 to 0.900
  precision-recall area (guessing: 0.667)           0.877  0.100 to 0.900
  sensitivity (recall of all) at a specificity (recall of hem) of
    0.80, from 0.600                                0.500  0.100 to 0.900
    0.90, from 0.600                                0.500  0.100 to 0.900
    0.95, from 0.600                                0.500  0.100 to 0.900
intervals: percentile bootstrap over groups, 300 resamples, seed 0
thresholds at a fixed specificity are chosen on these images, in every resample anew

all from a probability of 0.5000 on (youden, chosen on validation)
  sensitivity (recall of all)                       0.667  0.100 to 0.900
  specificity (recall of hem)                       0.667  0.100 to 0.900
  accuracy                                          0.667  0.100 to 0.900
  balanced accuracy                                 0.667  0.100 to 0.900

decision curve, positive class all: better than treating all or none at probabilities of
  0.11 to 0.20, 0.51 to 0.90

subjects: 3 groups with images of one class
  left out: 1 group of several classes (photographs are no subjects)
  accuracy by soft vote                             0.667  0.100 to 0.900
  ROC area of the mean probability                  1.000  0.100 to 0.900
  group  class  images  share all  soft vote
  H1     hem         2      0.000  hem 0.725
  P1     all         3      0.667  all 0.700
  P2     all         2      0.500  hem 0.600  wrong

by site
  value  images  groups  accuracy               balanced accuracy
  n           7       3  0.714  0.100 to 0.900  0.800  0.100 to 0.900
  s           2       1  0.500  one group       0.500  one group"""


def test_the_text_by_eye():
    groups = ["P1", "P1", "P1", "P2", "P2", "H1", "H1", "M", "M"]
    labels = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1])
    second = [0.9, 0.8, 0.4, 0.6, 0.2, 0.45, 0.1, 0.5, 0.5]
    found = clinical(
        labels,
        two(second),
        ["hem", "all"],
        groups=groups,
        threshold=Threshold(0.5, "youden"),
        strata={"site": ["n"] * 7 + ["s"] * 2},
        resamples=300,
    )
    for row in every_interval(found):  # the intervals are not what this is about
        row |= {"low": None if row["low"] is None else 0.1, "high": None if row["low"] is None else 0.9}
        row.pop("undefined_resamples", None)
    assert format_clinical(found) == TEXT


@settings(max_examples=40)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=2, unique=True), st.text(max_size=60))
def test_long_names_do_not_widen_the_text(names, other):
    labels, probabilities, groups = made(classes=2, images=60)
    named = [f"{group}{other}{names[0]}" for group in groups]
    found = clinical(
        labels,
        probabilities,
        names,
        groups=named,
        threshold=Threshold(0.5, f"x{other}", names[1]),
        strata={f"{other}{names[1]}": [f"{group}{names[1]}" if group < "s10" else names[0] for group in groups]},
        resamples=2,
    )
    for row in (found["subjects"]["rows"][0], found["strata"][f"{other}{names[1]}"][0]):
        row |= {"images": 1_000_000}
    found["strata"][f"{other}{names[1]}"][0]["groups"] = 100_000
    found["subjects"]["mixed"] = 100_000
    text = format_clinical(found)
    assert max(map(len, text.split("\n"))) < 100
    assert len(text.split("\n")) == len(text.splitlines())  # no name breaks a line


def test_of_many_subjects_the_wrong_ones_are_shown_first():
    labels, probabilities, groups = made(classes=2, images=400, groups=100)
    found = clinical(labels, probabilities, ["a", "b"], groups=groups, strata={"group": groups}, resamples=2)
    wrong = sum(row["label"] != row["predicted"] for row in found["subjects"]["rows"])
    assert 0 < wrong < 30
    lines = format_clinical(found).splitlines()
    first = next(place for place, line in enumerate(lines) if line.endswith("soft vote")) + 1
    assert [line.endswith("wrong") for line in lines[first : first + 31]] == [True] * wrong + [False] * (31 - wrong)
    assert lines[first + 30] == "  ... and 70 subjects more" and lines[-1] == "  ... and 70 values more"


# ---------------------------------------------------------------- coverage


NORMAL = NormalDist()
SIMULATIONS = 1000  # a share of .95 is known to .007 then


def normal_scores(rng, images, each=1):
    """Return labels, probabilities and groups: normal scores, one apart; those of a group share a tenth of variance."""
    labels = np.repeat(rng.integers(0, 2, images // each), each)
    shared = np.repeat(rng.normal(size=images // each), each)
    score = labels + 0.1**0.5 * shared + 0.9**0.5 * rng.normal(size=images)
    return labels, two(1 / (1 + np.exp(-score))), [f"{index // each:04d}" for index in range(images)]


def average_precision_of_normal_scores():
    """Return the average precision of endless images: the mean precision at the scores of the class."""
    scores = np.linspace(-9, 10, 20_001)
    density = np.exp(-((scores - 1) ** 2) / 2) / math.sqrt(2 * math.pi)
    true = np.array([1 - NORMAL.cdf(score - 1) for score in scores])
    false = np.array([1 - NORMAL.cdf(score) for score in scores])
    precision = np.divide(true, true + false, out=np.ones_like(true), where=true > 0)
    return float(np.trapezoid(density * precision, scores))


TRUTH = {
    "roc": NORMAL.cdf(1 / math.sqrt(2)),
    "precision_recall": average_precision_of_normal_scores(),
    "sensitivity at .8": 1 - NORMAL.cdf(NORMAL.inv_cdf(0.8) - 1),
    "sensitivity at .9": 1 - NORMAL.cdf(NORMAL.inv_cdf(0.9) - 1),
    "sensitivity": NORMAL.cdf(0.5),
    "specificity": NORMAL.cdf(0.5),
    "balanced accuracy": NORMAL.cdf(0.5),
    "net benefit": (NORMAL.cdf(1) - NORMAL.cdf(0)) / 2,
}


def readings(found):
    """Return the intervals of a result that `TRUTH` knows."""
    curve, at, decision = found["curves"]["b"], found["sensitivity_at"]["b"], found["decision_curve"]
    half = decision["threshold"].index(0.5)
    return {
        "roc": curve["roc"]["area"],
        "precision_recall": curve["precision_recall"]["area"],
        "sensitivity at .8": at[0]["sensitivity"],
        "sensitivity at .9": at[1]["sensitivity"],
        "sensitivity": found["threshold"]["sensitivity"],
        "specificity": found["threshold"]["specificity"],
        "balanced accuracy": found["threshold"]["balanced_accuracy"],
        "net benefit": {"low": decision["model_low"][half], "high": decision["model_high"][half]},
    }


@pytest.mark.statistics
@pytest.mark.parametrize("each", [1, 3])
def test_coverage(each):
    """300 groups of 3 images each, or 800 images of which no groups are known: percentiles need that many."""
    rng = np.random.default_rng(11)
    covered = dict.fromkeys(TRUTH, 0)
    value = 1 / (1 + math.exp(-0.5))
    for _ in range(SIMULATIONS):
        labels, probabilities, groups = normal_scores(rng, 800 if each == 1 else 900, each)
        known = {"groups": groups if each > 1 else None, "threshold": value, "resamples": 400}
        for key, row in readings(clinical(labels, probabilities, ["a", "b"], **known)).items():
            covered[key] += row["low"] <= TRUTH[key] <= row["high"]
    shares = {key: number / SIMULATIONS for key, number in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.statistics
def test_coverage_by_subject():
    """120 subjects of 5 images: accuracy by Wilson, the area by a bootstrap, both over subjects."""
    rng = np.random.default_rng(5)
    # The mean of five logistic scores has no simple law: the truth comes from many subjects.
    labels, probabilities, _ = normal_scores(rng, 500_000, 5)
    pooled = probabilities[:, 1].reshape(-1, 5).mean(axis=1)
    truth = labels[::5]
    right = float(((pooled > 0.5) == truth).mean())
    area = float(roc_auc(truth, two(pooled)))
    covered = {"accuracy": 0, "roc_auc": 0}
    for _ in range(SIMULATIONS):
        labels, probabilities, groups = normal_scores(rng, 600, 5)
        found = clinical(labels, probabilities, ["a", "b"], groups=groups, resamples=400)["subjects"]
        for key, value in (("accuracy", right), ("roc_auc", area)):
            covered[key] += found[key]["low"] <= value <= found[key]["high"]
    shares = {key: number / SIMULATIONS for key, number in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares
