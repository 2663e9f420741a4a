"""One step of every head, loss, penalty and optimizer, in every precision: what a recipe can ask for trains."""

import numpy as np
import pytest

from customcnn.recipe.recipe import CHOICES
from customcnn.training.classification import new_model
from customcnn.training.optimizer import compile_model
from tests.support.colors import SIZE, recipe

pytestmark = pytest.mark.backend

STEPS = 12
"""In float16 Keras leaves out a step whose scaled gradient overflows, and halves the scale: the first ones, mostly."""

HEADS = ("plain", "transfer", "dense128", "report")
every_precision = pytest.mark.parametrize("precision", [name for name in CHOICES["precision"] if name != "auto"])


def step(classes: int = 2, size: int = SIZE, **values: object) -> None:
    """Build, compile and train a network of these keys for one step: its loss is a number, and its last bias moves."""
    wanted = recipe(**{"learning_rate": 0.01, "input_size": size, **values})
    model, _ = new_model(wanted, ["a", "b", "c"][:classes], (size, size), "cpu", print)
    compile_model(model, wanted)
    model.run_eagerly = True  # one step: a compiled one would take longer to make than it saves
    images = np.random.default_rng(1).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    labels = np.arange(4) % classes
    targets = labels[:, None].astype("float32") if model.output_shape[-1] == 1 else np.eye(classes)[labels]
    before = model.get_layer("predictions").get_weights()[1]
    for _ in range(STEPS if wanted.precision == "float16" else 1):
        assert np.isfinite(model.train_on_batch(images, targets, return_dict=True)["loss"])
        if moved := np.any(model.get_layer("predictions").get_weights()[1] != before):
            break
    assert moved


@every_precision
@pytest.mark.parametrize("head", HEADS)
def test_heads(head, precision):
    """The activity penalty of the transfer head was once computed in the lower precision, which no loss can hold."""
    step(model="mobilenetv3small", size=32, head=head, precision=precision)


@every_precision
@pytest.mark.parametrize("loss", CHOICES["loss"])
def test_losses(loss, precision):
    """Of two classes and of three, where the loss fits the output."""
    if loss != "categorical_crossentropy":
        step(loss=loss, label_smoothing=0.1, precision=precision)
    if loss != "binary_crossentropy":
        step(3, loss=loss, label_smoothing=0.1, precision=precision)


@every_precision
def test_the_loss_of_two_sigmoid_outputs(precision):
    values = {"model": "mobilenetv3small", "size": 32, "normalize": "raw", "classifier_activation": "sigmoid"}
    step(loss="binary_crossentropy", precision=precision, **values)


@every_precision
@pytest.mark.parametrize("regularize", ["all", "conv", "dense", "fc*"])
def test_penalties(regularize, precision):
    step(l1=0.001, l2=0.001, regularize=regularize, precision=precision)


@every_precision
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_optimizers(optimizer, precision):
    step(optimizer=optimizer, weight_decay=0.01, clip_norm=1.0, ema=0.9, precision=precision)
