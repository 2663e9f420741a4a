"""Where an export is written: beside its place first, then moved there, whole or not at all."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target, and remove it at the end, whatever happens."""
    folder = target.with_name(f".{target.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, target: Path, endings: Sequence[str]) -> None:
    """Move an export's files from the folder to their places; an older export there is replaced.

    Args:
        folder: from `staged`.
        target: the file that is opened, or the folder.
        endings: of all files, behind the name of the .keras file; that of `target` first.
    """
    old = folder / "old"
    # The file that is opened goes first and comes last: a kill leaves no export, never one of two halves.
    if target.is_dir():
        target.replace(old)
    else:
        target.unlink(missing_ok=True)
    stem = target.name.removesuffix(endings[0])
    for ending in reversed(endings):
        (folder / f"{stem}{ending}").replace(target.with_name(f"{stem}{ending}"))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
