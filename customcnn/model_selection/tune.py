"""Search for the best recipe: many trainings, each a run of its own, chosen by Optuna."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.backend import devices
from customcnn.data.leakage import run_notes
from customcnn.data.manifest import Manifest
from customcnn.data.pack import pack
from customcnn.errors import CustomCNNError, is_out_of_memory, show
from customcnn.io.atomic import write_text
from customcnn.model_selection.halving import STOPS, Halving
from customcnn.model_selection.space import Axis, Space, chosen_values, told
from customcnn.model_selection.trials import METHODS, SCORES, Outcome, Search, Trial, open_study
from customcnn.models import get_spec
from customcnn.progress import Progress, silent
from customcnn.recipe.monitor import higher_is_better
from customcnn.recipe.recipe import flat
from customcnn.runs.run_dir import RunDir, rows_to_csv
from customcnn.runs.series import Series, forget_networks, hash_images, pack_once, spoken_once
from customcnn.training.classification import input_size
from customcnn.training.train import train

if TYPE_CHECKING:
    import optuna

    from customcnn.cluster.remote_trainings import Spread

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
    early_stop: str = "none",
    min_epochs: int = 1,
    resume: bool = False,
    replace_old: bool = False,
    workers: int | None = None,
    spread: "Spread | None" = None,
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
        early_stop: "none", or "asha": after 1, 3, 9 ... times `min_epochs` a trial goes on only where it is among the
            best third of the trials that came as far, see `customcnn.model_selection.halving`.
        min_epochs: before this one no trial is stopped.
        resume: go on with the search that is there: finished trials are kept, an interrupted one is resumed.
        replace_old: delete the search that is there.
        workers: threads for decoding; None for one a core.
        spread: the cluster whose nodes train the trials, several at a time; None for one after the other, here.
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
    _check_early_stop(early_stop, min_epochs)
    base = space.recipe({})
    speak = spoken_once(say)
    _prepare(data, space, workers, progress, speak, here=spread is None)
    settings = {
        "data": str(data.root),
        "method": method,
        "trials": count,
        "seed": seed,
        **({"early_stop": early_stop, "min_epochs": min_epochs} if early_stop != "none" else {}),
        "images": hash_images(data),
        "recipe": {key: value for key, value in flat(base).items() if key not in ("device", "tensorboard", "mlflow")},
        "search": space.table(),
        "given": {"source": space.source, "values": space.values, "settings": space.settings},
    }
    free = frozenset({"trials", "given.source", "given.values", "given.settings"})
    with (
        series(out).opened(data, settings, resume=resume, replace=replace_old, free=free),
        open_study(out, base.monitor) as study,
    ):
        search = Search(study, space, method, seed, several=spread is not None)
        if (done := len(search.trials())) >= count:
            say(f"Nothing to do: {done} trials are trained.")
        for note in run_notes(data) if done < count else []:
            say(f"Warning: {note}")
        trial = partial(_run, data, out, space, min_epochs if early_stop == "asha" else 0, workers)
        if spread is None:
            ends = _one_by_one(search, count, trial, progress, speak)
        else:
            ends = _spread(search, count, trial, spread, out, speak)
        with closing(ends):
            for asked, outcome in ends:
                search.record(asked, outcome, base.monitor, every=early_stop != "none")
                _write(out, search.trials(), space, base.monitor, early_stop)
        title = f"{method} search on {data.root.resolve().name}"
        return _result(out, search.trials(), space, base.monitor, title, run_notes(data))


Ends = Generator[tuple["optuna.trial.Trial", Outcome]]


def _one_by_one(
    search: Search, count: int, trial: Callable[..., Outcome], progress: Progress, say: Callable[[str], object]
) -> Ends:
    """Train one trial after the other."""
    while (asked := search.next(count)) is not None:
        number, values = asked.number + 1, chosen_values(search.space.axes, asked.params)
        say(f"Trial {number} of {count}: {told(values)}")
        outcome = trial(number, values, progress, say)
        if outcome.error:
            say(f"Trial {number} failed: {outcome.error}")
        forget_networks()
        yield asked, outcome


def _spread(
    search: Search,
    count: int,
    trial: Callable[..., Outcome],
    spread: "Spread",
    out: Path,
    say: Callable[[str], object],
) -> Ends:
    """Train the trials on the nodes of a cluster; they come as they end."""
    from customcnn.cluster.ray_cluster import LostTask

    asked: dict[str, optuna.trial.Trial] = {}
    with spread.crew(out, say) as crew:
        while True:
            # What "bayes" takes next depends on the scores before it: it asks for no more than can run now.
            while search.method != "bayes" or len(crew.running) < crew.places:
                new = search.next(count, {asked[key].number for key in crew.running})
                if new is None:
                    break
                number, values = new.number + 1, chosen_values(search.space.axes, new.params)
                asked[_name(number)] = new
                crew.train(_name(number), f"Trial {number}", told(values), trial, number, values)
            if not crew.running:
                return
            key, outcome = crew.wait()
            if isinstance(outcome, LostTask):
                outcome = Outcome({}, error=str(outcome))
            crew.end(key, _told(outcome))
            yield asked[key], outcome


def _told(outcome: Outcome) -> str:
    if outcome.error:
        return f"failed: {outcome.error}"
    scores = "  ".join(f"{key} {value:.4f}" for key, value in outcome.scores.items())
    stopped = f", stopped after epoch {outcome.epochs}" if outcome.stopped else ""
    return f"done{stopped}; best epoch {outcome.epoch}  {scores}"


def _run(
    data: Manifest,
    out: Path,
    space: Space,
    rung: int,
    workers: int | None,
    number: int,
    values: Mapping[str, Any],
    progress: Progress,
    say: Callable[[str], object],
    *,
    shared: bool = False,
) -> Outcome:
    """Train a trial, or go on with it.

    Args:
        data, out, space, workers, progress, say: as of `tune`.
        rung: the first one of successive halving, in epochs; 0 without it.
        number, values: of the trial.
        shared: whether other processes may pack the same images now.

    Raises:
        Exception: what is no trial's own fault.
    """
    name, monitor = _name(number), space.recipe({}).monitor
    halving = Halving(out, name, monitor, rung) if rung else None
    try:
        recipe = space.recipe(values)
        if shared:
            pack_once(data, input_size(recipe), workers, progress)
        stop: dict[str, Any] = {"stop": halving} if halving else {}
        result = train(
            data, RunDir(out / name), recipe, resume=True, workers=workers, progress=progress, say=say, **stop
        )
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        return Outcome({}, error=reason)
    return Outcome(
        {key: result.best[key] for key in SCORES},
        int(result.best["epoch"]),
        len(result.history),
        tuple(row[monitor] for row in result.history),
        stopped=halving.reason if halving else "",
    )


def _name(number: int) -> str:
    return f"trial-{number:03d}"


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


def _check_early_stop(early_stop: str, min_epochs: int) -> None:
    if early_stop not in STOPS:
        raise ValueError(f"Trials are stopped by one of {', '.join(STOPS)}. Received: {early_stop}.")
    if min_epochs < 1:
        raise CustomCNNError(f"A trial has an epoch at least. Received: --min-epochs {min_epochs}. Give 1 or more.")


def _prepare(
    data: Manifest, space: Space, workers: int | None, progress: Progress, say: Callable[[str], object], *, here: bool
) -> None:
    """Stop at what is no trial's fault: missing parts, a missing device where it trains here, a damaged image."""
    for part in ("train", "validation"):
        if part not in data.parts:
            raise CustomCNNError(
                f"A search needs train and validation folders. Received: {show(data.root)} without {part}. "
                "Make them with customcnn split."
            )
    base = space.recipe({})
    if here:
        devices.configure(base.device)
    if not {"model", "input_size"} & {axis.key for axis in space.axes}:
        size = base.input_size or get_spec(base.model).input_size
        pack(data, (size, size) if isinstance(size, int) else (size[0], size[-1]), workers=workers, progress=progress)


