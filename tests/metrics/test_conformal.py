"""Sets of classes: against MAPIE, by hand, and by simulation: they hold the true class as often as is promised."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.errors import CustomCNNError
from customcnn.metrics.conformal import METHODS, Conformal, conformity, fit_conformal, fit_sets, prediction_sets


def drawn(count: int, classes: int = 3, seed: int = 0):
    """Labels drawn from probabilities."""
    rng = np.random.default_rng(seed)
    said = rng.dirichlet(np.full(classes, 0.5), count)
    return np.array([rng.choice(classes, p=row) for row in said]), said


# ---------------------------------------------------------------- without groups


def test_by_hand():
    # what is said of the true classes: .9 .8 .7 .6; four images: the coverage .8 asks for the fourth of them
    said = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])
    assert fit_conformal(labels, said, 0.8) == pytest.approx(0.4)
    assert fit_conformal(labels, said, 0.6) == pytest.approx(0.3)
    assert fit_conformal(labels, said, 0.81) == 1.0, "four images cannot promise more"
    new = np.array([[0.95, 0.05], [0.61, 0.39], [0.5, 0.5]])
    assert prediction_sets(new, 0.4).tolist() == [[True, False], [True, False], [False, False]]
    assert prediction_sets(new, 0.6).tolist() == [[True, False], [True, False], [True, True]]
    assert prediction_sets(new, 1.0).all()


def test_adaptive_sets_by_hand():
    said = np.array([[0.2, 0.5, 0.3]])
    np.testing.assert_allclose(conformity(said, "aps"), [[1.0, 0.5, 0.8]])
    found = [prediction_sets(said, quantile, "aps")[0].tolist() for quantile in (0.1, 0.5, 0.51, 0.8, 0.9)]
    two, three = [False, True, True], [True, True, True]
    assert found == [[False, True, False], [False, True, False], two, two, three]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [50, 333])
def test_the_sets_are_those_of_mapie(method, coverage, count):
    classification = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Fixed(ClassifierMixin, BaseEstimator):
        """Gives the probabilities that it is given."""

        classes_ = np.arange(3)

        def fit(self, x, y):
            return self

        def __sklearn_is_fitted__(self):
            return True

        def predict_proba(self, x):
            return np.asarray(x)

        def predict(self, x):
            return np.asarray(x).argmax(axis=1)

    class NoChance(np.random.RandomState):
        """Takes the random part out of MAPIE's adaptive sets."""

        def uniform(self, *args, size=None, **kwargs):
            return np.zeros(size)

    labels, said = drawn(count, seed=count)
    _, new = drawn(400, seed=1)
    theirs = classification.SplitConformalClassifier(
        Fixed(), confidence_level=coverage, conformity_score=method, random_state=NoChance()
    ).conformalize(said, labels)
    _, sets = theirs.predict_set(new, conformity_score_params={"include_last_label": True} if method == "aps" else None)
    found = prediction_sets(new, fit_conformal(labels, said, coverage, method), method)
    np.testing.assert_array_equal(found, sets[:, :, 0])
    assert 0 < found.mean() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_coverage_by_simulation(method):
    """Over many fits the sets hold the true class of a new image as often as promised, and little more often."""
    hits = []
    for seed in range(300):
        labels, said = drawn(100, seed=seed)
        truth, new = drawn(100, seed=10_000 + seed)
        inside = prediction_sets(new, fit_conformal(labels, said, 0.9, method), method)
        hits.append(inside[np.arange(100), truth].mean())
    # aps without its random part holds more than it promises
    assert 0.89 < np.mean(hits) < (0.92 if method == "lac" else 1.0)


