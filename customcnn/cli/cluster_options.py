"""Options of commands whose folders may be remote, and whose work or trainings may be spread over a cluster."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from customcnn.cli.output import say
from customcnn.io.remote_path import Folder, parse_folder
from customcnn.progress import is_quiet

if TYPE_CHECKING:
    from customcnn.cluster.remote_trainings import Seat, Spread
    from customcnn.io.parallel import Workers

F = TypeVar("F", bound=Callable[..., Any])
Say = Callable[[str], object]


class FolderType(click.Path):
    """A local folder, or an address such as s3://bucket/cells, whose two slashes a path would make one."""

    name = "folder"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Folder:
        """Return a `Path` or an `Address`."""
        return parse_folder(value)


FOLDER_OR_ADDRESS = FolderType()

on_option = click.option(
    "--on",
    metavar="PLACE",
    help="Spread the work over a Ray cluster: ray (this machine alone, or RAY_ADDRESS), ray://HOST:PORT or HOST:PORT.",
)


@contextmanager
def spread(
    on: str | None, workers: int | None, sources: Sequence[Folder], targets: Sequence[Folder] = ()
) -> Iterator[Workers]:
    """Give the workers: a cluster where --on names one, otherwise as many of this machine as --workers says.

    Args:
        on: as from --on.
        workers: as from --workers.
        sources: folders that are read; if they are local, all nodes must see them.
        targets: folders that are written.

    Raises:
        CustomCNNError: no cluster answers, or a node does not see a folder.
    """
    if on is None:
        yield workers
        return
    if workers is not None:
        raise click.UsageError("--workers counts those of this machine, and --on takes a cluster. Leave one out.")
    from customcnn.cluster import connect, parse_place, require_shared

    place = parse_place(on)
    assert place is not None
    with connect(place) as cluster:
        require_shared(cluster, sources, targets)
        say(f"Cluster: {cluster.count} processors.")
        yield cluster


def spread_options(command: F) -> F:
    """Add --on, --cpus and --gpus."""
    options = (
        click.option(
            "--on",
            metavar="PLACE",
            help="Train on a Ray cluster, several at a time: ray (this machine alone, or RAY_ADDRESS), ray://HOST:PORT "
            "or HOST:PORT. All nodes see DATA and DIR under the same path.  [default: here, one after the other]",
        ),
        click.option(
            "--cpus", type=click.FloatRange(min=0), default=1.0, show_default=True, help="With --on: of each training."
        ),
        click.option(
            "--gpus",
            type=click.FloatRange(min=0),
            help="With --on: of each training; .5 lets two share one.  [default: 1 where the cluster has any]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def spreading(
    on: str | None, cpus: float, gpus: float | None, data: Folder, out: Path
) -> Iterator[tuple[Spread | None, Say]]:
    """Connect to the cluster that --on names, for as long as the block takes.

    Args:
        on, cpus, gpus: as from the options.
        data, out: the folders that all nodes are to see.

    Yields:
        What the library takes as `spread`, None without --on; and how to say a line while the table is drawn.
    """
    if on is None:
        yield None, say
        return
    from customcnn.cluster import connect, parse_place, require_shared
    from customcnn.cluster.remote_trainings import Spread

    place = parse_place(on)
    assert place is not None
    with connect(place) as cluster:
        live = None if is_quiet() or not sys.stderr.isatty() else LiveTable()
        spread = Spread(cluster, cpus, gpus, live.show if live else None)
        spread.needs()  # what no node has is an error before anything is made
        require_shared(cluster, [data], [out])
        yield spread, live.say if live else say


class LiveTable:
    """The trainings as one table at the foot of the terminal, drawn anew whenever one has something to tell."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, seats: Sequence[Seat]) -> None:
        """Draw the table; where the terminal is too low for all, those that are at work."""
        size = shutil.get_terminal_size()
        self._erase()
        self.lines = [line[: size.columns - 1] for line in seat_table(seats, size.lines - 2)]
        for line in self.lines:
            click.echo(line, err=True)

    def say(self, line: str) -> None:
        """Print a line above the table."""
        kept = self.lines
        self._erase()
        say(line)
        self.lines = kept
        for row in kept:
            click.echo(row, err=True)

    def _erase(self) -> None:
        if self.lines:
            click.echo(f"\x1b[{len(self.lines)}F\x1b[J", err=True, nl=False, color=True)
        self.lines = []


def seat_table(seats: Sequence[Seat], most: int) -> list[str]:
    """Return the rows of the table, `most` lines at most, and a last line that counts."""
    ended = [seat for seat in seats if seat.ended]
    working = [seat for seat in seats if seat.node and not seat.ended]
    waiting = [seat for seat in seats if not seat.node and not seat.ended]
    shown = seats if len(seats) + 1 < most else working[: max(1, most - 2)]
    rows = [[seat.name, seat.detail, seat.node, seat.epoch, seat.text] for seat in shown]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, f"{len(ended)} of {len(seats)} done, {len(working)} at work, {len(waiting)} waiting"]
