"""Recipe and data in, run directory out: the only `fit()` of the package."""

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from customcnn.backend import devices
from customcnn.backend.data_parallel import find_devices, prepare_shared, spread_over
from customcnn.backend.jax_processes import join
from customcnn.backend.process_group import ALONE, Job
from customcnn.backend.randomness import kept_generators
from customcnn.backend.rank import Rank
from customcnn.data.image_state import image_state, image_state_differs
from customcnn.data.leakage import Leakage, find_leakage, notes
from customcnn.data.manifest import Manifest
from customcnn.data.pack import Packed, pack, stream
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.images.decode import converted_note
from customcnn.io.atomic import refuse_inside, write_text
from customcnn.progress import Progress, silent
from customcnn.recipe.monitor import kept_epoch, stopped
from customcnn.recipe.recipe import Recipe, flat
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model, read_info
from customcnn.training import loggers
from customcnn.training.batches import for_fit
from customcnn.training.classification import Task, classifier_task
from customcnn.training.multi_process import Portion, agreed, same_data
from customcnn.training.optimizer import make_variables
from customcnn.training.warm_start import TakenOver

if TYPE_CHECKING:
    import keras

STATISTICS = 512
"""So many training images, or all, are taken to measure batch normalisation anew."""

RESUMABLE = ("epochs", "device", "tensorboard", "mlflow")
"""Recipe keys that may change when a run is resumed: they do not touch what an epoch computes."""


