"""Duplicates: identical files by hash, and near-duplicates that were turned, flipped or saved again."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations, groupby, pairwise, permutations, product
from typing import IO

import numpy as np
from PIL import Image

from customcnn.audit.findings import Pair
from customcnn.audit.quality import MEASURES, measure
from customcnn.audit.union_find import Trees
from customcnn.data.manifest import Manifest, Record
from customcnn.images.decode import open_image, read_file, to_rgb
from customcnn.images.dihedral import eight_views
from customcnn.io import atomic
from customcnn.io.parallel import Workers, as_seen, parallel
from customcnn.io.remote_path import Folder, overlapped
from customcnn.progress import Progress

DISTANCE = 6
"""Hashes of 64 bits that differ in more bits than this are not compared further."""

CORRELATION = 0.97
"""Thumbnails whose details correlate less than this are not near-duplicates, however alike their hashes.

Measured on drawn cells and on photographs: copies that are turned, flipped, halved or saved as JPEG of quality 30
correlate by .985 and more, different cells by .91 at most. Whole thumbnails, with the outline that round cells share,
reach .99.
"""

THUMBNAIL = 32

SOME = 32
"""So many images are handed to a worker at a time."""

AT_ONCE = 2**18
"""So many pairs of hashes are compared at a time."""

PIECE = 256
"""So many images are sketched at a time."""

MOST_BLOCKS = 10
"""The bits of a hash are cut into so many blocks at most: 210 tables of 24 bits and more."""

AFFORDED = 256
"""Where the tables ask for more comparisons than this for each hash, the hashes are too alike to be searched by."""

SKETCH = 64
"""Bytes of the sketch of a picture: on which side of so many times eight random planes its details lie."""

SKETCH_TABLES = 128
"""Two pictures that agree in all four bytes that one of so many tables looks at are compared."""

MAP_BITS = 24
"""Of a map of the keys that occur: 16 MB."""

_NOWHERE = np.empty((0, 0), np.uint8)


@dataclass(frozen=True, slots=True)
class _Look:
    hashes: np.ndarray  # uint64 (8,): the perceptual hash of every turn and flip, the image itself first
    thumbnail: np.ndarray  # uint8 (32, 32), grey
    sha256: str
    flat: bool = False  # of one grey: like any other such image, and a near-duplicate of none
    measures: np.ndarray = field(default_factory=lambda: _NOWHERE)  # float32 (MEASURES,): see quality.measure


_Holders = dict[str, list[int]]


def all_looks(
    manifest: Manifest, file: IO[bytes], workers: Workers, progress: Progress
) -> tuple[list[_Look], np.ndarray]:
    """Look at every image once. The thumbnails go into the file, and are read from there when they are asked for.

    Returns:
        The looks, and the measures of `quality.measure`, float32 (N, MEASURES).
    """
    looks: list[_Look] = []
    measures = np.empty((len(manifest.records), len(MEASURES)), np.float32)
    with progress(len(manifest.records), "hash") as advance:
        some = (manifest.records[start : start + SOME] for start in range(0, len(manifest.records), SOME))
        look_at = partial(_look_at, as_seen(manifest.root, workers))
        for found in parallel(look_at, some, workers, processes=True, block=1):
            for look in found:
                file.write(look.thumbnail.tobytes())
                measures[len(looks)] = look.measures
                looks.append(replace(look, thumbnail=_NOWHERE, measures=_NOWHERE))
            advance(len(found))
    file.flush()
    thumbnails = np.memmap(file, np.uint8, "r", shape=(len(looks), THUMBNAIL, THUMBNAIL))
    return [replace(look, thumbnail=thumbnail) for look, thumbnail in zip(looks, thumbnails, strict=True)], measures


def identical_files(looks: list[_Look]) -> list[list[int]]:
    """Return the sets of two and more images of the same bytes, each as places in the records."""
    by_hash = defaultdict(list)
    for i, look in enumerate(looks):
        by_hash[look.sha256].append(i)
    return [same for same in by_hash.values() if len(same) > 1]


def _look_at(root: Folder, records: Sequence[Record]) -> list[_Look]:
    with overlapped(root / record.path for record in records):
        return [_look(root, record) for record in records]


def _look(root: Folder, record: Record) -> _Look:
    path = root / record.path
    data = read_file(path)
    image = to_rgb(open_image(data, path))
    grey = image.convert("L")
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))
    flat = bool((thumbnail == thumbnail[0, 0]).all())
    return _Look(perceptual_hashes(thumbnail), thumbnail, atomic.sha256(data), flat, measure(image, grey))


def perceptual_hashes(thumbnail: np.ndarray) -> np.ndarray:
    """Return the perceptual hash (pHash) of a picture, of its turns and of its mirror images.

    A bit says whether one of the 64 lowest frequencies of the cosine transform lies above their median. The imagehash
    library gives the same bits for one view at a time, which takes several times as long.

    Args:
        thumbnail: uint8 (32, 32), grey.

    Returns:
        uint64 (8,), in the order of `eight_views`.
    """
    from scipy.fft import dct

    views = np.stack(eight_views(thumbnail))
    low = dct(dct(views, axis=1), axis=2)[:, :8, :8].reshape(8, 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _details(looks: list[_Look], members: Sequence[int]) -> np.ndarray:
    """Return what differs in each thumbnail from its surroundings, float32 (N, 32, 32), each of length 1; 0 if flat."""
    grey = np.stack([looks[i].thumbnail for i in members]).astype(np.float32)
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    three = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    detail = grey - (three[:, :, :-2] + three[:, :, 1:-1] + three[:, :, 2:]) / 9
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    length = np.linalg.norm(detail, axis=(1, 2), keepdims=True)
    return np.divide(detail, length, out=np.zeros_like(detail), where=length > 0)


def _flat_views(details: np.ndarray, count: int = 8) -> np.ndarray:
    """Return the first so many of `eight_views` of each of (N, 32, 32), float32 (N * count, 1024)."""
    views = eight_views(np.moveaxis(details, 0, -1))[:count]
    return np.stack([np.moveaxis(view, -1, 0) for view in views], axis=1).reshape(len(details) * count, -1)


def near_across(records: tuple[Record, ...], looks: list[_Look]) -> list[Pair]:
    """Return every pair of near-duplicates across parts."""
    found = []
    for i, same_first in groupby(sorted(_candidates(records, looks)), key=lambda pair: pair[0]):
        others = [j for _, j in same_first]
        found += [_pair(records, looks, i, j, c) for j, c in _correlations(looks, i, others) if c >= CORRELATION]
    return found


def near_inside(records: tuple[Record, ...], looks: list[_Look]) -> list[Pair]:
    """Return the links between near-duplicates of the same part."""
    members = defaultdict(list)
    for i, record in enumerate(records):
        members[record.split].append(i)
    return [pair for inside in members.values() for pair in near_links(records, looks, inside)]


def near_links(records: tuple[Record, ...], looks: list[_Look], members: Sequence[int]) -> list[Pair]:
    """Return pairs of near-duplicates among some images: as many as link those that belong together, and no more.

    Of a thousand copies of one picture there are half a million pairs, and 999 links.
    """
    first: dict[str, int] = {}
    for i in members:
        if not looks[i].flat:
            first.setdefault(looks[i].sha256, i)
    chosen = [*first.values()]
    if len(chosen) < 2:
        return []
    many = len(looks)
    keys = np.unique(np.fromiter((i * many + j for i, j in _across(looks, chosen, chosen)), np.int64))
    trees: Trees[int] = Trees()
    found = []
    for start in range(0, len(keys), AT_ONCE):
        pairs = zip(*(part.tolist() for part in np.divmod(keys[start : start + AT_ONCE], many)), strict=True)
        for i, same_first in groupby(pairs, key=lambda pair: pair[0]):
            others = [j for _, j in same_first if trees.root(i) != trees.root(j)]
            for j, correlation in _correlations(looks, i, others):
                if correlation >= CORRELATION and trees.join(i, j):
                    found.append(_pair(records, looks, i, j, correlation))
    return found


def _correlations(looks: list[_Look], i: int, others: list[int]) -> Iterator[tuple[int, float]]:
    """Yield for each other image how much its details correlate with those of that turn of image i that fits best."""
    views = _flat_views(_details(looks, [i]))
    for some in _pieces(others):
        alike = _flat_views(_details(looks, some), 1) @ views.T
        yield from zip(some, alike.max(axis=1).tolist(), strict=True)


def _pair(records: tuple[Record, ...], looks: list[_Look], i: int, j: int, correlation: float) -> Pair:
    a, b = records[i], records[j]
    distance = min(_distance(looks[i], looks[j]), _distance(looks[j], looks[i]))
    return Pair(a.path, b.path, distance, round(correlation, 4), a.label == b.label)


def _distance(one: _Look, other: _Look) -> int:
    # Not the same the other way round: the hash of a turned picture is not the turned hash.
    return int(np.bitwise_count(one.hashes[0] ^ other.hashes).min())


def _candidates(records: tuple[Record, ...], looks: list[_Look]) -> set[tuple[int, int]]:
    """Return index pairs across parts with a hash near one of a turn of the other, but of different bytes."""
    members = defaultdict(list)
    for i, (record, look) in enumerate(zip(records, looks, strict=True)):
        if not look.flat:
            members[record.split].append(i)
    pairs: set[tuple[int, int]] = set()
    for one, other in permutations(members, 2):
        pairs.update(_across(looks, members[one], members[other]))
    return pairs


def _across(looks: list[_Look], one: list[int], other: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of an image of one part and of another whose hash is near that of a turn of the first."""
    turned = np.array([looks[i].hashes for i in one])
    plain = np.array([looks[j].hashes[:1] for j in other])
    # Hashes, not images: many images of one hash are compared once.
    some, others = np.unique(turned), np.unique(plain)
    near = _close(some, others)
    if near is None:
        for i, j in _alike(looks, one, other, turned, plain).tolist():
            if looks[i].sha256 != looks[j].sha256:
                yield min(i, j), max(i, j)
        return
    rows, places = np.divmod(near, len(others))
    first = _holders(looks, one, turned, set(some[rows].tolist()))
    second = _holders(looks, other, plain, set(others[places].tolist()))
    for a, b in zip(some[rows].tolist(), others[places].tolist(), strict=True):
        for (sha_a, same_a), (sha_b, same_b) in product(first[a].items(), second[b].items()):
            if sha_a != sha_b:  # what is equal is reported as identical
                yield from ((min(i, j), max(i, j)) for i, j in product(same_a, same_b))


