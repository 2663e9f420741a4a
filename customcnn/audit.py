"""Find what the parts of a split share: groups, identical files, and near-duplicates that were turned or flipped."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby, islice, pairwise
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image

from customcnn import files
from customcnn.errors import CustomCNNError, show
from customcnn.images import read_image, to_rgb
from customcnn.manifest import Manifest, Record
from customcnn.progress import Progress, silent

T = TypeVar("T")

DISTANCE = 6
"""Hashes of 64 bits that differ in more bits than this are not compared further."""

CORRELATION = 0.97
"""Thumbnails whose details correlate less than this are not near-duplicates, however alike their hashes.

Measured on drawn cells and on photographs: copies that are turned, flipped, halved or saved as JPEG of quality 30
correlate by .985 and more, different cells by .91 at most. Whole thumbnails, with the outline that round cells share,
reach .99.
"""

THUMBNAIL = 32


@dataclass(frozen=True)
class Pair:
    """Two images of different parts that show the same picture, perhaps turned or flipped."""

    first: str
    second: str
    distance: int
    correlation: float
    same_label: bool


@dataclass(frozen=True)
class Audit:
    """What the parts share.

    Attributes:
        images: by part and class.
        groups_known: whether every image has a group.
        shared_groups: the groups that stand in more than one part, each with its parts.
        images_in_shared_groups: images in such groups, by part.
        identical: sets of files with the same bytes that stand in more than one part.
        near_duplicates: pairs across parts found by perceptual hash and confirmed on thumbnails.
    """

    images: dict[str, dict[str, int]]
    groups_known: bool
    shared_groups: dict[str, list[str]]
    images_in_shared_groups: dict[str, int]
    identical: list[list[str]]
    near_duplicates: list[Pair]

    @property
    def leaks(self) -> bool:
        """Whether anything is shared."""
        return bool(self.shared_groups or self.identical or self.near_duplicates)

    def as_dict(self) -> dict[str, object]:
        """Return everything, ready for JSON."""
        return {"leaks": self.leaks, **asdict(self)}


@dataclass(frozen=True)
class _Look:
    hashes: np.ndarray  # uint64 (8,): the perceptual hash of every turn and flip, the image itself first
    detail: np.ndarray  # float32 (32, 32): the thumbnail less its local mean, mean 0, norm 1; all 0 for a flat image
    sha256: str


def audit(manifest: Manifest, *, workers: int | None = None, progress: Progress = silent) -> Audit:
    """Compare the parts of a split.

    The perceptual hash (pHash of the imagehash library, 64 bits) of an image is looked up among the hashes of all eight
    turns and flips of the others, through bands of bits, so that not every pair is compared. Candidates are confirmed
    by correlating the details of 32 x 32 thumbnails. Copies turned by other angles, cropped or shifted are not found
    this way.

    Args:
        manifest: a split folder's, from `scan`, with groups if they are known.
        workers: processes; None for one a core.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: the folder is not split, or an image cannot be decoded.
    """
    if len(manifest.parts) < 2:
        raise CustomCNNError(
            f"An audit compares the parts of a split. Received: {show(manifest.root)} without train and validation "
            "folders. Use customcnn split first."
        )
    records = manifest.records
    with progress(len(records), "hash") as advance:
        looks = []
        for look in files.parallel(partial(_look, manifest.root), records, workers, processes=True):
            looks.append(look)
            advance(1)
    images: dict[str, dict[str, int]] = {part: {} for part in manifest.parts}
    for (part, label), count in sorted(manifest.counts().items()):
        images[part][label] = count
    shared = _shared_groups(records)
    inside = Counter(record.split for record in records if record.group in shared)
    return Audit(
        images=images,
        groups_known=manifest.groups_known,
        shared_groups=shared,
        images_in_shared_groups={part: inside[part] for part in manifest.parts},
        identical=_identical(records, looks),
        near_duplicates=_near_duplicates(records, looks),
    )


def _shared_groups(records: tuple[Record, ...]) -> dict[str, list[str]]:
    parts = defaultdict(set)
    for record in records:
        if record.group:
            parts[record.group].add(record.split)
    return {group: sorted(where) for group, where in sorted(parts.items()) if len(where) > 1}


def _identical(records: tuple[Record, ...], looks: list[_Look]) -> list[list[str]]:
    by_hash = defaultdict(list)
    for record, look in zip(records, looks, strict=True):
        by_hash[look.sha256].append(record)
    return [[r.path for r in same] for same in by_hash.values() if len({r.split for r in same}) > 1]


def eight_views(array: np.ndarray) -> list[np.ndarray]:
    """Return the four quarter turns of an array (H, W, ...) and their mirror images, the array itself first."""
    turns = [np.rot90(array, k) for k in range(4)]
    return turns + [turn[:, ::-1] for turn in turns]


def _look(root: Path, record: Record) -> _Look:
    import imagehash

    path = root / record.path
    grey = to_rgb(read_image(path)).convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    thumbnail = np.asarray(grey)
    bits = [imagehash.phash(Image.fromarray(np.ascontiguousarray(view))).hash for view in eight_views(thumbnail)]
    hashes = np.array([np.packbits(b.ravel()).view(np.uint64)[0] for b in bits], dtype=np.uint64)
    return _Look(hashes, _detail(thumbnail), files.sha256(path.read_bytes()))


def _detail(thumbnail: np.ndarray) -> np.ndarray:
    grey = thumbnail.astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(grey, 1, mode="reflect"), (3, 3))
    detail = grey - windows.mean(axis=(2, 3))
    detail -= detail.mean()
    norm = float(np.linalg.norm(detail))
    return detail / norm if norm > 0 else detail


def _near_duplicates(records: tuple[Record, ...], looks: list[_Look]) -> list[Pair]:
    found = []
    for i, same_first in groupby(sorted(_candidates(records, looks)), key=lambda pair: pair[0]):
        others = [j for _, j in same_first if looks[j].sha256 != looks[i].sha256]  # those are reported as identical
        if not others:
            continue
        views = np.stack([view.ravel() for view in eight_views(looks[i].detail)])
        correlations = (np.stack([looks[j].detail.ravel() for j in others]) @ views.T).max(axis=1)
        for j, correlation in zip(others, correlations.tolist(), strict=True):
            if correlation >= CORRELATION:
                a, b = records[i], records[j]
                distance = min(_distance(looks[i], looks[j]), _distance(looks[j], looks[i]))
                found.append(Pair(a.path, b.path, distance, round(correlation, 4), a.label == b.label))
    return found


def _distance(one: _Look, other: _Look) -> int:
    # Not the same the other way round: the hash of a turned picture is not the turned hash.
    return int(np.bitwise_count(one.hashes[0] ^ other.hashes).min())


def _candidates(records: tuple[Record, ...], looks: list[_Look]) -> set[tuple[int, int]]:
    """Return index pairs across parts that agree in one of DISTANCE + 1 bands of bits: no closer pair is missed."""
    parts = np.array([record.split for record in records])
    hashes = np.array([look.hashes for look in looks])  # (N, 8)
    pairs: set[tuple[int, int]] = set()
    for shift, mask in _bands():
        table = defaultdict(list)
        for i, key in enumerate(((hashes[:, 0] >> shift) & mask).tolist()):
            table[key].append(i)
        buckets = {key: np.array(members) for key, members in table.items()}
        for i, keys in enumerate(((hashes >> shift) & mask).tolist()):
            near = [buckets[key] for key in set(keys) if key in buckets]
            if near:
                pairs.update(_close(i, np.concatenate(near), hashes, parts))
    return pairs


def _close(i: int, others: np.ndarray, hashes: np.ndarray, parts: np.ndarray) -> Iterator[tuple[int, int]]:
    others = others[parts[others] != parts[i]]
    distances = np.bitwise_count(hashes[others, :1] ^ hashes[i][None, :]).min(axis=1, initial=64)
    for j in others[distances <= DISTANCE].tolist():
        yield min(i, j), max(i, j)


def _bands() -> list[tuple[np.uint64, np.uint64]]:
    edges = np.linspace(0, 64, DISTANCE + 2).astype(int)
    return [(np.uint64(a), np.uint64((1 << int(b - a)) - 1)) for a, b in pairwise(edges)]


def report(found: Audit) -> str:
    """Return an audit as text: the counts, what is shared, the first of each, and what it means."""
    lines = []
    for part, by_class in found.images.items():
        classes = ", ".join(f"{label} {count:,}" for label, count in by_class.items())
        lines.append(f"{part}: {sum(by_class.values()):,} images ({classes})")
    if found.groups_known:
        inside = ", ".join(f"{count:,} {part} images" for part, count in found.images_in_shared_groups.items())
        lines.append(f"groups in more than one part: {len(found.shared_groups):,} ({inside})")
        lines += [f"  {show(group)}: {', '.join(parts)}" for group, parts in _first(found.shared_groups.items())]
    else:
        lines.append("groups: not known (give --group-pattern or --groups)")
    lines.append(f"identical files across parts: {len(found.identical):,}")
    for same in _first(found.identical):
        mixed = len({PurePosixPath(path).parent.name for path in same}) > 1
        lines.append(f"  {', '.join(map(show, same))}{' (of different classes)' if mixed else ''}")
    lines.append(f"near-duplicates across parts (turned, flipped or saved again): {len(found.near_duplicates):,}")
    for pair in _first(found.near_duplicates):
        labels = "" if pair.same_label else ", of different classes"
        lines.append(f"  {show(pair.first)}, {show(pair.second)} (correlation {pair.correlation:.3f}{labels})")
    lines.append("Leaks: a score on this split is inflated." if found.leaks else "Nothing shared was found.")
    return "\n".join(lines)


def _first(items: Iterable[T]) -> list[T]:
    return list(islice(items, 5))
