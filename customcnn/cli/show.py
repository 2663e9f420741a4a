"""How the command line prints: warnings, tables, skipped files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from customcnn.errors import show

if TYPE_CHECKING:
    from customcnn.manifest import Manifest

GROUPS_UNKNOWN = "Note: no groups are known, so leakage cannot be judged. Give --group-pattern or --groups if you can."


def say(line: str) -> None:
    """Print one line for the user on standard error; warnings in yellow where that is a terminal."""
    click.secho(line, fg="yellow" if line.startswith("Warning:") else None, err=True)


def say_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Name the files that were left out."""
    if skipped:
        say(f"Skipped: {', '.join(f'{show(path)} ({reason})' for path, reason in skipped)}.")


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return rows of text in aligned columns; the first row is the heading, the first column is aligned left."""
    cells = [[str(cell) for cell in row] for row in rows]
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
