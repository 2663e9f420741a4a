"""Options of commands whose folders may lie elsewhere, and whose work may be spread over a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from customcnn.cli.show import say
from customcnn.places import Folder, parse_folder

if TYPE_CHECKING:
    from customcnn.workers import Workers


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
