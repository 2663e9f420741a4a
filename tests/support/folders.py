"""What lies in a folder, to hold that a step left it alone or that two steps wrote the same."""

from pathlib import Path

from customcnn.data.pack import CACHE


def names_in(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, relative to it, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def contents(folder: Path, *, folders: bool = False, packs: bool = True) -> dict[str, bytes]:
    """Return the bytes of every file below a folder by its path relative to it, hidden ones too.

    Args:
        folder: where to look.
        folders: whether folders are listed too, by their path and a slash, with no bytes.
        packs: whether decoded images that the package keeps there are listed too.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not packs and CACHE in name.parts:
            continue
        if path.is_file():
            found[name.as_posix()] = path.read_bytes()
        elif folders:
            found[f"{name.as_posix()}/"] = b""
    return found


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the inode and the time of every file below a folder by its path: the same where it was not written again.

    Hidden files are left out: they are what is being written. A file keeps its stamp when its folder is renamed.
    """
    found = {}
    for path in folder.rglob("[!.]*"):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found
