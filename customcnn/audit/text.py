"""An audit as text: what was looked for, what was found, and what it means."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from customcnn.audit.findings import Audit, Conflict, Deep, Pair, Quality, Share, Unlike
from customcnn.audit.quality import ENOUGH
from customcnn.errors import printable, show

T = TypeVar("T")

FIRST = 5
"""So many of each kind are named."""

NOT_DEEP = "Not looked for: copies turned by other angles, scaled, shifted or cropped (--deep looks for them)."


def report(found: Audit) -> str:
    """Return an audit as text: the counts, what is shared, the first of each, and what it means."""
    lines = []
    for part, by_class in found.images.items():
        classes = ", ".join(f"{printable(label)} {count:,}" for label, count in by_class.items())
        lines.append(f"{part}: {sum(by_class.values()):,} images ({classes})")
    lines += [f"Warning: {sentence(share)}" for share in found.shares]
    lines.append(f"label conflicts among duplicates: {len(found.label_conflicts):,}")
    lines += [f"  {paths_of(conflict.paths)} ({of(conflict)})" for conflict in _first(found.label_conflicts)]
    lines += [*_groups(found), *_duplicates(found), *_within(found), *_quality(found.quality)]
    if found.changed:
        lines.append(f"changed since manifest.csv was written: {len(found.changed):,} images")
        lines += [f"  {show(path)}" for path in _first(found.changed)]
    lines.append(verdict(found))
    if found.deep is None:
        lines.append(NOT_DEEP)
    return "\n".join(lines)


def sentence(share: Share) -> str:
    """Return the warning about a class whose share differs."""
    return (
        f"class {show(share.label)} is {share.share:.1%} of the {share.part} images, but {share.elsewhere:.1%} of the "
        "others."
    )


def of(conflict: Conflict) -> str:
    """Return how images are known to be one, and in what they differ."""
    kind = {"identical": "identical files", "near-duplicate": "near-duplicates"}.get(conflict.kind, "copies")
    more = f" and {len(conflict.values) - FIRST:,} more" if len(conflict.values) > FIRST else ""
    return f"{kind}: {', '.join(map(_plain, conflict.values[:FIRST]))}{more}"


def verdict(found: Audit) -> str:
    """Return what the findings mean, in one sentence or two."""
    copies = found.deep is not None and found.deep.copies
    if found.split:
        return "Leaks: a score on this split is inflated." if found.leaks else "Nothing shared was found."
    if found.torn:
        return "Leaks: a split by these groups would put copies of one picture into different parts."
    if found.identical or found.near_duplicates or copies:
        where = "These groups hold them together." if found.groups_known else "Give split --groups."
        return f"Copies were found: a split by image would put some of them into different parts. {where}"
    return "No copies were found."


def _groups(found: Audit) -> Iterator[str]:
    if not found.groups_known:
        yield "groups: not known (give --group-pattern or --groups)"
    elif found.split:
        inside = ", ".join(f"{count:,} {part} images" for part, count in found.images_in_shared_groups.items())
        yield f"groups in more than one part: {len(found.shared_groups):,} ({inside})"
        for group, parts in _first(found.shared_groups.items()):
            yield f"  {show(group)}: {', '.join(parts)}"
    if found.groups is not None:
        sizes = f"{found.groups.smallest:,} to {found.groups.largest:,} images each, median {found.groups.median:g}"
        yield f"images of a group: {sizes}, in {found.groups.count:,} groups"
        several = found.groups.several_labels
        yield f"groups with images of several classes: {len(several):,}"
        if several:
            yield f"  {paths_of(several)}"
        yield f"duplicates in different groups: {len(found.torn):,}"
        for conflict in _first(found.torn):
            yield f"  {paths_of(conflict.paths)} ({of(conflict)})"


def _duplicates(found: Audit) -> Iterator[str]:
    where = " across parts" if found.split else ""
    conflicts = {tuple(conflict.paths) for conflict in found.label_conflicts if conflict.kind == "identical"}
    yield f"identical files{where}: {len(found.identical):,}"
    for same in _first(found.identical):
        yield f"  {paths_of(same)}{' (of different classes)' if tuple(same) in conflicts else ''}"
    yield f"near-duplicates{where} (turned, flipped or saved again): {len(found.near_duplicates):,}"
    for pair in _first(found.near_duplicates):
        yield f"  {words(pair)}"
    if found.deep is not None:
        yield from _deep(found, found.deep)


def words(pair: Pair) -> str:
    """Return a pair in words."""
    labels = "" if pair.same_label else ", of different classes"
    return f"{show(pair.first)}, {show(pair.second)} (correlation {pair.correlation:.3f}{labels})"


def _deep(found: Audit, deep: Deep) -> Iterator[str]:
    yield f"pictures, copies turned by any angle counted once: {deep.originals:,} ({len(deep.copies):,} with copies)"
    if found.split:
        yield f"pictures with copies in more than one part: {len(deep.across):,}"
    for same in _first(deep.across if found.split else deep.copies):
        yield f"  {paths_of(same)}"
    if deep.overlapping:
        where = " of different parts" if found.split else ""
        yield f"pairs{where} that overlap, but are counted as different pictures: {len(deep.overlapping):,}"
        for pair in _first(deep.overlapping):
            yield f"  {paths_of(pair)}"
    if found.groups is not None:
        yield from disagreement(found, deep)


def disagreement(found: Audit, deep: Deep) -> Iterator[str]:
    """Yield the sentences that compare the groups with the pictures."""
    torn = [conflict for conflict in found.torn if conflict.kind == "copy"]
    if torn:
        yield (
            f"The groups disagree with the pictures: they put copies of one picture into different groups, for "
            f"{len(torn):,} of the {len(deep.copies):,} pictures with copies. A split by these groups leaks."
        )
    else:
        yield "The groups agree with the pictures: no group parts copies of one picture."
    if deep.mixed_groups and found.groups is not None:
        group, count = max(deep.mixed_groups.items(), key=lambda item: item[1])
        yield (
            f"{len(deep.mixed_groups):,} of {found.groups.count:,} groups hold several pictures ({show(group)}: "
            f"{count:,}). For subjects that is right; a group that was meant to be one photograph is none."
        )


def _within(found: Audit) -> Iterator[str]:
    if found.split:
        counts = ", ".join(f"{part} {count:,}" for part, count in found.repeated.items())
        yield f"files that repeat another of their own part: {counts}"
    if found.near_within is not None:
        yield f"near-duplicates within parts: {len(found.near_within):,}"
        for pair in _first(found.near_within):
            yield f"  {words(pair)}"


def _quality(quality: Quality) -> Iterator[str]:
    kinds = Counter(kind for image in quality.unlike for kind in image.kinds)
    listed = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    what = (
        "images unlike the rest"
        if quality.enough
        else f"blank images (of fewer than {ENOUGH} nobody can say what is usual)"
    )
    yield f"{what}: {len(quality.unlike):,}{f' ({listed})' if listed and quality.enough else ''}"
    for image in _first(quality.unlike):
        yield f"  {show(image.path)} ({how(image)})"


def how(image: Unlike) -> str:
    """Return in which way an image is unlike the rest."""
    far = "" if image.score is None else f", {image.score:g} times the usual spread"
    return ", ".join(image.kinds) + far


def paths_of(paths: Sequence[str]) -> str:
    """Return the first names of a set, and how many more there are."""
    more = f" and {len(paths) - FIRST:,} more" if len(paths) > FIRST else ""
    return ", ".join(map(show, paths[:FIRST])) + more


def _plain(value: str) -> str:
    return value if value.isprintable() else show(value)


def _first(items: Iterable[T]) -> list[T]:
    return list(islice(items, FIRST))
