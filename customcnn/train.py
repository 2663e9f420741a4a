"""Recipe and data in, run directory out: the only `fit()` of the package."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn import devices, loggers
from customcnn.compile import compile_model, make_variables
from customcnn.errors import CustomCNNError, show, show_all
from customcnn.feed import batches, for_fit, targets
from customcnn.files import write_text
from customcnn.images import converted_note
from customcnn.leakage import Leakage, find_leakage, notes
from customcnn.manifest import Manifest, require_classes
from customcnn.models import build_model, get_spec
from customcnn.pack import Packed, pack, stream
from customcnn.progress import Progress, silent
from customcnn.recipe import KEYS, Recipe, flat
from customcnn.replicas import find_devices, prepare_shared, spread_over
from customcnn.resident import hold
from customcnn.runs import ModelInfo, RunDir, kept_epoch, load_model, read_info, stopped
from customcnn.sampling import class_weights, epoch_rows
from customcnn.transforms import make_transform
from customcnn.warmstart import TakenOver, run_weights, take_over

if TYPE_CHECKING:
    import keras

STATISTICS = 512
"""So many training images, or all, are taken to measure batch normalisation anew for averaged weights."""

RESUMABLE = ("epochs", "device", "tensorboard", "mlflow")
"""Recipe keys that may change when a run is resumed: they do not touch what an epoch computes."""


@dataclass(frozen=True)
class TrainResult:
    """What a training came to: its run, its history, the row of its best epoch, and what its scores share."""

    run: RunDir
    history: list[dict[str, float]]
    best: dict[str, float]
    leakage: Leakage
    notes: list[str]


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        info: what the saved networks carry.
        build: returns the network for a device, not compiled, and what it took over from another run.
        compile: gives it optimizer and loss, in place; where it was loaded to go on, the optimizer's state is kept.
        batches: returns the training batches, the validation batches, and how many images an epoch has; the last
            argument is how many devices share a batch.
    """

    info: ModelInfo
    build: Callable[[str], tuple["keras.Model", TakenOver | None]]
    compile: Callable[["keras.Model"], None]
    batches: Callable[[Packed, "keras.Model", int], tuple[Any, Any, int]]


