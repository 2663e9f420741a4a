"""The command on the report of a run: report."""

from pathlib import Path

import click

from customcnn.cli.data import FOLDER
from customcnn.cli.networks import device_option, positive_option
from customcnn.cli.output import json_option, note_line, print_json, say


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--data", type=FOLDER, help="Where the scored images are.  [default: where evaluate found them]")
@click.option("--out", type=FOLDER, metavar="FILE", help="The page.  [default: RUN/report.html]")
@click.option("--mistakes", type=click.IntRange(min=0), default=12, show_default=True, help="How many to show.")
@positive_option
@json_option
@device_option
def report(
    run: Path,
    data: Path | None,
    out: Path | None,
    mistakes: int,
    positive: str | None,
    as_json: bool,
    device: str | None,
) -> None:
    """Write everything about a run on one page, and its model card.

    The page needs nothing from elsewhere: send it, print it, or put it beside a paper.

    \b
    Example: customcnn report runs/proposed
    """
    from customcnn.report import write_report
    from customcnn.runs.run_dir import RunDir

    found = write_report(
        RunDir(run), data=data, out=out, mistakes=mistakes, positive=positive, device=device or "auto", say=say
    )
    if as_json:
        print_json({"run": run, "page": found.page, "model_card": found.model_card, "notes": found.notes})
    else:
        click.echo(f"Page: {found.page}")
        click.echo(f"Model card: {found.model_card}")
    for note in found.notes:
        say(note_line(note) if note in found.remarks else f"Warning: {note}")


COMMANDS = (report,)
