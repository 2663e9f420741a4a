"""The command on studies: reproduce."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from customcnn.cli import completion
from customcnn.cli.cluster_options import spread_options, spreading
from customcnn.cli.data import FOLDER, workers_option
from customcnn.cli.output import json_option, print_json, say, say_how_to_go_on, table
from customcnn.progress import terminal

if TYPE_CHECKING:
    from customcnn.studies.results import Reproduction


@click.command()
@click.argument("study", type=FOLDER, shell_complete=completion.studies)
@click.argument("data", type=FOLDER)
@click.option("--out", type=FOLDER, metavar="DIR", help="Where everything goes.  [default: runs/STUDY]")
@click.option("--epochs", type=click.IntRange(min=1), help="Of every training.  [default: each recipe's own]")
@click.option("--limit", type=click.IntRange(min=1), help="Images of each class in each part at most.  [default: all]")
@click.option("--only", multiple=True, metavar="ROW", help="Run this row of the study only; may be repeated.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=completion.settings,
    help="Set a key of every recipe; repeatable.",
)
@json_option
@workers_option
@spread_options
def reproduce(
    study: Path,
    data: Path,
    out: Path | None,
    epochs: int | None,
    limit: int | None,
    only: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
    workers: int | None,
    on: str | None,
    cpus: float,
    gpus: float | None,
) -> None:
    """Reproduce a published study on DATA: train and score all of its recipes, and compare.

    STUDY is a folder such as experiments/report, or one recipe in it. Its study.toml says how DATA is split, cropped
    and augmented. DIR/study.md, study.html and study.csv set the published numbers beside the measured ones. The same
    command again goes on where it stopped. A row that fails says why, and the others go on; the status is then 1.

    \b
    Example: customcnn reproduce experiments/report parts
             customcnn reproduce experiments/transfer parts --limit 20 --epochs 1 --set weights=none
    """
    from customcnn.studies.reproduce import reproduce as run_study
    from customcnn.studies.results import Changes
    from customcnn.studies.study_file import find_study, read_study
    from customcnn.studies.tables import HTML, text, write_tables

    path, rows = find_study(study)
    out = out or Path("runs") / path.resolve().parent.name
    try:
        with spreading(on, cpus, gpus, data, out) as (spread, tell):
            found = run_study(
                read_study(path),
                data,
                out,
                Changes(epochs or 0, limit or 0, settings, tuple(rows or only)),
                workers=workers,
                spread=spread,
                progress=terminal,
                say=tell,
                tables=write_tables,
            )
    except KeyboardInterrupt:
        say_how_to_go_on()
        raise
    if as_json:
        print_json(_as_dict(found, found.out / HTML))
    else:
        click.echo(text(found, table))
        click.echo(f"\nPage: {found.out / HTML}")
    if found.failed:
        say(f"Failed: {', '.join(result.name for result in found.failed)}.")
        raise SystemExit(1)


def _as_dict(found: "Reproduction", page: Path) -> dict[str, Any]:
    """Return the rows with what was published and what was measured, ready for JSON."""
    rows = []
    for row in found.study.rows:
        result = found.results[row.name]
        rows.append(
            {
                "name": row.name,
                "status": result.status,
                "reason": result.reason or None,
                "run": found.run(row).path,
                "epoch": result.epoch or None,
                "epochs": result.epochs or None,
                "published": row.published,
                "measured": result.measured,
                "notes": [*result.notes],
            }
        )
    return {"folder": found.out, "page": page, "study": found.study.title, "rows": rows}


COMMANDS = (reproduce,)
