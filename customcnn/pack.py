"""Decode every image once into one memory-mapped uint8 array, and read batches from it."""

import errno
import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from customcnn import files
from customcnn.errors import CustomCNNError
from customcnn.images import kind, read_image, resize, to_rgb
from customcnn.manifest import Manifest, Record, fingerprint
from customcnn.progress import Progress, silent

CACHE = ".customcnn"
"""The folder inside a data folder where its packs are kept: a name with a dot in front is never taken for a class."""


@dataclass(frozen=True)
class Packed:
    """Images decoded and resized, with their records.

    Attributes:
        images: uint8 (N, H, W, 3), RGB, memory-mapped read-only.
        manifest: the N records, in the order of the images.
        converted: how many files were not 8-bit RGB, by mode ("L", "I;16", "P", "CMYK", "RGBA", ...).
    """

    images: np.ndarray
    manifest: Manifest
    converted: dict[str, int]

    def rows(self, part: str | None = None) -> np.ndarray:
        """Return the indexes, int64, of the images of one part, or of all."""
        records = self.manifest.records
        return np.array([i for i, r in enumerate(records) if part is None or r.split == part], dtype=np.int64)

    def labels(self, classes: list[str]) -> np.ndarray:
        """Return the class number of every image, int64 (N,), by the place of its label in `classes`."""
        index = {label: i for i, label in enumerate(classes)}
        return np.array([index[record.label] for record in self.manifest.records], dtype=np.int64)


def pack(
    manifest: Manifest,
    size: tuple[int, int],
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> Packed:
    """Decode and resize every image of a manifest, or open the pack that an earlier call left.

    The pack lies in `.customcnn/` inside the data folder (in the system's temporary folder where that is read-only) and
    is made anew when an image or the size changes. Labels, groups and parts may change: all folds of a cross-validation
    share one pack.

    Args:
        manifest: what to pack, from `scan`.
        size: height and width in pixels.
        workers: threads; None for one a core.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: an image cannot be decoded, or is missing.
    """
    found = find_pack(manifest, size)
    if found is not None:
        return found
    name = _name(manifest, size)
    home, fallback = _homes(manifest)
    if not _writable(home):
        home = fallback
        home.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        with files.Staging(home / name) as work:
            _write(work, manifest, size, workers, progress)
    except CustomCNNError:
        # Another process may have made the same pack meanwhile.
        if not (home / name / "pack.json").is_file():
            raise
    return _open(home / name, manifest)


def find_pack(manifest: Manifest, size: tuple[int, int]) -> Packed | None:
    """Open the pack that an earlier call of `pack` left for these images at this size; None if there is none."""
    name = _name(manifest, size)
    for folder in _homes(manifest):
        if (folder / name / "pack.json").is_file():
            return _open(folder / name, manifest)
    return None


def _name(manifest: Manifest, size: tuple[int, int]) -> str:
    # The pixels depend on the files alone, and so does the name: not on what the manifest says of them.
    images = replace(manifest, records=tuple(Record(record.path, "") for record in manifest.records))
    return f"pack-{size[1]}x{size[0]}-{fingerprint(images)[:16]}"


def _homes(manifest: Manifest) -> tuple[Path, Path]:
    """Return where the packs of a folder are kept: inside it, or where it is read-only in the temporary folder."""
    # By user, for others could not write there; by data folder, for two may agree in names, sizes and times of files.
    place = files.sha256(os.fsencode(manifest.root.resolve()))[:16]
    return manifest.root / CACHE, Path(tempfile.gettempdir()) / f"customcnn-packs-{os.getuid()}" / place


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


def _write(work: Path, manifest: Manifest, size: tuple[int, int], workers: int | None, progress: Progress) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(manifest.records), *size, 3)}
    modes: Counter[str] = Counter()
    # Written as a plain file, not through a memory map: a full disk is then an error, not a bus error that ends Python.
    with progress(len(manifest.records), "pack") as advance, (work / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for pixels, mode in files.parallel(partial(_decode, manifest.root, size), manifest.records, workers):
            file.write(pixels.tobytes())
            modes[mode] += 1
            advance(1)
    del modes["RGB"]
    (work / "pack.json").write_text(json.dumps({"converted": modes}))


def _decode(root: Path, size: tuple[int, int], record: Record) -> tuple[np.ndarray, str]:
    image = read_image(root / record.path)
    return np.asarray(resize(to_rgb(image), size)), kind(image)


def _open(folder: Path, manifest: Manifest) -> Packed:
    images = np.load(folder / "images.npy", mmap_mode="r")
    converted = json.loads((folder / "pack.json").read_text())["converted"]
    return Packed(images, manifest, converted)
