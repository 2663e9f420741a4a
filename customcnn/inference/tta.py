"""Test-time augmentation: the mean of what a network says of an image, its turns and its mirror images."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from customcnn.images.dihedral import eight_views
from customcnn.inference.runtimes import Network


def views(images: np.ndarray) -> list[np.ndarray]:
    """Return the turns and mirror images of a batch that keep its shape, the batch itself first.

    Args:
        images: (N, H, W, C).

    Returns:
        Eight arrays where H = W: four quarter turns, each also mirrored; else four: no turn and half a turn.
    """
    eight = eight_views(images, axes=(1, 2))
    pairs = zip(eight[:4], eight[4:], strict=True)  # a rotation and its mirror image
    return [np.ascontiguousarray(view) for pair in pairs for view in pair if view.shape == images.shape]


def averaged(network: Network) -> Network:
    """Return the network that gives the mean of the outputs for all `views` of every batch, float64."""

    def mean(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        counts: deque[int] = deque()

        def all_views() -> Iterator[np.ndarray]:
            for batch in batches:
                turned = views(batch)
                counts.append(len(turned))
                yield from turned

        # A network may take batches ahead of what it gives, and gives them in order.
        outputs = network(all_views())
        for first in outputs:
            total = np.asarray(first, dtype=np.float64)
            count = counts.popleft()
            for _ in range(count - 1):
                total = total + next(outputs)
            yield total / count

    return mean


def averaged_probabilities(function: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """Return the mean of a function's outputs over all `views` of one batch.

    Args:
        function: uint8 (N, H, W, 3) to (N, C).
        images: uint8 (N, H, W, 3).

    Returns:
        Float64 (N, C).
    """
    (result,) = averaged(lambda batches: (function(batch) for batch in batches))([images])
    return result
