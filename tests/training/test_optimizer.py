"""Optimizers, losses and penalties: what each recipe key does to a step, held against arithmetic by hand."""

import numpy as np
import pytest

from customcnn.errors import CustomCNNError
from customcnn.recipe.recipe import Recipe, load_recipe
from customcnn.training.optimizer import compile_model, loss, optimizer, regularize
from tests.support.errors import refused


@pytest.fixture(autouse=True)
def quiet_keras():
    from customcnn.backend import devices

    devices.configure("cpu")


def tiny(outputs: int = 2):
    """Return a network of one convolution and one dense layer, built alike each time."""
    import keras

    keras.utils.set_random_seed(3)
    image = keras.Input((4, 4, 3), name="image")
    x = keras.layers.Conv2D(2, 3, name="block1_conv1")(image)
    x = keras.layers.BatchNormalization(name="block1_bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    activation = "sigmoid" if outputs == 1 else "softmax"
    return keras.Model(image, keras.layers.Dense(outputs, activation=activation, name="predictions")(x))


def step(recipe: Recipe, times: int = 1) -> list[np.ndarray]:
    """Return the weights of the tiny network after so many steps on one batch."""
    model = tiny()
    compile_model(model, recipe)
    images = np.random.default_rng(0).normal(size=(6, 4, 4, 3)).astype("float32")
    wanted = np.eye(2, dtype="float32")[[0, 1, 0, 1, 1, 1]]
    for _ in range(times):
        model.train_on_batch(images, wanted)
    return model.get_weights()


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return sum(float(np.abs(a - b).sum()) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------- optimizers


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_the_optimizer_is_kerass_of_that_name(name):
    made = optimizer(Recipe(optimizer=name, learning_rate=0.25))
    assert type(made).__name__.lower() == name
    assert float(made.learning_rate) == 0.25


def moved(made, gradient: float, steps: int = 1) -> list[float]:
    """Return where a weight that starts at 1 is after each step with the same gradient."""
    import keras

    weight = keras.Variable(np.array([1.0]), name="kernel")
    places = []
    for _ in range(steps):
        made.apply([keras.ops.convert_to_tensor([gradient])], [weight])
        places.append(float(weight.numpy()[0]))
    return places


def test_sgd_by_hand():
    assert moved(optimizer(Recipe(learning_rate=0.1)), 2.0, 2) == pytest.approx([0.8, 0.6])


def test_momentum_by_hand():
    """Velocity -.2, then .5 * -.2 - .2 = -.3."""
    assert moved(optimizer(Recipe(learning_rate=0.1, momentum=0.5)), 2.0, 2) == pytest.approx([0.8, 0.5])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_weight_decay_takes_off_a_share_of_the_weight(name):
    """With no gradient the step is the decay alone: 1 - .1 * .5."""
    assert moved(optimizer(Recipe(optimizer=name, learning_rate=0.1, weight_decay=0.5)), 0.0) == pytest.approx([0.95])
    assert moved(optimizer(Recipe(optimizer=name, learning_rate=0.1)), 0.0) == pytest.approx([1.0])


@pytest.mark.parametrize("name", ["bias", "gamma", "beta"])
def test_weight_decay_leaves_biases_and_batch_norms_alone(name):
    import keras

    made = optimizer(Recipe(optimizer="adamw", learning_rate=0.1, weight_decay=0.5))
    weight = keras.Variable(np.array([1.0]), name=name)
    made.apply([keras.ops.zeros(1)], [weight])
    assert float(weight.numpy()[0]) == 1.0


def test_gradients_are_clipped_by_their_common_length():
    """The gradient 4 is shortened to .5; one of .3 is left alone."""
    clipped = Recipe(learning_rate=1.0, clip_norm=0.5)
    assert moved(optimizer(clipped), 4.0) == pytest.approx([0.5])
    assert moved(optimizer(clipped), 0.3) == pytest.approx([0.7])


def test_the_moving_average_by_hand():
    """1 + steps of -1: the weights are 0 and -1, the average starts at the first and is .9 * 0 + .1 * -1."""
    made = optimizer(Recipe(learning_rate=1.0, ema=0.9))
    assert moved(made, 1.0, 2) == pytest.approx([0.0, -1.0])
    assert float(made._model_variables_moving_average[0].numpy()[0]) == pytest.approx(-0.1)


# ---------------------------------------------------------------- losses


def value(recipe: Recipe, wanted: list[float], predicted: list[float]) -> float:
    found = loss(recipe, len(wanted))(np.array([wanted], "float32"), np.array([predicted], "float32"))
    return float(found)


@pytest.mark.parametrize("name", ["auto", "categorical_crossentropy"])
def test_categorical_cross_entropy_by_hand(name):
    assert value(Recipe(loss=name), [0, 1], [0.25, 0.75]) == pytest.approx(-np.log(0.75), rel=1e-5)


@pytest.mark.parametrize("name", ["auto", "binary_crossentropy"])
def test_binary_cross_entropy_by_hand(name):
    assert value(Recipe(loss=name), [1], [0.75]) == pytest.approx(-np.log(0.75), rel=1e-5)


@pytest.mark.parametrize("name", ["auto", "binary_crossentropy"])
def test_binary_cross_entropy_of_two_sigmoid_outputs_by_hand(name):
    """The mean of both: -log .75 of the output that is to be 1, -log(1 - .4) of the one that is to be 0."""
    recipe = Recipe(loss=name, classifier_activation="sigmoid")
    wanted = -(np.log(0.75) + np.log(0.6)) / 2
    assert value(recipe, [0, 1], [0.4, 0.75]) == pytest.approx(wanted, rel=1e-5)
    smooth = Recipe(label_smoothing=0.2, classifier_activation="sigmoid")  # targets of .1 and .9
    wanted = -(0.9 * np.log(0.75) + 0.1 * np.log(0.25) + 0.9 * np.log(0.6) + 0.1 * np.log(0.4)) / 2
    assert value(smooth, [0, 1], [0.4, 0.75]) == pytest.approx(wanted, rel=1e-5)
    focal = Recipe(loss="focal", classifier_activation="sigmoid")
    wanted = -(0.25**2 * np.log(0.75) + 0.4**2 * np.log(0.6)) / 2
    assert value(focal, [0, 1], [0.4, 0.75]) == pytest.approx(wanted, rel=1e-4)


def test_label_smoothing_by_hand():
    """A share of .2 spread over two classes makes the targets .1 and .9; for one sigmoid the target 1 becomes .9."""
    wanted = -0.1 * np.log(0.25) - 0.9 * np.log(0.75)
    assert value(Recipe(label_smoothing=0.2), [0, 1], [0.25, 0.75]) == pytest.approx(wanted, rel=1e-5)
    assert value(Recipe(label_smoothing=0.2), [1], [0.75]) == pytest.approx(wanted, rel=1e-5)


def test_focal_loss_by_hand():
    """(1 - p) ^ gamma times the cross-entropy: .25 ^ 2."""
    assert value(Recipe(loss="focal"), [0, 1], [0.25, 0.75]) == pytest.approx(0.0625 * -np.log(0.75), rel=1e-4)
    assert value(Recipe(loss="focal"), [1], [0.75]) == pytest.approx(0.0625 * -np.log(0.75), rel=1e-4)
    assert value(Recipe(loss="focal", focal_gamma=0), [0, 1], [0.25, 0.75]) == pytest.approx(-np.log(0.75), rel=1e-4)


@pytest.mark.parametrize(("name", "outputs"), [("binary_crossentropy", 2), ("categorical_crossentropy", 1)])
def test_a_loss_that_does_not_fit(name, outputs):
    with pytest.raises(CustomCNNError, match=rf"The loss fits the output: .*Received: {name}\. Use loss=auto"):
        loss(Recipe(loss=name), outputs)


def test_a_loss_that_fits_the_other_kind_of_output():
    assert refused(loss, Recipe("vgg16", loss="binary_crossentropy"), 2) == (
        "The loss fits the output: categorical_crossentropy for the 2 softmax outputs of vgg16. Received: "
        "binary_crossentropy. Use loss=auto, or classifier_activation=sigmoid on a backbone."
    )
    sigmoid = Recipe("vgg16", loss="categorical_crossentropy", classifier_activation="sigmoid")
    assert refused(loss, sigmoid, 2) == (
        "The loss fits the output: binary_crossentropy for the 2 sigmoid outputs of vgg16. Received: "
        "categorical_crossentropy. Use loss=auto."
    )


# ---------------------------------------------------------------- penalties


def penalty(model) -> float:
    return float(sum(model.losses)) if model.losses else 0.0


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("all", ["block1_conv1", "predictions"]),
        ("conv", ["block1_conv1"]),
        ("dense", ["predictions"]),
        ("block1_*", ["block1_conv1"]),
    ],
)
def test_penalties_stand_on_the_layers_that_are_named(pattern, names):
    model = tiny()
    assert regularize(model, Recipe(l1=0.5, l2=0.25, regularize=pattern)) == names
    kernels = [model.get_layer(name).kernel.numpy() for name in names]
    wanted = sum(0.5 * np.abs(kernel).sum() + 0.25 * (kernel**2).sum() for kernel in kernels)
    assert penalty(model) == pytest.approx(wanted, rel=1e-5)


