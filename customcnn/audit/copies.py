"""Find which images are copies of one photograph: turned by any angle, mirrored, scaled, shifted."""

import csv
import io
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np

from customcnn.audit import local_features
from customcnn.audit.findings import Deep
from customcnn.audit.local_features import Fit, Piece, load_cv2, mirror_descriptors
from customcnn.audit.union_find import Trees, linked
from customcnn.data.manifest import Manifest, Record
from customcnn.errors import CustomCNNError
from customcnn.images.decode import open_image, read_file, to_rgb
from customcnn.io import atomic
from customcnn.io.csv_cells import as_text
from customcnn.io.parallel import Workers, as_seen, is_pool, on_files, parallel, worker_count
from customcnn.io.remote_path import Folder
from customcnn.progress import Progress, silent

INDEXED = 150
"""So many features of an image, its strongest, look for their like in other images."""

NEIGHBOURS = 11
"""So many nearest neighbours of a feature vote for the images that they belong to."""

LEAST_VOTES = 4
"""Pairs with fewer votes are not looked at."""

MOST_CANDIDATES = 30
"""An image is compared with so many others at most, those with most votes."""

AT_ONCE = 3
"""An image is compared with so many of its candidates, and what they have not joined with so many more."""

REPRESENTATIVES = 4
"""So many images of a cluster are asked once more, without their own, whether it overlaps another.

Of smaller clusters none is: their own copies did not take the places of all NEIGHBOURS.
"""

LEAST_INLIERS, LEAST_CORRELATION = 8, 0.5
"""Two images are linked where so many features agree and the details of the pictures correlate by so much.

Dust on a camera's sensor makes features that agree between photographs of different blood; their details do not.
Measured on blood cells: photographs that do not overlap have seven such features at most, copies of one photograph
correlate by .75 and more.
"""

SURE_INLIERS, SURE_OVERLAP = 25, 0.5
"""A link puts two images into one cluster if so many features agree, or if they share so much of the smaller picture.

Less is a slight overlap of two photographs: it is told, but would chain the photographs of a slide together.
"""

EXACT = 20_000
"""Up to so many features are compared with all others; more are sorted into cells, and compared within near ones."""

PROBES = 8
"""Cells that a feature is looked for in."""

FEW = 500
"""So many comparisons are done sooner without workers: one takes half a second to start."""

CHUNK = 100
"""Images whose features are looked up at a time."""

CELLS_SEED = 0


@dataclass(frozen=True)
class Link:
    """Two images that show the same photograph.

    Attributes:
        first, second: their paths, sorted.
        inliers: local features that agree on one affine map between them.
        mirrored: whether one is a mirror image.
        correlation: of the details of both pictures where they overlap, at most 1.
        overlap: share of the smaller picture that shows the same as the other.
        same: whether this is enough to put both into one cluster.
    """

    first: str
    second: str
    inliers: int
    mirrored: bool
    correlation: float
    overlap: float
    same: bool = True


@dataclass(frozen=True)
class Copies:
    """Images by the photograph that they show.

    Attributes:
        originals: clusters of paths, each path in exactly one; sorted, as are the clusters by their first path.
        links: the pairs that were verified, sorted. Not all pairs of a cluster: what is joined is not compared again.
    """

    originals: tuple[tuple[str, ...], ...]
    links: tuple[Link, ...]

    def groups(self) -> dict[str, str]:
        """Return the group of every path: "original-0001" and on, in the order of the clusters."""
        width = max(4, len(str(len(self.originals))))
        return {path: f"original-{n:0{width}}" for n, paths in enumerate(self.originals, 1) for path in paths}

    def joined(self, pairs: Iterable[tuple[str, str]]) -> "Copies":
        """Return the same with the clusters made one that pairs of paths, found otherwise, link."""
        inside = ((paths[0], path) for paths in self.originals for path in paths)
        return replace(self, originals=tuple(sorted(tuple(sorted(same)) for same in linked([*inside, *pairs]))))


_Task = tuple[Piece, Piece, bool]