@given(st.integers(1, 40), st.integers(0, 999), st.sampled_from(METHODS), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_properties(count, seed, method, one, other):
    labels, said = drawn(count, seed=seed)
    groups = [f"g{number % 7}" for number in range(count)]
    low, high = sorted((one, other))
    for names in (None, groups):
        small, large = (fit_conformal(labels, said, coverage, method, names) for coverage in (low, high))
        assert 0 <= small <= large <= 1
        assert (prediction_sets(said, small, method) <= prediction_sets(said, large, method)).all()
        order = np.random.default_rng(seed).permutation(count)
        turned = names and [names[i] for i in order]
        assert fit_conformal(labels[order], said[order], high, method, turned) == large
    assert prediction_sets(said, 1.0, method).all()
    if method == "aps":
        assert prediction_sets(said, small, method)[np.arange(count), said.argmax(axis=1)].all()


# ---------------------------------------------------------------- with groups


def in_groups(groups: int, seed: int):
    """Groups of very different sizes; in some of them the network is mostly wrong."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 30, groups)
    units = np.repeat(np.arange(groups), sizes)
    shift = rng.normal(0.8, 1.5, groups)
    logits = rng.normal(shift[units], 0.5)
    said = 1 / (1 + np.exp(-logits))
    labels = np.zeros(len(units), int)
    return labels, np.stack([said, 1 - said], axis=1), [f"g{unit}" for unit in units]


def test_by_hand_with_groups():
    # one group of three images with the scores .1 .2 .3, and two of one image each with .4 and .5
    said = 1 - np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    said = np.stack([said, 1 - said], axis=1)
    labels, groups = np.zeros(5, int), ["a", "a", "a", "b", "c"]
    # each group weighs 1/4: .1 .2 .3 come to 1/12, 2/12, 3/12, then .4 to 2/4 and .5 to 3/4
    assert fit_conformal(labels, said, 0.16, groups=groups) == pytest.approx(0.2)
    assert fit_conformal(labels, said, 0.25, groups=groups) == pytest.approx(0.3)
    assert fit_conformal(labels, said, 0.5, groups=groups) == pytest.approx(0.4)
    assert fit_conformal(labels, said, 0.75, groups=groups) == pytest.approx(0.5)
    assert fit_conformal(labels, said, 0.76, groups=groups) == 1.0


def test_a_group_for_every_image_is_no_group():
    labels, said = drawn(60)
    names = [str(number) for number in range(60)]
    assert fit_conformal(labels, said, 0.9, groups=names) == fit_conformal(labels, said, 0.9)


def test_coverage_of_new_groups_by_simulation():
    """By group the promise holds for an image of a new group; by image it does not: groups differ from each other."""
    hits: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(300):
        labels, said, groups = in_groups(20, seed)
        truth, new, others = in_groups(40, 10_000 + seed)
        for by_group, covered in hits.items():
            inside = prediction_sets(new, fit_conformal(labels, said, 0.9, groups=groups if by_group else None))
            held = inside[np.arange(len(truth)), truth]
            covered.append(np.mean([held[np.array(others) == name].mean() for name in set(others)]))
    # at most 2 / (groups + 1) more than promised
    assert 0.89 < np.mean(hits[True]) < 0.9 + 2 / 21 + 0.01
    assert np.mean(hits[False]) < np.mean(hits[True])


@pytest.mark.parametrize(("count", "coverage", "unit"), [(8, 0.9, "image"), (9, 0.9, "group"), (9, 0.95, "image")])
def test_too_few_groups_are_fitted_by_image(count, coverage, unit):
    labels, said, groups = in_groups(count, 1)
    found = fit_sets(labels, said, coverage, "lac", groups)
    assert (found.unit, found.groups, found.images) == (unit, count, len(labels))
    assert found.quantile == fit_conformal(labels, said, coverage, groups=groups if unit == "group" else None) < 1
    assert fit_sets(labels, said, coverage).groups is None


def test_it_comes_back_from_json():
    labels, said = drawn(50)
    found = fit_sets(labels, said, 0.9, "aps")
    again = Conformal.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False)))
    assert again == found
    np.testing.assert_array_equal(again.sets(said), prediction_sets(said, found.quantile, "aps"))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90.0, float("nan")])
def test_a_coverage_is_a_share(coverage):
    with pytest.raises(CustomCNNError, match="between 0 and 1") as caught:
        fit_sets(*drawn(10), coverage)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_fitted():
    labels, said = drawn(10)
    with pytest.raises(CustomCNNError, match="lac or aps"):
        fit_conformal(labels, said, 0.9, "raps")
    with pytest.raises(CustomCNNError, match="at least one image"):
        fit_conformal(labels[:0], said[:0], 0.9)
    with pytest.raises(ValueError, match="group name"):
        fit_conformal(labels, said, 0.9, groups=["a"] * 9 + [""])
