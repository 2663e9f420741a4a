"""Split a folder of class folders into train, validation and test: by image as the report did, or by group."""

import errno
import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from customcnn.data.leakage import Leakage, find_leakage
from customcnn.data.manifest import MANIFEST, PARTS, Manifest, Record, bad_files, require_classes
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.images.decode import BadImage, open_image
from customcnn.io import atomic
from customcnn.io.parallel import Workers, as_seen, is_pool, on_files
from customcnn.io.remote_path import Address, Folder
from customcnn.progress import Progress, silent

WAYS = ("image", "group")
LINKS = ("copy", "hard", "symlink")
RESTARTS, MOST_RESTARTS, RESTART_WORK = 8, 64, 2048  # few groups are searched more often: each search is quick
SWAP_LIMIT = 500  # swaps look at all pairs of groups: above this many groups single moves come close enough


@dataclass(frozen=True)
class Shares:
    """The shares of train, validation and test; they sum to 1, and test may be 0."""

    train: float
    validation: float
    test: float = 0.0

    def as_list(self) -> list[float]:
        """Return the shares that are not 0, in the order of `PARTS`."""
        return [share for share in (self.train, self.validation, self.test) if share > 0]


def shares(ratio: float | None = None, val: float | None = None, test: float | None = None) -> Shares:
    """Complete and check the three shares: what is not given is the rest; .8 and .2 if nothing is given.

    Raises:
        CustomCNNError: a share is outside 0..1, the training or validation share is 0, or they do not sum to 1.
    """
    for name, value in (("--ratio", ratio), ("--val", val)):
        if value is not None and not 0 < value < 1:
            raise CustomCNNError(
                f"A share lies between 0 and 1, without both ends. Received: {name} {value:g}. Example: --ratio .8."
            )
    if test is not None and not 0 <= test < 1:
        raise CustomCNNError(f"A share lies between 0 and 1. Received: --test {test:g}. Example: --test .1.")
    third = test or 0.0
    if ratio is None:
        ratio = 0.8 if val is None and not third else _rest(val if val is not None else 0.1, third)
    if val is None:
        val = _rest(ratio, third)
    if test is None:
        third = _rest(ratio, val)
    total = ratio + val + third
    if abs(total - 1) > 1e-9 or ratio <= 0 or val <= 0:
        raise CustomCNNError(
            "The shares of train, validation and test are above 0 and sum to 1. "
            f"Received: {ratio:g} + {val:g} + {third:g} = {total:g}. Give two of --ratio, --val, --test or all three."
        )
    return Shares(ratio, val, third)


def _rest(first: float, second: float) -> float:
    return max(0.0, round(1 - first - second, 12))


