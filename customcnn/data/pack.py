"""Decode every image once into one memory-mapped uint8 array, or when it is asked for; read batches from either."""

import fcntl
import io
import json
import math
import os
import re
import weakref
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL

from customcnn.data.manifest import Manifest, Record, fingerprint
from customcnn.data.pack_places import CACHE, home_for, homes, make_room
from customcnn.errors import CustomCNNError, show
from customcnn.images.decode import DECODING
from customcnn.images.readers import Reader, reader
from customcnn.io import atomic
from customcnn.io.parallel import Workers, as_seen, is_pool, parallel, worker_count
from customcnn.io.remote_path import Address, Folder, Told, overlapped
from customcnn.progress import Advance, Progress, silent

BLOCK = 16
"""Images that a thread decodes and writes at a time: handing them out then costs next to nothing."""
CHECKPOINT = 64 * BLOCK
"""After so many images the pack at work is brought to the disk, and from there a killed one goes on."""


@dataclass(frozen=True)
class Packed:
    """Images decoded and resized, with their records.

    Attributes:
        images: uint8 (N, H, W, 3), RGB, memory-mapped read-only; or `Streamed`, which is indexed like it.
        manifest: the N records, in the order of the images.
        converted: how many files were not 8-bit RGB, by mode ("L", "I;16", "P", "CMYK", "RGBA", ...); streamed images
            are not counted.
        path: the folder of the pack; None for streamed images.
    """

    images: np.ndarray
    manifest: Manifest
    converted: dict[str, int]
    path: Path | None = None

    def rows(self, part: str | None = None) -> np.ndarray:
        """Return the indexes, int64, of the images of one part, or of all."""
        records = self.manifest.records
        return np.array([i for i, r in enumerate(records) if part is None or r.split == part], dtype=np.int64)

    def labels(self, classes: list[str]) -> np.ndarray:
        """Return the class number of every image, int64 (N,), by the place of its label in `classes`."""
        index = {label: i for i, label in enumerate(classes)}
        return np.array([index[record.label] for record in self.manifest.records], dtype=np.int64)


class Streamed:
    """The images of a manifest, decoded whenever they are asked for: slower than a pack, and nothing on the disk.

    Attributes:
        shape: (N, H, W, 3), as of an array.
        dtype: uint8.
        ndim: 4.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, manifest: Manifest, size: tuple[int, int], workers: int | None = None) -> None:
        self.shape = (len(manifest.records), *size, 3)
        self.manifest = manifest
        self.workers = worker_count(workers)
        self._read = reader(len(self))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Decode the images that a number, a slice, or an array of numbers or of truth values chooses.

        Returns:
            uint8 (n, H, W, 3), or (H, W, 3) for one number: the pixels of `pack`.

        Raises:
            BadImage: a file cannot be decoded.
            IndexError: there is no such image.
        """
        chosen = np.arange(len(self))[index]
        flat = np.atleast_1d(chosen)
        pixels = np.empty((len(flat), *self.shape[1:]), self.dtype)

        def fill(places: np.ndarray) -> None:
            paths = [self.manifest.root / self.manifest.records[flat[place]].path for place in places]
            with overlapped(paths):
                for place, path in zip(places, paths, strict=True):
                    pixels[place], _ = self._read(path, self._size)

        shares = np.array_split(np.arange(len(flat)), max(1, min(len(flat), 4 * self.workers)))
        for _ in parallel(fill, shares, min(self.workers, len(shares))):
            pass
        return pixels if chosen.ndim else pixels[0]

    @property
    def _size(self) -> tuple[int, int]:
        return self.shape[1], self.shape[2]


def stream(manifest: Manifest, size: tuple[int, int], workers: int | None = None) -> Packed:
    """Return the images of a manifest without a pack: every batch is decoded anew from the files, the same pixels.

    Args:
        manifest: what to read, from `scan`.
        size: height and width in pixels.
        workers: threads; None for one a core.

    Returns:
        As from `pack`, but `images` is `Streamed` and `converted` empty: no file is opened before it is asked for, and
        a file that cannot be decoded raises `BadImage` only then.

    Raises:
        CustomCNNError: `workers` is below 1.
    """
    # What reads images indexes them with rows, and takes their shape and length: that is all that Streamed has.
    return Packed(cast(np.ndarray, Streamed(manifest, size, workers)), manifest, {})