Stop = Callable[[list[dict[str, float]]], str]
"""Is given the history of a training and returns why it ends there; "" where it goes on."""


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
    no_pack: bool = False,
    replicas: int | None = 1,
    rank: Rank | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
    ask: Callable[[str], bool] | None = None,
    stop: Stop | None = None,
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
        no_pack: decode the images anew in every epoch, see `customcnn.data.pack.stream`: slower, and nothing on the
            disk.
        replicas: how many devices of this machine share each batch; None for all, see
            `customcnn.backend.data_parallel`.
        rank: this process's place among several that train one network, see `customcnn.backend.jax_processes`; None
            alone. Each has the same data and recipe; rank 0 writes the run. A recipe without shards gets as many as
            there are devices.
        workers: threads for decoding; None for one a core.
        progress: draws the bars, see `customcnn.progress`.
        say: receives one line of text for each thing a user should know.
        ask: asks the user whether to go on, where the recipe's schedule wants that; None never asks.
        stop: is given the history after every epoch but the last, and returns why the training ends there; "" goes on.

    Raises:
        CustomCNNError: no training or validation part, a class without training images, a run in the way or of other
            data or another recipe, an input below the network's minimum, or a loss that is not finite.
    """
    with join(rank) as job, kept_apart(run, data, job):
        if not job.first:
            progress, say, ask = silent, _unsaid, None
        recipe = agreed(recipe, job, replicas)
        return carry_out(
            classifier_task(data, recipe, say),
            data,
            run,
            recipe,
            job=job,
            resume=resume,
            replace_run=replace_run,
            no_pack=no_pack,
            replicas=replicas,
            workers=workers,
            progress=progress,
            say=say,
            ask=ask,
            stop=stop,
        )


@contextmanager
def kept_apart(run: RunDir, data: Manifest, job: Job = ALONE) -> Iterator[None]:
    """While a run is written, keep it outside its data, others out of it, and the random generators as they were.

    Raises:
        CustomCNNError: the run would lie in the folder of its images, or is a file.
        Busy: another process writes it now.
    """
    with kept_generators(), ExitStack() as stack:
        job.from_first(lambda: _open(run, data, stack))
        yield


def _open(run: RunDir, data: Manifest, stack: ExitStack) -> None:
    if run.path.is_file():
        raise CustomCNNError(f"A run is a folder. Received: {show(run.path)}, which is a file. Choose another --out.")
    refuse_inside(data.root, run.path)
    stack.enter_context(run.locked())


def _unsaid(line: str) -> None:
    """Say nothing: rank 0 does."""


def carry_out(
    task: Task,
    data: Manifest,
    run: RunDir,
    recipe: Recipe,
    *,
    job: Job = ALONE,
    resume: bool,
    replace_run: bool,
    no_pack: bool = False,
    replicas: int | None = 1,
    workers: int | None,
    progress: Progress,
    say: Callable[[str], object],
    ask: Callable[[str], bool] | None = None,
    stop: Stop | None = None,
) -> TrainResult:
    """Begin a run or go on with it, and train to its end: `train` and `pretrain` differ by their task alone.

    Args:
        task: what is trained.
        job: the processes that train it.
        data, run, recipe, resume, replace_run, no_pack, replicas, workers, progress, say, ask, stop: see `train`.

    Raises:
        CustomCNNError: as `train` does, but for what is wrong with classes.
    """
    info = task.info
    found = job.from_first(lambda: _prepare(run, recipe, data, info, say, resume=resume, replace_run=replace_run))
    resumed = ModelInfo(**found) if found else None
    same_data(data, job)
    leakage = find_leakage(data.part("train").records, data.part("validation").records, "validation")
    for note in notes(data, leakage):
        say(f"Warning: {note}")

    device = devices.configure(recipe.device)
    devices.load_tensorflow()
    shared = find_devices(replicas, device, recipe.batch_size) if job.alone else job.devices(device)
    if job.first:
        loggers.require(recipe)
    packed = job.together(lambda: _packed(task, data, job, no_pack, workers, progress))
    if packed.converted:
        say(converted_note(packed.converted))
    if shared:
        together = "" if job.alone else f"{job.world} processes with "
        say(f"{together}{len(shared)} devices share each batch of {recipe.batch_size}.")
    with spread_over(shared) if job.alone else job.spread(shared):
        taken = None
        if resumed is None:
            model, taken = task.build(device)
            info = replace(info, drawn=info.drawn or bool(taken and taken.drawn))
        else:
            with job.file_of_first(run.last) as last:
                job.seed(recipe.seed)
                model = load_model(last, whole=True)
            info = replace(info, drawn=resumed.drawn, epoch=resumed.epoch, history=resumed.history)
        prepare_shared(model) if shared else devices.prepare(model, device)
        task.compile(model)
        twin = None if job.alone else job.twin(model, task.compile)
        fed = task.batches(packed, model, len(shared), job)
        if _ended(info, recipe, stop) is None:
            # The run is written, and an old one deleted, only now: what fails before leaves everything as it was.
            job.from_first(lambda: _begin(run, recipe, data, taken, fresh=resumed is None))
        history = _fit(model, fed, run, recipe, info, device, progress, say, ask, job, twin, stop)
    if job.first:
        _end(run, recipe, history, notes(data, leakage), say)
    return TrainResult(run, history, history[kept_epoch(history, recipe) - 1], leakage, notes(data, leakage))


def _packed(task: Task, data: Manifest, job: Job, no_pack: bool, workers: int | None, progress: Progress) -> Packed:
    """Return the images, of several processes those of this one."""
    rows = task.own(data, job) if task.own and not job.alone else None
    part = data if rows is None else replace(data, records=tuple(data.records[row] for row in rows))
    size = task.info.input_size
    packed = stream(part, size, workers) if no_pack else pack(part, size, workers=workers, progress=progress)
    if rows is None:
        return packed
    return Packed(cast(np.ndarray, Portion(packed.images, rows, len(data.records))), data, packed.converted)


def _end(
    run: RunDir, recipe: Recipe, history: list[dict[str, float]], beside: list[str], say: Callable[[str], object]
) -> None:
    from customcnn.plots.curves import plot_curves

    plot_curves(history, run.curves, notes=beside)
    if recipe.mlflow != "none":
        loggers.log_end(run, recipe, history, say)


def _begin(run: RunDir, recipe: Recipe, data: Manifest, taken: TakenOver | None, *, fresh: bool) -> None:
    if fresh and run.exists():
        run.clear()
    # The recipe comes first: it is what makes the folder a run, which may be resumed or replaced.
    write_text(run.recipe, recipe.to_toml())
    data.write(run.manifest)
    environment = {**devices.environment(), "data": str(data.root.resolve()), "images": image_state(data)}
    if taken:
        environment["weights"] = {"file": str(taken.path), "sha256": taken.sha256, "layers": taken.taken}
    write_text(run.environment, json.dumps(environment, indent=2) + "\n")


def _ended(info: ModelInfo, recipe: Recipe, stop: Stop | None) -> str | None:
    """Return why there is nothing to train any more; None where there is."""
    if info.epoch >= recipe.epochs:
        return f"{info.epoch} epochs are trained"
    history = [dict(row) for row in info.history]
    if info.epoch and (reason := stopped(history, recipe) or (stop(history) if stop else "")):
        return f"the training stopped after epoch {info.epoch}: {reason}"
    return None


def _prepare(
    run: RunDir,
    recipe: Recipe,
    data: Manifest,
    info: ModelInfo,
    say: Callable[[str], object],
    *,
    resume: bool,
    replace_run: bool,
) -> dict[str, Any] | None:
    """Return what last.keras holds where a run is resumed, a `ModelInfo`; None where the training starts."""
    if all(path.name.startswith(".") for path in run.path.iterdir()):
        return None  # nothing, or killed before its recipe was written
    if replace_run:
        run.require_run()
        return None
    trained = [path.name for path in (run.last, run.best, run.history) if path.exists()]
    if run.exists() and not trained:
        say(f"No epoch has ended in {show(run.path)}: it is begun anew.")
        return None
    if not resume:
        raise CustomCNNError(f"Run {show(run.path)} exists. Use --resume to go on with it, or --replace to delete it.")
    if not run.exists():
        raise CustomCNNError(f"--resume goes on with a run. Received: {show(run.path)}, which is none.")
    old = run.read_recipe()
    new, kept = flat(recipe), flat(old)
    fixed = {"epochs"} if recipe.schedule.kind == "cosine" else set()  # its rates depend on the number of epochs
    changed = [key for key in new if (key not in RESUMABLE or key in fixed) and new[key] != kept[key]]
    if changed:
        pairs = ", ".join(f"{key} {new[key]!r} where it was {kept[key]!r}" for key in changed)
        raise CustomCNNError(
            f"A run is resumed with its own recipe. Received: {pairs}. To train its network on in another way, begin a "
            f"new run from it: --set weights={shlex.quote(str(run.path))} and another --out."
        )
    known = run.manifest.is_file()
    if known and run.read_manifest().records != _plain(data):
        raise CustomCNNError(
            f"A run is resumed on its own images. Received: {show(data.root)}, not as in {show(run.manifest)}. "
            "Choose another --out."
        )
    if known and image_state_differs(data, _read_environment(run).get("images")):
        raise CustomCNNError(
            f"A run is resumed on its own images. Received: {show(data.root)}, where images have changed since "
            f"{show(run.path)} began. Put them back, or choose another --out."
        )
    if not run.last.is_file():
        raise CustomCNNError(
            f"A run is resumed from its last.keras. Received: {show(run.path)}, which holds {', '.join(trained)} but "
            f"not that. Begin a new run from it, --set weights={shlex.quote(str(run.path))} and another --out, or "
            "--replace it."
        )
    saved = read_info(run.last)
    if (saved.model, saved.classes, saved.input_size) != (info.model, info.classes, info.input_size):
        raise CustomCNNError(
            f"A run is resumed with its own network and classes. Received: {show(run.last)} of {saved.model} for "
            f"{show_names(saved.classes)}. Choose another --out."
        )
    return saved.as_dict()


def _read_environment(run: RunDir) -> dict[str, Any]:
    try:
        found = json.loads(run.environment.read_text("utf-8"))
    except (OSError, ValueError):  # a kill came before it was written, or an older version did not
        return {}
    return found if isinstance(found, dict) else {}


def _plain(data: Manifest) -> tuple[object, ...]:
    # The CSV fills columns that some records lack with empty text.
    columns = {column for record in data.records for column in record.extra}
    return tuple(replace(r, extra={c: r.extra.get(c, "") for c in sorted(columns)}) for r in data.records)


def _fit(
    model: "keras.Model",
    fed: tuple[Any, Any],
    run: RunDir,
    recipe: Recipe,
    info: ModelInfo,
    device: str,
    progress: Progress,
    say: Callable[[str], object],
    ask: Callable[[str], bool] | None,
    job: Job,
    twin: "keras.Model | None",
    stop: Stop | None,
) -> list[dict[str, float]]:
    from customcnn.training.callbacks import Epochs, FreshStatistics, ScoreApart, callbacks, measures_statistics

    training, validation = fed

    def some() -> Iterator[np.ndarray]:
        epoch, training.epoch = training.epoch, 0  # the same images every time
        yield from (training[i][0] for i in range(min(len(training), -(-STATISTICS // recipe.batch_size))))
        training.epoch = epoch

    images = training.per_epoch
    recorder, bar, *others = callbacks(run, recipe, info, images, progress, say, ask, some, device, job, twin, stop)
    if ended := _ended(info, recipe, stop):
        recorder.close()
        say(f"Nothing to do: {ended}.")
        return recorder.history_rows
    if info.epoch:
        say(f"Resuming after epoch {info.epoch} of {recipe.epochs}.")
    make_variables(model, training[0][1])
    first = [Epochs(training)] if twin is None else [Epochs(training), ScoreApart(job, twin, validation)]
    if twin is None and measures_statistics(recipe, model, len(training)):
        first.append(FreshStatistics(some))
    with ExitStack() as stack:
        for callback in (recorder, bar, *others):
            if hasattr(callback, "close"):
                stack.enter_context(closing(callback))
        model.fit(
            for_fit(training),
            validation_data=for_fit(validation) if twin is None else None,
            initial_epoch=info.epoch,
            epochs=recipe.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[*first, recorder, bar, *others],
        )
    return recorder.history_rows