def _holders(looks: list[_Look], members: list[int], hashes: np.ndarray, wanted: set[int]) -> dict[int, _Holders]:
    """Return the images of each wanted hash, by the hash and then by the bytes of their files."""
    holders: dict[int, _Holders] = {value: defaultdict(list) for value in wanted}
    for place in np.flatnonzero(np.isin(hashes, np.array([*wanted], np.uint64)).any(axis=1)).tolist():
        for value in wanted.intersection(hashes[place].tolist()):
            holders[value][looks[members[place]].sha256].append(members[place])
    return holders


def _close(some: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """Find every pair of hashes, one of each array, that differ in DISTANCE bits or fewer.

    The bits are cut into blocks. Of n blocks, n - DISTANCE are equal in such a pair: there is a table for each choice
    of so many, and what is equal in one of them is compared in full. With more blocks a table tells more bits, and
    there are more tables: as many are taken as keep the entries of a table apart.

    Returns:
        int64, the place in `some` times the length of `others` plus the place there; None where that would take more
        than AFFORDED comparisons a hash.
    """
    found = [np.empty(0, np.int64)]
    left = AFFORDED * (len(some) + len(others))
    for key in _keys(len(others)):
        order, low, many = _matches(some & key, others & key)
        left -= int(many.sum())
        if left < 0:
            return None
        for rows, places in _joined(low, many):
            places = order[places]
            close = np.bitwise_count(some[rows] ^ others[places]) <= DISTANCE
            found.append(rows[close] * len(others) + places[close])
    return np.unique(np.concatenate(found))


def _alike(looks: list[_Look], one: list[int], other: list[int], hashes: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Return pairs as `_across` yields them, but only those whose details are alike too, found by sketches of them.

    Planes through the origin part two vectors as often as the angle between them is wide: of the bits of two sketches
    8 in 100 differ at a correlation of .97, and half of them where there is none.

    Reference: Charikar (2002), Similarity estimation techniques from rounding algorithms, doi:10.1145/509907.509965.
    """
    rng = np.random.default_rng(0)
    planes = rng.standard_normal((THUMBNAIL**2, 8 * SKETCH), dtype=np.float32)
    turned = np.concatenate([_sketches(looks, some, planes, 8) for some in _pieces(one)])
    straight = np.concatenate([_sketches(looks, some, planes, 1) for some in _pieces(other)])
    found = [np.empty(0, np.int64)]
    for _ in range(SKETCH_TABLES):
        chosen = rng.choice(SKETCH, 4, replace=False)
        keys, their = (np.ascontiguousarray(bits[:, chosen]).view(np.uint32)[:, 0] for bits in (turned, straight))
        for rows, places in _equal(keys, their):
            near = np.bitwise_count(hashes.ravel()[rows] ^ plain[places, 0]) <= DISTANCE
            found.append(np.unique(rows[near] // 8 * len(other) + places[near]))
    rows, places = np.divmod(np.unique(np.concatenate(found)), len(other))
    return np.stack([np.array(one)[rows], np.array(other)[places]], axis=1)


def _pieces(members: list[int]) -> Iterator[list[int]]:
    return (members[start : start + PIECE] for start in range(0, len(members), PIECE))


def _sketches(looks: list[_Look], members: list[int], planes: np.ndarray, views: int) -> np.ndarray:
    """Return the sketches of some images, as many `views` of each, uint8 (N * views, SKETCH)."""
    return np.packbits(_flat_views(_details(looks, members), views) @ planes > 0, axis=1)


def _equal(keys: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the places of keys and those of the others that are equal to them, uint32, some at a time."""
    # Most keys have none: they are told by a map that fits into a processor's cache, and not sorted.
    present = np.zeros(2**MAP_BITS, bool)
    present[_spread(others)] = True
    asked = np.flatnonzero(present[_spread(keys)])
    order, low, many = _matches(keys[asked], others)
    for rows, places in _joined(low, many):
        yield asked[rows], order[places]


def _spread(keys: np.ndarray) -> np.ndarray:
    """Return MAP_BITS bits of each key, equal ones for equal keys, and others for keys that are alike."""
    return (keys * np.uint32(2_654_435_761)) >> np.uint32(32 - MAP_BITS)  # Knuth's multiplicative hashing


def _matches(keys: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what sorts the others, and where the range of those equal to each key begins there and how long it is."""
    order, asked = np.argsort(others), np.argsort(keys)
    ranked, inorder = others[order], keys[asked]
    low, many = np.empty((2, len(keys)), np.int64)
    # Of millions of keys, those that are asked for in their order are found several times faster.
    low[asked] = first = np.searchsorted(ranked, inorder, "left")
    many[asked] = np.searchsorted(ranked, inorder, "right") - first
    return order, low, many


def _joined(low: np.ndarray, many: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each row with each place of its own range, `low` to `low + many`, about AT_ONCE of them at a time."""
    ends = many.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, AT_ONCE):
        number = np.arange(start, min(start + AT_ONCE, total))
        rows = np.searchsorted(ends, number, side="right")
        yield rows, low[rows] + (number - (ends[rows] - many[rows]))


def _keys(hashes: int) -> list[np.uint64]:
    """Return the masks of the tables for so many hashes: an entry of a table of theirs then holds few of them."""
    blocks = DISTANCE + 1
    while 64 * (blocks - DISTANCE) // blocks < np.log2(max(hashes, 1)) and blocks < MOST_BLOCKS:
        blocks += 1
    edges = np.linspace(0, 64, blocks + 1).astype(int).tolist()
    masks = [((1 << (b - a)) - 1) << a for a, b in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(masks, blocks - DISTANCE)]
