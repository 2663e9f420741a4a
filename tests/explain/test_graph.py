"""The graph of a network: its steps, what all ways pass, and receptive fields against what changes a value."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.explain.graph import cuts, depths, place_map, receptive_field, spine, steps
from customcnn.models import build_model

SIDE = 19


def branched():
    """Return input -> a -> (b -> c, shortcut) -> add -> pool -> dense, with a model inside."""
    import keras

    k = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    a = k.Conv2D(4, 3, padding="same", name="a")(image)
    inner_in = keras.Input((8, 8, 4), name="inner_in")
    inner = keras.Model(inner_in, k.Conv2D(4, 1, name="c")(inner_in), name="inner")
    b = k.Conv2D(4, 3, padding="same", name="b")(a)
    joined = k.Add(name="add")([a, inner(b)])
    x = k.Dense(2, name="out")(k.GlobalAveragePooling2D(name="pool")(joined))
    return keras.Model(image, x, name="branched")


def test_steps_by_hand():
    found = steps(branched())
    assert [step.name for step in found] == ["image", "a", "b", "inner/c", "add", "pool", "out"]
    assert [step.parents for step in found] == [(), (0,), (1,), (2,), (1, 3), (4,), (5,)]
    assert [step.shape for step in found][3:] == [(8, 8, 4), (8, 8, 4), (4,), (2,)]
    assert [found[place].name for place in spine(found)] == ["image", "a", "add", "pool", "out"]
    outside = steps(branched(), inside=False)
    assert [step.name for step in outside] == ["image", "a", "b", "inner", "add", "pool", "out"]


def test_a_layer_that_is_called_twice():
    import keras

    image = keras.Input((4, 4, 3))
    shared = keras.layers.Conv2D(3, 1, name="shared")
    found = steps(keras.Model(image, shared(shared(image))))
    assert [step.name for step in found][1:] == ["shared", "shared:2"]


def test_looking_changes_nothing():
    model = branched()
    before = model.to_json()
    for _ in range(2):
        steps(model)
        depths(model)
    assert model.to_json() == before


@given(st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=3), max_size=8))
def test_cuts_are_what_every_way_passes(drawn):
    # Place n takes places before it; every place without a child leads to the end.
    parents = [[]] + [[parent % (place + 1) for parent in row] for place, row in enumerate(drawn)]
    without = set(range(len(parents))) - {parent for row in parents for parent in row}
    parents.append(sorted(without))

    def ways(place):
        return [[place]] if not place else [[*way, place] for parent in set(parents[place]) for way in ways(parent)]

    everywhere = set.intersection(*map(set, ways(len(parents) - 1)))
    assert cuts(parents) == sorted(everywhere)


# ---------------------------------------------------------------- receptive fields


def changes(model):
    """Return which pixels (pixel row, pixel column) change each value: bool (SIDE, SIDE, rows, columns)."""
    images = np.zeros((SIDE * SIDE + 1, SIDE, SIDE, 3), np.float32)
    images[np.arange(SIDE * SIDE), *np.divmod(np.arange(SIDE * SIDE), SIDE)] = 1
    values = np.asarray(model.predict_on_batch(images))[..., 0]
    return (np.abs(values[:-1] - values[-1]) > 1e-6).reshape(SIDE, SIDE, *values.shape[1:])


def plain(*makers):
    import keras

    image = x = keras.Input((SIDE, SIDE, 3))
    for make in makers:
        x = make(keras.layers)(x)
    model = keras.Model(image, x)
    model.set_weights([np.abs(weight) + 0.1 for weight in model.get_weights()])  # nothing cancels
    return model


CASES = {
    "valid": [lambda k: k.Conv2D(2, 3), lambda k: k.Conv2D(2, (5, 2))],
    "same and strides": [lambda k: k.Conv2D(2, 3, strides=2, padding="same"), lambda k: k.Conv2D(2, 3, padding="same")],
    "dilated": [lambda k: k.Conv2D(2, 3, dilation_rate=2, padding="same"), lambda k: k.Conv2D(1, 2, strides=3)],
    "pools": [lambda k: k.AveragePooling2D(3, 2), lambda k: k.AveragePooling2D(2, 2, padding="same")],
    "padded and cut": [
        lambda k: k.Cropping2D(((2, 1), (0, 3))),
        lambda k: k.ZeroPadding2D(2),
        lambda k: k.Conv2D(1, 5),
    ],
    "depthwise": [lambda k: k.DepthwiseConv2D(3, padding="same"), lambda k: k.SeparableConv2D(2, 3, padding="same")],
    "enlarged": [lambda k: k.AveragePooling2D(2), lambda k: k.UpSampling2D(2), lambda k: k.Conv2D(1, 3)],
}


@pytest.mark.parametrize("case", CASES)
def test_receptive_fields_are_the_pixels_that_change_a_value(case):
    model = plain(*CASES[case])
    found = steps(model)
    height, width, _ = found[-1].shape
    changed = changes(model)
    for row, column in itertools.product({0, height // 2, height - 1}, {0, width // 3, width - 1}):
        rows, columns = np.nonzero(changed[:, :, row, column])
        seen = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        assert receptive_field(found, len(found) - 1, row, column) == seen, (row, column)


def test_a_field_of_branches_is_that_of_the_widest():
    import keras

    k = keras.layers
    image = keras.Input((SIDE, SIDE, 3))
    wide = k.Conv2D(2, 5, padding="same")(image)
    model = keras.Model(image, k.Concatenate()([k.Conv2D(2, 1)(image), k.Conv2D(2, 3, padding="same")(wide)]))
    assert receptive_field(steps(model), len(steps(model)) - 1, 9, 9) == (6, 6, 13, 13)


def test_a_gate_is_left_out():
    import keras

    k = keras.layers
    image = keras.Input((SIDE, SIDE, 3))
    x = k.Conv2D(4, 3, padding="same")(image)
    gate = k.Conv2D(4, 1)(k.GlobalAveragePooling2D(keepdims=True)(x))
    found = steps(keras.Model(image, k.Multiply()([x, gate])))
    assert receptive_field(found, len(found) - 1, 9, 9) == (8, 8, 11, 11)


def test_what_has_no_maps_has_no_field():
    found = steps(branched())
    with pytest.raises(ValueError, match="Received: out, without maps"):
        receptive_field(found, len(found) - 1, 0, 0)


def test_a_map_is_laid_where_the_values_were_seen():
    model = plain(lambda k: k.Conv2D(1, 5), lambda k: k.AveragePooling2D(3))  # 19 -> 15 -> 5, middles at 3.5 + 3 n
    found = steps(model)
    heat = np.zeros((5, 5))
    heat[1, 3] = 1
    laid = place_map(found, len(found) - 1, heat, (SIDE, SIDE))
    assert laid.dtype == np.float32
    assert np.unravel_index(laid.argmax(), laid.shape) == (6, 12)
    assert laid[6, 12] == pytest.approx(1)
    assert laid[6, 11] == pytest.approx(2 / 3) and laid[4, 12] == pytest.approx(1 / 3) and laid[3, 12] == 0


def test_a_map_of_the_images_own_size_stays():
    model = plain(lambda k: k.Conv2D(1, 3, padding="same"))
    heat = np.random.default_rng(0).random((SIDE, SIDE))
    np.testing.assert_allclose(place_map(steps(model), 1, heat, (SIDE, SIDE)), heat, rtol=1e-6)


def test_what_was_cut_away_gets_nothing():
    model = plain(lambda k: k.Cropping2D(4), lambda k: k.Conv2D(1, 3))
    laid = place_map(steps(model), 2, np.ones((9, 9)), (SIDE, SIDE))
    assert (laid[5:-5, 5:-5] == 1).all()
    assert (laid[4, 5:-5] == 0.5).all(), "a step beyond the middle of the last value"
    assert laid[4, 4] == 0.25 and laid[:4].sum() == laid[:, -4:].sum() == 0


# ---------------------------------------------------------------- depths


def test_depths_of_networks_of_the_table():
    assert depths(build_model("small", input_size=64)) == ["conv1", "conv2", "conv3"]
    assert depths(build_model("residual", input_size=64), 2) == ["stage3_relu2", "stage4_relu2"]
    assert depths(build_model("one-conv", input_size=32)) == ["conv1"]
