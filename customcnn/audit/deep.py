"""Copies turned by any angle, compared with parts and with the groups that were proposed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from customcnn.audit.found import Deep
from customcnn.manifest import Record


class Link(Protocol):
    """Two images that show some of the same."""

    @property
    def first(self) -> str:
        """One path."""

    @property
    def second(self) -> str:
        """The other path."""


class Copies(Protocol):
    """Which images are copies of one picture, as `customcnn.copies.find_copies` returns it."""

    @property
    def originals(self) -> Sequence[Sequence[str]]:
        """Sets of paths, one for each picture."""

    @property
    def links(self) -> Sequence[Link]:
        """Pairs that show some of the same, whether they are of one picture or overlap only."""

    def groups(self) -> Mapping[str, str]:
        """Return the name of its picture for every path."""

    def joined(self, pairs: Iterable[tuple[str, str]]) -> "Copies":
        """Return the same with what pairs of paths link in one set."""


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
