"""The command compare: runs side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from customcnn.cli.data import FOLDER
from customcnn.cli.networks import positive_option
from customcnn.cli.output import json_option, print_json, say, table
from customcnn.errors import show


@click.command()
@click.argument("runs", type=FOLDER, nargs=-1, required=True)
@click.option(
    "--part", type=click.Choice(["train", "validation", "test"]), help="Refuse runs tested on another.  [default: any]"
)
@click.option("--out", type=FOLDER, help="Write compare.json, compare.csv and compare.png into this folder.")
@positive_option
@json_option
@click.option("--resamples", default=2000, show_default=True, help="Of the bootstrap behind the intervals.")
@click.option("--level", default=0.95, show_default=True, help="Of the intervals; 1 - level is what p must stay below.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
def compare(
    runs: tuple[Path, ...],
    part: str | None,
    out: Path | None,
    positive: str | None,
    as_json: bool,
    resamples: int,
    level: float,
    seed: int,
) -> None:
    """Compare evaluated RUNS that were tested on the same images: every pair, with what is shown and what is not.

    A run is one that customcnn evaluate has scored, or a folder that evaluate --out wrote.

    \b
    Example: customcnn compare runs/proposed runs/alexnet runs/small --out comparison
    """
    from customcnn.evaluation.compare import compare as run_comparison
    from customcnn.evaluation.compare import warnings, write

    found = run_comparison(runs, part=part, positive=positive, resamples=resamples, level=level, seed=seed)
    if out:
        write(found, out)
    print_json(found) if as_json else click.echo(_text(found))
    for note in found["notes"]:
        say(f"Note: {note}")
    for note in warnings(found):
        say(f"Warning: {note}")


def _text(found: Mapping[str, Any]) -> str:
    """Return the runs, the recipes with several seeds, the pairs and the verdicts as text."""
    from customcnn.evaluation.compare import SCORES

    interval = found["interval"]
    groups = "" if found["groups"] is None else f" of {found['groups']:,} group{'s' * (found['groups'] != 1)}"
    rows: list[list[object]] = [["run", "model", "part", "images", *SCORES.values()]]
    for number, row in enumerate(found["runs"], start=1):
        about = [f"{number} {_plain(row['run'])}", row["model"], row["part"], f"{row['images']:,}"]
        rows.append([*about, *(_interval(row[key]) for key in SCORES)])
    images = f"{found['images']:,} image{'s' * (found['images'] != 1)}{groups}, the same in every run"
    blocks = [images, table(rows), *_recalls_text(found), *map(_seeds_text, found["recipes"]), _pairs_text(found)]
    blocks.append("\n".join(_plain(pair["verdict"]) for pair in found["pairs"]))
    columns = [
        "first only, second only: images that one of the two alone has right",
        "McNemar p: McNemar's exact test, images taken as independent",
        *(["groups p: exact sign-flip test over groups"] if found["groups"] is not None else []),
        f"Holm p: {'groups p' if found['groups'] is not None else 'McNemar p'} corrected for all pairs",
    ]
    how = f"{interval['level'] * 100:g} %, {interval['resamples']:,} resamples, seed {interval['seed']}"
    intervals = [f"intervals: {how}", f"scores: {interval['scores']}", f"differences: {interval['differences']}"]
    blocks.append("\n".join([*intervals, *columns]))
    return "\n\n".join(blocks)


def _recalls_text(found: Mapping[str, Any]) -> list[str]:
    """Return sensitivity and specificity of every run, of two classes."""
    from customcnn.metrics.scores import recall_names

    if not found["positive"]:
        return []
    names = recall_names(found["positive"], found["classes"])
    rows: list[list[object]] = [["run", *names.values()]]
    rows += [[number, *(_interval(row[key]) for key in names)] for number, row in enumerate(found["runs"], start=1)]
    return [table(rows)]


def _seeds_text(entry: Mapping[str, Any]) -> str:
    from customcnn.evaluation.compare import SCORES

    rows: list[list[object]] = [["one recipe", "seeds", "mean", "standard deviation", "range"]]
    for key, label in SCORES.items():
        if key in entry:
            row = entry[key]
            spread = f"{row['low']:.3f} to {row['high']:.3f}"
            rows.append([label, row["n"], f"{row['mean']:.3f}", f"{row['sd']:.3f}", spread])
    members = zip(map(_plain, entry["runs"]), entry["seeds"], strict=True)
    return f"{table(rows)}\nseeds: {', '.join(f'{seed} ({run})' for run, seed in members)}"


def _pairs_text(found: Mapping[str, Any]) -> str:
    from customcnn.metrics.paired_tests import p_text

    grouped = found["groups"] is not None
    heading: list[object] = ["difference", "accuracy", "balanced accuracy", "first only", "second only", "McNemar p"]
    rows = [[*heading, *(["groups p"] if grouped else []), "Holm p"]]
    numbers = {row["run"]: number for number, row in enumerate(found["runs"], start=1)}
    for pair in found["pairs"]:
        row: list[object] = [f"{numbers[pair['first']]} - {numbers[pair['second']]}"]
        row += [_interval(pair["accuracy"]), _interval(pair["balanced_accuracy"])]
        row += [f"{pair['only_first']:,}", f"{pair['only_second']:,}", p_text(pair["mcnemar"])]
        rows.append([*row, *([p_text(pair["p"])] if grouped else []), p_text(pair["holm"])])
    return table(rows)


def _interval(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "undefined"
    return f"{row['value']:.3f}" + ("" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})")


def _plain(name: str) -> str:
    return name if name.isprintable() else show(name)


COMMANDS = (compare,)
