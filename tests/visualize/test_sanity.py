"""Maps that say something: random weights change them, and those of a drawn cell lie on the cell."""

import numpy as np
import pytest

from customcnn.data.synthetic import LABELS, Stain, draw_cell
from customcnn.explain.gradcam import GradCam
from customcnn.explain.occlusion import occlusion
from customcnn.models import build_model
from customcnn.visualize.sanity import correlation, random_weights, share_inside

SIZE = 48


def test_random_weights_and_back():
    model = build_model("residual", input_size=32)
    before = model.get_weights()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    own = np.asarray(model.predict_on_batch(pictures))
    with random_weights(model, seed=1):
        one = model.get_weights()
        other = np.asarray(model.predict_on_batch(pictures))
        assert np.isfinite(other).all() and np.abs(other - own).max() > 1e-3
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    kernels = [(a, b) for a, b in zip(before, one, strict=True) if a.ndim > 1]
    assert all(not np.array_equal(a, b) for a, b in kernels)
    with random_weights(model, seed=1):
        assert all((a == b).all() for a, b in zip(one, model.get_weights(), strict=True))
    with random_weights(model, seed=2):
        assert any((a != b).any() for a, b in zip(one, model.get_weights(), strict=True))


def test_weights_come_back_after_an_error():
    model = build_model("one-conv", input_size=16)
    before = model.get_weights()
    with pytest.raises(RuntimeError), random_weights(model):
        raise RuntimeError
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_correlation_by_hand():
    one = np.array([[0.1, 0.2], [0.3, 0.4]])
    assert correlation(one, one**3) == pytest.approx(1)
    assert correlation(one, -one) == pytest.approx(-1)
    assert correlation(one, np.array([[1, 2], [4, 3]])) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert correlation(one, np.zeros((2, 2))) == 0


def test_share_inside_by_hand():
    heat = np.array([[1.0, 3.0], [-5.0, 0.0]])
    assert share_inside(heat, np.array([[True, False], [True, True]])) == pytest.approx(0.25)
    assert np.isnan(share_inside(heat * 0, heat > 0))


def cells(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return drawn cells of one stain and how many, (N, SIZE, SIZE, 3), and their classes."""
    stain = Stain((0.82, 1.36, 0.54), (0.44, 0.47, 0.19), (0.95, 0.95, 0.95), 1.0, 0.0)
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    # The middle of a larger picture: the cell fills about a third of it.
    edge = SIZE * 3 // 2
    cut = slice((edge - SIZE) // 2, (edge + SIZE) // 2)
    return np.stack([draw_cell(LABELS[label], rng, stain, edge)[cut, cut] for label in labels]), labels


def network():
    """Return three convolutions and a mean over places: the last maps are 12 x 12."""
    import keras

    k = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = k.Rescaling(1 / 64, -0.6)(image)
    for number, width in enumerate((16, 32, 32)):
        x = k.MaxPooling2D(2)(x) if number else x
        x = k.Conv2D(width, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    return keras.Model(image, k.Dense(2, activation="softmax")(k.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def trained():
    """Return a network that tells drawn cells of one stain apart, new cells that it is right about, their classes."""
    import keras

    keras.utils.set_random_seed(0)
    model = network()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    images, labels = cells(120, seed=1)
    turned = np.concatenate([np.rot90(images, quarters, (1, 2)) for quarters in range(4)])
    model.fit(turned, np.tile(labels, 4), batch_size=16, epochs=8, verbose=0)
    fresh, classes = cells(24, seed=2)
    right = np.asarray(model.predict_on_batch(fresh)).argmax(axis=1) == classes
    assert right.mean() >= 0.75, "the network has learned something"
    return model, fresh[right], [int(label) for label in classes[right]]


def shares_inside(images, classes, explain) -> tuple[float, float]:
    """Return how much of the heat lies on the cells, and how much of the images they cover."""
    masks = [image.any(axis=2) for image in images]  # the background of a drawn cell is exactly 0
    maps = [explain(image, label) for image, label in zip(images, classes, strict=True)]
    inside = [share_inside(heat, mask) for heat, mask in zip(maps, masks, strict=True)]
    return float(np.nanmean(inside)), float(np.mean([mask.mean() for mask in masks]))


def correlations(trained, plus_plus: bool) -> float:
    """Return the mean correlation of maps with those of networks with random weights."""
    model, images, classes = trained
    own = GradCam(model, plus_plus=plus_plus)
    maps = [own(image, label) for image, label in zip(images, classes, strict=True)]
    found = []
    for seed in range(2):
        with random_weights(model, seed):
            other = GradCam(model, plus_plus=plus_plus)
            found += [correlation(map_, other(i, c)) for map_, i, c in zip(maps, images, classes, strict=True)]
    return float(np.mean(found))


@pytest.mark.statistics
@pytest.mark.parametrize("kind", ["gradcam", "gradcam++", "occlusion"])
def test_a_map_of_a_drawn_cell_lies_on_the_cell(trained, kind):
    model, images, classes = trained
    explain = GradCam(model, plus_plus=kind == "gradcam++")
    if kind == "occlusion":
        explain = lambda image, label: occlusion(model, image, label)  # noqa: E731
    inside, area = shares_inside(images, classes, explain)
    assert inside > 1.5 * area


@pytest.mark.statistics
@pytest.mark.parametrize("plus_plus", [False, True])
def test_random_weights_change_the_map(trained, plus_plus):
    model, images, classes = trained
    maps = [GradCam(model, plus_plus=plus_plus)(images[0], classes[0]) for _ in range(2)]
    assert correlation(*maps) == pytest.approx(1), "the same weights do not"
    assert abs(correlations(trained, plus_plus)) < 0.5
