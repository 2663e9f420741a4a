"""The command that prices a leak: leakage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from customcnn.cli.cluster_options import spread_options, spreading
from customcnn.cli.data import FOLDER, groups_option, pattern_option, read_data, skip_bad_option, workers_option
from customcnn.cli.networks import given, refuse_both
from customcnn.cli.output import json_option, print_json, resumable, say, say_place, table
from customcnn.cli.search import recipe_options
from customcnn.progress import terminal

SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
DEFAULTS: dict[str, Any] = {"seeds": 5, "test": 0.2, "ratio": 0.8, "seed": 120, "weights": "best"}


@click.command()
@click.argument("data", type=FOLDER)
@recipe_options
@click.option("--seeds", type=int, help="How often both splits are drawn and trained.  [default: 5]")
@click.option("--test", type=float, help="Share of the groups held out from both networks.  [default: .2]")
@click.option("--ratio", type=float, help="Share of the rest that trains.  [default: .8]")
@click.option("--seed", type=int, help="Of the first splits; the recipe's own is --set seed=N.  [default: 120]")
@click.option(
    "--score",
    "weights",
    type=click.Choice(["best", "last"]),
    help="Which networks are scored: those of the best epoch on their own validation part, or of the last.  "
    "[default: best]",
)
@click.option("--out", type=FOLDER, metavar="DIR", help="The folder of the experiment.  [default: runs/leakage]")
@click.option("--resume", is_flag=True, help="Go on with the experiment that is there, as it was begun.")
@click.option("--replace", is_flag=True, help="Delete the experiment that is there.")
@pattern_option
@groups_option
@json_option
@skip_bad_option
@workers_option
@spread_options
def leakage(
    data: Path,
    recipe: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    resume: bool,
    replace: bool,
    group_pattern: str | None,
    groups: Path | None,
    as_json: bool,
    skip_bad: bool,
    workers: int | None,
    seeds: int | None,
    test: float | None,
    ratio: float | None,
    seed: int | None,
    weights: str | None,
    on: str | None,
    cpus: float,
    gpus: float | None,
    **options: object,
) -> None:
    """Measure what a leak does to a score: train on a split by image and on one by group, test both on new groups.

    DATA is a folder of class folders, not split, whose groups are known. For each seed, whole groups are held out, and
    the rest is split both ways into parts of equal size. The price of the leak is how much more the validation score
    of the split by image exceeds its score on new groups than that of the split by group does.

    \b
    Example: customcnn leakage cells --model small --group-pattern cnmc --out price
    """
    from customcnn.leakage_cost.experiment import price_leak, series
    from customcnn.recipe.recipe import load_recipe, parse_recipe

    refuse_both(resume, replace)
    out = out or Path("runs") / "leakage"
    begun = series(out).begun() if resume else {}
    base = parse_recipe(begun["recipe"], str(out)) if begun else None
    asked: dict[str, Any] = {"seeds": seeds, "test": test, "ratio": ratio, "seed": seed, "weights": weights}
    chosen: dict[str, Any] = {
        key: begun.get(key, default) if asked[key] is None else asked[key] for key, default in DEFAULTS.items()
    }
    images = read_data(data, group_pattern, groups, skip_bad=skip_bad, workers=workers)
    whole = load_recipe(recipe, given(settings, options), base)
    mark = series(out).settings_file
    with resumable(mark, resume), spreading(on, cpus, gpus, data, out) as (spread, tell):
        result = price_leak(
            images,
            out,
            whole,
            **chosen,
            resume=resume,
            replace_old=replace,
            workers=workers,
            spread=spread,
            progress=terminal,
            say=tell,
        )
    print_json(result.found) if as_json else click.echo(report(result.found))
    say_place("Folder", result.path, as_json)
    if result.found["chosen_on_validation"]:
        say("Note: the best epoch was chosen on each network's own validation part; --score last is free of that.")
    for note in result.notes:
        say(f"Warning: {note}")


def report(found: Mapping[str, Any]) -> str:
    """Return the seeds and their summary as text."""
    accuracy = found["accuracy"]
    names = [name for name in accuracy if name != "price"]
    rows = [["seed", *(f"{by} {what}" for by, what in (name.split(".") for name in names)), "price"]]
    for i in range(found["seeds"]):
        seed = str(found["runs"][2 * i]["seed"])
        rows.append([seed, *(_number(name, accuracy[name]["seeds"][i]) for name in (*names, "price"))])
    summaries = [_summary(found[key], name, found["seeds"]) for key, name in SCORES.items()]
    return "\n\n".join([f"accuracy by seed\n{table(rows)}", *summaries])


def _summary(figures: Mapping[str, Any], name: str, seeds: int) -> str:
    rows = [[f"{name}, mean of {seeds} seeds", "own validation part", "new groups", "inflation"]]
    for by in ("image", "group"):
        cells = [f"{by}.{what}" for what in ("own", "test", "inflation")]
        rows.append([f"split by {by}", *(with_interval(cell, figures[cell]) for cell in cells)])
    rows.append(["price of the leak", "", "", with_interval("price", figures["price"])])
    return table(rows)


def with_interval(name: str, figure: Mapping[str, Any]) -> str:
    """Return `+.213 (+.150 to +.276)`, or the value alone where there is no interval."""
    value = _number(name, figure["value"])
    if figure["low"] is None:
        return value
    return f"{value} ({_number(name, figure['low'])} to {_number(name, figure['high'])})"


def _number(name: str, value: float) -> str:
    return f"{value:.3f}" if name.endswith((".own", ".test")) else f"{value:+.3f}"


COMMANDS = (leakage,)
