"""Writing that a kill cannot leave half done."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from customcnn.errors import CustomCNNError, show
from customcnn.io.remote_path import WHOLE, Address, BrokenOff, Folder

RESUME_FILE = ".resume.json"

MARK = ".customcnn-partial.json"
"""The file that stands in a folder at an address until the folder is whole."""

CLEARING = b'"clearing"'
"""What it says while older files are deleted."""

_writer = ""


def write_as(name: str) -> None:
    """Give this process a name of its own among those that may write one file at a time, on one machine or many."""
    global _writer
    _writer = f".{name}"


def write_bytes(path: Folder, data: bytes | memoryview) -> None:
    """Write a whole file or nothing: into `.<name>.partial` beside it, then renamed over it."""
    if isinstance(path, Address):
        path.write_bytes(data)
        return
    with _beside(path) as beside:
        beside.write_bytes(data)


def copy(source: Folder, target: Folder) -> None:
    """Copy a whole file or nothing, between local folders and addresses; a store copies what is its own by itself."""
    if isinstance(target, Address):
        if isinstance(source, Address) and in_one_store(source, target):
            target.copy_from(source)
        else:
            target.write_bytes(source.read_bytes())
    elif isinstance(source, Address):
        write_bytes(target, source.read_bytes())
    else:
        with _beside(target) as beside:
            shutil.copyfile(source, beside)


def in_one_store(source: Folder, target: Folder) -> bool:
    """Tell whether both are addresses of one protocol."""
    return isinstance(source, Address) and isinstance(target, Address) and source.protocol == target.protocol


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a name to write to, and rename that over the path."""
    beside = path.with_name(f".{path.name}{_writer}.partial")
    if len(os.fsencode(beside.name)) > 255:  # the longest name that file systems take
        beside = path.with_name(f".{sha256(os.fsencode(path.name))[:32]}{_writer}.partial")
    try:
        yield beside
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise CustomCNNError(
                f"A file's name has 255 bytes at most, and its path 4,095. Received: {show(path.name)}, "
                f"{len(os.fsencode(path.name))} bytes, in a path of {len(os.fsencode(path)):,}. "
                "Give the file that it is made from a shorter name."
            ) from None
        raise


