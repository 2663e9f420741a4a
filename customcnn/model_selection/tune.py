"""Search for the best recipe: many trainings, each a run of its own, chosen by Optuna."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from customcnn import devices
from customcnn.errors import CustomCNNError, show
from customcnn.files import write_text
from customcnn.leakage import run_notes
from customcnn.manifest import Manifest
from customcnn.model_selection.series import Series, forget_networks, hash_images, spoken_once
from customcnn.model_selection.space import Axis, Space, chosen_values, told
from customcnn.model_selection.trials import METHODS, SCORES, Search, Trial, open_study
from customcnn.models import get_spec
from customcnn.pack import pack
from customcnn.progress import Progress, silent
from customcnn.recipe import flat
from customcnn.runs import RunDir, rows_to_csv
from customcnn.train import train

TRIALS = 20
"""How many trials there are where nothing else says so; a grid has its own number."""


@dataclass(frozen=True)
class TuneResult:
    """What a search found: its folder, its trials by number, the best one (the first of equals), and the warnings."""

    path: Path
    axes: tuple[Axis, ...]
    monitor: str
    trials: list[Trial]
    best: Trial
    notes: list[str]

    @property
    def ranking(self) -> list[Trial]:
        """The trials with the best first; those that failed come last."""
        return _ranked(self.trials, self.monitor)


def tune(
    data: Manifest,
    out: Path,
    space: Space,
    *,
    method: str = "grid",
    trials: int | None = None,
    seed: int = 120,
    resume: bool = False,
    replace_old: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> TuneResult:
    """Train a network for every trial and keep the recipe of the best, by the recipe's `monitor` at its best epoch.

    Every trial is a run of its own, `out/trial-001` and so on. All have the recipe's own seed, so they differ by what
    is searched alone. A trial that fails (its loss is not finite, its input is too small, the memory does not suffice)
    is a row that says why, and the others go on. Writes trials.csv and best.toml after every trial, trials.png at the
    end.

    Args:
        data: a split folder's manifest, from `scan`.
        out: the folder to make.
        space: what is searched, from `read_space`.
        method: "grid" (all combinations, in an order drawn by the seed), "random", or "bayes" (Optuna's tree-structured
            Parzen estimator; its first ten trials are random).
        trials: how many at most; None for all of a grid, and 20 else. More may be asked for when it is resumed.
        seed: of the search. What trial n takes follows from the seed, n and, for "bayes", the results before it.
        resume: go on with the search that is there: finished trials are kept, an interrupted one is resumed.
        replace_old: delete the search that is there.
        workers: threads for decoding; None for one a core.
        progress: draws the bars, see `customcnn.progress`.
        say: receives one line of text for each thing a user should know.

    Raises:
        CustomCNNError: no Optuna, a grid of ranges, no training or validation part, something in the way, or every
            trial failed.

    Reference: Bergstra and Bengio (2012), Random search for hyper-parameter optimization; Bergstra et al. (2011),
    Algorithms for hyper-parameter optimization.
    """
    _require_optuna()
    count = _count(space, method, trials)
    base = space.recipe({})
    speak = spoken_once(say)
    _prepare(data, space, workers, progress, speak)
    settings = {
        "data": str(data.root),
        "method": method,
        "trials": count,
        "seed": seed,
        "images": hash_images(data),
        "recipe": {key: value for key, value in flat(base).items() if key not in ("device", "tensorboard", "mlflow")},
        "search": space.table(),
        "given": {"source": space.source, "values": space.values, "settings": space.settings},
    }
    free = frozenset({"trials", "given.source", "given.values", "given.settings"})
    with (
        series(out).opened(settings, resume=resume, replace=replace_old, free=free),
        open_study(out, base.monitor) as study,
    ):
        search = Search(study, space, method, seed)
        if (done := len(search.trials())) >= count:
            say(f"Nothing to do: {done} trials are trained.")
        for note in run_notes(data) if done < count else []:
            say(f"Warning: {note}")
        while (asked := search.next(count)) is not None:
            number, values = asked.number + 1, chosen_values(space.axes, asked.params)
            speak(f"Trial {number} of {count}: {told(values)}")
            run = RunDir(out / f"trial-{number:03d}")
            try:
                recipe = space.recipe(values)
                result = train(data, run, recipe, resume=True, workers=workers, progress=progress, say=speak)
            except Exception as error:
                reason = _reason(error)
                if reason is None:
                    raise
                speak(f"Trial {number} failed: {reason}")
                search.failed(asked, reason)
            else:
                scores = {key: result.best[key] for key in SCORES}
                search.done(asked, scores, int(result.best["epoch"]), len(result.history), base.monitor)
            forget_networks()
            _write(out, search.trials(), space, base.monitor)
        title = f"{method} search on {data.root.resolve().name}"
        return _result(out, search.trials(), space, base.monitor, title, run_notes(data))


def series(out: Path) -> Series:
    """Return the folder of a search, which may not be there yet."""
    return Series(out, "search", "tune.json")


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise CustomCNNError("A search needs the optuna package. Received: none. Install customcnn[tune].") from None


def _count(space: Space, method: str, trials: int | None) -> int:
    if method not in METHODS:
        raise ValueError(f"A search is one of {', '.join(METHODS)}. Received: {method}.")
    if trials is not None and trials < 1:
        raise CustomCNNError(f"A search has a trial at least. Received: --trials {trials}. Give more.")
    if method != "grid":
        return trials or TRIALS
    if space.size is None:
        ranges = ", ".join(axis.key for axis in space.axes if not axis.choices)
        raise CustomCNNError(
            f"A grid is made of lists of choices. Received: a range for {ranges} in {space.source}. "
            "Give a list, or --method random or bayes."
        )
    return min(trials or space.size, space.size)


def _prepare(
    data: Manifest, space: Space, workers: int | None, progress: Progress, say: Callable[[str], object]
) -> None:
    """Stop at what is no trial's fault: missing parts, a missing device, a damaged image."""
    for part in ("train", "validation"):
        if part not in data.parts:
            raise CustomCNNError(
                f"A search needs train and validation folders. Received: {show(data.root)} without {part}. "
                "Make them with customcnn split."
            )
    base = space.recipe({})
    devices.configure(base.device)
    if not {"model", "input_size"} & {axis.key for axis in space.axes}:
        size = base.input_size or get_spec(base.model).input_size
        pack(data, (size, size) if isinstance(size, int) else (size[0], size[-1]), workers=workers, progress=progress)


