"""Writing that a kill cannot leave half done."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from customcnn.errors import CustomCNNError, show

RESUME_FILE = ".resume.json"


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a whole file or nothing: into `.<name>.partial` beside it, then renamed over it."""
    beside = path.with_name(f".{path.name}.partial")
    if len(os.fsencode(beside.name)) > 255:  # the longest name that file systems take
        beside = path.with_name(f".{sha256(os.fsencode(path.name))[:32]}.partial")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file or nothing; bytes of file names that are not UTF-8 are kept (surrogateescape)."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of the bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Staging:
    """A folder that appears whole or not at all: written as `.<name>.partial` beside it, renamed at the end.

    Use it as a context manager; it yields the folder to write into. An error removes what was written. A kill leaves
    the partial folder; the next call clears it, or goes on with it when `resume` equals what the killed one was given.

    Args:
        dst: the folder to make. It may exist if it is empty.
        replace: write over a `dst` that is not empty. The old one stays until the new one is whole.
        resume: what determines every byte of the result, ready for JSON; None starts afresh each time.

    Raises:
        CustomCNNError: `dst` is a file, a mount point, or not empty without `replace`; or another process is at it.
    """

    def __init__(self, dst: Path, *, replace: bool = False, resume: Mapping[str, object] | None = None) -> None:
        self.dst = Path(os.path.realpath(dst))  # a link to a folder stays, and the folder is made where it points to
        self.replace = replace
        self.resume = None if resume is None else json.dumps(resume, sort_keys=True)
        self.work = self.dst.with_name(f".{self.dst.name}.partial")
        self.old = self.dst.with_name(f".{self.dst.name}.old")
        self.parents: list[Path] = []
        self.lock = -1

    def __enter__(self) -> Path:
        if not self.old.is_dir():
            refuse_non_empty(self.dst, self.replace)
        if os.path.ismount(self.dst):
            raise CustomCNNError(
                "A destination is made beside its final place and renamed. "
                f"Received: {show(self.dst)}, a mount point. Choose a folder inside it."
            )
        self.parents = [parent for parent in self.dst.parents if not parent.exists()]
        self._take_lock()
        try:
            self._put_back_old()
            refuse_non_empty(self.dst, self.replace)  # again: who held the lock before may have made it meanwhile
            self._clear()
        except BaseException:
            self._give_up(remove=False)
            raise
        return self.work

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self._give_up(remove=self.resume is None or not isinstance(error, KeyboardInterrupt))
            return
        try:
            self._publish()
        except BaseException:
            self._give_up(remove=True)
            raise
        os.close(self.lock)

    def _take_lock(self) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.work, os.O_RDONLY)
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(self.lock), self.work.stat()):
                return
        except (BlockingIOError, FileNotFoundError, FileExistsError):
            if self.work.is_file():
                raise
        # Locked by another process, or moved to its final place by one while we opened it.
        if self.lock >= 0:
            os.close(self.lock)
        raise CustomCNNError(
            f"A destination is written by one process at a time. Received: {show(self.dst)}, which another process "
            "is writing now. Wait for it, or choose another destination."
        )

    def _clear(self) -> None:
        mark = self.work / RESUME_FILE
        if self.resume is not None and mark.is_file() and mark.read_text() == self.resume:
            return
        for entry in self.work.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if self.resume is not None:
            write_text(mark, self.resume)

    def _give_up(self, *, remove: bool) -> None:
        try:
            if remove:
                shutil.rmtree(self.work, ignore_errors=True)
            self._put_back_old()
            with suppress(OSError):  # not empty: something else is kept there
                for folder in (self.work, *self.parents):
                    if folder.exists():
                        folder.rmdir()
        finally:
            os.close(self.lock)

    def _publish(self) -> None:
        refuse_non_empty(self.dst, self.replace)
        (self.work / RESUME_FILE).unlink(missing_ok=True)
        if self.dst.exists() and any(self.dst.iterdir()):
            self.dst.rename(self.old)
        self.work.rename(self.dst)
        shutil.rmtree(self.old, ignore_errors=True)

    def _put_back_old(self) -> None:
        # A kill during _publish may leave the old folder set aside: it is put back unless the new one took its place.
        if self.old.is_dir():
            if self.dst.exists():
                shutil.rmtree(self.old, ignore_errors=True)
            else:
                self.old.rename(self.dst)


def refuse_non_empty(dst: Path, replace: bool) -> None:
    """Raise CustomCNNError where `dst` is a file, or a folder with something in it and `replace` is False."""
    if dst.exists() and not dst.is_dir():
        raise CustomCNNError(f"A destination is a folder. Received: {show(dst)}, which is a file. Choose another name.")
    if not replace and dst.is_dir() and any(dst.iterdir()):
        raise CustomCNNError(f"Destination {show(dst)} is not empty. Use --replace to write over it.")


def refuse_overlap(src: Path, dst: Path) -> None:
    """Raise CustomCNNError where one folder lies inside the other: work on one would change the other."""
    a, b = src.resolve(), dst.resolve()
    if a == b or a in b.parents or b in a.parents:
        raise CustomCNNError(
            f"Source and destination are separate folders, neither inside the other. Received: {show(src)} and "
            f"{show(dst)}. Choose a destination beside the source."
        )