def test_penalties_are_in_the_saved_file(tmp_path):
    import keras

    model = tiny()
    regularize(model, Recipe(l2=0.25))
    model.save(tmp_path / "model.keras")
    assert penalty(keras.models.load_model(tmp_path / "model.keras")) == pytest.approx(penalty(model), rel=1e-6)


def test_no_penalty_where_none_is_asked_for():
    model = tiny()
    assert regularize(model, Recipe()) == [] and penalty(model) == 0


def test_a_penalty_shrinks_the_kernels():
    plain, shrunk = (step(Recipe(learning_rate=0.1, l2=l2), times=20) for l2 in (0.0, 0.5))
    assert np.abs(shrunk[0]).sum() < np.abs(plain[0]).sum() / 2


def test_a_pattern_that_no_layer_has():
    with pytest.raises(CustomCNNError, match=r"Received: 'block9_\*', which no layer of proposed has. It has block1"):
        regularize(tiny(), Recipe(l2=0.1, regularize="block9_*"))


def test_separable_convolutions_are_regularised_in_both_kernels():
    import keras

    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.layers.SeparableConv2D(2, 3, name="sep")(image))
    assert regularize(model, Recipe(l1=1.0)) == ["sep"]
    layer = model.get_layer("sep")
    wanted = np.abs(layer.depthwise_kernel.numpy()).sum() + np.abs(layer.pointwise_kernel.numpy()).sum()
    assert penalty(model) == pytest.approx(wanted, rel=1e-5)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert penalty(copy) == pytest.approx(wanted, rel=1e-5)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_state_of_the_optimizer_is_kept(name, tmp_path):
    """Two steps, or one, saved, loaded, compiled again and one more: the same weights."""
    import keras

    recipe = Recipe(optimizer=name, learning_rate=0.01, momentum=0.5, weight_decay=0.1, ema=0.9, clip_norm=1.0)
    unbroken = step(recipe, times=2)
    model = tiny()
    compile_model(model, recipe)
    images = np.random.default_rng(0).normal(size=(6, 4, 4, 3)).astype("float32")
    wanted = np.eye(2, dtype="float32")[[0, 1, 0, 1, 1, 1]]
    model.train_on_batch(images, wanted)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    compile_model(again, recipe)
    again.train_on_batch(images, wanted)
    assert distance(again.get_weights(), unbroken) == 0


def test_auxiliary_outputs_weigh_a_third_of_the_main_one():
    import keras

    image = keras.Input((3,), name="image")
    outputs = [keras.layers.Dense(2, "softmax", name=name)(image) for name in ("predictions", "aux1", "aux2")]
    model = keras.Model(image, outputs)
    compile_model(model, load_recipe(None, {"model": "small"}))
    ones, wanted = np.ones((1, 3), "float32"), np.array([[0, 1]], "float32")
    logs = model.test_on_batch(ones, [wanted] * 3, return_dict=True)
    parts = [logs[f"{name}_loss"] for name in ("predictions", "aux1", "aux2")]
    assert logs["loss"] == pytest.approx(parts[0] + 0.3 * parts[1] + 0.3 * parts[2], rel=1e-5)
    assert "predictions_accuracy" in logs and "aux1_accuracy" not in logs