def split_by_image(labels: Sequence[str], parts: Shares, seed: int) -> list[str]:
    """Assign images to parts by the report's rule: per class, shuffled, the first `int(ratio * n)` to train.

    Of the rest, validation takes its share, rounded up, and test what is left.

    Args:
        labels: the class of every image, in the order of their sorted paths.
        parts: the shares.
        seed: of Python's `random`; each class is shuffled with a generator of its own.

    Returns:
        The part of every image.

    Raises:
        CustomCNNError: a class has too few images to stand in every part.
    """
    chosen = [""] * len(labels)
    by_class: dict[str, list[int]] = defaultdict(list)
    for i, label in enumerate(labels):
        by_class[label].append(i)
    for label, members in sorted(by_class.items()):
        random.Random(seed).shuffle(members)
        rest = len(members) - int(parts.train * len(members))
        # Rounded first: .05 / (.05 + .05) must not become one image more by the last bit of a float.
        validation = -int(-round(rest * parts.validation / (parts.validation + parts.test), 9) // 1)
        sizes = (len(members) - rest, validation, rest - validation)
        needed = 3 if parts.test else 2
        if 0 in sizes[:needed]:
            counts = ", ".join(f"{part} {size}" for part, size in zip(PARTS, sizes[:needed], strict=False))
            raise CustomCNNError(
                f"Every part needs an image of every class. Received: class {show(label)} with {len(members)} "
                f"image{'s' * (len(members) != 1)}, which gives {counts}. Add images or change --ratio."
            )
        for part, size in zip(PARTS, sizes, strict=True):
            for i in members[:size]:
                chosen[i] = part
            members = members[size:]
    return chosen


def split_by_name(labels: Sequence[str], share: float) -> list[str]:
    """Assign images to training and validation as Keras's `ImageDataGenerator(validation_split=share)` does.

    Of each class the first `int(share * n)` of the sorted names validate. Its seed shuffles batches only.

    Args:
        labels: the class of every image, in the order of their sorted paths.
        share: of the validation images.

    Returns:
        "train" or "validation" for every image.

    Raises:
        CustomCNNError: a class has too few images.
    """
    chosen = ["train"] * len(labels)
    for label in sorted(set(labels)):
        members = [i for i, other in enumerate(labels) if other == label]
        held = int(share * len(members))
        if not 0 < held < len(members):
            raise CustomCNNError(
                f"Every split needs an image of every class. Received: class {show(label)} with {len(members)} images, "
                f"of which a share of {share:g} is {'all' if held else 'none'}. Add images."
            )
        for i in members[:held]:
            chosen[i] = "validation"
    return chosen


def split_by_group(labels: Sequence[str], groups: Sequence[str], parts: Shares, seed: int) -> list[str]:
    """Assign whole groups to parts so that every class comes as close to its shares as can be found.

    From several random starts, groups are moved and swapped between parts as long as that lowers the sum over parts and
    classes of (images - wanted)^2 / (wanted * images of the class). This never does worse than one fold of
    scikit-learn's StratifiedGroupKFold on the data it was tried with, and takes any shares.

    Args:
        labels: the class of every image.
        groups: the group of every image.
        parts: the shares.
        seed: chooses among equally good splits.

    Returns:
        The part of every image; images of a group are in the same one.

    Raises:
        CustomCNNError: a class has fewer groups than there are parts.
    """
    classes, label_index = _numbered(labels)
    names, group_index = _numbered(groups)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group_index, label_index), 1)
    wanted_shares = parts.as_list()
    for label, having in zip(classes, (counts > 0).sum(axis=0), strict=True):
        if having < len(wanted_shares):
            raise CustomCNNError(
                f"Every part needs a group of every class. Received: class {show(label)} with {having} "
                f"group{'s' * bool(having != 1)} for {len(wanted_shares)} parts. Add groups or split --by image."
            )
    rng = np.random.default_rng(seed)
    restarts = min(max(RESTARTS, RESTART_WORK // len(names)), MOST_RESTARTS) if len(names) <= SWAP_LIMIT else 1
    found = [_search(counts, np.array(wanted_shares), rng) for _ in range(restarts)]
    _, best = min(found, key=lambda pair: pair[0])
    present = [np.bincount(best[counts[:, c] > 0], minlength=len(wanted_shares)) for c in range(len(classes))]
    for label, having in zip(classes, present, strict=True):
        if (having == 0).any():
            raise CustomCNNError(
                f"Every part needs a group of every class. Received: groups that leave class {show(label)} out of "
                f"{PARTS[int(np.argmin(having))]}. Change the shares or split --by image."
            )
    return [PARTS[best[g]] for g in group_index]


def _numbered(values: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the different values, sorted, and the place of each value there."""
    # Not by NumPy, whose arrays of text pad all to the longest at four bytes a character.
    names = sorted(set(values))
    number = {name: i for i, name in enumerate(names)}
    return names, np.array([number[value] for value in values])


def _cost(filled: np.ndarray, wanted: np.ndarray, totals: np.ndarray) -> np.ndarray:
    # A class that is missing from a part costs more than any imbalance, which is below 1 / share for one class.
    return (filled - wanted) ** 2 / (wanted * totals) + 1e4 * (filled == 0)


def _search(counts: np.ndarray, wanted_shares: np.ndarray, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Fill the parts with the groups (G, C) in random order, then move and swap to the nearest minimum."""
    totals = counts.sum(axis=0)
    wanted = wanted_shares[:, None] * totals
    part = np.empty(len(counts), dtype=np.intp)
    filled = np.zeros_like(wanted)
    for g in rng.permutation(len(counts)):
        gain = (_cost(filled + counts[g], wanted, totals) - _cost(filled, wanted, totals)).sum(axis=1)
        part[g] = int(np.argmin(gain))
        filled[part[g]] += counts[g]
    for _ in range(2 * len(counts)):
        step = _best_move(counts, part, filled, wanted, totals)
        if step is None and len(counts) <= SWAP_LIMIT:
            step = _best_swap(counts, part, filled, wanted, totals)
        if step is None:
            break
        for g, target in step:
            filled[part[g]] -= counts[g]
            filled[target] += counts[g]
            part[g] = target
    return float(_cost(filled, wanted, totals).sum()), part


def _best_move(
    counts: np.ndarray, part: np.ndarray, filled: np.ndarray, wanted: np.ndarray, totals: np.ndarray
) -> list[tuple[int, int]] | None:
    now = _cost(filled, wanted, totals).sum(axis=1)
    leave = _cost(filled[part] - counts, wanted[part], totals).sum(axis=1) - now[part]
    enter = _cost(filled + counts[:, None], wanted, totals).sum(axis=2) - now
    change = leave[:, None] + enter
    change[np.arange(len(part)), part] = 0
    g, target = np.unravel_index(int(np.argmin(change)), change.shape)
    return [(int(g), int(target))] if change[g, target] < -1e-9 else None


def _best_swap(
    counts: np.ndarray, part: np.ndarray, filled: np.ndarray, wanted: np.ndarray, totals: np.ndarray
) -> list[tuple[int, int]] | None:
    now = _cost(filled, wanted, totals).sum(axis=1)
    exchange = counts[None, :, :] - counts[:, None, :]  # what g's part gains when h comes for g
    mine = _cost(filled[part][:, None] + exchange, wanted[part][:, None], totals).sum(axis=2) - now[part][:, None]
    change = mine + mine.T
    change[part[:, None] == part[None, :]] = 0
    g, h = (int(i) for i in np.unravel_index(int(np.argmin(change)), change.shape))
    return [(g, int(part[h])), (h, int(part[g]))] if change[g, h] < -1e-9 else None


@dataclass(frozen=True)
class SplitResult:
    """What `split_folder` made: the manifest in the destination, what was skipped, and what the parts share."""

    manifest: Manifest
    skipped: list[tuple[str, str]]
    leakage: list[Leakage]


def check_files(
    manifest: Manifest, *, skip_bad: bool = False, workers: Workers = None, progress: Progress = silent
) -> tuple[Manifest, list[tuple[str, str]]]:
    """Decode every image once and add its SHA-256.

    Returns:
        The manifest of the good images, and (path, reason) of the others and of what `scan` left out.

    Raises:
        CustomCNNError: some cannot be used and `skip_bad` is False; five are named.
    """
    good: list[Record] = []
    bad = list(manifest.skipped)
    root = as_seen(manifest.root, workers)
    outcomes = on_files(partial(_check, root), manifest.records, workers, reads=lambda record: root / record.path)
    with progress(len(manifest.records), "check") as advance:
        for record, outcome in zip(manifest.records, outcomes, strict=True):
            if isinstance(outcome, BadImage):
                bad.append((record.path, outcome.reason))
            else:
                good.append(replace(record, sha256=outcome))
            advance(1)
    if bad and not skip_bad:
        raise bad_files(bad)
    if not good:
        raise CustomCNNError(f"Data holds at least one image that can be used. Received: {show(manifest.root)}.")
    return replace(manifest, records=tuple(good), skipped=()), bad


def _check(root: Folder, record: Record) -> str | BadImage:
    try:
        data = (root / record.path).read_bytes()
        open_image(data, record.path)
    except BadImage as error:
        return error
    except OSError as error:
        return BadImage(record.path, f"unreadable ({error.strerror})")
    return atomic.sha256(data)


def split_folder(
    manifest: Manifest,
    dst: Folder,
    parts: Shares,
    *,
    by: str = "image",
    seed: int = 120,
    link: str = "copy",
    replace_dst: bool = False,
    skip_bad: bool = False,
    workers: Workers = None,
    progress: Progress = silent,
) -> SplitResult:
    """Split class folders into `dst/train`, `dst/validation` and, if it has a share, `dst/test`, with a manifest.csv.

    Args:
        manifest: the source, from `scan`, with groups if they are known.
        dst: the folder to make, a path or an address.
        parts: the shares, from `shares`.
        by: "image" (the report's rule) or "group".
        seed: the same seed gives the same split.
        link: "copy", "hard" or "symlink".
        replace_dst: write over a destination that is not empty.
        skip_bad: leave out files that cannot be decoded, and what `scan` left out, instead of failing.
        workers: threads; None for one a core; or a `customcnn.io.parallel.Pool`. On a pool, and at an address, what a
            killed call has copied is not copied again.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: see `scan`, `check_files`, `split_by_image`, `split_by_group`; or the source is split already.
        ValueError: `by` or `link` is another word.
    """
    _refuse(manifest, dst, by, link, replace_dst)
    require_classes(manifest)
    manifest, skipped = check_files(manifest, skip_bad=skip_bad, workers=workers, progress=progress)
    require_classes(manifest)
    labels = [record.label for record in manifest.records]
    if by == "group":
        chosen = split_by_group(labels, [record.group for record in manifest.records], parts, seed)
    else:
        chosen = split_by_image(labels, parts, seed)
    placed = [
        (record.path, replace(record, path=f"{part}/{record.path}", split=part))
        for record, part in zip(manifest.records, chosen, strict=True)
    ]
    far = is_pool(workers) or isinstance(dst, Address)
    stage = atomic.staging(dst, replace=replace_dst, resume=_resume(placed, link) if far else None, shared=far)
    root = as_seen(manifest.root, workers)
    with stage as work:
        for folder in {Path(record.path).parent for _, record in placed}:
            (work / folder).mkdir(parents=True, exist_ok=True)
        there = stage.kept()
        missing = [(path, record.path) for path, record in placed if record.path not in there]
        place = partial(_place, root, work, link)
        # What a store copies by itself is not read.
        reads = None if atomic.in_one_store(root, work) else lambda item: root / item[0]
        with progress(len(missing), "split") as advance:
            for _ in on_files(place, missing, workers, reads=reads, writes=work):
                advance(1)
        records = tuple(sorted((record for _, record in placed), key=lambda record: record.path))
        result = Manifest(dst, records)
        result.write(work / MANIFEST)
    return SplitResult(result, skipped, leakages(result))


def _resume(placed: Sequence[tuple[str, Record]], link: str) -> dict[str, str]:
    digest = hashlib.sha256()
    for path, record in placed:
        digest.update(repr((path, record.path, record.sha256)).encode())
    return {"command": "split", "link": link, "files": digest.hexdigest()}


def _refuse(manifest: Manifest, dst: Folder, by: str, link: str, replace_dst: bool) -> None:
    if by not in WAYS or link not in LINKS:
        wrong, known = (by, WAYS) if by not in WAYS else (link, LINKS)
        raise ValueError(f"A split knows the words {show_names(known)}. Received: {show(wrong)}.")
    if link != "copy" and not (isinstance(manifest.root, Path) and isinstance(dst, Path)):
        raise CustomCNNError(
            f"Links join files of one machine. Received: --link {link} with {show(manifest.root)} and {show(dst)}. "
            "Use --link copy."
        )
    atomic.refuse_overlap(manifest.root, dst)
    atomic.refuse_non_empty(dst, replace_dst)
    if manifest.parts:
        raise CustomCNNError(
            f"A folder is split once. Received: {show(manifest.root)}, which has {show_names(manifest.parts)} already. "
            "Give the folder of class folders that it was made from."
        )
    if by == "group" and not manifest.groups_known:
        raise CustomCNNError(
            f"A split by group needs the group of every image. Received: none for {show(manifest.root)}. "
            "Use --group-pattern (cnmc, or a regular expression) or --groups FILE.csv."
        )


def leakages(manifest: Manifest) -> list[Leakage]:
    """Return what the validation and the test part share with the training part."""
    train = manifest.part("train").records
    return [find_leakage(train, manifest.part(part).records, part) for part in manifest.parts if part != "train"]


def _place(root: Folder, work: Folder, link: str, item: tuple[str, str]) -> None:
    source, target = root / item[0], work / item[1]
    if link == "copy" or isinstance(source, Address) or isinstance(target, Address):
        atomic.copy(source, target)
        return
    with suppress(FileExistsError):  # made by a worker that was lost before it could say so
        if link == "symlink":
            target.symlink_to(source.resolve())
        else:
            _hard_link(source, target)


def _hard_link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        raise CustomCNNError(
            f"Hard links join files of one file system. Received: {show(source)} ({error.strerror}). "
            "Use --link copy or --link symlink."
        ) from None
