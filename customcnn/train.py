"""Recipe and data in, run directory out: the only `fit()` of the package."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn import devices
from customcnn.errors import CustomCNNError, show, show_all
from customcnn.files import write_text
from customcnn.images import converted_note
from customcnn.leakage import Leakage, find_leakage, notes
from customcnn.manifest import Manifest, require_classes
from customcnn.models import build_model, get_spec
from customcnn.pack import Packed, pack
from customcnn.progress import Progress, silent
from customcnn.recipe import Recipe
from customcnn.runs import ModelInfo, RunDir, best_epoch, load_model, read_info

if TYPE_CHECKING:
    import keras

RESUMABLE = ("epochs", "device", "tensorboard")
"""Recipe keys that may change when a run is resumed: they do not touch what an epoch computes."""


@dataclass(frozen=True)
class TrainResult:
    """What a training came to: its run, its history, the row of its best epoch, and what its scores share."""

    run: RunDir
    history: list[dict[str, float]]
    best: dict[str, float]
    leakage: Leakage
    notes: list[str]


def train(
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
    """Train a network on the training part and score it on the validation part after every epoch.

    After an epoch last.keras (with the optimizer), history.csv and, where it was the best, best.keras are written, each
    whole or not at all. `resume` goes on from last.keras: on one CPU the history is that of an unbroken run.

    Args:
        data: a split folder's manifest, from `scan`.
        run: where the results go.
        recipe: what to train and how.
        resume: go on with the run that is there; start where there is none.
        replace_run: delete the run that is there.
        workers: threads for decoding; None for one a core.
        progress: draws the bars, see `customcnn.progress`.
        say: receives one line of text for each thing a user should know.

    Raises:
        CustomCNNError: no training or validation part, a class without training images, a run in the way or of other
            data or another recipe, an input below the network's minimum, or a loss that is not finite.
    """
    classes = _check_data(data)
    spec = get_spec(recipe.model)
    size = _pair(recipe.input_size or spec.input_size)
    positive = _positive(recipe, classes)
    info = ModelInfo(recipe.model, classes, size, positive, data.drawn)
    resumed = _prepare(run, recipe, data, info, resume=resume, replace_run=replace_run)
    leakage = find_leakage(data.part("train").records, data.part("validation").records, "validation")
    for note in notes(data, leakage):
        say(f"Warning: {note}")

    device = devices.configure(recipe.device)
    if recipe.tensorboard:
        _require_tensorboard()
    packed = pack(data, size, workers=workers, progress=progress)
    if packed.converted:
        say(converted_note(packed.converted))
    if resumed is None:
        model = _new_model(recipe, len(classes), size, device)
    else:
        model = load_model(run.last)
        info = replace(info, epoch=resumed.epoch, history=resumed.history)
    if info.epoch < recipe.epochs:
        # The run is written, and an old one deleted, only now: what fails before leaves everything as it was.
        if replace_run and run.exists():
            run.remove()
        _begin(run, recipe, data)
    history = _fit(model, packed, run, recipe, info, progress, say)
    from customcnn.plots import plot_curves

    plot_curves(history, run.curves, notes=notes(data, leakage))
    return TrainResult(run, history, history[best_epoch(history, recipe.monitor) - 1], leakage, notes(data, leakage))


def _require_tensorboard() -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise CustomCNNError(
            "tensorboard=true needs the tensorboard package. Received: none. Install customcnn[tensorboard]."
        ) from None


def _new_model(recipe: Recipe, classes: int, size: tuple[int, int], device: str) -> "keras.Model":
    import keras

    keras.utils.set_random_seed(recipe.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(devices.dtype_policy(recipe.precision, device))
    try:
        options = {} if recipe.dropout < 0 else {"dropout": recipe.dropout}
        model = build_model(recipe.model, classes=classes, input_size=size, **options)
    finally:
        keras.config.set_dtype_policy(policy)
    model.compile(optimizer=_optimizer(recipe), loss=_loss(recipe, model), metrics=["accuracy"])
    return model


def _begin(run: RunDir, recipe: Recipe, data: Manifest) -> None:
    # The recipe comes first: it is what makes the folder a run, which may be resumed or replaced.
    run.path.mkdir(parents=True, exist_ok=True)
    write_text(run.recipe, recipe.to_toml())
    data.write(run.manifest)
    write_text(run.environment, json.dumps(devices.environment(), indent=2) + "\n")


def _check_data(data: Manifest) -> list[str]:
    for part in ("train", "validation"):
        if part not in data.parts:
            raise CustomCNNError(
                f"Training needs train and validation folders. Received: {show(data.root)} without {part}. "
                "Make them with customcnn split."
            )
    classes = require_classes(data.part("train"))
    unknown = set(data.part("validation").classes) - set(classes)
    if unknown:
        raise CustomCNNError(
            f"Every class has training images. Received: {show(data.root)}, where only the validation part has "
            f"{show_all(sorted(unknown))}. Split it again."
        )
    return classes


def _positive(recipe: Recipe, classes: list[str]) -> str:
    if recipe.positive and (len(classes) != 2 or recipe.positive not in classes):
        raise CustomCNNError(
            f"The positive class is one of two. Received: {show(recipe.positive)} for the classes {show_all(classes)}."
        )
    return recipe.positive or (classes[1] if len(classes) == 2 else "")


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def _prepare(
    run: RunDir, recipe: Recipe, data: Manifest, info: ModelInfo, *, resume: bool, replace_run: bool
) -> ModelInfo | None:
    """Return what last.keras holds where a run is resumed; None where the training starts."""
    if run.path.is_file():
        raise CustomCNNError(f"A run is a folder. Received: {show(run.path)}, which is a file. Choose another --out.")
    if not run.path.is_dir() or not any(run.path.iterdir()):
        return None
    if replace_run:
        run.require_run()
        return None
    if not resume:
        raise CustomCNNError(f"Run {show(run.path)} exists. Use --resume to go on with it, or --replace to delete it.")
    if not run.exists():
        # Killed before its recipe was written, or not a run at all.
        if not all(path.name.startswith(".") for path in run.path.iterdir()):
            raise CustomCNNError(f"--resume goes on with a run. Received: {show(run.path)}, which is none.")
        return None
    old = run.read_recipe()
    changed = [key for key in vars(recipe) if key not in RESUMABLE and getattr(old, key) != getattr(recipe, key)]
    if changed:
        pairs = ", ".join(f"{key} {getattr(recipe, key)!r} where it was {getattr(old, key)!r}" for key in changed)
        raise CustomCNNError(f"A run is resumed with its own recipe. Received: {pairs}. Choose another --out.")
    if run.manifest.is_file() and run.read_manifest().records != _plain(data):
        raise CustomCNNError(
            f"A run is resumed on its own images. Received: {show(data.root)}, not as in {show(run.manifest)}. "
            "Choose another --out."
        )
    if not run.last.is_file():
        return None
    saved = read_info(run.last)
    if (saved.model, saved.classes, saved.input_size) != (info.model, info.classes, info.input_size):
        raise CustomCNNError(
            f"A run is resumed with its own network and classes. Received: {show(run.last)} of {saved.model} for "
            f"{show_all(saved.classes)}. Choose another --out."
        )
    return saved


def _plain(data: Manifest) -> tuple[object, ...]:
    # The CSV fills columns that some records lack with empty text.
    columns = {column for record in data.records for column in record.extra}
    return tuple(replace(r, extra={c: r.extra.get(c, "") for c in sorted(columns)}) for r in data.records)


def _optimizer(recipe: Recipe) -> "keras.optimizers.Optimizer":
    import keras

    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(recipe.learning_rate)
    return keras.optimizers.SGD(recipe.learning_rate, momentum=recipe.momentum)


def _loss(recipe: Recipe, model: "keras.Model") -> str:
    """Return the loss that fits the output: one sigmoid, or a softmax over the classes."""
    fitting = "binary_crossentropy" if model.output_shape[-1] == 1 else "categorical_crossentropy"
    if recipe.loss not in ("auto", fitting):
        raise CustomCNNError(
            f"The loss fits the output: {fitting} for the {model.output_shape[-1]} output(s) of {recipe.model}. "
            f"Received: {recipe.loss}. Use loss=auto."
        )
    return fitting


def targets(labels: np.ndarray, classes: int, outputs: int) -> np.ndarray:
    """Return what a network is trained towards.

    Args:
        labels: int64 (N,), class numbers.
        classes: how many classes there are.
        outputs: how many outputs the network has: 1 (a sigmoid) or `classes`.

    Returns:
        float32 (N, 1) of 0 and 1, or one-hot (N, classes).
    """
    if outputs == 1:
        return labels[:, None].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]


def batches(images: np.ndarray, wanted: np.ndarray, rows: np.ndarray, batch_size: int, seed: int | None) -> Any:
    """Return a Keras dataset that reads its batches from the memory map.

    Args:
        images: uint8 (N, H, W, 3).
        wanted: float32 (N, K), from `targets`.
        rows: int64 (M,), which images to use.
        batch_size: images in a batch; the last may be smaller.
        seed: shuffles epoch e by the generator of (seed, e), whatever came before; None keeps the order.

    Returns:
        A keras.utils.PyDataset with an attribute `epoch`, the number of the epoch that comes next.
    """
    import keras

    class Batches(keras.utils.PyDataset):
        epoch = 0

        def __len__(self) -> int:
            return -(-len(rows) // batch_size)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            order = rows if seed is None else rows[np.random.default_rng((seed, self.epoch)).permutation(len(rows))]
            # Sorted within the batch: neighbours on the disk are read together, and the sum over a batch has no order.
            chosen = np.sort(order[index * batch_size : (index + 1) * batch_size])
            return images[chosen], wanted[chosen]

        def on_epoch_end(self) -> None:
            self.epoch += 1

    return Batches()


def _fit(
    model: "keras.Model",
    packed: Packed,
    run: RunDir,
    recipe: Recipe,
    info: ModelInfo,
    progress: Progress,
    say: Callable[[str], object],
) -> list[dict[str, float]]:
    from customcnn.callbacks import callbacks

    wanted = targets(packed.labels(info.classes), len(info.classes), model.output_shape[-1])
    training = batches(packed.images, wanted, packed.rows("train"), recipe.batch_size, recipe.seed)
    training.epoch = info.epoch
    validation = batches(packed.images, wanted, packed.rows("validation"), recipe.batch_size, None)
    recorder, bar, *others = callbacks(run, recipe, info, len(packed.rows("train")), progress, say)
    if info.epoch >= recipe.epochs:
        say(f"Nothing to do: {info.epoch} epochs are trained.")
        return recorder.history_rows
    if info.epoch:
        say(f"Resuming after epoch {info.epoch} of {recipe.epochs}.")
    with closing(bar):
        model.fit(
            training,
            validation_data=validation,
            initial_epoch=info.epoch,
            epochs=recipe.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[recorder, bar, *others],
        )
    return recorder.history_rows