def pack(
    manifest: Manifest,
    size: tuple[int, int],
    *,
    workers: Workers = None,
    progress: Progress = silent,
) -> Packed:
    """Decode and resize every image of a manifest, or open the pack that an earlier call left.

    The pack lies in `.customcnn/` inside the data folder (in the system's temporary folder, which TMPDIR names, where
    that is read-only or an address) and is made anew when an image or the size changes; the older one goes, unless it
    is in use. Labels, groups and parts may change: all folds of a cross-validation share one pack. One that was killed
    at work goes on where it stopped, less CHECKPOINT images at most. One that `upload` has left at the address is
    copied from there, and nothing is decoded.

    Args:
        manifest: what to pack, from `scan`.
        size: height and width in pixels.
        workers: threads; None for one a core; or a `customcnn.io.parallel.Pool`, whose pixels this process writes down.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: an image cannot be decoded, or is missing.
    """
    name = _name(manifest, size)
    found = _find(name, manifest)
    if found is not None:
        return found
    home = home_for(manifest.root)
    try:
        # Another Pillow may decode to other pixels: what an older one began, it does not go on with.
        with atomic.Staging(home / name, resume={"pack": name, "pillow": PIL.__version__}) as work:
            if not _download(work, manifest.root / CACHE / name, (len(manifest.records), *size, 3), progress):
                _write(work, manifest, size, workers, progress)
    except CustomCNNError:
        # Another process may have made the same pack meanwhile.
        if not (home / name / "pack.json").is_file():
            raise
    packed = _open(home / name, manifest)
    make_room(home, name)
    return packed


def upload(packed: Packed, *, progress: Progress = silent) -> Address:
    """Lay a pack beside the images at their address, in `.customcnn/`: who packs them from now on copies it from there.

    Args:
        packed: from `pack`, not from `stream`.
        progress: see `customcnn.progress`.

    Returns:
        The folder of the pack at the address. One that is there already is left alone.

    Raises:
        CustomCNNError: the images are not at an address, or it cannot be written to.
    """
    root, path = packed.manifest.root, packed.path
    refuse_upload(root)
    assert isinstance(root, Address) and path is not None
    home = root / CACHE / path.name
    if not (home / "pack.json").is_file():
        with progress(len(packed.images), "upload") as advance:
            (home / "images.npy").upload(path / "images.npy", _in_images(packed.images.shape, advance))
        atomic.write_bytes(home / "pack.json", (path / "pack.json").read_bytes())  # last: it stands for all
    return home


def refuse_upload(root: Folder) -> None:
    """Raise CustomCNNError where images lie on this machine: their pack lies beside them anyway."""
    if isinstance(root, Path):
        raise CustomCNNError(
            f"A pack is uploaded to the address of its images. Received: {show(root)}, a folder of this machine. Leave "
            "out --upload."
        )


def _download(work: Path, home: Folder, shape: tuple[int, ...], progress: Progress) -> bool:
    """Copy a pack from an address; tell whether there is one, and whole."""
    if isinstance(home, Path):
        return False
    try:
        note = json.loads((home / "pack.json").get())
        with progress(shape[0], "download") as advance:
            (home / "images.npy").download(work / "images.npy", _in_images(shape, advance))
    except (FileNotFoundError, ValueError):
        return False
    with (work / "images.npy").open("rb") as file:
        if os.fstat(file.fileno()).st_size != len(_header(shape)) + math.prod(shape):
            return False
        _note(work, file.fileno(), note)
    return True


def _in_images(shape: tuple[int, ...], advance: Advance) -> Told:
    """Return a function that is told bytes of a pack of that shape and hands on whole images."""
    done = 0

    def told(size: int) -> None:
        nonlocal done
        before, done = done, size // math.prod(shape[1:])
        advance(done - before)

    return told


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width in pixels as `64` and `120x160` name them.

    Raises:
        CustomCNNError: it is neither.
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if min(size) < 1:
        raise CustomCNNError(
            f"--size is a number of pixels, or height x width. Received: {show(text)}. Example: --size 120x160."
        )
    return size


def find_pack(manifest: Manifest, size: tuple[int, int]) -> Packed | None:
    """Open the pack that an earlier call of `pack` left for these images at this size; None if there is none."""
    return _find(_name(manifest, size), manifest)


def _find(name: str, manifest: Manifest) -> Packed | None:
    for folder in homes(manifest.root):
        with suppress(FileNotFoundError, NotADirectoryError):  # there is none, or another process is removing it
            return _open(folder / name, manifest)
    return None


