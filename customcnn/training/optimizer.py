"""What a network is trained with: its optimizer, its loss, and penalties on its weights."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from customcnn.errors import CustomCNNError, show
from customcnn.recipe.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras

AUXILIARY_WEIGHT = 0.3
"""Of each auxiliary classifier's loss beside the network's own (Szegedy et al., arXiv:1409.4842, section 5)."""

NOT_DECAYED = ("bias", "gamma", "beta")


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Give a network the recipe's optimizer, loss and penalties, in place.

    A network with several outputs (GoogLeNet with its auxiliary classifiers) is trained on all of them, the first in
    full and the others with a weight of .3.

    Args:
        model: fresh, or loaded to go on with: then the state of its optimizer is kept.
        recipe: the training.

    Raises:
        CustomCNNError: the loss does not fit the output, or no layer has the name to be regularised.
    """
    regularize(model, recipe)
    before = model.optimizer if getattr(model, "compiled", False) else None
    wanted, others = loss(recipe, model.outputs[0].shape[-1]), len(model.outputs) - 1
    model.compile(
        optimizer=optimizer(recipe),
        loss=[wanted] * (1 + others) if others else wanted,
        loss_weights=[1.0, *[AUXILIARY_WEIGHT] * others] if others else None,
        metrics=[["accuracy"], *[[]] * others] if others else ["accuracy"],
    )
    if before is not None and before.built:
        # Its state moves to the new one: a file does not hold what is excluded from weight decay.
        model.optimizer.build(model.trainable_variables)
        for new, old in zip(model.optimizer.variables, before.variables, strict=True):
            new.assign(old)


def make_variables(model: keras.Model, wanted: Any) -> None:
    """Make the variables of optimizer and metrics: TensorFlow traces a step twice where its first call makes any.

    Args:
        model: compiled.
        wanted: targets of a batch; one array for each output where it has several.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return
    wanted = list(wanted) if isinstance(wanted, tuple) else wanted
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, wanted, wanted, None)
    model.reset_metrics()


def optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """Return the recipe's optimizer.

    Weight decay is decoupled from the gradient (Loshchilov and Hutter, arXiv:1711.05101) in each of them, and leaves
    biases and the parameters of batch normalisation alone. The moving average of the weights (`ema`) is kept beside
    them: see `callbacks.MovingAverage`.
    """
    import keras

    makers = {
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
    }
    given: dict[str, object] = {}
    if recipe.optimizer in ("sgd", "rmsprop"):
        given["momentum"] = recipe.momentum
    if recipe.ema:
        given |= {"use_ema": True, "ema_momentum": recipe.ema}
    made = makers[recipe.optimizer](
        recipe.learning_rate,
        weight_decay=recipe.weight_decay or (0.0 if recipe.optimizer == "adamw" else None),
        global_clipnorm=recipe.clip_norm or None,
        **given,
    )
    made.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    return made


def loss(recipe: Recipe, outputs: int) -> keras.losses.Loss:
    """Return the loss that fits the output: one sigmoid, a sigmoid for each class, or a softmax over the classes.

    Focal loss is that of Lin et al., arXiv:1708.02002, without its weights for classes (`sampling.class_weights` has
    them). Label smoothing is that of Szegedy et al., arXiv:1512.00567.

    Args:
        recipe: the training.
        outputs: how many outputs the network has: 1, or one for each class.

    Raises:
        CustomCNNError: the recipe names the loss of the other kind of output.
    """
    import keras

    binary = outputs == 1 or recipe.classifier_activation == "sigmoid"
    fitting = "binary_crossentropy" if binary else "categorical_crossentropy"
    if recipe.loss not in ("auto", "focal", fitting):
        kind = f"{outputs} {'sigmoid' if binary else 'softmax'} output{'s' * (outputs > 1)}"
        raise CustomCNNError(
            f"The loss fits the output: {fitting} for the {kind} of {recipe.model}. Received: {recipe.loss}. "
            f"Use loss=auto{'' if binary else ', or classifier_activation=sigmoid on a backbone'}."
        )
    smoothing = {"label_smoothing": recipe.label_smoothing}
    if recipe.loss == "focal":
        if binary:
            return keras.losses.BinaryFocalCrossentropy(gamma=recipe.focal_gamma, **smoothing)
        return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=recipe.focal_gamma, **smoothing)
    return (keras.losses.BinaryCrossentropy if binary else keras.losses.CategoricalCrossentropy)(**smoothing)


def regularize(model: keras.Model, recipe: Recipe) -> list[str]:
    """Put the recipe's penalty on the kernels of convolutions and dense layers, in place.

    A kernel that its builder has given a penalty (the dense layer of the head `transfer`) keeps that one.

    Returns:
        The names of the layers that have it.

    Raises:
        CustomCNNError: the recipe's pattern names no such layer.
    """
    import keras

    if not (recipe.l1 or recipe.l2):
        return []
    chosen = [layer for layer in _with_kernels(model) if _named(layer, recipe.regularize)]
    if not chosen:
        names = ", ".join(layer.name for layer in _with_kernels(model))
        raise CustomCNNError(
            f"regularize is all, conv, dense, or a pattern of layer names. Received: {show(recipe.regularize)}, which "
            f"no layer of {recipe.model} has. It has {names}."
        )
    for layer in chosen:
        for name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            kernel = getattr(layer, name, None)
            if kernel is not None and kernel.regularizer is None:
                # On the weight, for this training; on the layer, for the saved file.
                kernel.regularizer = keras.regularizers.L1L2(recipe.l1, recipe.l2)
                attribute = name.replace("kernel", "regularizer" if "_" in name else "kernel_regularizer")
                setattr(layer, attribute, kernel.regularizer)
    return [layer.name for layer in chosen]


def _with_kernels(model: keras.Model) -> Iterator[keras.layers.Layer]:
    kernels = ("kernel", "depthwise_kernel")
    return (layer for layer in model.layers if any(getattr(layer, name, None) is not None for name in kernels))


def _named(layer: keras.layers.Layer, pattern: str) -> bool:
    dense = type(layer).__name__ == "Dense"
    return {"all": True, "dense": dense, "conv": not dense}.get(pattern, fnmatchcase(layer.name, pattern))