def _reason(error: Exception) -> str | None:
    """Return why a trial failed; None for an error that is not the trial's own."""
    if isinstance(error, CustomCNNError):
        return str(error)
    name = type(error).__name__
    if is_out_of_memory(error):
        return f"Not enough memory ({name}). Search among smaller batch_size or input_size."
    if isinstance(error, RuntimeError):
        # PyTorch refuses to compute a loss from NaN before ours can look at it.
        return f"{name}: {(str(error).strip().splitlines() or [''])[0]}"
    return None


def _ranked(trials: Sequence[Trial], monitor: str) -> list[Trial]:
    sign = -1 if higher_is_better(monitor) else 1
    return sorted(trials, key=lambda t: (bool(t.error), sign * t.scores.get(monitor, 0.0), t.number))


def _write(out: Path, trials: Sequence[Trial], space: Space, monitor: str, early_stop: str) -> None:
    """Write the table of the trials, and the recipe of the best so far."""
    rows = [
        {
            "trial": trial.number,
            # The recipe's loss is a function, the trial's a number.
            **{f"recipe.{key}" if key in SCORES else key: value for key, value in trial.values.items()},
            "best_epoch": trial.epoch or "",
            **{key: trial.scores.get(key, "") for key in SCORES},
            "trained_epochs": trial.epochs or "",
            **({"stopped": trial.stopped} if early_stop != "none" else {}),
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
    from customcnn.plots.search import plot_trials

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