def train(
    data: Manifest,
    run: RunDir,
    recipe: Recipe,
    *,
    resume: bool = False,
    replace_run: bool = False,
    no_pack: bool = False,
    replicas: int | None = 1,
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
    ask: Callable[[str], bool] | None = None,
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
        no_pack: decode the images anew in every epoch, see `customcnn.pack.stream`: slower, and nothing on the disk.
        replicas: how many devices of this machine share each batch; None for all, see `customcnn.replicas`.
        workers: threads for decoding; None for one a core.
        progress: draws the bars, see `customcnn.progress`.
        say: receives one line of text for each thing a user should know.
        ask: asks the user whether to go on, where the recipe's schedule wants that; None never asks.

    Raises:
        CustomCNNError: no training or validation part, a class without training images, a run in the way or of other
            data or another recipe, an input below the network's minimum, or a loss that is not finite.
    """
    classes = _check_data(data)
    size = input_size(recipe)
    task = Task(
        ModelInfo(recipe.model, classes, size, _positive(recipe, classes), data.drawn),
        lambda device: new_model(recipe, classes, size, device, say),
        lambda model: compile_model(model, recipe),
        lambda packed, model, devices: _labelled(packed, model, recipe, classes, devices),
    )
    return carry_out(
        task,
        data,
        run,
        recipe,
        resume=resume,
        replace_run=replace_run,
        no_pack=no_pack,
        replicas=replicas,
        workers=workers,
        progress=progress,
        say=say,
        ask=ask,
    )


def carry_out(
    task: Task,
    data: Manifest,
    run: RunDir,
    recipe: Recipe,
    *,
    resume: bool,
    replace_run: bool,
    no_pack: bool = False,
    replicas: int | None = 1,
    workers: int | None,
    progress: Progress,
    say: Callable[[str], object],
    ask: Callable[[str], bool] | None = None,
) -> TrainResult:
    """Begin a run or go on with it, and train to its end: `train` and `pretrain` differ by their task alone.

    Args:
        task: what is trained.
        data, run, recipe, resume, replace_run, no_pack, replicas, workers, progress, say, ask: see `train`.

    Raises:
        CustomCNNError: as `train` does, but for what is wrong with classes.
    """
    info = task.info
    resumed = _prepare(run, recipe, data, info, resume=resume, replace_run=replace_run)
    leakage = find_leakage(data.part("train").records, data.part("validation").records, "validation")
    for note in notes(data, leakage):
        say(f"Warning: {note}")

    device = devices.configure(recipe.device)
    shared = find_devices(replicas, device, recipe.batch_size)
    loggers.require(recipe)
    if no_pack:
        packed = stream(data, info.input_size, workers)
    else:
        packed = pack(data, info.input_size, workers=workers, progress=progress)
    if packed.converted:
        say(converted_note(packed.converted))
    if shared:
        say(f"{len(shared)} devices share each batch of {recipe.batch_size}.")
    with spread_over(shared):
        taken = None
        if resumed is None:
            model, taken = task.build(device)
            info = replace(info, drawn=info.drawn or bool(taken and taken.drawn))
        else:
            model = load_model(run.last, whole=True)
            info = replace(info, drawn=resumed.drawn, epoch=resumed.epoch, history=resumed.history)
        prepare_shared(model) if shared else devices.prepare(model, device)
        task.compile(model)
        fed = task.batches(packed, model, len(shared))
        if _ended(info, recipe) is None:
            # The run is written, and an old one deleted, only now: what fails before leaves everything as it was.
            if replace_run and run.exists():
                run.remove()
            _begin(run, recipe, data, taken)
        history = _fit(model, fed, run, recipe, info, device, progress, say, ask)
    from customcnn.plots import plot_curves

    plot_curves(history, run.curves, notes=notes(data, leakage))
    if recipe.mlflow != "none":
        loggers.log_end(run, recipe, history, say)
    return TrainResult(run, history, history[kept_epoch(history, recipe) - 1], leakage, notes(data, leakage))


OPTIONS = ("head", "pooling", "weights", "freeze", "dropout", "auxiliary", "batch_norm", "normalize", "center_crop")
"""Recipe keys that a network is built with, beside classes and input size."""


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


def _begin(run: RunDir, recipe: Recipe, data: Manifest, taken: TakenOver | None) -> None:
    # The recipe comes first: it is what makes the folder a run, which may be resumed or replaced.
    run.path.mkdir(parents=True, exist_ok=True)
    write_text(run.recipe, recipe.to_toml())
    data.write(run.manifest)
    environment = {**devices.environment(), "data": str(data.root.resolve())}
    if taken:
        environment["weights"] = {"file": str(taken.path), "sha256": taken.sha256, "layers": taken.taken}
    write_text(run.environment, json.dumps(environment, indent=2) + "\n")


def _ended(info: ModelInfo, recipe: Recipe) -> str | None:
    """Return why there is nothing to train any more; None where there is."""
    if info.epoch >= recipe.epochs:
        return f"{info.epoch} epochs are trained"
    if info.epoch and (reason := stopped(info.history, recipe)):
        return f"the training stopped after epoch {info.epoch}: {reason}"
    return None


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
            f"{show_all(sorted(unknown))}. Split it again."
        )
    return classes


def _positive(recipe: Recipe, classes: list[str]) -> str:
    if recipe.positive and (len(classes) != 2 or recipe.positive not in classes):
        raise CustomCNNError(
            f"The positive class is one of two. Received: {show(recipe.positive)} for the classes {show_all(classes)}."
        )
    return recipe.positive or (classes[1] if len(classes) == 2 else "")


def input_size(recipe: Recipe) -> tuple[int, int]:
    """Return height and width of the input: the recipe's, or the network's own."""
    size = recipe.input_size or get_spec(recipe.model).input_size
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
    new, kept = flat(recipe), flat(old)
    fixed = {"epochs"} if recipe.schedule.kind == "cosine" else set()  # its rates depend on the number of epochs
    changed = [key for key in new if (key not in RESUMABLE or key in fixed) and new[key] != kept[key]]
    if changed:
        pairs = ", ".join(f"{key} {new[key]!r} where it was {kept[key]!r}" for key in changed)
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


def _labelled(
    packed: Packed, model: "keras.Model", recipe: Recipe, classes: list[str], devices: int
) -> tuple[Any, Any, int]:
    labels = packed.labels(classes)
    outputs = len(model.outputs)
    wanted = targets(labels, len(classes), model.outputs[0].shape[-1])
    rows = epoch_rows(labels, packed.rows("train"), recipe.sampling, recipe.seed)
    scored = packed.rows("validation")
    held, held_scored = hold(packed.images, rows, scored, recipe.augmentation)
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
        devices=devices,
    )
    validation = batches(packed.images, wanted, scored, recipe.batch_size, None, outputs=outputs, resident=held_scored)
    return training, validation, len(rows)


def _fit(
    model: "keras.Model",
    fed: tuple[Any, Any, int],
    run: RunDir,
    recipe: Recipe,
    info: ModelInfo,
    device: str,
    progress: Progress,
    say: Callable[[str], object],
    ask: Callable[[str], bool] | None,
) -> list[dict[str, float]]:
    from customcnn.callbacks import Epochs, callbacks

    training, validation, images = fed

    def some() -> Iterator[np.ndarray]:
        epoch, training.epoch = training.epoch, 0  # the same images every time
        yield from (training[i][0] for i in range(min(len(training), -(-STATISTICS // recipe.batch_size))))
        training.epoch = epoch

    recorder, bar, *others = callbacks(run, recipe, info, images, progress, say, ask, some, device)
    if ended := _ended(info, recipe):
        recorder.close()
        say(f"Nothing to do: {ended}.")
        return recorder.history_rows
    if info.epoch:
        say(f"Resuming after epoch {info.epoch} of {recipe.epochs}.")
    make_variables(model, training[0][1])
    with ExitStack() as stack:
        for callback in (recorder, bar, *others):
            if hasattr(callback, "close"):
                stack.enter_context(closing(callback))
        model.fit(
            for_fit(training),
            validation_data=for_fit(validation),
            initial_epoch=info.epoch,
            epochs=recipe.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[Epochs(training), recorder, bar, *others],
        )
    return recorder.history_rows


def _weights(labels: np.ndarray, rows: np.ndarray, classes: int, recipe: Recipe) -> np.ndarray | None:
    if recipe.sampling.class_weights == "none":
        return None
    return class_weights(labels[rows], classes)[labels]
