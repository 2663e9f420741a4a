"""Labels and groups: classes whose shares differ between parts, sizes of groups, and duplicates that disagree."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from customcnn.audit.findings import Conflict, Groups, Pair, Share
from customcnn.audit.union_find import linked
from customcnn.data.manifest import Manifest, Record

POINTS = 0.05
"""Shares of a class in a part and in the others may differ by so much without a warning."""

ERRORS = 3
"""And by so many standard errors of the difference, so that small parts do not warn by chance."""

WHOLE = "data"
"""How data that is not split is called where otherwise a part's name stands."""


def images_by_part(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Count the images by part and class."""
    parts = manifest.parts if len(manifest.parts) > 1 else []
    images: dict[str, dict[str, int]] = {part: {} for part in parts}
    for (part, label), count in sorted(manifest.counts().items()):
        of_part = images.setdefault(part if part in parts else WHOLE, {})
        of_part[label] = of_part.get(label, 0) + count
    return images


def differing_shares(images: Mapping[str, Mapping[str, int]]) -> list[Share]:
    """Return the classes whose share in a part is not what it is in the others.

    Warned of is a difference of more than POINTS and of more than ERRORS standard errors, those of two shares of
    independent images. Images of one group are not independent: of few groups a warning may come by chance.
    """
    found = []
    totals = {part: sum(by_class.values()) for part, by_class in images.items()}
    everything = sum(totals.values())
    by_label: Counter[str] = Counter()
    for by_class in images.values():
        by_label.update(by_class)
    for part, by_class in images.items():
        here, rest = totals[part], everything - totals[part]
        if not here or not rest:
            continue
        for label, in_all in sorted(by_label.items()):
            share, elsewhere = by_class.get(label, 0) / here, (in_all - by_class.get(label, 0)) / rest
            whole = in_all / everything
            error = math.sqrt(whole * (1 - whole) * (1 / here + 1 / rest))
            if abs(share - elsewhere) > max(POINTS, ERRORS * error):
                found.append(Share(part, label, round(share, 4), round(elsewhere, 4)))
    return found


def groups_of(records: Iterable[Record]) -> Groups | None:
    """Count the images of each group; None where no image has one."""
    sizes: Counter[str] = Counter()
    first: dict[str, str] = {}
    several = set()
    for record in records:
        if record.group:
            sizes[record.group] += 1
            if first.setdefault(record.group, record.label) != record.label:
                several.add(record.group)
    if not sizes:
        return None
    counts = sizes.values()
    return Groups(len(sizes), min(counts), float(median(counts)), max(counts), sorted(several))


def shared_groups(records: Iterable[Record]) -> dict[str, list[str]]:
    """Return the groups that stand in more than one part, each with its parts."""
    parts = defaultdict(set)
    for record in records:
        if record.group:
            parts[record.group].add(record.split)
    return {group: sorted(where) for group, where in sorted(parts.items()) if len(where) > 1}


def disagreeing(
    records: Iterable[Record],
    identical: Sequence[Sequence[str]],
    near: Sequence[Pair],
    copies: Sequence[Sequence[str]],
    value: Callable[[Record], str],
) -> list[Conflict]:
    """Return the duplicates whose images do not all have the same value, identical files first.

    Args:
        records: all images.
        identical: sets of paths.
        near: pairs; those that differ are put together to sets.
        copies: sets of paths.
        value: the label or the group of a record; "" is not known, and differs from none.
    """
    needed = {path for pair in near for path in (pair.first, pair.second)}
    needed.update(path for same in (*identical, *copies) for path in same)
    values = {record.path: value(record) for record in records if record.path in needed}

    def of(paths: Iterable[str]) -> list[str]:
        return sorted({values[path] for path in paths} - {""})

    pairs = [(pair.first, pair.second) for pair in near if len(of((pair.first, pair.second))) > 1]
    sets = [("identical", same) for same in identical]
    sets += [("near-duplicate", sorted(same)) for same in linked(pairs)]
    sets += [("copy", sorted(same)) for same in copies]
    return [Conflict(kind, [*same], differing) for kind, same in sets if len(differing := of(same)) > 1]
