"""Classes of unequal size: which training images an epoch takes, and what each weighs."""

import re
from dataclasses import dataclass

import numpy as np

from customcnn.data.apportion import apportion
from customcnn.errors import one_of, require

CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class Sampling:
    """What is done about classes of unequal size.

    Attributes:
        undersample: so many images of each class at most, drawn once by the seed; 0 for all.
        oversample: "none"; a number k: every image of the smallest class k times in an epoch; or "balance": the images
            of each class repeated until it is as large as the largest.
        class_weights: "balanced" weighs an image's loss by the inverse of its class's share; "none" does not.
        views: so many images in an epoch, the classes' shares kept; 0 for every image once.
        shards: the images are dealt into so many shards, and every batch takes as many from each: as processes do that
            have a shard each. What does not go up evenly is left out of an epoch, other images in each.
    """

    undersample: int = 0
    oversample: str = "none"
    class_weights: str = "none"
    views: int = 0
    shards: int = 1

    def __post_init__(self) -> None:
        number = re.fullmatch(r"\d+(\.\d+)?", self.oversample) and 1 <= float(self.oversample) <= 1000
        rules = {
            "class_weights": one_of(self.class_weights, CLASS_WEIGHTS),
            "undersample": (self.undersample >= 0, "0 or more"),
            "views": (self.views >= 0, "0 or more"),
            "shards": (self.shards >= 1, "1 or more"),
            "oversample": (
                self.oversample in ("none", "balance") or bool(number),
                "none, balance, or how often the smallest class is taken, 1 to 1000",
            ),
        }
        require(self, "sampling.", rules)
        rule = "0 beside oversample, for both say how long an epoch is"
        require(self, "sampling.", {"views": (not self.views or self.oversample == "none", rule)})


def epoch_rows(labels: np.ndarray, rows: np.ndarray, sampling: Sampling, seed: int) -> np.ndarray:
    """Return the rows of which one epoch is made: the same in every epoch, and whatever order they are given in.

    Undersampling comes first: of a class with more than `undersample` images so many are drawn by the seed, and a
    larger number keeps all that a smaller one does. Oversampling goes by what is left. "balance" repeats every class
    that is smaller than the largest; a number k repeats the smallest class alone (of equally small ones that of the
    lowest number) until it has k times its images, rounded, halves up. `views` instead shares so many places out to the
    classes in proportion to what is left of them (see `apportion`). Every image of a class is taken equally often, but
    for a remainder that is drawn by the seed and taken once more.

    Args:
        labels: int64 (N,), class numbers of all images.
        rows: int64 (M,), which of them are for training, each once.
        sampling: what is done about classes of unequal size.
        seed: of the draws.

    Returns:
        int64 (L,), sorted; a row stands as often as its image is taken.

    Raises:
        CustomCNNError: fewer `views` than classes.

    Reference:
        The six-backbone transfer study trims the training classes of C-NMC 2019 to 3,050 images each
        (`undersample = 3050`); the fourteen-network study doubles the class hem (`oversample = "2"`).
    """
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    own = labels[rows]
    # By class number, lowest first; each class in a random order of its own, which other classes do not touch.
    parts = {label: _shuffled(rows[own == label], seed, "undersample", label) for label in np.unique(own).tolist()}
    if sampling.undersample:
        parts = {label: part[: sampling.undersample] for label, part in parts.items()}
    sizes = {label: len(part) for label, part in parts.items()}
    if sizes and sampling.views:
        rule = f"0, or at least 1 for each of {len(sizes)} classes"
        require(sampling, "sampling.", {"views": (sampling.views >= len(sizes), rule)})
        sizes = dict(zip(sizes, apportion(sampling.views, list(sizes.values())), strict=True))
    elif sizes and sampling.oversample == "balance":
        sizes = dict.fromkeys(sizes, max(sizes.values()))
    elif sizes and sampling.oversample != "none":
        smallest = min(sizes, key=lambda label: sizes[label])
        sizes[smallest] = int(float(sampling.oversample) * sizes[smallest] + 0.5)
    # np.resize goes round and round: whole copies, then the first few of a new order.
    taken = [np.resize(_shuffled(np.sort(part), seed, "oversample", k), sizes[k]) for k, part in parts.items()]
    return np.sort(np.concatenate([rows[:0], *taken]))


def deal(rows: np.ndarray, shards: int) -> list[np.ndarray]:
    """Return the rows of every shard: dealt in turn, so that each has as many images of a class, give or take one."""
    return [rows[number::shards] for number in range(shards)]


def _shuffled(rows: np.ndarray, seed: int, purpose: str, label: int) -> np.ndarray:
    # The purpose keeps the draws apart from those of the epochs, which come from (seed, epoch).
    return np.random.default_rng((seed, *purpose.encode(), label)).permutation(rows)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return what an image's loss is multiplied by, for each class: the inverse of the class's share of the images.

    All classes weigh the same in the end, and the mean weight over the images is 1, so that the learning rate keeps
    its meaning.

    Args:
        labels: int64 (L,), class numbers of the images of one epoch, after over- and undersampling.
        classes: how many classes there are.

    Returns:
        float32 (classes,); 0 for a class without images.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0).astype(np.float32)
