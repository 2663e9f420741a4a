"""The manifest: one record for every image, with its label, its group and its part of the split. Folders and CSV."""

import csv
import errno
import hashlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from customcnn.data.groups import GROUP_PATTERNS, read_groups, unify
from customcnn.data.masks import find_masks
from customcnn.data.names import PARTS, composed, holds_splits, is_litter, split_of, without_split
from customcnn.data.tables import read_rows as read_rows
from customcnn.data.tables import rows as csv_rows
from customcnn.errors import CustomCNNError, listed, show, show_names
from customcnn.images.decode import SUFFIXES
from customcnn.io.atomic import MARK, write_bytes
from customcnn.io.csv_cells import as_text
from customcnn.io.remote_path import Address, Folder, parse_folder

MANIFEST = "manifest.csv"
COLUMNS = ("path", "label", "group", "split", "sha256")

NESTED = "a folder inside a class folder"
BESIDE_SPLITS = "a folder beside those of the splits"

_NOTHING: Mapping[str, str] = {}  # one for all records: an empty dictionary each would be a fifth of their memory


@dataclass(frozen=True, slots=True)
class Record:
    """One image.

    Attributes:
        path: relative to the manifest's folder, with forward slashes.
        label: the class name.
        group: what must not stand on both sides of a split (the subject, the original photograph); "" if unknown.
        split: "train", "validation", "test", or "" where nothing is split.
        sha256: of the file's bytes, 64 hexadecimal digits; "" if not computed.
        extra: further columns of the CSV, kept as they are.
    """

    path: str
    label: str
    group: str = ""
    split: str = ""
    sha256: str = ""
    extra: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True)