def find_copies(manifest: Manifest, *, workers: Workers = None, progress: Progress = silent) -> Copies:
    """Cluster the images by the photograph that they show, by their pixels alone.

    SIFT features of every image and of its mirror image are looked up in an index of all; images that many features
    vote for are compared: an affine map must take many features of one to their like in the other, and the details of
    both pictures must correlate where they overlap. What is found is joined, and some images of each cluster are asked
    once more, without their own cluster's. Where a border was filled with one colour, it is left out.

    It needs some 25 KB of memory for an image, and 40 to 200 KB in a temporary file.

    Args:
        manifest: any, from `scan`; its labels, groups and parts are not used.
        workers: processes; None for one a core; or a `customcnn.io.parallel.Pool`, which looks at the images: the
            features are compared by this machine. The result does not depend on it, nor on the names and their order.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: OpenCV or FAISS is missing, or an image cannot be decoded.
    """
    load_cv2()
    _load_faiss()
    own = worker_count(None if is_pool(workers) else workers)
    root = as_seen(manifest.root, workers)
    with tempfile.TemporaryDirectory(prefix="customcnn-") as folder:
        store = Path(folder) / "features"
        # By their bytes, so that names decide nothing; what has the same bytes is looked at once.
        same: dict[str, list[str]] = defaultdict(list)
        pieces: dict[str, Piece] = {}
        paths = [record.path for record in manifest.records]
        with progress(len(paths), "features") as advance, store.open("wb") as file:
            for path, (digest, packed, shape) in zip(
                paths,
                on_files(partial(_look, root), paths, workers, reads=lambda path: root / path, processes=True),
                strict=True,
            ):
                if digest not in same:
                    pieces[digest] = Piece(file.tell(), *shape)
                    file.write(packed)
                same[digest].append(path)
                advance(1)
        order = sorted(same)
        search = _Search(store, [pieces[digest] for digest in order], own, progress)
        search.run()
    members = [sorted(same[digest]) for digest in order]
    originals = [sorted(path for number in cluster for path in members[number]) for cluster in search.clusters()]
    links = [_link(members[i][0], members[j][0], mirrored, found) for (i, j), (mirrored, found) in search.found.items()]
    links += [Link(m[0], other, 0, False, 1.0, 1.0) for m in members for other in m[1:]]
    return Copies(tuple(sorted(map(tuple, originals))), tuple(sorted(links, key=lambda k: (k.first, k.second))))


def write_groups(groups: Mapping[str, str], path: Path) -> None:
    """Write the group of every path as `customcnn split --groups` takes it: a CSV with the columns path and group."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows(map(as_text, row) for row in [("path", "group"), *sorted(groups.items())])
    atomic.write_text(path, text.getvalue())


def _link(one: str, other: str, mirrored: bool, found: Fit) -> Link:
    first, second = sorted((one, other))
    correlation, overlap = round(found.correlation, 4), round(found.overlap, 4)
    return Link(first, second, found.inliers, mirrored, correlation, overlap, _is_same(found))


def _is_link(found: Fit) -> bool:
    return found.inliers >= LEAST_INLIERS and found.correlation >= LEAST_CORRELATION


def _is_same(found: Fit) -> bool:
    return _is_link(found) and (found.inliers >= SURE_INLIERS or found.overlap >= SURE_OVERLAP)


def _load_faiss():
    try:
        import faiss
    except ImportError:
        raise CustomCNNError(
            "Copies are found by an index of local features. Received: no FAISS. "
            "Install it: pip install 'customcnn[deep]'."
        ) from None
    return faiss


# ---------------------------------------------------------------- work of one worker


def _look(root: Folder, path: str) -> tuple[str, bytes, tuple[int, int, int]]:
    """Return an image's hash, and its features as bytes and shape."""
    file = read_file(root / path)
    data, shape = local_features.pack(local_features.extract(to_rgb(open_image(file, root / path))))
    return atomic.sha256(file), data, shape


_read = lru_cache(maxsize=64)(local_features.read)  # the pairs of an image come one after the other


@cache
def _arithmetic():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # to look for the libraries takes as long as a comparison


def _compare(store: Path, task: _Task) -> Fit | None:
    one, other, mirrored = task
    first, second = _read(store, one), _read(store, other)
    with _arithmetic().limit(limits=1):  # the matrices are small, and other workers have the other cores
        return local_features.fit(first, second.mirrored() if mirrored else second)


