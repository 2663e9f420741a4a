"""Where packs lie, whose they are, and when they go: they do not pile up, and nobody else's are read."""

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from customcnn.io import atomic
from customcnn.io.remote_path import Folder

CACHE = ".customcnn"
"""The folder inside a data folder where its packs are kept: a name with a dot in front is never taken for a class."""
KEPT = 4
"""Packs of one folder at one size, of different images of it: a split alone and all of them, say."""
UNUSED = 30 * 24 * 3600
"""Seconds after which a pack in the temporary folder, whose images may be gone, is removed."""

_TEMPORARY = f"customcnn-packs-{os.getuid()}"


def homes(root: Folder) -> list[Path]:
    """Return where the packs of a folder are kept: inside it; where it is read-only or far, in the temporary folder."""
    away = [home / _place(root) for home in _temporary()]
    return [root / CACHE, *away] if isinstance(root, Path) else away


def home_for(root: Folder) -> Path:
    """Return where a pack of a folder is made."""
    if isinstance(root, Path) and _writable(root / CACHE):
        return root / CACHE
    name = Path(tempfile.gettempdir()) / _TEMPORARY
    with suppress(FileExistsError):
        name.mkdir(mode=0o700)
    ours = _temporary()
    # Somebody else may have taken the name: whoever may write there chooses what we would read.
    return (ours[0] if ours else Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}-"))) / _place(root)


def _place(root: Folder) -> str:
    # By data folder, for two may agree in names, sizes and times of files.
    return atomic.sha256(os.fsencode(root.resolve()))[:16]


def _temporary() -> list[Path]:
    """Return the folders for packs in the temporary folder that are this user's own, and only this user's to write."""
    ours = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*")):
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
            ours.append(folder)
    return ours


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder if folder.is_dir() else folder.parent):
            return True
    except PermissionError:
        return False
    except OSError as error:
        if error.errno == errno.EROFS:
            return False
        raise


@dataclass(frozen=True)
class Cleaned:
    """How many packs were removed, with how many bytes, and how many others are in use."""

    count: int
    bytes: int
    in_use: int


def clean(root: Folder) -> Cleaned:
    """Remove all packs of a folder, of every size, finished or not, but for those that a process uses or makes.

    Args:
        root: the data folder. Of an address the packs on this machine are removed; one that `upload` left there stays.
    """
    count = size = in_use = 0
    for home in homes(root):
        for folder in [*home.glob("pack-*"), *home.glob(".pack-*.partial")]:
            removed = _remove(folder)
            in_use += removed is None
            count += removed is not None
            size += removed or 0
        with suppress(OSError):  # there is none, or it is not empty
            home.rmdir()
    return Cleaned(count, size, in_use)


def make_room(home: Path, name: str) -> None:
    """Remove the packs that a new one replaces, and of others all but the few that were used last.

    Args:
        home: the folder that the new one lies in.
        name: of the new one: "pack-", its size, "-", a hash of the paths of its images, "-", a hash of their state.
    """
    _, size, images, _ = name.split("-")
    for folder in home.glob(f".pack-{size}-{images}-*.partial"):  # killed, and never to be gone on with
        _remove(folder)
    others = [folder for folder in home.glob(f"pack-{size}-*") if folder.name != name]
    others.sort(key=_last_use, reverse=True)
    for place, folder in enumerate(others, 1):
        same_images = folder.name.startswith(f"pack-{size}-{images}-")
        of_older_version = folder.name.count("-") != name.count("-")
        if same_images or of_older_version or place >= KEPT:
            _remove(folder)
    if home.parent in _temporary():
        for folder in home.parent.glob("*/pack-*"):
            if _last_use(folder) < time.time() - UNUSED:
                _remove(folder)


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process has removed it
        return 0


def _remove(folder: Path) -> int | None:
    """Remove a pack and return its size in bytes; None where a process uses it, or it cannot be removed."""
    try:
        # Of one that is being made: as its maker does.
        unfinished = folder.name.startswith(".")
        lock = atomic.lock_folder(folder) if unfinished else os.open(folder / "pack.json", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = sum(path.stat().st_size for path in folder.iterdir())
        (folder / "pack.json").unlink(missing_ok=True)  # first: without it the rest is not taken for a pack
        shutil.rmtree(folder)
    except OSError:
        return None
    finally:
        os.close(lock)
    return size
