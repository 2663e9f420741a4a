"""One training on several devices of one machine: each holds the network and computes its share of every batch.

The batch of the recipe is shared out, and stays what it was; so does the learning rate. Batch normalisation looks at
the whole batch. Keras does the work: `keras.distribution.DataParallel` on JAX, `tf.distribute.MirroredStrategy` on
TensorFlow.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.backend.devices import backend
from customcnn.backend.fused_batch_norm import batch_norms
from customcnn.errors import CustomCNNError, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras

BACKENDS = ("tensorflow", "jax")


def parse_devices(wanted: str) -> int | None:
    """Return how many devices a user asks for; None for all.

    Raises:
        CustomCNNError: neither a number above 0 nor "all".
    """
    if wanted == "all":
        return None
    if not (wanted.isdecimal() and int(wanted)):
        raise CustomCNNError(f"--devices is all, or a number above 0. Received: {show(wanted)}. Give one of them.")
    return int(wanted)


def find_devices(count: int | None, device: str, batch_size: int) -> list[str]:
    """Return the names of the devices that share each batch, as the backend calls them.

    Args:
        count: how many; None for all of the kind.
        device: "cpu" or "gpu", from `devices.configure`, which is called before. A processor is one device, unless the
            backend is told to divide it, as tests do.
        batch_size: of the recipe.

    Raises:
        CustomCNNError: fewer devices are there, they cannot share the batch evenly, or the backend has no means.
    """
    if count == 1:
        return []
    if backend() not in BACKENDS:
        raise CustomCNNError(
            f"--devices needs Keras on {' or '.join(BACKENDS)}. Received: KERAS_BACKEND={backend()}. "
            "Set it to one of them, or leave --devices out."
        )
    found = _names(device)
    if count is not None and count > len(found):
        raise CustomCNNError(
            f"--devices is at most what there is. Received: {count}, where {backend()} sees {len(found)} of the kind "
            f"{device}. Give fewer, or all."
        )
    used = found[:count]
    if batch_size % len(used):
        lower = batch_size // len(used) * len(used)
        near = " or ".join(str(n) for n in (lower, lower + len(used)) if n)
        raise CustomCNNError(
            f"Devices share a batch evenly. Received: --batch-size {batch_size} on {len(used)} devices. "
            f"Give --batch-size {near}, or other --devices."
        )
    return used if len(used) > 1 else []


def _names(device: str) -> list[str]:
    if backend() == "jax":
        import jax

        return [f"{device}:{one.id}" for one in jax.local_devices(backend=device)]
    import tensorflow as tf

    return [one.name for one in tf.config.list_logical_devices(device.upper())]


@contextmanager
def spread_over(names: list[str]) -> Iterator[None]:
    """Let networks that are built, loaded, compiled and trained meanwhile live on several devices.

    Args:
        names: from `find_devices`; none for one device, which changes nothing.
    """
    if not names:
        yield
    elif backend() == "jax":
        with data_parallel(names):
            yield
    else:
        import tensorflow as tf

        with tf.distribute.MirroredStrategy(names).scope():
            yield


@contextmanager
def data_parallel(names: list[str], *, divided: bool = False) -> Iterator[None]:
    """Let networks that are built and trained meanwhile live on several of JAX's devices.

    Args:
        names: of the devices.
        divided: whether every batch comes divided already: each process has its own part of it, for its own devices.
    """
    import keras
    from keras.distribution import DataParallel, TensorLayout
    from keras.src.backend.jax import trainer

    class Even(DataParallel):
        """Shares a batch out where it divides; the last one of an epoch may not: each device then computes it all."""

        def get_data_layout(self, data_shape: Any) -> Any:
            if data_shape[0] % len(names):
                return TensorLayout([None] * len(data_shape), self.device_mesh)
            return super().get_data_layout(data_shape)

    before, distribute = keras.distribution.distribution(), trainer._distribute_data
    layout = DataParallel if divided else Even
    keras.distribution.set_distribution(layout(devices=names, auto_shard_dataset=False))
    # Keras lays every batch of an epoch out as the first of them, and fails at a smaller one that does not divide.
    trainer._distribute_data = lambda data, layouts=None: distribute(data)
    try:
        yield
    finally:
        trainer._distribute_data = distribute
        keras.distribution.set_distribution(before)


def prepare_shared(model: keras.Model) -> None:
    """Make a network ready for TensorFlow's devices, in place; on JAX there is nothing to do.

    Batch normalisation then looks at the shares of all devices together. Keras has the option `synchronized`, but takes
    the mean over devices of equal shares, and would write the option into the file. A saved network holds plain layers.

    Args:
        model: built or loaded inside `spread_over`; before its first step.
    """
    if backend() != "tensorflow":
        return
    # Before the first step Keras takes the mean of the devices' images, for its shape alone; shares may differ in it.
    model._maybe_symbolic_build = lambda *_, **__: None
    for layer in batch_norms(model):
        layer.call = _shared_call(layer)
        layer.supports_jit = False  # XLA compiles one device's step, and would not know of the others


def _shared_call(layer: Any) -> Any:
    import tensorflow as tf

    own = type(layer).call.__get__(layer)

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        replica = tf.distribute.get_replica_context()
        if replica is None or not (training and layer.trainable):
            return own(inputs, training=training, mask=mask)
        half = layer.compute_dtype in ("bfloat16", "float16")
        x = tf.cast(inputs, "float32" if half else layer.compute_dtype)
        rank, axis = len(x.shape), layer.axis % len(x.shape)
        others, shape = [n for n in range(rank) if n != axis], [-1 if n == axis else 1 for n in range(rank)]

        def mean(values: Any) -> Any:
            parts = tf.reduce_sum(values, others), tf.cast(tf.size(values) / tf.shape(values)[axis], values.dtype)
            whole, count = (replica.all_reduce(tf.distribute.ReduceOp.SUM, part) for part in parts)
            return whole / count

        center = mean(x)
        x -= tf.reshape(center, shape)
        variance = mean(tf.square(x))
        for running, new in ((layer.moving_mean, center), (layer.moving_variance, variance)):
            running.assign(running * layer.momentum + tf.cast(new, running.dtype) * (1 - layer.momentum))
        x *= tf.reshape(tf.math.rsqrt(variance + layer.epsilon), shape)
        if layer.scale:
            x *= tf.reshape(layer.gamma.value, shape)
        if layer.center:
            x += tf.reshape(layer.beta.value, shape)
        return tf.cast(x, layer.compute_dtype)

    return call


def uneven_weights(images: int, devices: int) -> np.ndarray | None:
    """Return what makes the mean over devices of their losses the mean over the images of a batch.

    TensorFlow shares a batch of N out in pieces of N / devices, rounded up; what is left for the last is smaller, and
    its mean would count as much as the others'.

    Args:
        images: of the batch.
        devices: that share it.

    Returns:
        float32 (images,); None where all pieces are equal.
    """
    if images % devices == 0:
        return None
    piece = -(-images // devices)
    sizes = np.minimum(piece, images - np.arange(images) // piece * piece)
    return (sizes * devices / images).astype(np.float32)