def _reason(error: Exception) -> str | None:
    """Return why a trial failed; None for an error that is not the trial's own."""
    if isinstance(error, CustomCNNError):
        return str(error)
    name = type(error).__name__
    # TensorFlow's ResourceExhaustedError, PyTorch's OutOfMemoryError, JAX's XlaRuntimeError.
    marks = ("MemoryError", "ResourceExhausted", "OutOfMemory")
    if any(mark in name for mark in marks) or "RESOURCE_EXHAUSTED" in str(error):
        return f"Not enough memory ({name}). Search among smaller batch_size or input_size."
    if isinstance(error, RuntimeError):
        # PyTorch refuses to compute a loss from NaN before ours can look at it.
        return f"{name}: {(str(error).strip().splitlines() or [''])[0]}"
    return None


def _ranked(trials: Sequence[Trial], monitor: str) -> list[Trial]:
    sign = -1 if monitor.endswith("accuracy") else 1
    return sorted(trials, key=lambda t: (bool(t.error), sign * t.scores.get(monitor, 0.0), t.number))


def _write(out: Path, trials: Sequence[Trial], space: Space, monitor: str) -> None:
    """Write the table of the trials, and the recipe of the best so far."""
    rows = [
        {
            "trial": trial.number,
            # The recipe's loss is a function, the trial's a number.
            **{f"recipe.{key}" if key in SCORES else key: value for key, value in trial.values.items()},
            "best_epoch": trial.epoch or "",
            **{key: trial.scores.get(key, "") for key in SCORES},
            "trained_epochs": trial.epochs or "",
            "error": trial.error,
        }
        for trial in trials
    ]
    write_text(out / "trials.csv", rows_to_csv(rows))
    best = _ranked(trials, monitor)[0]
    if best.error:
        return
    heading = (
        f"# The best of {len(trials)} trials of customcnn tune: trial {best.number}, {monitor} "
        f"{best.scores[monitor]:.4f} in epoch {best.epoch}.\n"
        "#\n#   customcnn train DATA --recipe best.toml --out runs/best\n\n"
    )
    write_text(out / "best.toml", heading + space.recipe(best.values).to_toml())


def _result(out: Path, trials: list[Trial], space: Space, monitor: str, title: str, beside: list[str]) -> TuneResult:
    from customcnn.model_selection.plots import plot_trials

    best = _ranked(trials, monitor)[0]
    if best.error:
        raise CustomCNNError(
            f"A search has a trial that does not fail. Received: {len(trials)} that failed, the first so: {best.error}"
        )
    plot_trials(
        [trial.values for trial in trials],
        [trial.scores.get(monitor) for trial in trials],
        {axis.key: axis.choices or None for axis in space.axes},
        monitor,
        out / "trials.png",
        logarithmic=[axis.key for axis in space.axes if axis.log],
        title=title,
        notes=beside,
    )
    return TuneResult(out, space.axes, monitor, trials, best, beside)
