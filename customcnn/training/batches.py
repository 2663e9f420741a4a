"""What a training is fed with: batches of images from the memory map, and what the network is to make of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from customcnn.augmentation.settings import Transform
from customcnn.backend.data_parallel import uneven_weights
from customcnn.recipe.sampling import deal
from customcnn.training.device_cache import Resident


def targets(labels: np.ndarray, classes: int, outputs: int) -> np.ndarray:
    """Return what a network is trained towards.

    Args:
        labels: int64 (N,), class numbers.
        classes: how many classes there are.
        outputs: how many outputs the network has: 1 (a sigmoid) or `classes`.

    Returns:
        float32 (N, 1) of 0 and 1, or one-hot (N, classes).
    """
    if outputs == 1:
        return labels[:, None].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]


def batches(
    images: np.ndarray,
    wanted: np.ndarray,
    rows: np.ndarray,
    batch_size: int,
    seed: int | None,
    *,
    transform: Transform | None = None,
    weights: np.ndarray | None = None,
    outputs: int = 1,
    resident: Resident | None = None,
    devices: int = 1,
    shards: int = 1,
    own: range | None = None,
) -> Any:
    """Return a Keras dataset that reads its batches from the memory map, or takes them from what the GPU holds.

    Args:
        images: uint8 (N, H, W, 3).
        wanted: float32 (N, K), from `targets`.
        rows: int64 (M,), which images to use; one that stands twice is used twice.
        batch_size: images in a batch; the last may be smaller.
        seed: shuffles epoch e by the generator of (seed, e), whatever came before; None keeps the order.
        transform: changes a batch of images by the key (seed, epoch, batch), from `make_transform`.
        weights: float32 (N,), what each image's loss is multiplied by; None for 1.
        outputs: how many outputs of the network are trained towards `wanted`.
        resident: the rows' images on the device, from `device_cache.hold`, which also turns them: `images` and
            `transform` are not used then. The batches are the same, byte for byte, as arrays of the backend.
        devices: that share a batch on TensorFlow: where they cannot do so evenly, weights make up for it.
        shards: of the recipe's `sampling.shards`; `batch_size` is a multiple of it.
        own: the shards that this process has, of several processes: its batches are its part of theirs; None for all.

    Returns:
        A keras.utils.PyDataset with the attributes `epoch`, the number of the epoch that comes next, and `per_epoch`,
        how many images an epoch of all processes takes.
    """
    import keras

    dealt = deal(rows, shards)
    each = len(rows) // shards  # images that an epoch takes of a shard
    share = batch_size // shards
    uneven = devices > 1 and each * shards % batch_size % devices and keras.backend.backend() == "tensorflow"
    if uneven and weights is None:
        weights = np.ones(len(images), np.float32)

    class Batches(keras.utils.PyDataset):
        epoch = 0
        per_epoch = each * shards
        shuffled = (-1, dealt)  # the order of an epoch in every shard, drawn once

        def __len__(self) -> int:
            return -(-each // share)

        def __getitem__(self, index: int) -> tuple[Any, ...]:
            orders, place = self.orders(), index * share
            # Sorted within the batch: neighbours on the disk are read together, and the sum over a batch has no order.
            parts = {n: np.sort(orders[n][place : min(place + share, each)]) for n in own or range(shards)}
            chosen = np.concatenate([*parts.values()])
            found = (self.inputs(parts, index), _repeated(wanted[chosen], outputs))
            if weights is None:
                return found
            shared = uneven_weights(len(chosen), devices) if uneven else None
            return (*found, _repeated(weights[chosen] if shared is None else weights[chosen] * shared, outputs))

        def inputs(self, parts: dict[int, np.ndarray], index: int) -> Any:
            key = (seed or 0, self.epoch, index)
            if resident is not None:
                return resident.batch(parts[0], key)
            if transform is None:
                return images[np.concatenate([*parts.values()])]
            if shards == 1:
                return transform(images[parts[0]], key)
            # Every shard has draws of its own: they are the same whichever process has it.
            return np.concatenate([transform(images[rows], (*key, number)) for number, rows in parts.items()])

        def orders(self) -> list[np.ndarray]:
            epoch, orders = self.shuffled
            if seed is None or epoch == self.epoch:
                return orders
            key = (seed, self.epoch)
            numbered = [(rows, key if shards == 1 else (*key, number)) for number, rows in enumerate(dealt)]
            orders = [rows[np.random.default_rng(drawn).permutation(len(rows))] for rows, drawn in numbered]
            self.shuffled = (self.epoch, orders)
            return orders

        def on_epoch_end(self) -> None:
            self.epoch += 1

    return Batches()


def for_fit(dataset: Any) -> Any:
    """Return the batches as `fit` and `evaluate` read them best.

    On TensorFlow Keras would make a tf.data.Dataset of them that tunes itself. The thread that does so sleeps longer
    and longer, up to a minute, and tf.data often waits for it to wake up before the next epoch begins: about every
    other epoch then took twice its time. Here nothing is left to tune.

    Args:
        dataset: from `batches`; its `epoch` is to be set before each epoch.

    Returns:
        On TensorFlow a tf.data.Dataset of as many batches; elsewhere the dataset itself.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return dataset
    import tensorflow as tf

    def one_epoch() -> Iterator[Any]:
        return (dataset[number] for number in range(len(dataset)))

    options = tf.data.Options()
    options.autotune.enabled = False
    # Several devices share each batch, not the batches.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # The size of a batch is left open, so that the smaller last one fits the same graph.
    signature = tf.nest.map_structure(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), dataset[0])
    made = tf.data.Dataset.from_generator(one_epoch, output_signature=signature)
    return made.apply(tf.data.experimental.assert_cardinality(len(dataset))).prefetch(2).with_options(options)


def _repeated(values: np.ndarray, times: int) -> Any:
    return values if times == 1 else (values,) * times