# ---------------------------------------------------------------- search


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Two pictures, the first of lower number, whose features look alike."""

    first: int
    second: int
    mirrored: bool
    votes: int


class _Search:
    """Candidates, comparisons, clusters; over pictures by number, which are those of their bytes in order."""

    def __init__(self, store: Path, pieces: Sequence[Piece], workers: int, progress: Progress) -> None:
        self.store, self.pieces, self.workers, self.progress = store, pieces, workers, progress
        self.trees: Trees[int] = Trees()
        self.found: dict[tuple[int, int], tuple[bool, Fit]] = {}
        self.tried: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Compare what looks alike; then representatives of each cluster, as long as that joins any."""
        self._join(self._candidates(list(range(len(self.pieces))), INDEXED, NEIGHBOURS))
        before = -1
        while before != (before := len(self.clusters())):
            large = [cluster for cluster in self.clusters() if len(cluster) >= REPRESENTATIVES]
            chosen = sorted(number for cluster in large for number in self._representatives(cluster))
            self._join(self._candidates(chosen, 2 * INDEXED, NEIGHBOURS + REPRESENTATIVES))

    def clusters(self) -> list[list[int]]:
        """Return the clusters so far, sorted."""
        members = defaultdict(list)
        for number in range(len(self.pieces)):
            members[self.trees.root(number)].append(number)
        return sorted(members.values())

    def _representatives(self, cluster: list[int]) -> list[int]:
        """Return the pictures of a cluster with most features: they show most of it."""
        return sorted(cluster, key=lambda number: (-self.pieces[number].features, number))[:REPRESENTATIVES]

    def _join(self, candidates: Iterable[_Candidate]) -> None:
        """Compare the candidates with most votes first, and join; who is joined already is not compared."""
        waiting = sorted(candidates, key=lambda c: (-c.votes, c.first, c.second))
        while waiting:
            taken: dict[int, int] = defaultdict(int)
            now, later = [], []
            for c in waiting:
                if (c.first, c.second) in self.tried or self.trees.root(c.first) == self.trees.root(c.second):
                    continue
                if min(taken[c.first], taken[c.second]) < AT_ONCE:
                    taken[c.first] += 1
                    taken[c.second] += 1
                    now.append(c)
                else:
                    later.append(c)
            self._compare(sorted(now, key=lambda c: (c.first, c.second)))
            waiting = later

    def _compare(self, candidates: list[_Candidate]) -> None:
        tasks = [(self.pieces[c.first], self.pieces[c.second], c.mirrored) for c in candidates]
        workers = self.workers if len(tasks) > FEW else 1
        with self.progress(len(tasks), "compare") as advance:
            fits = parallel(partial(_compare, self.store), tasks, workers, processes=True)
            for c, found in zip(candidates, fits, strict=True):
                self.tried.add((c.first, c.second))
                if found is not None and _is_link(found):
                    self.found[c.first, c.second] = (c.mirrored, found)
                    if _is_same(found):
                        self.trees.join(c.first, c.second)
                advance(1)

    # ------------------------------------------------------------ candidates

    def _candidates(self, numbers: list[int], most: int, neighbours: int) -> list[_Candidate]:
        """Return pairs of pictures, not of one cluster, that features of one or the other vote for."""
        faiss = _load_faiss()
        counts = [min(most, self.pieces[number].features) for number in numbers]
        owner = np.repeat(np.array(numbers, np.int64), counts)
        if not len(owner):
            return []
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(self.workers)
        try:
            index = self._index(numbers, most, len(owner))
            cluster = np.array([self.trees.root(number) for number in range(len(self.pieces))])
            votes: dict[tuple[int, int], tuple[int, bool]] = {}
            with self.progress(len(numbers), "look up") as advance:
                for piece in _chunks(numbers, CHUNK):
                    for one, other, mirrored, count in self._votes(index, owner, cluster, piece, most, neighbours):
                        pair = (min(one, other), max(one, other))
                        votes[pair] = max(votes.get(pair, (0, False)), (count, mirrored))
                    advance(len(piece))
        finally:
            faiss.omp_set_num_threads(threads)
        return [_Candidate(i, j, mirrored, count) for (i, j), (count, mirrored) in votes.items()]

    def _index(self, numbers: list[int], most: int, total: int):
        """Return a FAISS index of the strongest features of the pictures, in their order."""
        faiss = _load_faiss()
        if total <= EXACT:
            index = faiss.IndexFlatL2(128)
        else:
            cells = int(4 * np.sqrt(total))
            coarse = faiss.IndexFlatL2(128)
            coarse.add(self._centres(numbers, most, total, cells))
            index = faiss.IndexIVFScalarQuantizer(coarse, 128, cells, faiss.ScalarQuantizer.QT_8bit_direct)
            index.by_residual, index.nprobe = False, PROBES
            index.train(np.zeros((1, 128), np.float32))
        for piece in _chunks(numbers, CHUNK):
            index.add(np.concatenate([self._descriptors(number, most) for number in piece]))
        return index

    def _centres(self, numbers: list[int], most: int, total: int, cells: int) -> np.ndarray:
        """Return the centres of cells, float32 (cells, 128), of whole numbers: distances to them are exact."""
        faiss = _load_faiss()
        step = max(1, total // (16 * cells))
        some = np.concatenate([self._descriptors(number, most)[::step] for number in numbers])
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # sums of fractions depend on how they are shared out
        try:
            with _arithmetic().limit(limits=1):
                limits = {"min_points_per_centroid": 1, "max_points_per_centroid": 64}
                means = faiss.Kmeans(128, cells, niter=4, seed=CELLS_SEED, **limits)
                means.train(some)
        finally:
            faiss.omp_set_num_threads(threads)
        return means.centroids.round()

    def _descriptors(self, number: int, most: int) -> np.ndarray:
        return local_features.read_descriptors(self.store, self.pieces[number], most).astype(np.float32)

    def _votes(
        self, index, owner: np.ndarray, cluster: np.ndarray, numbers: Sequence[int], most: int, neighbours: int
    ) -> Iterator[tuple[int, int, bool, int]]:
        """Yield (picture, other, whether mirrored, votes) for the others with most votes of each picture."""
        asking = [self._descriptors(number, most) for number in numbers]
        who = np.repeat(np.array(numbers, np.int64), [len(a) for a in asking])
        queries = np.concatenate(asking)
        if not len(queries):
            return
        tallies = []
        for mirrored in (False, True):
            _, near = index.search(mirror_descriptors(queries) if mirrored else queries, neighbours)
            whose = np.where(near >= 0, owner[near], -1)
            feature, place = np.nonzero((whose >= 0) & (cluster[whose] != cluster[who][:, None]))
            # A feature has one vote for a picture, however many of its features are near.
            once = np.unique(np.column_stack([who[feature], feature, whose[feature, place]]), axis=0)
            pairs, counts = np.unique(once[:, ::2], axis=0, return_counts=True)
            for (one, other), votes in zip(pairs.tolist(), counts.tolist(), strict=True):
                if votes >= LEAST_VOTES:
                    tallies.append((one, -votes, other, mirrored))
        kept: dict[int, int] = defaultdict(int)
        for one, votes, other, mirrored in sorted(tallies):
            kept[one] += 1
            if kept[one] <= MOST_CANDIDATES:
                yield one, other, mirrored, -votes


def _chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def judge(records: Sequence[Record], copies: Copies, *, split: bool) -> Deep:
    """Return which copies stand in several parts, and which proposed groups hold several pictures."""
    picture = copies.groups()
    part = {record.path: record.split for record in records}
    several = [sorted(same) for same in copies.originals if len(same) > 1]
    held: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.group:
            held[record.group].add(picture.get(record.path, record.path))
    overlapping = [
        [link.first, link.second]
        for link in copies.links
        if picture.get(link.first) != picture.get(link.second) and (not split or part[link.first] != part[link.second])
    ]
    return Deep(
        groups=dict(picture),
        originals=len({picture.get(record.path, record.path) for record in records}),
        copies=several,
        across=[same for same in several if split and len({part[path] for path in same}) > 1],
        overlapping=overlapping,
        mixed_groups={group: len(inside) for group, inside in sorted(held.items()) if len(inside) > 1},
    )
