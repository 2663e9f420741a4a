"""The command audit. What it needs is imported when it runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from customcnn.cli.cluster_options import FOLDER_OR_ADDRESS, on_option, spread
from customcnn.cli.data import (
    FOLDER,
    groups_option,
    pattern_option,
    skip_bad_option,
    with_groups,
    without_bad,
    workers_option,
)
from customcnn.cli.output import json_option, print_json, say
from customcnn.errors import CustomCNNError, show
from customcnn.progress import terminal

if TYPE_CHECKING:
    from customcnn.io.remote_path import Folder


@click.command()
@click.argument("data", type=FOLDER_OR_ADDRESS)
@pattern_option
@groups_option
@click.option("--within", is_flag=True, help="Look for near-duplicates inside each part of a split, too.")
@click.option("--deep", is_flag=True, help="Look for copies turned by any angle, scaled and shifted, too.")
@click.option(
    "--groups-out", type=FOLDER, metavar="FILE.csv", help="Write the pictures that --deep finds for split --groups."
)
@click.option("--page", type=FOLDER, metavar="FILE.html", help="Write a page with the pictures side by side.")
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    help="How many findings of each kind the page shows.",
)
@click.option("--strict", is_flag=True, help="End with status 1 if there is a leak.")
@json_option
@skip_bad_option
@workers_option
@on_option
def audit(
    data: "Folder",
    group_pattern: str | None,
    groups: Path | None,
    within: bool,
    deep: bool,
    groups_out: Path | None,
    page: Path | None,
    pictures: int,
    strict: bool,
    as_json: bool,
    skip_bad: bool,
    workers: int | None,
    on: str | None,
) -> None:
    """Find leaks, copies, wrong labels and odd images in DATA: a folder, split or not, a manifest.csv or a run.

    DATA may be the address of a folder, such as s3://bucket/parts.

    Copies are found that were turned by quarter turns, flipped, rescaled or saved again. Those turned by other angles,
    scaled and shifted are found with --deep only, which takes longer. With --deep and groups, it says whether the
    groups agree with the pictures.

    \b
    Example: customcnn audit parts --strict
             customcnn audit cells --page audit.html
             customcnn audit photographs --deep --groups-out originals.csv
    """
    from customcnn.audit import audit as run_audit
    from customcnn.audit import open_data, page_of, report
    from customcnn.audit.copies import find_copies, write_groups
    from customcnn.data.split import check_files
    from customcnn.images.decode import BadImage
    from customcnn.io.atomic import write_text

    if groups_out and not deep:
        raise click.UsageError("--groups-out needs --deep, which finds what it writes.")
    _require_target(page, (".html", ".htm"), "--page")
    _require_target(groups_out, (".csv",), "--groups-out")
    manifest = open_data(data, skip_bad=skip_bad)
    if skip_bad:
        manifest = without_bad(manifest, workers)
    manifest = with_groups(manifest, group_pattern, groups)
    copies = None
    with spread(on, workers, [manifest.root]) as pool:
        try:
            if deep:
                copies = find_copies(manifest, workers=pool, progress=terminal)
            found = run_audit(manifest, within=within, copies=copies, workers=pool, progress=terminal)
        except BadImage:
            check_files(manifest, workers=pool, progress=terminal)  # refuses, and names all of them
            raise
    if found.deep and groups_out:
        write_groups(found.deep.groups, groups_out)
        say(f"Groups of {found.deep.originals:,} pictures: {show(groups_out)}")
    if page:
        write_text(page, page_of(found, manifest, pictures))
        say(f"Page: {show(page)}")
    print_json(found.as_dict()) if as_json else click.echo(report(found))
    if strict and found.leaks:
        raise SystemExit(1)


def _require_target(path: Path | None, suffixes: tuple[str, ...], option: str) -> None:
    """Refuse before the work what could not be written after it, or would overwrite what is none of ours."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes or path.name == "manifest.csv" or path.is_dir():
        raise CustomCNNError(
            f"{option} names a file that ends in {suffixes[0]}. Received: {show(path)}. Choose another name."
        )
    if not path.absolute().parent.is_dir():
        raise CustomCNNError(f"{option} names a file in a folder that exists. Received: {show(path)}. Make it first.")


COMMANDS = (audit,)
