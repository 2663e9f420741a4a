"""The two ways to split what is not held out, by image and by group, with equal counts of every class."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from customcnn.data.manifest import Manifest, Record, require_classes
from customcnn.data.split import shares, split_by_group
from customcnn.errors import CustomCNNError, show

WAYS = ("image", "group")


@dataclass(frozen=True)
class Arms:
    """The two splits of one seed.

    They have the same test part, which holds whole groups, and the same number of images of every class in every part.

    Attributes:
        seed: of the splits.
        by: the manifest of each way in `WAYS`, with every image in train, validation or test.
    """

    seed: int
    by: dict[str, Manifest]


def make_arms(data: Manifest, *, test: float, ratio: float, seed: int) -> Arms:
    """Hold out whole groups, then split the rest by group, and once more by image with the same counts.

    By image, the places that the split by group gives to the images of a class are dealt out among them at random. So
    the training parts are equal in size and in their classes, and differ in whose images they hold alone.

    Args:
        data: images that are not split, with the group of each.
        test: the share of the groups held out, as images of every class.
        ratio: the share of the rest that trains.
        seed: the same seed gives the same splits.

    Raises:
        CustomCNNError: see `check_data`; or a class whose groups cannot be dealt into these shares.
    """
    check_data(data, test, ratio)
    labels = [record.label for record in data.records]
    groups = [record.group for record in data.records]
    # A share of 1 - test trains, and the second part is the one held out.
    held = split_by_group(labels, groups, shares(ratio=round(1 - test, 12)), seed)
    rest = [i for i, part in enumerate(held) if part == "train"]
    _check_rest([data.records[i] for i in rest], data.classes, test)
    inner = split_by_group([labels[i] for i in rest], [groups[i] for i in rest], shares(ratio=ratio), seed)
    by_group = ["test"] * len(labels)
    for i, part in zip(rest, inner, strict=True):
        by_group[i] = part
    by_image = _dealt(by_group, labels, seed)
    return Arms(seed, {"image": _placed(data, by_image), "group": _placed(data, by_group)})


def _dealt(parts: Sequence[str], labels: Sequence[str], seed: int) -> list[str]:
    """Shuffle the parts among the images of each class; what is held out stays."""
    dealt, rng = list(parts), np.random.default_rng(seed)
    for label in sorted(set(labels)):
        members = [i for i, part in enumerate(parts) if part != "test" and labels[i] == label]
        for i, source in zip(members, rng.permutation(members), strict=True):
            dealt[i] = parts[source]
    return dealt


def _placed(data: Manifest, parts: Sequence[str]) -> Manifest:
    records = tuple(replace(record, split=part) for record, part in zip(data.records, parts, strict=True))
    return replace(data, records=records)


def _check_rest(rest: Sequence[Record], classes: Sequence[str], test: float) -> None:
    for label, having in _groups_by_class(rest, classes):
        if having < 2:
            raise CustomCNNError(
                "Beside the groups held out, every class needs two: to train and to validate. "
                f"Received: class {show(label)} with {having} beside --test {test:g}. "
                "Add groups, or give a smaller --test."
            )


def _groups_by_class(records: Sequence[Record], classes: Sequence[str]) -> list[tuple[str, int]]:
    return [(label, len({record.group for record in records if record.label == label})) for label in classes]


def check_data(data: Manifest, test: float, ratio: float) -> None:
    """Refuse data on which a leak cannot be priced, and shares that are none.

    Raises:
        CustomCNNError: a share outside 0..1, one class, a folder that is split already, groups that are not known, no
            group of two images, or a class with fewer than three groups.
    """
    for name, value in (("--test", test), ("--ratio", ratio)):
        if not 0 < value < 1:
            raise CustomCNNError(
                f"A share lies between 0 and 1, without both ends. Received: {name} {value:g}. Example: {name} .5."
            )
    classes = require_classes(data)
    if data.parts:
        raise CustomCNNError(
            "A leak is priced on a folder that is not split, for it is split anew in two ways. "
            f"Received: {show(data.root)}, which has parts. Give the folder of class folders that it was made from."
        )
    if not data.groups_known:
        raise CustomCNNError(
            f"A leak is priced where the group of every image is known. Received: none for {show(data.root)}. "
            "Use --group-pattern (cnmc, or a regular expression) or --groups FILE.csv."
        )
    if max(Counter(record.group for record in data.records).values()) < 2:
        raise CustomCNNError(
            "A leak needs groups of several images. "
            f"Received: {show(data.root)}, with {len(data.records):,} groups of one image each. "
            "Give groups that are larger: subjects, or photographs."
        )
    for label, having in _groups_by_class(data.records, classes):
        if having < 3:
            raise CustomCNNError(
                "Every class needs three groups: to train, to validate, to test. "
                f"Received: class {show(label)} with {having}. Add groups."
            )
