"""What is trained: a network for labelled images, and the batches that it is fed; of several processes each its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.augmentation import make_transform
from customcnn.backend import devices
from customcnn.backend.process_group import Job
from customcnn.data.manifest import Manifest, require_classes
from customcnn.data.pack import Packed
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.images.sizes import side_range, sizes_in
from customcnn.metrics.validation import default_positive
from customcnn.models import build_model, get_spec
from customcnn.recipe.recipe import KEYS, Recipe
from customcnn.recipe.sampling import class_weights, deal, epoch_rows
from customcnn.runs.saved_model import ModelInfo
from customcnn.training.batches import batches, targets
from customcnn.training.device_cache import hold
from customcnn.training.optimizer import compile_model
from customcnn.training.warm_start import TakenOver, run_weights, take_over

if TYPE_CHECKING:
    import keras

OPTIONS = (
    *("head", "pooling", "classifier_activation", "weights", "freeze", "dropout", "auxiliary", "batch_norm"),
    *("normalize", "center_crop"),
)
"""Recipe keys that a network is built with, beside classes and input size."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        info: what the saved networks carry.
        build: returns the network for a device, not compiled, and what it took over from another run.
        compile: gives it optimizer and loss, in place; where it was loaded to go on, the optimizer's state is kept.
        batches: returns the training batches and the validation batches, from `batches.batches`; the third argument is
            how many devices share a batch.
        own: returns which rows of the manifest a process of several trains and scores on; None where none may be.
    """

    info: ModelInfo
    build: Callable[[str], tuple["keras.Model", TakenOver | None]]
    compile: Callable[["keras.Model"], None]
    batches: Callable[[Packed, "keras.Model", int, Job], tuple[Any, Any]]
    own: Callable[[Manifest, Job], np.ndarray] | None = None


def classifier_task(data: Manifest, recipe: Recipe, say: Callable[[str], object]) -> Task:
    """Return the task of a network that gives labelled images a class.

    Args:
        data: a split folder's manifest.
        recipe: of the training.
        say: receives one line about weights that are taken over.

    Raises:
        CustomCNNError: no training or validation part, or a class without training images.
    """
    classes = _check_data(data)
    size = input_size(recipe)
    sides = side_range(sizes_in(data.root, [record.path for record in data.part("train").records]).values())
    return Task(
        ModelInfo(recipe.model, classes, size, _positive(recipe, classes), data.drawn, sides=sides),
        lambda device: new_model(recipe, classes, size, device, say),
        lambda model: compile_model(model, recipe),
        lambda packed, model, devices, job: _labelled(packed, model, recipe, classes, devices, job),
        lambda data, job: _own_rows(data, recipe, classes, job),
    )


def network_options(recipe: Recipe) -> dict[str, object]:
    """Return what `build_model` takes: the recipe's keys that are not at their defaults."""
    given = {key: getattr(recipe, key) for key in OPTIONS if getattr(recipe, key) != KEYS[key].default}
    if run_weights(recipe.weights):
        del given["weights"]
    return given


def new_model(
    recipe: Recipe, classes: list[str], size: tuple[int, int], device: str, say: Callable[[str], object]
) -> tuple["keras.Model", TakenOver | None]:
    """Build the recipe's network, not compiled; return what it has taken over from another run, too."""
    import keras

    keras.utils.set_random_seed(recipe.seed)
    policy = keras.config.dtype_policy()
    depthwise = get_spec(recipe.model).depthwise
    keras.config.set_dtype_policy(devices.dtype_policy(recipe.precision, device, depthwise))
    try:
        model = build_model(recipe.model, classes=len(classes), input_size=size, **network_options(recipe))
    finally:
        keras.config.set_dtype_policy(policy)
    path = run_weights(recipe.weights)
    if path is None:
        return model, None
    taken = take_over(model, path, classes)
    say(str(taken))
    return model, taken


def input_size(recipe: Recipe) -> tuple[int, int]:
    """Return height and width of the input: the recipe's, or the network's own."""
    size = recipe.input_size or get_spec(recipe.model).input_size
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def require_parts(data: Manifest) -> None:
    """Refuse data without a training part or without a validation part."""
    for part in ("train", "validation"):
        if part not in data.parts:
            raise CustomCNNError(
                f"Training needs train and validation folders. Received: {show(data.root)} without {part}. "
                "Make them with customcnn split."
            )


def _check_data(data: Manifest) -> list[str]:
    require_parts(data)
    classes = require_classes(data.part("train"))
    unknown = set(data.part("validation").classes) - set(classes)
    if unknown:
        raise CustomCNNError(
            f"Every class has training images. Received: {show(data.root)}, where only the validation part has "
            f"{show_names(sorted(unknown))}. Split it again."
        )
    return classes


def _positive(recipe: Recipe, classes: list[str]) -> str:
    if recipe.positive and (len(classes) != 2 or recipe.positive not in classes):
        raise CustomCNNError(
            f"The positive class is one of two. Received: {show(recipe.positive)} for the classes "
            f"{show_names(classes)}."
        )
    return recipe.positive or default_positive(classes)


def _own_rows(data: Manifest, recipe: Recipe, classes: list[str], job: Job) -> np.ndarray:
    """Return the rows of the manifest, int64, sorted, that a process of several trains and scores on."""
    every = Packed(np.empty(0), data, {})
    dealt = deal(_epoch(every, recipe, classes), recipe.sampling.shards)
    scored = every.rows("validation")
    return np.unique(
        np.concatenate([*(dealt[n] for n in job.shards(len(dealt))), scored[list(job.share(len(scored)))]])
    )


def _epoch(packed: Packed, recipe: Recipe, classes: list[str]) -> np.ndarray:
    rows = epoch_rows(packed.labels(classes), packed.rows("train"), recipe.sampling, recipe.seed)
    if len(rows) < recipe.sampling.shards:
        raise CustomCNNError(
            f"Every shard has training images. Received: {len(rows)} images for {recipe.sampling.shards} shards. "
            "Choose fewer sampling.shards, or train on fewer devices."
        )
    return rows


def _labelled(
    packed: Packed, model: "keras.Model", recipe: Recipe, classes: list[str], devices: int, job: Job
) -> tuple[Any, Any]:
    labels = packed.labels(classes)
    outputs = len(model.outputs)
    wanted = targets(labels, len(classes), model.outputs[0].shape[-1])
    rows, scored, shards = _epoch(packed, recipe, classes), packed.rows("validation"), recipe.sampling.shards
    scored = scored[list(job.share(len(scored)))]
    held, held_scored = (None, None) if shards > 1 else hold(packed.images, rows, scored, recipe.augmentation)
    training = batches(
        packed.images,
        wanted,
        rows,
        recipe.batch_size,
        recipe.seed,
        transform=make_transform(recipe.augmentation) if recipe.augmentation.active else None,
        weights=_weights(labels, rows, len(classes), recipe),
        outputs=outputs,
        resident=held,
        devices=devices if job.alone else 1,
        shards=shards,
        own=job.shards(shards),
    )
    validation = batches(packed.images, wanted, scored, recipe.batch_size, None, outputs=outputs, resident=held_scored)
    return training, validation


def _weights(labels: np.ndarray, rows: np.ndarray, classes: int, recipe: Recipe) -> np.ndarray | None:
    if recipe.sampling.class_weights == "none":
        return None
    return class_weights(labels[rows], classes)[labels]
