"""A study's parts, made as the study made them: limited, enlarged, split, cropped and augmented, in that order."""

import os
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image

from customcnn.data.augment import COUNT, augment_folder
from customcnn.data.augmentor import Operations, as_seed
from customcnn.data.crop import crop_folder
from customcnn.data.manifest import MANIFEST, Manifest, Record, require_classes, scan, with_group_pattern
from customcnn.data.names import without_split
from customcnn.data.split import check_files, split_by_group, split_by_image, split_by_name
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.io import atomic
from customcnn.io.parallel import parallel
from customcnn.progress import Progress, silent
from customcnn.studies.study_file import Preparation

STAGES = ("augmented", "cropped", "parts")
"""The folders that a preparation leaves, the last made first: the first that is there is what a network is given."""

COPIES = Operations(rotate=25, shift=0.1)
"""How copies of the smaller class are made. The study that enlarged it tells no amounts: these are our choice."""


def prepare(
    data: Manifest,
    how: Preparation,
    dst: Path,
    *,
    limit: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Make the parts of a study below `dst`, or find those that an earlier call made there.

    Args:
        data: the class folders, from `scan`.
        how: what to do.
        dst: where the folders `parts`, `cropped` and `augmented` go, as far as the preparation needs them.
        limit: so many images of each class in each part at most, before anything is decoded; the count of augmented
            images shrinks with the training part. 0 for all.
        workers: threads or processes; None for one a core.
        progress: see `customcnn.progress`.

    Returns:
        The manifest of the last folder.

    Raises:
        CustomCNNError: the parts that are needed are missing, or as by the commands split, crop and augment.
    """
    last = STAGES[0] if how.augment else STAGES[1] if how.crop else STAGES[2]
    if not (dst / last).is_dir():
        data = with_groups(data, how.group_pattern)
        parts, share = _parts(data, how, dst, limit, workers, progress)
        if how.crop and not (dst / "cropped").is_dir():
            size = _crop_size(parts, how.crop)
            crop_folder(parts, dst / "cropped", size, check=False, workers=workers, progress=progress)
        if how.augment:
            source = scan(dst / "cropped") if how.crop else parts
            _augment(source, how, dst / "augmented", share, workers, progress)
    return scan(dst / last)


def with_groups(data: Manifest, pattern: str) -> Manifest:
    """Return the manifest with groups by a pattern, where it has none and the pattern finds them."""
    if not pattern or data.groups_known:
        return data
    try:
        return with_group_pattern(data, pattern)
    except CustomCNNError:
        return data  # other names than the study's: leakage cannot be judged, and the score's note says so


def limited(records: Iterable[Record], limit: int) -> list[Record]:
    """Return `limit` records of each part and class at most, taken in turn from its groups; all of them for 0.

    The groups, and the images inside each, are shuffled by the name of the part and the class alone.
    """
    places: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda record: record.path):
        places[record.split, record.label][record.group].append(record)
    chosen = []
    for (part, label), groups in places.items():
        rng = random.Random(as_seed(f"{part}/{label}"))
        queues = [rng.sample(members, len(members)) for members in groups.values()]
        rng.shuffle(queues)
        in_turn = [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]
        chosen += in_turn[: limit or None]
    return sorted(chosen, key=lambda record: record.path)


def assign(data: Manifest, how: Preparation) -> list[Record]:
    """Return the records with the parts that a preparation gives them; those that it leaves out are missing.

    Raises:
        CustomCNNError: the folder has not the parts that are needed, or as by the functions of `data.split`.
    """
    if how.split == "own":
        missing = [part for part in ("train", "validation") if part not in data.parts]
        if missing:
            raise CustomCNNError(
                f"This study takes the parts that its data has. Received: {show(data.root)} without "
                f"{show_names(missing)}. Give the folder that the script in data_tools makes of the release."
            )
        return list(data.records)
    # In the order of a folder that was never split, so that the same images make the same parts.
    pool = sorted(_pool(data, how), key=_plain)
    kept = [record for record in data.records if record.split in how.keep]
    labels = [record.label for record in pool]
    if how.split == "image":
        parts = split_by_image(labels, how.shares, how.seed)
    elif how.split == "name":
        parts = split_by_name(labels, how.shares.validation)
    elif all(record.group for record in pool):
        parts = split_by_group(labels, [record.group for record in pool], how.shares, how.seed)
    else:
        raise CustomCNNError(
            f"This study splits by group and needs the group of every image. Received: none for {show(data.root)}. "
            "Give a folder with a manifest.csv that names them, as the scripts in data_tools make it."
        )
    return [*(replace(record, split=part) for record, part in zip(pool, parts, strict=True)), *kept]


def _pool(data: Manifest, how: Preparation) -> list[Record]:
    """Return what is split anew: everything where nothing is split yet."""
    split = bool(data.parts)
    return [record for record in data.records if not split or record.split in how.pool]


def _parts(
    data: Manifest, how: Preparation, dst: Path, limit: int, workers: int | None, progress: Progress
) -> tuple[Manifest, float]:
    """Return the split folder, and which share of the training images it holds."""
    require_classes(data)
    if how.minority == "balance":
        data = _enlarged(data, how, dst, limit, workers, progress)
        how = replace(how, pool=("train",))
    assigned = assign(data, how)
    chosen = limited(assigned, limit)
    if not (dst / "parts").is_dir():
        _lay_out(data, {record.path: record.split for record in chosen}, dst / "parts", workers, progress)
    share = sum(r.split == "train" for r in chosen) / sum(r.split == "train" for r in assigned)
    return scan(dst / "parts"), share


def _enlarged(
    data: Manifest, how: Preparation, dst: Path, limit: int, workers: int | None, progress: Progress
) -> Manifest:
    """Return a folder in which all that is to be split anew trains, with copies of the smaller classes."""
    if not (dst / "enlarged").is_dir():
        if not (dst / "pool").is_dir():
            pool = _pool(data, how)
            kept = [r for r in data.records if r.split in how.keep]
            enough = limit * len(how.shares.as_list())
            wanted = [*limited((replace(r, split="train") for r in pool), enough), *limited(kept, limit)]
            _lay_out(data, {record.path: record.split for record in wanted}, dst / "pool", workers, progress)
        augment_folder(
            scan(dst / "pool"),
            dst / "enlarged",
            seed=how.seed,
            operations=COPIES,
            minority=True,
            workers=workers,
            progress=progress,
        )
    return scan(dst / "enlarged")


def _lay_out(data: Manifest, wanted: Mapping[str, str], dst: Path, workers: int | None, progress: Progress) -> None:
    """Write a split folder with a manifest.csv: the images of `wanted`, path to part, as links or copies."""
    sources = replace(data, records=tuple(record for record in data.records if record.path in wanted))
    checked, _ = check_files(sources, workers=workers, progress=progress)
    plain = {record.path: _plain(record) for record in checked.records}
    twice = {name for name, count in Counter(plain.values()).items() if count > 1}
    placed = []
    for record in checked.records:
        part, name = wanted[record.path], PurePosixPath(plain[record.path])
        if plain[record.path] in twice:  # two parts of the folder had a file of this name
            name = name.with_name(f"{record.split}-{name.name}")
        placed.append((record.path, replace(record, path=f"{part}/{name}", split=part)))
    assert isinstance(data.root, Path)  # a study takes folders of this machine
    with atomic.Staging(dst) as work:
        for folder in {PurePosixPath(record.path).parent for _, record in placed}:
            (work / folder).mkdir(parents=True)
        with progress(len(placed), dst.name) as advance:
            for _ in parallel(partial(_place, data.root, work), placed, workers):
                advance(1)
        Manifest(dst, tuple(sorted((record for _, record in placed), key=lambda r: r.path))).write(work / MANIFEST)


def _plain(record: Record) -> str:
    """Return a path without its part in front."""
    return without_split(record.path, record.split)


def _place(root: Path, work: Path, item: tuple[str, Record]) -> None:
    source, target = root / item[0], work / item[1].path
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _crop_size(data: Manifest, crop: tuple[int, ...]) -> int:
    """Return the edge to crop to: as given for images of the given whole, and in proportion for others."""
    edge, whole = crop
    least = whole
    for record in data.records:
        with Image.open(data.root / record.path) as image:
            least = min(least, *image.size)
    return max(1, round(least * edge / whole))


def _augment(
    source: Manifest, how: Preparation, dst: Path, share: float, workers: int | None, progress: Progress
) -> None:
    others = {key: how.augment[key] for key in ("seed", "balance", "minority") if key in how.augment}
    least = len(source.part("train").classes)
    count = None if how.augment.get("minority") else max(least, round(how.augment.get("count", COUNT) * share))
    augment_folder(
        source,
        dst,
        count,
        operations=how.operations,
        **others,
        workers=workers,
        progress=progress,
    )