class Manifest:
    """The records of one folder, sorted by path."""

    root: Folder
    records: tuple[Record, ...]
    skipped: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """(path, reason) of what `scan` left out."""

    @property
    def classes(self) -> list[str]:
        """The class names, sorted: a class's place in this list is its number."""
        return sorted({record.label for record in self.records})

    @property
    def parts(self) -> list[str]:
        """The parts of the split that hold images, in the order train, validation, test; empty if nothing is split."""
        present = {record.split for record in self.records}
        return [part for part in PARTS if part in present]

    @property
    def groups_known(self) -> bool:
        """Whether every image has a group."""
        return bool(self.records) and all(record.group for record in self.records)

    @property
    def drawn(self) -> bool:
        """Whether any image is a drawn one, from `customcnn samples`."""
        return any(record.extra.get("origin") == "drawn" for record in self.records)

    def part(self, name: str) -> "Manifest":
        """Return the manifest of one part alone; its records may be none."""
        return replace(self, records=tuple(record for record in self.records if record.split == name))

    def counts(self) -> Counter[tuple[str, str]]:
        """Count the images by (split, label)."""
        return Counter((record.split, record.label) for record in self.records)

    def write(self, path: Folder) -> None:
        """Write the CSV, whole or not at all: the columns path, label, group, split, sha256, then any further ones."""
        extra = sorted({column for record in self.records for column in record.extra})
        # A carriage return is quoted only when everything is.
        returns = any("\r" in cell for row in self._rows(extra) for cell in row)
        # Encoded as it comes: a StringIO takes four bytes a character.
        data = io.BytesIO()
        text = io.TextIOWrapper(data, "utf-8", "surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
        writer.writerows(map(as_text, row) for row in self._rows(extra))
        text.flush()
        write_bytes(path, data.getvalue())

    def _rows(self, extra: Sequence[str]) -> Iterator[list[str]]:
        yield [*COLUMNS, *extra]
        for r in self.records:
            yield [r.path, r.label, r.group, r.split, r.sha256, *(r.extra.get(column, "") for column in extra)]


def read_manifest(path: Folder) -> Manifest:
    """Read a manifest CSV written by `Manifest.write`.

    Raises:
        CustomCNNError: a column is missing, a path stands twice, or one leads out of the manifest's folder.
    """
    records = [
        Record(
            row["path"],
            sys.intern(row["label"]),
            sys.intern(row["group"]),
            sys.intern(split_of(row["split"]) or row["split"]),
            row["sha256"],
            {column: value for column, value in row.items() if column not in COLUMNS} or _NOTHING,
        )
        for row in csv_rows(path, COLUMNS)
    ]
    twice = [name for name, count in Counter(r.path for r in records).items() if count > 1]
    if twice:
        raise CustomCNNError(
            f"A manifest lists an image once. Received: {show(path)}, with two of {show_names(twice)}."
        )
    require_inside(path, (record.path for record in records))
    return Manifest(path.parent, tuple(sorted(records, key=lambda r: r.path)))


def require_inside(table: Folder, names: Iterable[str]) -> None:
    """Refuse paths of a table that lead out of its folder: a table from elsewhere must not open other files.

    Raises:
        CustomCNNError: a path is absolute, or has `..` in it.
    """
    outside = [name for name in names if name.startswith("/") or ".." in name.split("/")]
    if outside:
        raise CustomCNNError(
            f"The paths in a table lie inside its folder. Received: {show(table)} with "
            f"{show_names(outside)}. Write them relative to the folder, without '..'."
        )


def scan(root: Folder | str, *, skip_bad: bool = False) -> Manifest:
    """List the images of a folder of class folders, or of train/validation/test folders of class folders.

    Folders of splits may have other names, see `customcnn.data.names.SPLIT_NAMES`. Where the folder holds a
    manifest.csv, groups, splits, hashes and further columns come from it. Files are not opened here, but for those that
    may be masks, see `find_masks`: whether each is an image shows when it is decoded.

    Args:
        root: the folder: a path, or an address such as s3://bucket/cells.
        skip_bad: leave out what does not belong (stray files, nested folders, rows without a file, masks) instead of
            failing.

    Returns:
        The manifest, sorted by path.

    Raises:
        CustomCNNError: the folder is missing or holds no image, something in it does not belong (five are named), or it
            is at an address and was not finished.
    """
    root = parse_folder(root)
    names = root.files().keys() if isinstance(root, Address) else None
    if not (root.is_dir() if isinstance(root, Path) else names):
        raise CustomCNNError(
            f"Data is a folder of class folders. Received: {show(root)}, which is no folder. Check its name."
        )
    if names and MARK in names:
        raise CustomCNNError(
            f"Data is a folder that is whole. Received: {show(root)}, which is not complete: it is being written, or "
            "that was broken off. Give the command that writes it again."
        )
    files, bad = _walk(root) if isinstance(root, Path) else _walk_names(names or ())
    if MANIFEST in names if names is not None else (root / MANIFEST).is_file():
        files, unlisted = _join(files, read_manifest(root / MANIFEST))
        bad += unlisted
    else:  # what a manifest lists has been looked at
        files.sort(key=lambda r: r.path)
        masks = dict(find_masks(root, [file.path for file in files]))
        files = [file for file in files if file.path not in masks]
        bad += masks.items()
    if bad and not skip_bad:
        raise bad_files(bad)
    if not files:
        raise CustomCNNError(
            f"Data is a folder of class folders with images in them. Received: {show(root)}, which holds none. "
            "Put the images of each class into a folder of its own."
        )
    return Manifest(root, tuple(sorted(files, key=lambda r: r.path)), tuple(sorted(bad)))


def bad_files(bad: Collection[tuple[str, str]]) -> CustomCNNError:
    """Return the error that names files that cannot be used, each with its reason."""
    named = [f"{show(path)} ({reason})" for path, reason in sorted(bad)]
    nested = any(reason == NESTED for _, reason in bad)
    return CustomCNNError(
        "Class folders hold images and nothing else. "
        f"Received: {listed(named)}. Remove {'it' if len(named) == 1 else 'them'} or use --skip-bad."
        f"{' Folders of splits are named train, validation (or val) and test.' * nested}"
    )


def fingerprint(manifest: Manifest, *also: str) -> str:
    """Return a hash of the records and of every file's size and time: it changes whenever an image does.

    Args:
        manifest: of the files.
        also: further fields of `os.stat` that count, for files of equal size and time may change places:
            "st_ino" sees those that are renamed, "st_ctime_ns" those that are written over, too, and hard links. Of
            files at an address, which have a stamp of their own, they make no difference.
    """
    digest = hashlib.sha256()
    root = manifest.root
    listed = root.files() if isinstance(root, Address) else {}  # one list: to ask for each file would take much longer
    for record in manifest.records:
        try:
            stamp = listed[record.path] if isinstance(root, Address) else _stamp(root / record.path, also)
        except (OSError, KeyError) as error:
            reason = error.strerror if isinstance(error, OSError) else os.strerror(errno.ENOENT)
            raise CustomCNNError(
                f"Every image in the manifest can be read. Received: {show(record.path)} ({reason})."
            ) from None
        row = (record.path, record.label, record.group, record.split, *stamp)
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _stamp(path: Path, also: Iterable[str]) -> tuple[int, ...]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, *(getattr(status, name) for name in also)


def _walk(root: Path) -> tuple[list[Record], list[tuple[str, str]]]:
    folders, bad = _folders(root, "a file beside the class folders")
    files: list[Record] = []
    if holds_splits([folder.name for folder in folders]):
        for part in folders:
            if not (split := split_of(part.name)):
                bad.append((part.name, BESIDE_SPLITS))
                continue
            class_folders, stray = _folders(part, "a file beside the class folders")
            bad += [(f"{part.name}/{name}", reason) for name, reason in stray]
            for folder in class_folders:
                _class_folder(folder, f"{part.name}/{folder.name}", split, files, bad)
    else:
        for folder in folders:
            _class_folder(folder, folder.name, "", files, bad)
    return files, bad


def _folders(root: Path, reason: str) -> tuple[list[Path], list[tuple[str, str]]]:
    entries = [entry for entry in sorted(root.iterdir()) if not is_litter(entry.name) and entry.name != MANIFEST]
    return [e for e in entries if e.is_dir()], [(e.name, reason) for e in entries if not e.is_dir()]


def _class_folder(folder: Path, prefix: str, split: str, files: list[Record], bad: list[tuple[str, str]]) -> None:
    label, empty = composed(folder.name), True
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_litter(entry.name):
                continue
            empty = False
            name = f"{prefix}/{entry.name}"
            # What a link leads to is asked of the path: the entry would raise an error for one that leads in a circle.
            place = Path(entry) if entry.is_symlink() else entry
            if place.is_dir():
                bad.append((name, NESTED))
            elif os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
                bad.append((name, "not an image by its name"))
            elif not place.is_file():  # to open a pipe would wait for ever
                bad.append((name, "a broken link or not a file"))
            else:
                files.append(Record(name, label, split=split))
    if empty:
        bad.append((prefix, "a class folder without images"))


def _walk_names(names: Iterable[str]) -> tuple[list[Record], list[tuple[str, str]]]:
    """Do the same for a folder at an address, by the paths of all its files."""
    split = [parts for name in names if not any(map(is_litter, parts := name.split("/")))]
    depth = 2 if holds_splits({parts[0] for parts in split if len(parts) > 1}) else 1
    files: list[Record] = []
    bad: dict[str, str] = {}
    for parts in split:
        name = "/".join(parts)
        if name == MANIFEST:
            continue
        if depth == 2 and len(parts) > 1 and not split_of(parts[0]):
            bad[parts[0]] = BESIDE_SPLITS
        elif len(parts) <= depth:
            bad[name] = "a file beside the class folders"
        elif len(parts) > depth + 1:
            bad["/".join(parts[: depth + 1])] = NESTED
        elif os.path.splitext(name)[1].lower() not in SUFFIXES:
            bad[name] = "not an image by its name"
        else:
            files.append(Record(name, sys.intern(composed(parts[-2])), split=split_of(parts[0]) if depth == 2 else ""))
    return files, [*bad.items()]


def _join(files: list[Record], listed: Manifest) -> tuple[list[Record], list[tuple[str, str]]]:
    rows = {record.path: record for record in listed.records}
    unknown = [file for file in files if file.path not in rows]
    if unknown:  # a Mac has unpacked the folder, or packed it: names that look the same may differ
        spelled = {composed(path): path for path in rows.keys() - {file.path for file in files}}
        for file in unknown:
            if old := spelled.pop(composed(file.path), ""):
                rows[file.path] = replace(rows.pop(old), path=file.path)
    bad = [(file.path, "not listed in manifest.csv") for file in files if file.path not in rows]
    bad += [(path, "listed in manifest.csv, but missing") for path in rows.keys() - {file.path for file in files}]
    found: list[Record] = []
    for file in files:
        if file.path not in rows:
            continue
        row = rows[file.path]
        if not row.label.isascii():
            row = replace(row, label=sys.intern(composed(row.label)))
        if (file.label, file.split) == (row.label, row.split):
            found.append(row)
        else:
            where = f"in the folder of {show(_place(file))}, but {show(_place(row))} in manifest.csv"
            bad.append((file.path, where))
    groups = unify(row.group for row in found)
    same = zip(found, groups, strict=True)
    return [row if row.group == group else replace(row, group=group) for row, group in same], bad


def _place(record: Record) -> str:
    return f"{record.split}/{record.label}" if record.split else record.label


def with_group_pattern(manifest: Manifest, pattern: str) -> Manifest:
    """Read every image's group from its path.

    Args:
        manifest: any manifest.
        pattern: a regular expression with one capturing group, searched in the path without regard to case; or a name
            of `GROUP_PATTERNS`. What it captures, in upper case and without spaces around, is the
            group, so `h3` and `H3` are one.

    Raises:
        CustomCNNError: not a regular expression, not one capturing group, or a path without a match.
    """
    try:
        regex = re.compile(GROUP_PATTERNS.get(pattern, pattern), re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise CustomCNNError(f"A group pattern is a regular expression. Received: {show(pattern)} ({error}).") from None
    if regex.groups != 1:
        raise CustomCNNError(
            "A group pattern has one capturing group, in round brackets. "
            f"Received: {show(pattern)}, which has {regex.groups}. Example: '_([0-9]+)_', or the name cnmc."
        )
    matches = [(record.path, match) for record in manifest.records if (match := regex.search(record.path))]
    found = unify((match[1] or "").upper() for _, match in matches)
    groups = {path: sys.intern(group) for (path, _), group in zip(matches, found, strict=True)}
    return _with_groups(manifest, groups, f"A group pattern matches every path. Received: {show(pattern)}")


def with_group_file(manifest: Manifest, path: Path) -> Manifest:
    """Read every image's group from a CSV with the columns path (relative to the manifest's folder) and group.

    In a split folder a path may also stand as it was before the split, without its part in front. Case and spaces
    around a group do not matter, and paths may be written in other ways: see `customcnn.data.groups.read_groups`.

    Raises:
        CustomCNNError: a column or an image is missing, or an image has two groups.
    """
    paths = [record.path for record in manifest.records]
    images = [dict.fromkeys((r.path, without_split(r.path, r.split))) for r in manifest.records]
    found = dict(zip(paths, read_groups(path, [[*names] for names in images]), strict=True))
    return _with_groups(manifest, found, f"A groups file lists every image. Received: {show(path)}")


def with_known_groups(manifest: Manifest) -> Manifest:
    """Give images without groups those of the pattern of `GROUP_PATTERNS` that fits all their names, if one does."""
    if not manifest.groups_known:
        for name in GROUP_PATTERNS:
            with suppress(CustomCNNError):
                return with_group_pattern(manifest, name)
    return manifest


def _with_groups(manifest: Manifest, groups: Mapping[str, str], rule: str) -> Manifest:
    missing = [record.path for record in manifest.records if not groups.get(record.path)]
    if len(missing) == len(manifest.records):
        raise CustomCNNError(f"{rule}, which gives no image in {show(manifest.root)} a group.")
    if missing:
        raise CustomCNNError(f"{rule}, which gives no group to {len(missing):,} of them: {show_names(missing)}.")
    return replace(manifest, records=tuple(replace(r, group=groups[r.path]) for r in manifest.records))


def require_classes(manifest: Manifest) -> list[str]:
    """Return the class names, at least two.

    Raises:
        CustomCNNError: there is one class only.
    """
    classes = manifest.classes
    if len(classes) < 2:
        raise CustomCNNError(
            f"Classification needs at least two classes. Received: {show(manifest.root)}, {show_names(classes)} only. "
            "Put the images of each class into a folder of its own."
        )
    return classes
