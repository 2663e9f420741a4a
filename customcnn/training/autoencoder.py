"""A start without labels: a network's convolutions, trained as the first half of an auto-encoder."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.data.manifest import Manifest
from customcnn.data.pack import Packed, pack
from customcnn.errors import CustomCNNError
from customcnn.models import get_spec
from customcnn.models.freeze import CLASSIFIER
from customcnn.plots.tiles import write_png
from customcnn.progress import Progress, silent
from customcnn.recipe.recipe import KEYS, Recipe, flat, load_recipe, parse_recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model
from customcnn.training.batches import batches
from customcnn.training.classification import Task, input_size, new_model, require_parts
from customcnn.training.optimizer import optimizer
from customcnn.training.train import TrainResult, carry_out, kept_apart
from customcnn.training.warm_start import TakenOver

if TYPE_CHECKING:
    import keras

USED = (
    *("model", "input_size", "weights", "batch_norm", "normalize", "optimizer", "learning_rate", "momentum"),
    *("clip_norm", "epochs", "batch_size", "seed", "statistics", "monitor", "keep", "patience"),
    *("precision", "device"),
)
"""Recipe keys that mean something here, beside those of [schedule]; the others belong to labels and classifiers."""

NO_CLASSES = ["", " "]
"""A network is built for two classes at least; here its classifier is cut off again."""

MONITORS = ("val_loss", "loss")
DECODER = "decoder_"
"""How the names of the decoder's layers begin; all others are the network's own."""

SHOWN, TILE, GAP = 8, 96, 4  # images in the picture; least edge and distance in pixels


def autoencoder_recipe(settings: Mapping[str, object], base: Recipe | None = None) -> Recipe:
    """Return the recipe of an auto-encoder: Adam with a rate of .001, 20 epochs, the best by val_loss.

    Args:
        settings: what to set, by key, as `parse_settings` returns it.
        base: starts from this recipe (a run's own) instead.

    Raises:
        CustomCNNError: an unknown network or key, a value out of range, or a key that belongs to a classifier.
    """
    if base is None:
        habits = Recipe(optimizer="adam", learning_rate=1e-3, epochs=20, monitor="val_loss")
        base = parse_recipe({"model": settings.get("model", habits.model)}, "the command line", habits)
        own = get_spec(base.model).recipe
        base = parse_recipe({k: own[k] for k in ("input_size", "batch_size") if k in own}, "the table", base)
    recipe = load_recipe(None, settings, base)
    foreign = [
        f"{key}={value}"
        for key, value in flat(recipe).items()
        if key not in USED and not key.startswith("schedule.") and value != KEYS[key].default
    ]
    if recipe.monitor not in MONITORS:
        foreign.append(f"monitor={recipe.monitor}")
    if foreign:
        raise CustomCNNError(
            "An auto-encoder has no labels, no classes and no classifier, and is judged by val_loss or loss. "
            f"Received: {', '.join(foreign)}. Leave it for customcnn train."
        )
    return recipe


def pretrain(
    data: Manifest,
    run: RunDir,
    recipe: Recipe,
    *,
    resume: bool = False,
    replace_run: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> TrainResult:
    """Train a network's convolutions to keep what is needed to draw the image again; labels are not used.

    The training part is learned from, the validation part only scored. Checkpoints and `resume` are those of `train`.
    best.keras and last.keras hold the whole auto-encoder. The layers of its first half have the names that they have in
    the classifier, so that a training with `weights` = this run takes them over.

    Args:
        data: a split folder's manifest, from `scan`; one class folder is enough.
        run: where the results go.
        recipe: from `autoencoder_recipe`.
        resume: go on with the run that is there; start where there is none.
        replace_run: delete the run that is there.
        workers: threads for decoding; None for one a core.
        progress: draws the bars, see `customcnn.progress`.
        say: receives one line of text for each thing a user should know.

    Returns:
        As `train`, with `loss` and `val_loss` the mean squared error of pixels scaled to 0..1.

    Raises:
        CustomCNNError: no training or validation part, a run in the way or of other data or another recipe, an input
            below the network's minimum, or a loss that is not finite.

    Reference:
        Masci, Meier, Ciresan and Schmidhuber, Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction,
        ICANN 2011. Here all layers are trained at once, not one after the other. The report "ALL detection with a
        14-convolution network, compared with four classical networks" (2019) proposes such a start as future work.
    """
    require_parts(data)
    size = input_size(recipe)

    def build(device: str) -> tuple["keras.Model", TakenOver | None]:
        network, taken = new_model(recipe, NO_CLASSES, size, device, say)
        return autoencoder(network), taken

    task = Task(
        ModelInfo(f"{recipe.model}-autoencoder", [], size, "", data.drawn),
        build,
        lambda model: _compile(model, recipe),
        lambda packed, model, devices, job: _batches(packed, recipe),
    )
    with kept_apart(run, data):
        result = carry_out(
            task,
            data,
            run,
            recipe,
            resume=resume,
            replace_run=replace_run,
            workers=workers,
            progress=progress,
            say=say,
        )
        packed = pack(data, size, workers=workers)
        rows = packed.rows("validation")
        chosen = rows[np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int)]
        write_reconstructions(load_model(run.best), packed.images[chosen], run.path / "reconstructions.png")
    return result


def autoencoder(network: "keras.Model") -> "keras.Model":
    """Put a decoder behind the feature maps of a network, in place of its classifier.

    The decoder doubles the maps with a 3x3 convolution each, to no less than the size of the input, halving the number
    of channels from 256 at most to 16 at least. What is larger than the input is resized to it.

    Args:
        network: from `build_model`, with an input (height, width, 3); its layers become part of the new model.

    Returns:
        The functional model "<name>-autoencoder": (batch, height, width, 3), RGB 0..255, to float32 of the same
        shape, about 0..1.

    Raises:
        CustomCNNError: no layer of the network begins a classifier behind feature maps.
    """
    import keras

    ends = [layer for layer in network.layers if layer.name.startswith(CLASSIFIER) and len(layer.input.shape) == 4]
    if not ends:
        raise CustomCNNError(
            f"An auto-encoder begins with the feature maps of a network. Received: {network.name}, which has none."
        )
    image, x = network.inputs[0], ends[0].input
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(ends[0].dtype_policy)
    try:
        return keras.Model(image, _decoded(x, image.shape[1:3]), name=f"{network.name}-autoencoder")
    finally:
        keras.config.set_dtype_policy(policy)


def _decoded(x: "keras.KerasTensor", size: tuple[int, int]) -> "keras.KerasTensor":
    from keras import layers

    last: Any = {"data_format": "channels_last"}
    height, width, channels = x.shape[1:]
    doublings = math.ceil(math.log2(max(size[0] / height, size[1] / width)))
    for number in range(1, doublings + 1):
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{DECODER}up{number}", **last)(x)
        filters = max(16, min(channels, 256) >> number)
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"{DECODER}conv{number}", **last)(x)
    if tuple(x.shape[1:3]) != tuple(size):
        x = layers.Resizing(*size, name=f"{DECODER}resize", **last)(x)
    # Linear: on cells before a black background a sigmoid went all black in the first epoch and never came back.
    return layers.Conv2D(3, 3, padding="same", dtype="float32", name=f"{DECODER}image", **last)(x)


class _Scaled:
    """The images as what an auto-encoder is trained towards: read as an array is, in float32 0..1."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.images[rows].astype(np.float32) / 255


def _compile(model: "keras.Model", recipe: Recipe) -> None:
    if not model.compiled:  # what was loaded to go on is, and has the state of its optimizer
        model.compile(optimizer=optimizer(recipe), loss="mean_squared_error")


def _batches(packed: Packed, recipe: Recipe) -> tuple[Any, Any]:
    wanted: Any = _Scaled(packed.images)
    rows = packed.rows("train")
    training = batches(packed.images, wanted, rows, recipe.batch_size, recipe.seed)
    return training, batches(packed.images, wanted, packed.rows("validation"), recipe.batch_size, None)


def write_reconstructions(model: "keras.Model", images: np.ndarray, path: Path) -> None:
    """Write a picture of images, above, and what an auto-encoder makes of them, below.

    Args:
        model: from `autoencoder`.
        images: uint8 (N, H, W, 3), at the model's input size.
        path: of the PNG file.
    """
    shares = np.asarray(model.predict_on_batch(images), dtype=np.float32).clip(0, 1)
    drawn = np.rint(shares * 255).astype(np.uint8)
    factor = -(-TILE // min(images.shape[1:3]))
    rows = [_side_by_side(pixels.repeat(factor, axis=1).repeat(factor, axis=2)) for pixels in (images, drawn)]
    write_png(path, np.concatenate([rows[0], np.full((GAP, *rows[0].shape[1:]), 255, np.uint8), rows[1]]))


def _side_by_side(images: np.ndarray) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, :-GAP]
