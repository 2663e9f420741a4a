"""Training images that stay on the GPU: uint8, put there once, gathered and turned there batch by batch.

On JAX and torch a batch then needs a few row numbers from the host instead of its pixels. On TensorFlow nothing is
held: Keras feeds it from a generator through tf.data, which takes every batch back to the host.

Flips and quarter turns are done on the device, by the numbers that `transforms` draws on the host, and move the same
bytes. Every other augmentation is computed on the host, and its training images stay there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from customcnn.augmentation.draws import draw_turns
from customcnn.augmentation.settings import Augmentation
from customcnn.images.dihedral import as_flips, turned_batch

UNCHANGED = Augmentation()

SLICE = 256
"""Images that go to the device at a time: the host holds no second copy of more."""


@dataclass(frozen=True, eq=False)
class Resident:
    """Images on the device, and how they are changed on their way into a batch.

    Attributes:
        rows: int64 (M,), sorted, each once: which images of the pack are there.
        held: an array of the backend, uint8 (M, H, W, 3), on the device.
        augmentation: flips and quarter turns, done on the device.
    """

    rows: np.ndarray
    held: Any
    augmentation: Augmentation = UNCHANGED

    def batch(self, rows: np.ndarray, key: tuple[int, ...]) -> Any:
        """Return images as `make_transform` changes them by the key, byte for byte.

        A smaller last batch is a shape of its own, for which the gather is compiled once more. Filling it up would save
        nothing: Keras compiles the whole training step anew for that shape anyway.

        Args:
            rows: int64 (n,), of the pack, all of them held.
            key: of the draws, such as (seed, epoch, batch).

        Returns:
            An array of the backend, uint8 (n, H, W, 3), on the device; the host does not wait for it.
        """
        places = np.searchsorted(self.rows, rows).astype(np.int32)
        if not self.augmentation.active:
            return _gather()(self.held, places)
        height, width = self.held.shape[1:3]
        flags = turns(self.augmentation, key, len(rows), square=height == width)
        return _gather()(self.held, places, flags)


def hold(
    images: Any, training: np.ndarray, validation: np.ndarray, augmentation: Augmentation, *, on_cpu: bool = False
) -> tuple[Resident | None, Resident | None]:
    """Put what a training reads on the GPU, where there is one and it fits.

    Args:
        images: uint8 (N, H, W, 3), an array or what is indexed like one.
        training: int64, the rows an epoch is made of; one may stand twice.
        validation: int64, the rows of the validation part.
        augmentation: of the training images; where it needs the host, they stay there.
        on_cpu: hold them in the memory of a CPU as well, see `fits`.

    Returns:
        For the training and for the validation, both of one array; None for what is read from the host.
    """
    turned = only_turns(augmentation)
    used = np.union1d(training, validation) if turned else np.unique(validation)
    if not len(used) or not fits((len(used), *images.shape[1:]), on_cpu=on_cpu):
        return None, None
    held = Resident(used, _put(images, used))
    return (replace(held, augmentation=augmentation) if turned else None), held


def only_turns(augmentation: Augmentation) -> bool:
    """Tell whether images are flipped and turned by quarters at most, by the engine "arrays"."""
    return replace(augmentation, flip="none", quarter_turns=False) == UNCHANGED


def fits(shape: tuple[int, ...], *, on_cpu: bool = False) -> bool:
    """Tell whether images may be held on the device that Keras computes on.

    They may on JAX and torch, on a GPU, and in half of its free memory: the rest is for weights and activations, which
    come later. In the memory of a CPU there is nothing to be won.

    Args:
        shape: (N, H, W, 3) of the uint8 images.
        on_cpu: say yes on a CPU, too.
    """
    import keras

    if keras.backend.backend() not in ("jax", "torch"):
        return False
    free = _free_memory()
    return on_cpu if free is None else 2 * int(np.prod(shape, dtype=np.int64)) <= free


def _free_memory() -> int | None:
    """Return the bytes that are free on the GPU that Keras computes on; 0 where it does not tell, None on a CPU."""
    import keras

    somewhere = keras.ops.zeros(())  # lies where everything will, whatever was set or hidden before
    if keras.backend.backend() == "jax":
        device = min(somewhere.devices(), key=lambda one: one.id)  # of several that share batches, the first holds them
        if device.platform == "cpu":
            return None
        statistics = device.memory_stats() or {}
        return int(statistics.get("bytes_limit", 0) - statistics.get("bytes_in_use", 0))
    import torch

    if somewhere.device.type == "cpu":
        return None
    return torch.cuda.mem_get_info(somewhere.device)[0] if somewhere.device.type == "cuda" else 0


def turns(
    augmentation: Augmentation, key: tuple[int, ...], count: int, *, square: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how each image of a batch is turned: the draws of `augmentation.numpy_engine.turn_batch`.

    Args:
        augmentation: of which `flip` and `quarter_turns` alone are looked at.
        key: of the draws.
        count: how many images.
        square: whether they can be turned by 90 degrees.

    Returns:
        Three bool (count,): mirrored left to right, top to bottom, and turned by a quarter after that.
    """
    mirrored, upside_down, quarters = draw_turns(augmentation, key, count)
    return as_flips(mirrored, upside_down, quarters, square=square)


def _put(images: Any, rows: np.ndarray) -> Any:
    """Copy rows of images to the device, slice by slice, into one array: uint8 (len(rows), H, W, 3)."""
    import keras

    shape = (len(rows), *images.shape[1:])
    size = min(SLICE, len(rows))
    # The last slice begins early enough to be as large as the others: one shape, compiled once.
    starts = [min(start, len(rows) - size) for start in range(0, len(rows), size)]
    parts = ((start, np.ascontiguousarray(images[rows[start : start + size]])) for start in starts)
    whole = keras.ops.zeros(shape, "uint8")
    if keras.backend.backend() == "torch":
        import torch

        for start, part in parts:
            whole[start : start + size] = torch.from_numpy(part).to(whole.device)
        return whole
    import jax

    def put(whole: Any, part: Any, start: Any) -> Any:
        return jax.lax.dynamic_update_slice(whole, part, (start, 0, 0, 0))

    in_place = jax.jit(put, donate_argnums=0)
    for start, part in parts:
        # Waited for: else every slice that is still on its way would lie in the host's memory.
        whole = jax.block_until_ready(in_place(whole, part, np.int32(start)))
    return whole


@cache
def _gather() -> Any:
    """Return the backend's function of (held, places) or (held, places, flags) that gives a batch."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        def indexed(held: Any, places: np.ndarray, flags: tuple[np.ndarray, ...] = ()) -> Any:
            there = [torch.from_numpy(flag).to(held.device, non_blocking=True) for flag in flags]
            index = torch.from_numpy(places).to(held.device, non_blocking=True)
            taken = held.index_select(0, index)
            return turned_batch(torch, taken, *there) if there else taken

        return indexed
    import jax

    def taken(held: Any, places: Any, flags: tuple[Any, ...] = ()) -> Any:
        images = jax.numpy.take(held, places, axis=0, mode="clip")
        return turned_batch(jax.numpy, images, *flags) if flags else images

    return jax.jit(taken)
