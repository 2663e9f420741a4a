"""Features: what the head decides from, their pictures, and the numbers against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.errors import CustomCNNError
from customcnn.models import build_model
from customcnn.plots.embedding import plot_embeddings
from customcnn.visualize.embedding import embed, features, pixel_features, separation


def clouds(*, by_class: float, by_group: float, seed: int = 0, each: int = 12):
    """Return values, classes and groups: four groups in each of two classes, so far apart, with a spread of 1."""
    rng = np.random.default_rng(seed)
    classes, groups = np.arange(8) // 4, np.arange(8)
    centers = rng.normal(size=(8, 6)) * by_group
    centers[:, 0] += by_class * classes
    values = np.concatenate([center + rng.normal(size=(each, 6)) for center in centers])
    return values, [f"c{n}" for n in classes.repeat(each)], [f"g{n}" for n in groups.repeat(each)]


# ---------------------------------------------------------------- numbers


def test_silhouettes_against_scikit_learn():
    from sklearn.metrics import silhouette_samples, silhouette_score

    values, labels, groups = clouds(by_class=3, by_group=1)
    groups[0] = "g7"  # a group in both classes
    found = separation(values, labels, groups)
    assert found.silhouette_class == pytest.approx(silhouette_score(values, labels), abs=1e-6)
    by_label = [
        silhouette_samples(values[rows], np.array(groups)[rows])
        for rows in (np.array(labels) == "c0", np.array(labels) == "c1")
    ]
    assert found.silhouette_group == pytest.approx(np.concatenate(by_label).mean(), abs=1e-6)
    assert (found.images, found.groups) == (96, 8)


def test_neighbours_against_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    values, labels, groups = clouds(by_class=2, by_group=1)
    labels, groups = np.array(labels), np.array(groups)
    found = separation(values, labels, groups)
    by_class, by_group = [], []
    for row in range(len(values)):
        others = np.flatnonzero(groups != groups[row])
        near = NearestNeighbors(n_neighbors=5).fit(values[others]).kneighbors(values[row][None])[1][0]
        by_class.append((labels[others][near] == labels[row]).mean())
        others = np.flatnonzero((labels == labels[row]) & (np.arange(len(values)) != row))
        near = NearestNeighbors(n_neighbors=5).fit(values[others]).kneighbors(values[row][None])[1][0]
        by_group.append((groups[others][near] == groups[row]).mean())
    assert found.class_agreement == pytest.approx(np.mean(by_class), abs=1e-9)
    assert found.group_agreement == pytest.approx(np.mean(by_group), abs=1e-9)
    assert found.class_chance == pytest.approx(36 / 84)  # three other groups of its class, four of the other
    assert found.group_chance == pytest.approx(11 / 47)


def test_by_hand():
    # One dimension: a pair of each group lies together, and the classes lie left and right.
    values = np.array([[0.0], [0.1], [1.0], [1.1], [5.0], [5.1], [6.0], [6.1]])
    labels = ["a"] * 4 + ["b"] * 4
    groups = ["1", "1", "2", "2", "3", "3", "4", "4"]
    found = separation(values, labels, groups)
    assert found.group_agreement == 1 and found.group_chance == pytest.approx(1 / 3)
    assert found.class_agreement == 1 and found.class_chance == pytest.approx(2 / 6)
    assert found.group_excess == 1 and found.class_excess == 1
    swapped = separation(values, ["a", "a", "b", "b", "a", "a", "b", "b"], groups)
    assert swapped.class_agreement == 0


def test_without_groups_everyone_is_a_neighbour():
    values = np.array([[0.0], [1.0], [2.5], [3.5]])
    found = separation(values, ["a", "a", "b", "b"])
    assert (found.groups, found.group_agreement, found.silhouette_group) == (0, None, None)
    assert found.class_agreement == 1 and found.class_chance == pytest.approx(1 / 3)
    assert "cannot be said" in found.verdict()


@pytest.mark.parametrize(
    ("by_class", "by_group", "words"),
    [
        (0.0, 6.0, "tells groups apart better than classes"),
        (30.0, 1.0, "tells classes apart better than groups, but the groups are to be seen"),
        (30.0, 0.0, "hardly to be seen"),
        (0.0, 0.0, "hardly to be seen"),
    ],
)
def test_verdicts(by_class, by_group, words):
    found = separation(*clouds(by_class=by_class, by_group=by_group))
    assert words in found.verdict()
    assert "chance" in found.verdict()


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_images_changes_nothing(seed):
    values, labels, groups = clouds(by_class=1, by_group=1, each=3)
    order = np.random.default_rng(seed).permutation(len(values))
    one = separation(values, labels, groups).as_dict()
    two = separation(values[order], [labels[n] for n in order], [groups[n] for n in order]).as_dict()
    assert one == pytest.approx(two, abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "groups"),
    [(["a"] * 4, ["1", "1", "2", "2"]), (["a", "a", "b", "b"], ["1", "1", "2", "2"]), (["a", "b", "c", "d"], None)],
)
def test_what_is_undefined_is_none(labels, groups):
    found = separation(np.random.default_rng(0).normal(size=(4, 2)), labels, groups)
    assert None in found.as_dict().values()
    assert found.verdict()


# ---------------------------------------------------------------- features


def images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_features_are_what_the_last_dense_layer_takes():
    import keras

    model, pictures = build_model("small", input_size=32), images(5, 32)
    found = features(model, pictures)
    assert (found.shape, found.dtype) == ((5, 64), np.float32)
    kernel, bias = model.get_layer("predictions").get_weights()
    probability = 1 / (1 + np.exp(-(found @ kernel + bias)))
    np.testing.assert_allclose(probability, np.asarray(model.predict_on_batch(pictures)), atol=1e-5)
    done = []
    many = features(model, images(70, 32), advance=done.append)
    np.testing.assert_allclose(many[:5], found, atol=1e-5)
    assert sum(done) == 70
    flat = keras.Model(model.input, model.get_layer("flatten").output)
    with pytest.raises(CustomCNNError, match="which has none"):
        features(flat, pictures)


def test_features_of_an_ensemble_stand_side_by_side():
    from customcnn.training.ensemble import soft_vote

    members = [build_model("small", input_size=32), build_model("one-conv", input_size=16)]
    found = features(soft_vote(members, [0.5, 0.5], (32, 32)), images(4, 32))
    parts = features(members[0], images(4, 32))
    assert found.shape == (4, 64 + 7 * 7 * 32)
    np.testing.assert_allclose(found[:, :64], parts / np.sqrt((parts**2).mean()), rtol=1e-4)
    assert (found[:, 64:] ** 2).mean() == pytest.approx(1, abs=1e-4)


def test_pixels_of_small_copies():
    assert pixel_features(images(3, 40)).shape == (3, 16 * 16 * 3)
    np.testing.assert_array_equal(pixel_features(np.full((1, 40, 30, 3), 7, np.uint8)), 7)


# ---------------------------------------------------------------- two dimensions


def test_pca_against_the_singular_vectors():
    values, *_ = clouds(by_class=3, by_group=2)
    found = embed(values, "pca")
    centered = values - values.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(left[:, :2] * lengths[:2]), atol=1e-6)
    np.testing.assert_array_equal(found, embed(values, "pca"))


@pytest.mark.parametrize("method", ["t-sne", pytest.param("umap", marks=pytest.mark.statistics)])
def test_neighbours_stay_neighbours(method):
    if method == "umap":
        pytest.importorskip("umap")
    values, _, groups = clouds(by_class=40, by_group=25, each=8)
    found = embed(values, method, seed=3)
    assert found.shape == (64, 2)
    again = separation(found, groups)
    assert again.class_agreement == 1  # each group by itself
    np.testing.assert_array_equal(found, embed(values, method, seed=3))


def test_what_cannot_be_embedded(monkeypatch):
    with pytest.raises(CustomCNNError, match=r"needs 10 images or more\. Received: 3\."):
        embed(np.zeros((3, 4)), "pca")
    with pytest.raises(CustomCNNError, match="not finite"):
        embed(np.full((20, 4), np.nan), "pca")
    with pytest.raises(CustomCNNError, match="one of pca, t-sne, umap"):
        embed(np.eye(20), "lda")
    monkeypatch.setattr("customcnn.visualize.embedding.find_spec", lambda name: None)
    with pytest.raises(CustomCNNError, match="pip install umap-learn"):
        embed(np.random.default_rng(0).normal(size=(20, 4)), "umap")


def test_features_that_are_all_equal_have_a_picture(tmp_path):
    places = embed(np.ones((20, 4)), "pca")
    assert np.isfinite(places).all()
    plot_embeddings(tmp_path / "x.png", {"pca": places}, ["a", "b"] * 10, ["_1", "$2$"] * 10, title="t")
    plot_embeddings(tmp_path / "y.png", {"pca": places}, ["a"] * 20, None, notes=["a note"])
    assert (tmp_path / "x.png").stat().st_size > 5000 and (tmp_path / "y.png").stat().st_size > 5000