def write_text(path: Folder, text: str) -> None:
    """Write a whole UTF-8 text file or nothing; bytes of file names that are not UTF-8 are kept (surrogateescape)."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of the bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Busy(CustomCNNError):
    """Another process is writing the same folder now."""


def lock_folder(folder: Path) -> int:
    """Lock a folder against other processes, on this machine or others, until the file number returned is closed.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        return _locked(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    # NFS locks no folder, but a file that is open for writing, see flock(2): one beside it, which stays.
    return _locked(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT)


def _locked(path: Path, how: int) -> int:
    place = os.open(path, how, 0o666)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(place)
        raise
    return place


class Staging:
    """A folder that appears whole or not at all: written as `.<name>.partial` beside it, renamed at the end.

    Use it as a context manager; it yields the folder to write into. An error removes what was written. A kill leaves
    the partial folder; the next call clears it, or goes on with it when `resume` equals what the killed one was given.

    Args:
        dst: the folder to make. It may exist if it is empty.
        replace: write over a `dst` that is not empty. The old one stays until the new one is whole.
        resume: what determines every byte of the result, ready for JSON; None starts afresh each time.
        shared: processes that are not this one's own write there, too, each under a name of its own (`write_as`).

    Raises:
        CustomCNNError: `dst` is a file, a mount point, or not empty without `replace`; or another process is at it.
    """

    def __init__(
        self, dst: Path, *, replace: bool = False, resume: Mapping[str, object] | None = None, shared: bool = False
    ) -> None:
        self.dst = Path(os.path.realpath(dst))  # a link to a folder stays, and the folder is made where it points to
        self.replace, self.shared = replace, shared
        self.resume = None if resume is None else json.dumps(resume, sort_keys=True)
        self.work = self.dst.with_name(f".{self.dst.name}.partial")
        self.old = self.dst.with_name(f".{self.dst.name}.old")
        self.parents: list[Path] = []
        self.lock = -1

    def kept(self) -> frozenset[str]:
        """Return the files that a killed call has finished, by their path in the folder; inside the context."""
        inside = len(str(self.work)) + 1
        found = (os.path.join(folder, name) for folder, _, names in os.walk(self.work) for name in names)
        return frozenset(path[inside:] for path in found if not os.path.basename(path).startswith("."))

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
            self._give_up(remove=self.resume is None or not isinstance(error, KeyboardInterrupt | BrokenOff))
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
            self.lock = lock_folder(self.work)
            if not stat.S_ISDIR(os.fstat(self.lock).st_mode):
                self.work.mkdir(exist_ok=True)  # who held the lock before may have moved it to its final place
                return
            if os.path.samestat(os.fstat(self.lock), self.work.stat()):
                return
            os.close(self.lock)
        except (BlockingIOError, FileNotFoundError, FileExistsError):
            if self.work.is_file():
                raise
        # Locked by another process, or moved to its final place by one while we opened it.
        raise Busy(
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
        if self.shared:
            for left in self.work.rglob(".*.partial"):  # by a process of another machine, lost while it wrote
                left.unlink(missing_ok=True)
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


class FarStaging:
    """The same for an address, where nothing can be renamed: a mark stands in the folder until all of it is there.

    Whoever reads the folder meanwhile is told so by the mark. Nothing is locked: two calls at a time with different
    settings end with an error in one of them.

    Args:
        dst: the folder to make.
        replace: delete what is there first. An error then leaves nothing, and a kill what there is so far.
        resume: as of `Staging`.

    Raises:
        CustomCNNError: `dst` is a file, or not empty without `replace`; or its bucket does not exist.
    """

    def __init__(self, dst: Address, *, replace: bool = False, resume: Mapping[str, object] | None = None) -> None:
        self.dst, self.replace = dst, replace
        self.mark = dst / MARK
        self.resumable = resume is not None and dst.protocol in WHOLE
        self.note = json.dumps(resume, sort_keys=True).encode()
        self.there: frozenset[str] = frozenset()

    def kept(self) -> frozenset[str]:
        """Return the files that a killed call has finished, by their path in the folder; inside the context."""
        return self.there

    def __enter__(self) -> Address:
        refuse_non_empty(self.dst, self.replace)
        found = self._read_mark()
        if found == self.note and self.resumable:
            self.there = frozenset(self.dst.files()) - {MARK, "manifest.csv"}
            return self.dst
        try:
            self.mark.put(CLEARING)
        except FileNotFoundError:
            raise CustomCNNError(
                f"A destination lies in a bucket that exists. Received: {show(self.dst)}. Make the bucket first."
            ) from None
        self.dst.clear(but=MARK)
        self.mark.put(self.note)  # only now: what a kill leaves of the old files is not taken for our own
        return self.dst

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            if self._read_mark() != self.note:
                raise CustomCNNError(
                    f"A destination is written by one process at a time. Received: {show(self.dst)}, which another "
                    "process has written to. Give the command again with --replace, alone."
                )
            self.mark.unlink(missing_ok=True)
        elif not (self.resumable and isinstance(error, KeyboardInterrupt | BrokenOff)):
            with suppress(CustomCNNError, OSError):
                self.dst.clear(but=MARK)
                self.mark.unlink(missing_ok=True)

    def _read_mark(self) -> bytes | None:
        try:
            return self.mark.get()
        except FileNotFoundError:
            return None


def staging(
    dst: Folder, *, replace: bool = False, resume: Mapping[str, object] | None = None, shared: bool = False
) -> Staging | FarStaging:
    """Return `Staging` or `FarStaging`, as the destination asks for."""
    if isinstance(dst, Address):
        return FarStaging(dst, replace=replace, resume=resume)
    return Staging(dst, replace=replace, resume=resume, shared=shared)


def refuse_non_empty(dst: Folder, replace: bool) -> None:
    """Raise CustomCNNError where `dst` is a file, or a folder with something in it and `replace` is False."""
    if dst.exists() and not dst.is_dir():
        raise CustomCNNError(f"A destination is a folder. Received: {show(dst)}, which is a file. Choose another name.")
    if not replace and dst.is_dir() and _has_files(dst) and not is_incomplete(dst):
        raise CustomCNNError(f"Destination {show(dst)} is not empty. Use --replace to write over it.")


def _has_files(folder: Folder) -> bool:
    return isinstance(folder, Address) or any(folder.iterdir())


def is_incomplete(folder: Folder) -> bool:
    """Tell whether a folder is at an address and was begun, but not ended."""
    return isinstance(folder, Address) and (folder / MARK).is_file()


def refuse_inside(data: Folder, out: Path) -> None:
    """Raise CustomCNNError where results would lie in the folder of the images: the next command would refuse it."""
    if isinstance(data, Path) and out.resolve().is_relative_to(data.resolve()):
        raise CustomCNNError(
            f"Results lie outside the folder of the images. Received: {show(out)} inside {show(data)}. "
            f"Choose another --out, such as {show(os.path.relpath(data.resolve().parent / out.name))}."
        )


def refuse_overlap(src: Folder, dst: Folder) -> None:
    """Raise CustomCNNError where one folder lies inside the other: work on one would change the other."""
    if isinstance(src, Path) != isinstance(dst, Path):
        return
    a, b = (f"{str(folder.resolve()).rstrip('/')}/" for folder in (src, dst))
    if a.startswith(b) or b.startswith(a):
        raise CustomCNNError(
            f"Source and destination are separate folders, neither inside the other. Received: {show(src)} and "
            f"{show(dst)}. Choose a destination beside the source."
        )
