"""Augment the training images with Augmentor's operations: repeatable for a seed, lossless, in worker processes."""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from customcnn.data.apportion import apportion
from customcnn.data.augmentor import Operations, as_seed, augment_image, draw_view
from customcnn.data.manifest import MANIFEST, Manifest, Record, fingerprint, require_classes
from customcnn.errors import CustomCNNError, show
from customcnn.images.decode import DECODING, encode, kind, lossless_format, read_image, to_rgb
from customcnn.images.dihedral import copy_pixels, rotated_and_flipped, rotated_and_flipped_image
from customcnn.images.raw_bmp import BmpMemory
from customcnn.io import atomic
from customcnn.io.parallel import Workers, as_seen, is_pool, parallel, worker_count
from customcnn.io.remote_path import Folder, overlapped
from customcnn.progress import Progress, silent

COUNT = 20_000
"""How many training images the report wrote."""

CHUNK = 16
"""How many samples a worker makes at a time: those of one original mostly come together, and decode it once."""

FAR_CHUNK = 64
"""The same for a worker of a pool: it costs more to send them there."""


@dataclass(frozen=True)
class AugmentResult:
    """What `augment_folder` made: the manifest in the destination, and how many samples come from converted images."""

    manifest: Manifest
    converted: int


@dataclass(frozen=True, slots=True)
class _Task:
    record: Record
    copy: int  # the number of this sample among those of its original; -1: carried over as it is
    there: str = ""  # the file that a killed call has made of it


def augment_folder(
    manifest: Manifest,
    dst: Folder,
    count: int | None = None,
    *,
    seed: int = 7,
    operations: Operations | None = None,
    balance: bool = False,
    minority: bool = False,
    replace_dst: bool = False,
    workers: Workers = None,
    progress: Progress = silent,
) -> AugmentResult:
    """Write `count` augmented training images, each named after its original, and carry the other parts over.

    Every original of a class is used equally often, give or take one. (Augmentor's `sample()` draws with replacement:
    at 20,000 samples of 8,479 originals about one in ten never appears.) A sample's bytes depend on the seed, its
    original and its number alone. A run that was killed goes on where it stopped.

    With `minority` the training images are carried over too, and only the smaller classes get samples: as many as each
    lacks to the largest.

    Args:
        manifest: the source, from `scan`: a split folder, of which only the training part is augmented, or a folder of
            class folders, which is then taken as training images as a whole.
        dst: the folder to make, a path or an address, of the same layout, with a manifest.csv.
        count: how many images to write for training; None for the report's 20,000.
        seed: of all chance.
        operations: None for the report's turns and flips at .5.
        balance: as many images for each class, instead of the classes' own shares.
        minority: enlarge the smaller classes to the largest; without `count` and `balance`, which say otherwise.
        replace_dst: write over a destination that is not empty.
        workers: threads where turns and flips are all that is asked for, otherwise processes; None for one a core; or
            a `customcnn.io.parallel.Pool`.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: `count` is below the number of classes or given with `minority`, or an image cannot be decoded.
    """
    if minority and (count is not None or balance):
        other = "--balance" if count is None else f"--count {count}"
        raise CustomCNNError(
            f"--minority adds what the smaller classes lack, and no more. Received: {other} beside it. Leave one out."
        )
    operations = operations or Operations()
    count = COUNT if count is None else count
    train = manifest.part("train") if manifest.parts else manifest
    if not train.records:
        raise CustomCNNError(f"Augmentation needs a training part. Received: {show(manifest.root)} without one.")
    classes = require_classes(train)
    if count < len(classes) and not minority:
        raise CustomCNNError(f"--count is at least 1 for each of {len(classes)} classes. Received: {count}. Give more.")
    atomic.refuse_overlap(manifest.root, dst)
    others = [record for record in manifest.records if record.split != "train"] if manifest.parts else []
    tasks = [_Task(record, -1) for record in others]
    tasks += minority_samples(train, seed=seed) if minority else samples(train, count, seed=seed, balance=balance)
    resume = {
        "command": "augment",
        "source": fingerprint(manifest, "st_ino"),  # not the time of change: carrying a file over links to it
        "decoding": DECODING,
        "count": count,
        "seed": seed,
        "balance": balance,
        "minority": minority,
        **asdict(operations),
    }
    done: list[Record] = []
    converted = 0
    stage = atomic.staging(dst, replace=replace_dst, resume=resume, shared=is_pool(workers))
    with stage as work:
        for folder in {PurePosixPath(task.record.path).parent for task in tasks}:
            (work / folder).mkdir(parents=True, exist_ok=True)
        run = partial(_augment_tasks, as_seen(manifest.root, workers), work, seed, operations)
        tasks = _with_kept(tasks, stage.kept())
        with progress(len(tasks), "augment") as advance:
            for record, was_converted in _spread(run, tasks, workers, processes=not operations.exact):
                done.append(record)
                converted += was_converted
                advance(1)
        result = Manifest(dst, tuple(sorted(done, key=lambda record: record.path)))
        result.write(work / MANIFEST)
    return AugmentResult(result, converted)


