"""Sets from pairs: what is linked, directly or through others, belongs together."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Trees(Generic[K]):
    """Disjoint sets that are joined by and by.

    Reference: Tarjan (1975), Efficiency of a good but not linear set union algorithm, doi:10.1145/321879.321884.
    """

    def __init__(self) -> None:
        self._above: dict[K, K] = {}

    def root(self, item: K) -> K:
        """Return the item that stands for the item's set."""
        top = item
        while (above := self._above.get(top, top)) != top:
            top = above
        while (above := self._above.get(item, item)) != top:
            self._above[item], item = top, above
        return top

    def join(self, one: K, other: K) -> bool:
        """Make two sets one; return whether they were two."""
        a, b = self.root(one), self.root(other)
        if a == b:
            return False
        self._above[b] = a
        return True


def linked(pairs: Iterable[tuple[K, K]]) -> list[list[K]]:
    """Return the sets that pairs link, items and sets in the order in which they came."""
    trees: Trees[K] = Trees()
    seen: dict[K, None] = {}
    for one, other in pairs:
        trees.join(one, other)
        seen |= {one: None, other: None}
    sets: dict[K, list[K]] = defaultdict(list)
    for item in seen:
        sets[trees.root(item)].append(item)
    return [*sets.values()]
