"""What the names of files and folders mean: splits, classes, and what systems leave behind."""

import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

PARTS = ("train", "validation", "test")

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
"""How folders of splits are called, in lower case: tools and data sets differ."""

LITTER = {
    # Windows
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "system volume information", "found.000"),
    # macOS, and the archives that it makes
    *("__macosx", "icon\r", "temporary items", "network trash folder"),
    # Synology, QNAP, NetApp, and the root of an ext4 file system
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot", "lost+found"),
    # Python
    "__pycache__",
}
"""Names, in lower case, that systems leave in folders. Names that begin with a dot are litter too."""


def is_litter(name: str) -> bool:
    """Tell whether a file or folder of this name was left by a system or a file browser, and is no data."""
    return name.startswith(".") or name.lower() in LITTER


def find_below(root: Path, pattern: str) -> Iterator[Path]:
    """Yield what `rglob` finds below a folder, but for litter and what lies in it."""
    return (path for path in root.rglob(pattern) if not any(map(is_litter, path.relative_to(root).parts)))


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC): a Mac decomposes names, which then look the same and differ."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def split_of(name: str) -> str:
    """Return the split that a folder of this name holds, in any case: a name of `PARTS`, or "" for none."""
    return SPLIT_NAMES.get(name.lower(), "")


def holds_splits(folders: Collection[str]) -> bool:
    """Tell whether folders of these names are splits: all of them, or two different ones beside what is none."""
    splits = [split_of(name) for name in folders]
    return bool(splits) and (all(splits) or len({*splits} - {""}) > 1)


def without_split(path: str, split: str) -> str:
    """Return a path as it was before the split: without the folder of its split, where it has one."""
    first, _, rest = path.partition("/")
    return rest if split and rest and split_of(first) == split else path