def samples(train: Manifest, count: int, *, seed: int, balance: bool) -> Iterator[_Task]:
    """Yield which original each sample is made from: class shares kept (largest remainder) or made equal."""
    by_class = _by_class(train)
    sizes = [1 if balance else len(records) for records in by_class.values()]
    for records, wanted in zip(by_class.values(), apportion(count, sizes), strict=True):
        yield from (_Task(record, copy) for record, uses in _uses(records, wanted, seed) for copy in range(uses))


def minority_samples(train: Manifest, *, seed: int) -> Iterator[_Task]:
    """Yield every original as it is, and which original each sample is made from that fills up a smaller class."""
    taken = {record.path for record in train.records}
    by_class = _by_class(train)
    largest = max(map(len, by_class.values()))
    for records in by_class.values():
        for record, uses in _uses(records, largest - len(records), seed):
            yield _Task(record, -1)
            # The originals are there too: one may be a sample itself, of an augmentation before, and keeps its name.
            free = (copy for copy in itertools.count() if taken.isdisjoint(_sample_names(record.path, copy)))
            yield from (_Task(record, copy) for copy in itertools.islice(free, uses))


def _with_kept(tasks: list[_Task], there: frozenset[str]) -> list[_Task]:
    """Return the tasks with the files that are there already; of none only where there is nothing at all."""
    if not there:
        return tasks
    names = ((task.record.path,) if task.copy < 0 else _sample_names(task.record.path, task.copy) for task in tasks)
    made = (next((name for name in some if name in there), "") for some in names)
    return [replace(task, there=name) for task, name in zip(tasks, made, strict=True)]


def _by_class(train: Manifest) -> dict[str, list[Record]]:
    by_class: dict[str, list[Record]] = {label: [] for label in train.classes}
    for record in train.records:
        by_class[record.label].append(record)
    return by_class


def _uses(records: list[Record], wanted: int, seed: int) -> Iterator[tuple[Record, int]]:
    """Return the records of one class in random order, with how often each is used: equally, give or take one."""
    order = list(records)
    random.Random(as_seed(f"{seed}/{records[0].label}")).shuffle(order)
    rounds, rest = divmod(wanted, len(order))
    return ((record, rounds + (i < rest)) for i, record in enumerate(order))


_Made = Iterator[tuple[Record, bool]]
_Run = Callable[[list[_Task]], _Made]