def _name(manifest: Manifest, size: tuple[int, int]) -> str:
    # The pixels depend on the files alone, and so does the name: not on what the manifest says of them.
    images = replace(manifest, records=tuple(Record(record.path, "") for record in manifest.records))
    paths = atomic.sha256("\0".join(record.path for record in images.records).encode("utf-8", "surrogateescape"))
    state = atomic.sha256(f"{fingerprint(images, 'st_ctime_ns')} {DECODING}".encode())
    return f"pack-{size[1]}x{size[0]}-{paths[:8]}-{state[:16]}"


def _write(work: Path, manifest: Manifest, size: tuple[int, int], workers: Workers, progress: Progress) -> None:
    records, header = manifest.records, _header((len(manifest.records), *size, 3))
    done, modes = _done(work, len(records))
    # Written as a plain file, not through a memory map: a full disk is then an error, not a bus error that ends Python.
    with progress(len(records), "pack") as advance, (work / "images.npy").open("r+b" if done else "wb") as file:
        advance(done)
        file.write(header)
        file.flush()
        blocks = [(start, records[start : start + BLOCK]) for start in range(done, len(records), BLOCK)]
        if is_pool(workers):
            decode = partial(_decode_block, as_seen(manifest.root, workers), size, len(records))
            kinds_of = _received(parallel(decode, blocks, workers, block=1), file.fileno(), len(header))
        else:
            write = partial(_write_block, file.fileno(), len(header), manifest.root, size, reader(len(records)))
            kinds_of = parallel(write, blocks, workers)
        # Closed before the file is: a thread must not write into a number that belongs to another file by then.
        with closing(cast(Generator[list[str], None, None], kinds_of)) as written:
            for kinds in written:
                modes.update(kinds)
                done += len(kinds)
                advance(len(kinds))
                if done % CHECKPOINT == 0:
                    _note(work, file.fileno(), {"converted": modes, "done": done})
        del modes["RGB"]
        _note(work, file.fileno(), {"converted": modes})


def _header(shape: tuple[int, ...]) -> bytes:
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return data.getvalue()


def _done(work: Path, total: int) -> tuple[int, Counter[str]]:
    """Return how many leading images a killed pack has on the disk, and their modes."""
    if not (work / "pack.json").is_file():
        return 0, Counter()
    note = json.loads((work / "pack.json").read_text())
    return note.get("done", total), Counter(note["converted"])


def _note(work: Path, file: int, note: dict[str, object]) -> None:
    # The pixels first: the note must never speak of images that a power cut has lost.
    os.fsync(file)
    atomic.write_text(work / "pack.json", json.dumps(note))


_Block = tuple[int, Sequence[Record]]


def _write_block(file: int, offset: int, root: Folder, size: tuple[int, int], read: Reader, block: _Block) -> list[str]:
    """Decode some images and write each at its own place; return their modes."""
    start, records = block
    modes = []
    with overlapped(root / record.path for record in records):
        for number, record in enumerate(records, start):
            pixels, mode = read(root / record.path, size)
            _write_at(file, offset + number * pixels.nbytes, pixels.data.cast("B"))
            modes.append(mode)
    return modes


def _decode_block(root: Folder, size: tuple[int, int], total: int, block: _Block) -> tuple[int, np.ndarray, list[str]]:
    """Decode some images of so many; return the number of the first, uint8 (n, H, W, 3) and their modes."""
    start, records = block
    read = reader(total)
    pixels = np.empty((len(records), *size, 3), np.uint8)
    modes = []
    with overlapped(root / record.path for record in records):
        for place, record in enumerate(records):
            pixels[place], mode = read(root / record.path, size)
            modes.append(mode)
    return start, pixels, modes


def _received(blocks: Iterator[tuple[int, np.ndarray, list[str]]], file: int, offset: int) -> Iterator[list[str]]:
    """Write down what `_decode_block` returned; yield the modes."""
    for start, pixels, modes in blocks:
        _write_at(file, offset + start * pixels[0].nbytes, pixels.data.cast("B"))
        yield modes


def _write_at(file: int, offset: int, data: memoryview) -> None:
    # A disk that fills up takes a part first, and only the next call is the error.
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def _open(folder: Path, manifest: Manifest) -> Packed:
    """Open a pack, and mark it as in use for as long as its images are.

    Raises:
        FileNotFoundError: there is none.
    """
    note = os.open(folder / "pack.json", os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with suppress(OSError):  # read-only, or another user's
            os.utime(folder)
        images = np.load(folder / "images.npy", mmap_mode="r")
        converted = json.loads((folder / "pack.json").read_text())["converted"]
    except BaseException:
        os.close(note)
        raise
    weakref.finalize(images, os.close, note)
    return Packed(images, manifest, converted, folder)
