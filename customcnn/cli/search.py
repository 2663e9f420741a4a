"""Commands of many trainings: crossval and tune."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from customcnn.cli.cluster_options import spread_options, spreading
from customcnn.cli.data import FOLDER, groups_option, pattern_option, read_data, skip_bad_option, workers_option
from customcnn.cli.networks import device_option, given, model_option, refuse_both, settings_option
from customcnn.cli.output import GROUPS_UNKNOWN, json_option, print_json, resumable, say, say_place, table
from customcnn.progress import terminal

if TYPE_CHECKING:
    from customcnn.model_selection.space import Space
    from customcnn.model_selection.tune import TuneResult

F = TypeVar("F", bound=Callable[..., Any])

FOLDS = {
    "val_loss": "val_loss",
    "val_accuracy": "val_accuracy",
    "balanced_accuracy": "balanced",
    "weighted_f1": "weighted F1",
    "roc_auc": "ROC AUC",
}
"""The scores of the table of folds, with their headings; folds.csv has more."""


def recipe_options(command: F) -> F:
    """Add the options that make a recipe; their values come as keyword arguments under the recipe's names."""
    options = (
        model_option,
        click.option("--recipe", type=FOLDER, metavar="FILE", help="A recipe in TOML."),
        settings_option,
        click.option("--epochs", type=int, help="How often every image is seen."),
        click.option("--batch-size", type=int, help="Images in a step."),
        click.option(
            "--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Of the arithmetic."
        ),
        device_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("data", type=FOLDER)
@recipe_options
@click.option("--folds", type=int, help="How many.  [default: 5, or as many as the column has values]")
@click.option(
    "--by",
    metavar="image|group|COLUMN",
    help="What is dealt: images, whole groups, or what a column of manifest.csv says.  "
    "[default: group with --group-pattern or --groups, else image]",
)
@click.option("--seed", type=int, help="Of the folds; the recipe's own is --set seed=N.  [default: 120]")
@click.option(
    "--score",
    "weights",
    type=click.Choice(["best", "last"]),
    help="Which network is scored: that of the fold's best epoch or that of its last.  [default: best]",
)
@click.option("--resamples", default=2000, show_default=True, help="Of the bootstrap behind the intervals.")
@click.option("--out", type=FOLDER, metavar="DIR", help="The folder of the folds.  [default: runs/crossval]")
@click.option("--resume", is_flag=True, help="Go on with the cross-validation that is there, as it was begun.")
@click.option("--replace", is_flag=True, help="Delete the cross-validation that is there.")
@pattern_option
@groups_option
@json_option
@skip_bad_option
@workers_option
@spread_options
def crossval(
    data: Path,
    recipe: Path | None,
    settings: tuple[str, ...],
    folds: int | None,
    by: str | None,
    seed: int | None,
    weights: str | None,
    resamples: int,
    out: Path | None,
    resume: bool,
    replace: bool,
    group_pattern: str | None,
    groups: Path | None,
    as_json: bool,
    skip_bad: bool,
    workers: int | None,
    on: str | None,
    cpus: float,
    gpus: float | None,
    **options: object,
) -> None:
    """Train a network on all folds of DATA but one, score it on that one, and so for every fold.

    DATA is a split folder, whose train and validation parts are dealt into folds anew, or a folder of class folders.
    Every fold is a run in DIR, with fresh weights from the same seed.

    \b
    Example: customcnn crossval parts --model small --folds 5 --by group --out runs/five-folds
    """
    from customcnn.metrics.scores import format_report
    from customcnn.model_selection.crossval import crossval as run_crossval
    from customcnn.model_selection.crossval import series
    from customcnn.recipe.recipe import load_recipe, parse_recipe

    refuse_both(resume, replace)
    out = out or Path("runs") / "crossval"
    begun = series(out).begun() if resume else {}
    base = parse_recipe(begun["recipe"], str(out)) if begun else None
    images = read_data(data, group_pattern, groups, skip_bad=skip_bad, workers=workers)
    whole = load_recipe(recipe, given(settings, options), base)
    mark = series(out).settings_file
    with resumable(mark, resume), spreading(on, cpus, gpus, data, out) as (spread, tell):
        result = run_crossval(
            images,
            out,
            whole,
            folds=begun.get("folds") if folds is None else folds,
            by=by or begun.get("by") or ("group" if group_pattern or groups else "image"),
            seed=begun.get("seed", 120) if seed is None else seed,
            weights=weights or begun.get("weights", "best"),
            resamples=resamples,
            resume=resume,
            replace_old=replace,
            workers=workers,
            spread=spread,
            progress=terminal,
            say=tell,
        )
    if as_json:
        print_json(result.metrics)
    else:
        click.echo(_folds_table(result.folds, result.mean, result.deviation))
        click.echo("\nAll images together, each scored by a network that was not trained on it:\n")
        click.echo(format_report(result.metrics))
    say_place("Folder", result.path, as_json)
    if result.metrics["chosen_on_this_part"]:
        say("Note: a fold's best epoch was chosen by its score on the fold; --score last is free of that choice.")
    if not result.leakage.groups_known:
        say(GROUPS_UNKNOWN)
    for note in result.notes:
        say(f"Warning: {note}")


def _folds_table(folds: list[dict[str, Any]], mean: Mapping[str, Any], deviation: Mapping[str, Any]) -> str:
    named = any("value" in fold for fold in folds)
    rows = [["fold", *(["value"] if named else []), "images", "groups", "epoch", *FOLDS.values()]]
    for fold in folds:
        groups = "-" if fold["groups"] is None else f"{fold['groups']:,}"
        rows.append(
            [
                str(fold["fold"]),
                *([fold["value"]] if named else []),
                f"{fold['images']:,}",
                groups,
                str(fold["epoch"]),
                *(_number(fold[key]) for key in FOLDS),
            ]
        )
    blank = [""] * (4 if named else 3)
    rows.append(["mean", *blank, *(_number(mean[key]) for key in FOLDS)])
    rows.append(["standard deviation", *blank, *(_number(deviation[key]) for key in FOLDS)])
    return table(rows)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


@click.command()
@click.argument("data", type=FOLDER)
@recipe_options
@click.option(
    "--method",
    type=click.Choice(["grid", "random", "bayes"]),
    help="All combinations, random ones, or those that look promising after the ones before.  [default: grid]",
)
@click.option("--trials", type=int, help="How many at most.  [default: the whole grid, or 20]")
@click.option("--seed", type=int, help="Of the search; the recipe's own is --set seed=N.  [default: 120]")
@click.option(
    "--early-stop",
    type=click.Choice(["none", "asha"]),
    help="asha stops a trial after 1, 3, 9 ... epochs unless it is in the best third of those that came as far.  "
    "[default: none]",
)
@click.option(
    "--min-epochs", type=int, help="With --early-stop: no trial ends before; then 3, 9 ... times as many.  [default: 1]"
)
@click.option("--out", type=FOLDER, metavar="DIR", help="The folder of the trials.  [default: runs/tune]")
@click.option("--resume", is_flag=True, help="Go on with the search that is there, as it was begun.")
@click.option("--replace", is_flag=True, help="Delete the search that is there.")
@json_option
@workers_option
@spread_options
def tune(
    data: Path,
    recipe: Path | None,
    settings: tuple[str, ...],
    method: str | None,
    trials: int | None,
    seed: int | None,
    early_stop: str | None,
    min_epochs: int | None,
    out: Path | None,
    resume: bool,
    replace: bool,
    as_json: bool,
    workers: int | None,
    on: str | None,
    cpus: float,
    gpus: float | None,
    **options: object,
) -> None:
    """Search for the best recipe among those that the table [search] of FILE describes. Needs customcnn[tune].

    Every trial is a run in DIR, scored on DATA/validation by the recipe's monitor at its best epoch. best.toml is the
    recipe of the best.

    \b
    Example: customcnn tune parts --recipe experiments/small-cnn/grid.toml --out runs/grid
             customcnn tune parts --recipe search.toml --method bayes --trials 30
    """
    from customcnn.data.manifest import scan, with_known_groups
    from customcnn.model_selection.tune import series
    from customcnn.model_selection.tune import tune as run_search

    refuse_both(resume, replace)
    out = out or Path("runs") / "tune"
    begun = series(out).begun() if resume else {}
    images, space = with_known_groups(scan(data)), _space(recipe, given(settings, options), begun)
    mark = series(out).settings_file
    with resumable(mark, resume), spreading(on, cpus, gpus, data, out) as (spread, tell):
        result = run_search(
            images,
            out,
            space,
            method=method or begun.get("method", "grid"),
            trials=begun.get("trials") if trials is None else trials,
            seed=begun.get("seed", 120) if seed is None else seed,
            early_stop=early_stop or begun.get("early_stop", "none"),
            min_epochs=begun.get("min_epochs", 1) if min_epochs is None else min_epochs,
            resume=resume,
            replace_old=replace,
            workers=workers,
            spread=spread,
            progress=terminal,
            say=tell,
        )
    print_json(_search_dict(result)) if as_json else click.echo(_search_text(result))
    if result.monitor.startswith("val_"):
        say("Note: the best trial was chosen by its score on this part; a test part would be free of that choice.")
    for note in result.notes:
        say(f"Warning: {note}")


def _search_dict(result: "TuneResult") -> dict[str, Any]:
    trials = [
        {
            "trial": trial.number,
            "values": dict(trial.values),
            "epoch": trial.epoch or None,
            "epochs": trial.epochs or None,
            **trial.scores,
            "stopped": trial.stopped or None,
            "error": trial.error or None,
        }
        for trial in result.ranking
    ]
    return {
        "folder": result.path,
        "recipe": result.path / "best.toml",
        "monitor": result.monitor,
        "best": result.best.number,
        "trials": trials,
        "notes": result.notes,
    }


def _search_text(result: "TuneResult") -> str:
    from customcnn.model_selection.space import plain, told
    from customcnn.model_selection.trials import SCORES

    rows = [["trial", *(axis.key for axis in result.axes), "epoch", *SCORES]]
    for trial in result.ranking:
        if not trial.error:
            values = [plain(trial.values[axis.key]) for axis in result.axes]
            rows.append([str(trial.number), *values, str(trial.epoch), *(f"{trial.scores[key]:.4f}" for key in SCORES)])
    failed = [
        f"Trial {trial.number} failed ({told(trial.values)}): {trial.error}" for trial in result.trials if trial.error
    ]
    stopped = [trial for trial in result.trials if trial.stopped]
    if stopped:
        told_of = ", ".join(f"{trial.number} (epoch {trial.epochs})" for trial in stopped)
        failed.insert(0, f"Stopped early: trial{'s' * (len(stopped) > 1)} {told_of}")
    best = result.best
    score = f"{best.scores[result.monitor]:.4f} in epoch {best.epoch}"
    return "\n".join(
        [
            table(rows),
            *failed,
            f"Best of {len(result.trials)} by {result.monitor}, {score}: trial {best.number}, {told(best.values)}",
            f"Recipe: {result.path / 'best.toml'}",
        ]
    )


def _space(path: Path | None, given: dict[str, object], begun: Mapping[str, Any]) -> "Space":
    """Return what is searched; without a file that of the search to resume."""
    from customcnn.errors import CustomCNNError
    from customcnn.model_selection.space import read_space, space_from

    if path is not None:
        return read_space(path, given)
    if not begun:
        raise CustomCNNError(
            "A search is told by a table [search] in a recipe. Received: no --recipe. "
            "Example: --recipe experiments/small-cnn/grid.toml."
        )
    told = begun["given"]
    return space_from(begun["search"], told["values"], told["settings"] | given, told["source"])


COMMANDS = (crossval, tune)
