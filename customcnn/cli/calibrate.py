"""The command calibrate: a temperature for the network, sets of classes, and what is no cell at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from customcnn.cli.data import FOLDER, groups_option, pattern_option, read_data, skip_bad_option, workers_option
from customcnn.cli.networks import device_option, no_pack_option, positive_option
from customcnn.cli.output import GROUPS_UNKNOWN, json_option, print_json, say, table
from customcnn.progress import terminal

if TYPE_CHECKING:
    from customcnn.evaluation.calibrate import Calibrated


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("data", type=FOLDER)
@click.option("--part", type=click.Choice(["train", "validation", "test"]), help="[default: validation]")
@click.option("--coverage", default=0.9, show_default=True, help="How often a set of classes is to hold the true one.")
@click.option(
    "--sets",
    type=click.Choice(["lac", "aps"]),
    default="lac",
    show_default=True,
    help="How sets are made: lac keeps them small, aps never empty.",
)
@click.option("--novelty", default=0.99, show_default=True, help="Share of images like these that is to look familiar.")
@positive_option
@click.option("--resamples", default=2000, show_default=True, help="Of the bootstrap behind the intervals.")
@pattern_option
@groups_option
@json_option
@skip_bad_option
@device_option
@no_pack_option
@workers_option
def calibrate(
    run: Path,
    data: Path,
    part: str | None,
    coverage: float,
    sets: str,
    novelty: float,
    positive: str | None,
    resamples: int,
    group_pattern: str | None,
    groups: Path | None,
    as_json: bool,
    skip_bad: bool,
    device: str | None,
    no_pack: bool,
    workers: int | None,
) -> None:
    """Make a network's probabilities honest, and let it say "not sure", on images that it was not trained on.

    Puts a temperature into RUN/best.keras as its last layers, where every other command finds it, and beside it how
    sets of classes are made and what does not look like a cell. Writes calibration.json and calibration.png.

    \b
    Example: customcnn calibrate runs/proposed augmented
             customcnn predict runs/proposed cell.bmp
    """
    from customcnn.evaluation.calibrate import calibrate as run_calibration
    from customcnn.inference.runtimes import NAMES, export_path
    from customcnn.runs.run_dir import RunDir

    place = RunDir(run)
    result = run_calibration(
        place,
        read_data(data, group_pattern, groups, skip_bad=skip_bad, workers=workers),
        part=part,
        coverage=coverage,
        method=sets,
        novelty=novelty,
        positive=positive,
        resamples=resamples,
        device=device or "auto",
        no_pack=no_pack,
        workers=workers,
        progress=terminal,
        say=say,
    )
    print_json(result.as_dict()) if as_json else click.echo(_report(result))
    for note in _notes(result):
        say(f"Note: {note}")
    if any(export_path(place.best, name).exists() for name in NAMES):
        say("Note: the export is of the network before. Make it again: customcnn export.")
    if result.before["groups"] is None:
        say(GROUPS_UNKNOWN)
    for note in result.notes:
        say(f"Warning: {note}")


def _report(result: "Calibrated") -> str:
    images, groups = result.before["images"], result.before["groups"]
    rows: list[list[object]] = [["", "before", "", "after", ""]]
    for key, label in (("log_loss", "log loss"), ("ece", "ECE"), ("brier", "Brier score")):
        rows.append([label, *_cells(result.before[key]), *_cells(result.after[key])])
    rows.append(["accuracy", f"{result.accuracy[0]:.3f}", "", f"{result.accuracy[1]:.3f}", ""])
    none, one, more = (f"{share:.0%}" for share in result.sizes)
    where = "new groups" if result.sets.unit == "group" else "images like these"
    lines = [
        f"{images:,} images{'' if groups is None else f' of {groups:,} groups'}, part: {result.part}",
        table(rows),
        f"temperature {result.temperature:.3f}: {_words(result.temperature)}",
        f"sets ({result.sets.method}) for {where}, coverage {result.sets.coverage:g}: "
        f"one class for {one} of these images, more for {more}, none for {none}",
        f"the true class is in the set of {_covered(result)}",
    ]
    if result.novelty:
        limit, share = result.novelty.limit, result.novelty.share
        lines.append(f"novelty: {share:.1%} of images like these are to lie below {limit:.2f}")
    return "\n".join(lines)


def _covered(result: "Calibrated") -> str:
    images = f"{result.covered:.1%} of these images"
    if result.covered_groups is None:
        return images
    return f"{images}, {result.covered_groups:.1%} as the mean over their groups"


def _cells(interval: dict[str, Any]) -> list[str]:
    if interval["low"] is None:
        return [f"{interval['value']:.3f}", "-"]
    return [f"{interval['value']:.3f}", f"{interval['low']:.3f} to {interval['high']:.3f}"]


def _words(temperature: float) -> str:
    from customcnn.metrics.calibration import HIGHEST, LOWEST

    if temperature == HIGHEST:
        return "as far as a fit goes, the network is no better than guessing here"
    if temperature == LOWEST:
        return "as far as a fit goes, there is hardly an error here to learn from"
    return "the network was too sure of itself" if temperature > 1 else "the network was not sure enough"


def _notes(result: "Calibrated") -> list[str]:
    found = [
        "the figures are of the images that the temperature and the sets were fitted on; evaluate on another part "
        "shows what they do for others. The class with the largest probability stays the same."
    ]
    if result.sets.unit == "image" and result.sets.groups is not None:
        found.append(
            f"{result.sets.groups} groups are too few to promise a coverage of {result.sets.coverage:g} for new ones: "
            "it holds for further images of these groups."
        )
    if result.novelty is None:
        found.append("too few images to tell what is usual: predict will not say what looks like no cell.")
    return found


COMMANDS = (calibrate,)
