"""Share a count out in proportion to sizes."""

import math


def apportion(count: int, sizes: list[int]) -> list[int]:
    """Share `count` out in proportion to the sizes, in whole numbers of at least 1 that sum to it (largest remainder).

    The first of equal remainders comes first.
    """
    total = sum(sizes)
    parts = [count * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(count * sizes[i] % total), i))
    for i in by_remainder[: count - sum(parts)]:
        parts[i] += 1
    for i, part in enumerate(parts):
        if part == 0:
            # From the class that got most above its share, so that a larger class keeps no fewer than a smaller one.
            excess = [parts[j] * total - count * sizes[j] if parts[j] > 1 else -math.inf for j in range(len(sizes))]
            parts[excess.index(max(excess))] -= 1
            parts[i] = 1
    return parts
