"""Pillow's bilinear resize, compiled for this machine by Numba: the same bytes in a fraction of the time."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from customcnn.images.numba_loader import load_numba

numba = load_numba()

BITS = 22
"""Pillow's weights are whole numbers, shares of 2^22; each pass is rounded to whole levels."""
LANES = 16
"""Rows that are resized together."""


@lru_cache(maxsize=64)
def weights(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Return from where each place of a resized edge takes its values, and with what weights.

    A triangle as wide as two places of the larger of both grids, cut at the image's edge and made to sum to 1.

    Args:
        before, after: lengths of the edge in pixels.

    Returns:
        int64 (after,), the first place that is taken, and int32 (after, K), weights of it and the next ones in shares
        of 2^22; 0 behind the last.
    """
    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    behind = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    places = first[:, None] + np.arange((behind - first).max())
    shares = np.maximum(1 - np.abs((places - centres[:, None] + 0.5) * (1 / reach)), 0)
    shares[places >= behind[:, None]] = 0
    shares /= np.cumsum(shares, axis=1)[:, -1:]  # added up in order, as Pillow does
    return first, (0.5 + shares * (1 << BITS)).astype(np.int32)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as `customcnn.images.decode.resize` does: each edge by a triangle that averages where it shrinks.

    Args:
        pixels: uint8 (h, w, 3), C-contiguous.
        size: height and width.

    Returns:
        uint8 (height, width, 3), the bytes that Pillow's Image.resize with Resampling.BILINEAR gives.
    """
    passes = _passes(pixels.shape[:2], size)
    if passes is None:
        return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    for one in passes:
        pixels = one(pixels, size)
    return pixels


Pass = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


@lru_cache(maxsize=256)
def _passes(before: tuple[int, int], after: tuple[int, int]) -> tuple[Pass, ...] | None:
    """Return the passes that give Pillow's bytes, in their order; None where none do.

    Each pass rounds, so the order matters, and Pillow chooses it by rules that differ between its versions: it is tried
    on random pixels.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (*before, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).resize(after[::-1], Image.Resampling.BILINEAR))
    for passes in ((_width, _height), (_height, _width)):
        found = pixels
        for one in passes:
            found = one(found, after)
        if np.array_equal(found, wanted):
            return passes
    return None


def _width(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    before, after = pixels.shape[1], size[1]
    return pixels if before == after else _along(pixels, *weights(before, after))


def _height(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    (before, width), after = pixels.shape[:2], size[0]
    if before == after:
        return pixels
    return _down(pixels.reshape(before, -1), *weights(before, after)).reshape(after, width, 3)


@numba.njit("u1[:,:,::1](u1[:,:,::1], i8[::1], i4[:,::1])", nogil=True, cache=True)
def _along(pixels, first, shares):
    height, width, before = len(pixels), len(first), pixels.shape[1]
    found = np.empty((height, width, 3), np.uint8)
    # Some rows side by side, a row of `block` for each column: the processor then works on all of them at once.
    block = np.empty((before, 3 * LANES), np.uint8)
    turned = np.empty((width, 3 * LANES), np.uint8)
    sums = np.empty(3 * LANES, np.int32)
    for y in range(0, height, LANES):
        rows = min(LANES, height - y)
        for row in range(rows):
            for x in range(before):
                for channel in range(3):
                    block[x, channel * LANES + row] = pixels[y + row, x, channel]
        for x in range(width):
            start = first[x]
            for i in range(3 * LANES):
                sums[i] = 1 << (BITS - 1)
            for k in range(min(shares.shape[1], before - start)):
                share = shares[x, k]
                for i in range(3 * LANES):
                    sums[i] += block[start + k, i] * share
            for i in range(3 * LANES):
                turned[x, i] = sums[i] >> BITS
        for row in range(rows):
            for x in range(width):
                for channel in range(3):
                    found[y + row, x, channel] = turned[x, channel * LANES + row]
    return found


@numba.njit("u1[:,::1](u1[:,::1], i8[::1], i4[:,::1])", nogil=True, cache=True)
def _down(rows, first, shares):
    height, length = len(first), rows.shape[1]
    found = np.empty((height, length), np.uint8)
    sums = np.empty(length, np.int32)
    for y in range(height):
        sums[:] = 1 << (BITS - 1)
        for k in range(min(shares.shape[1], len(rows) - first[y])):
            share = shares[y, k]
            row = rows[first[y] + k]
            for i in range(length):
                sums[i] += row[i] * share
        for i in range(length):
            found[y, i] = sums[i] >> BITS
    return found
