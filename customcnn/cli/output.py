"""How the command line prints: warnings, tables, JSON, skipped files."""

import json
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from customcnn.errors import listed, printable, show
from customcnn.progress import is_quiet

if TYPE_CHECKING:
    from customcnn.data.manifest import Manifest

GROUPS_UNKNOWN = (
    "Note: no group labels given, so leakage cannot be checked. Give --group-pattern or --groups if you can."
)

NEVER_QUIET = ("Warning:", "Error:", "Failed:")
"""Lines that begin so are shown with --quiet, too: what makes a score worth less, and what went wrong."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")


def colour() -> bool | None:
    """Return False where NO_COLOR is set, see https://no-color.org; None lets click look for a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def say(line: str) -> None:
    """Print one line for the user on standard error; warnings in yellow where that is a terminal. See `NEVER_QUIET`."""
    if is_quiet() and not line.lstrip().startswith(NEVER_QUIET):
        return
    click.secho(harmless(line), fg="yellow" if line.startswith("Warning:") else None, err=True, color=colour())


def harmless(text: str) -> str:
    """Return text for a terminal: what it would obey in a name is escaped, the ends of lines stay."""
    return "\n".join(map(printable, text.split("\n")))


def print_csv(text: str) -> None:
    """Print CSV on standard output: as it is into a file or a pipe, harmless on a terminal."""
    # With color, click leaves the text as it is.
    click.echo(harmless(text) if sys.stdout.isatty() else text, nl=False, color=True)


def note_line(sentence: str) -> str:
    """Return a sentence of the library as a note for the user."""
    return f"Note: {sentence[:1].lower()}{sentence[1:]}"


def say_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Name the files that were left out: five of them, and how many more there are."""
    if skipped:
        say(f"Skipped: {listed([f'{show(path)} ({reason})' for path, reason in skipped])}.")


def say_place(what: str, path: object, as_json: bool) -> None:
    """Print where the results are: below them, or beside JSON as a note."""
    say(f"{what}: {path}") if as_json else click.echo(f"{what}: {path}")


@contextmanager
def resumable(mark: Path, resume: bool) -> Iterator[None]:
    """After Ctrl-C say how to go on, where there is something to go on with: with the same command and --resume.

    Args:
        mark: the file that a call writes as soon as there is something to go on with.
        resume: whether this call goes on itself; else a mark from before it is that of an older run.
    """
    before = _stamp(mark)
    try:
        yield
    except KeyboardInterrupt:
        now = _stamp(mark)
        if now and (resume or now != before):
            say_how_to_go_on("--resume")
        raise


def say_how_to_go_on(*flags: str) -> None:
    """Print the command line that was given, with these flags in place of those that begin anew."""
    words = click.get_current_context().find_root().obj
    if words:
        kept = [word for word in words if word not in ("--replace", "--resume")]
        # Behind the -- of launch stands a command line of train, and the flags are its.
        end = kept.index("--") if "--" in kept and words[0] != "launch" else len(kept)
        say(f"Go on with: {shlex.join(['customcnn', *kept[:end], *flags, *kept[end:]])}")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def print_json(found: object) -> None:
    """Print one JSON document on standard output; a path as text, and NaN and infinity, which JSON lacks, as null."""
    click.echo(json.dumps(_finite(found), indent=2, default=str))


def _finite(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _finite(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return rows of text in aligned columns; the first row is the heading, the first column is aligned left.

    Names of classes are shown as those of files are: what a terminal would obey is escaped.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = []
    for first, *others in cells:
        aligned = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def counts_table(manifest: "Manifest") -> str:
    """Return the number of images by part and class as a table."""
    counts, classes = manifest.counts(), manifest.classes
    parts = manifest.parts or [""]
    rows: list[list[object]] = [["", *classes, "all classes"]]
    for part in parts:
        row = [counts[part, label] for label in classes]
        rows.append([part or "images", *(f"{n:,}" for n in row), f"{sum(row):,}"])
    return table(rows)


def show_folder(manifest: "Manifest", as_json: bool, *, skipped: Sequence[tuple[str, str]] = (), **others: Any) -> None:
    """Print what a command on folders has made: a table of its images, or the JSON of all there is to say.

    Args:
        manifest: of the folder that was made.
        as_json: whether to print JSON.
        skipped: (path, reason) of what was left out.
        others: further entries of the JSON.
    """
    if not as_json:
        click.echo(counts_table(manifest))
        return
    from customcnn.audit.classes import images_by_part

    print_json(
        {
            "folder": manifest.root,
            "images": images_by_part(manifest),
            "skipped": [{"path": path, "reason": reason} for path, reason in skipped],
            **others,
        }
    )