def _spread(run: _Run, tasks: list[_Task], workers: Workers, *, processes: bool) -> _Made:
    """Yield what `run` yields for all tasks, in their order, some of them at a time in each worker."""
    count = worker_count(workers)
    if count == 1 and not is_pool(workers):
        yield from run(tasks)
        return
    size = max(1, min(FAR_CHUNK if is_pool(workers) else CHUNK, len(tasks) // (4 * count)))
    chunks = (tasks[i : i + size] for i in range(0, len(tasks), size))
    for done in parallel(partial(_finish, run), chunks, workers, processes=processes, block=1):
        yield from done


def _finish(run: _Run, tasks: list[_Task]) -> list[tuple[Record, bool]]:
    return list(run(tasks))


def _augment_tasks(root: Folder, work: Folder, seed: int, operations: Operations, tasks: list[_Task]) -> _Made:
    memory = BmpMemory()
    with overlapped(_reads(root, work, tasks), work):
        for (path, carried), group in itertools.groupby(tasks, lambda task: (task.record.path, task.copy < 0)):
            if carried:
                yield from ((_carry_over(root / path, work, task), False) for task in group)
            else:
                yield from _augment_file(root, work, seed, operations, list(group), memory)


def _reads(root: Folder, work: Folder, tasks: list[_Task]) -> Iterator[Folder]:
    """Yield the files that `_augment_tasks` reads, in that order."""
    for (path, carried), group in itertools.groupby(tasks, lambda task: (task.record.path, task.copy < 0)):
        if not carried:
            yield root / path
        for task in group:
            if task.there:
                yield work / task.there
            elif carried and not (task.record.sha256 and atomic.in_one_store(root, work)):
                yield root / path


def _augment_file(
    root: Folder, work: Folder, seed: int, operations: Operations, tasks: list[_Task], memory: BmpMemory
) -> _Made:
    """Make samples of one original."""
    record = tasks[0].record
    pixels = memory.read(root / record.path) if operations.exact else None
    make: Callable[[str], bytes | memoryview]
    if pixels is not None:
        make, keeps_format, converted = partial(_turned_bmp, memory, pixels, operations), True, False
    else:
        image = read_image(root / record.path)
        format = lossless_format(image) if image.format != "GIF" else "PNG"
        keeps_format, converted = format == image.format, kind(image) != "RGB"
        make = partial(_augmented, to_rgb(image), operations, format, record.path)
    for task in tasks:
        same, as_png = _sample_names(record.path, task.copy)
        target = same if keeps_format else as_png
        if task.there == target:
            data: bytes | memoryview = (work / target).read_bytes()
        else:
            data = make(f"{seed}/{record.path}/{task.copy}")
            atomic.write_bytes(work / target, data)
        yield replace(record, path=target, group=_group(record), sha256=atomic.sha256(data)), converted


def _augmented(image: Image.Image, operations: Operations, format: str, name: str, seed: str) -> bytes:
    if operations.exact:
        return encode(rotated_and_flipped_image(image, *draw_view(operations, seed)), format)
    try:
        return encode(augment_image(image, operations, seed), format)
    except ValueError as error:
        raise CustomCNNError(
            f"Images are large enough for the operations. Received: {show(name)}, "
            f"{image.width} x {image.height} pixels ({error}). Use fewer of them."
        ) from None


def _turned_bmp(memory: BmpMemory, pixels: np.ndarray, operations: Operations, seed: str) -> memoryview:
    pixels = rotated_and_flipped(pixels, *draw_view(operations, seed))
    data, place = memory.empty(*pixels.shape[:2])
    copy_pixels(pixels[::-1], place[::-1])  # upwards: the file's own order
    return data


def _sample_names(path: str, copy: int) -> tuple[str, str]:
    """Return the path of a sample of an original: in the original's format, and as a PNG of one that has another.

    A JPEG becomes a PNG and keeps its own suffix too, so that it cannot meet the samples of a PNG of the same stem.
    """
    name = PurePosixPath(path)
    stem = f"{name.stem}-aug{copy:04d}{name.suffix}"
    return str(name.with_name(stem)), str(name.with_name(f"{stem}.png"))


def _group(record: Record) -> str:
    # Samples of one original must not part ways in a later split: it is their group where none is known.
    return record.group or ("" if record.split else record.path)


def _carry_over(source: Folder, work: Folder, task: _Task) -> Record:
    record, target = task.record, work / task.record.path
    digest = record.sha256
    if task.there:
        digest = digest or atomic.sha256(target.read_bytes())
    elif isinstance(source, Path) and isinstance(target, Path):
        try:
            os.link(source.resolve(), target)
        except OSError:  # another file system, or one without hard links
            atomic.copy(source, target)
        digest = digest or atomic.sha256(target.read_bytes())
    elif digest and atomic.in_one_store(source, target):
        atomic.copy(source, target)
    else:
        data = source.read_bytes()
        atomic.write_bytes(target, data)
        digest = digest or atomic.sha256(data)
    return replace(record, group=_group(record), sha256=digest)
