"""Deal images into the folds of a cross-validation: by image, by group, or as a column of the manifest says."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from customcnn.data.manifest import Manifest, Record, require_classes
from customcnn.errors import CustomCNNError, show, show_names

USED = ("train", "validation", "")
"""The parts whose images stand in folds; "" is a folder that is not split. A test part stands in none."""


@dataclass(frozen=True)
class Fold:
    """One fold: its number from 1, the value of the column it comes from ("" if none), and its manifest.

    In the manifest the images of the fold are the validation part, the other folds the training part. A test part
    stays as it is.
    """

    number: int
    value: str
    manifest: Manifest


def make_folds(data: Manifest, *, folds: int | None = None, by: str = "image", seed: int = 120) -> list[Fold]:
    """Deal the images of the training and the validation part, or of a folder that is not split, into folds.

    By image, scikit-learn's StratifiedKFold: every fold has its share of every class, give or take one. By group, its
    StratifiedGroupKFold: groups stay whole, and the shares come as close as that allows; the seed decides among groups
    of equal counts.

    Args:
        data: the images; groups must be known for "group".
        folds: how many; None for 5, or for as many as the column has values.
        by: "image", "group", or a further column of the manifest.
        seed: the same seed gives the same folds.

    Raises:
        CustomCNNError: one class, fewer than 2 folds, too few images or groups of a class, no such column, or a fold
            without whose images a class has none.
    """
    used = replace(data, records=tuple(record for record in data.records if record.split in USED))
    if not used.records:
        raise CustomCNNError(
            f"Folds are made of the train and validation folders. Received: {show(data.root)} with a test part alone."
        )
    classes = require_classes(used)
    if by in ("image", "group"):
        count = 5 if folds is None else folds
        _check_count(used, count, by)
        numbers = _deal(used, count, by, seed)
        values = [""] * count
    else:
        numbers, values = _from_column(used, by, folds)
    fold_of = {record.path: int(number) for record, number in zip(used.records, numbers, strict=True)}
    made = [Fold(k, value, _manifest(data, fold_of, k)) for k, value in enumerate(values, start=1)]
    for fold in made:
        # A column may name one subject a fold, whose images are of one class; a network must know them all.
        for part in ("train", "validation") if by in ("image", "group") else ("train",):
            missing = sorted(set(classes) - set(fold.manifest.part(part).classes))
            if missing:
                raise CustomCNNError(
                    f"Every class has images on both sides of a fold. Received: fold {fold.number} by {show(by)}, "
                    f"whose {part} images lack {show_names(missing)}. Choose fewer folds or another --by."
                )
    return made


def _manifest(data: Manifest, fold_of: Mapping[str, int], number: int) -> Manifest:
    def place(record: Record) -> Record:
        if record.path not in fold_of:
            return record
        return replace(record, split="validation" if fold_of[record.path] == number else "train")

    return replace(data, records=tuple(place(record) for record in data.records))


def _check_count(used: Manifest, count: int, by: str) -> None:
    if count < 2:
        raise CustomCNNError(f"A cross-validation has two folds at least. Received: --folds {count}. Give more.")
    if by == "group" and not used.groups_known:
        raise CustomCNNError(
            f"Folds by group need the group of every image. Received: none for {show(used.root)}. "
            "Use --group-pattern (cnmc, or a regular expression) or --groups FILE.csv."
        )
    for label in used.classes:
        having = len({r.group if by == "group" else r.path for r in used.records if r.label == label})
        if having < count:
            raise CustomCNNError(
                f"Every fold needs {'an image' if by == 'image' else 'a group'} of every class. Received: class "
                f"{show(label)} with {having} {by}{'s' * (having != 1)} for {count} folds. Choose fewer --folds."
            )


def _deal(used: Manifest, count: int, by: str, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels = [record.label for record in used.records]
    numbers = np.zeros(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few members of a class: checked above, by our own rule
        if by == "image":
            splits = StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels)
        else:
            # Not its `shuffle`, which in some versions spoils the shares: groups get random names instead, and it
            # takes those of equal counts in the order of their names.
            names, groups = np.unique([record.group for record in used.records], return_inverse=True)
            shuffled = np.random.default_rng(seed).permutation(len(names))[groups]
            splits = StratifiedGroupKFold(count).split(labels, labels, shuffled)
        for number, (_, rows) in enumerate(splits, start=1):
            numbers[rows] = number
    return numbers


def _from_column(used: Manifest, column: str, folds: int | None) -> tuple[np.ndarray, list[str]]:
    found = [record.extra.get(column, "") for record in used.records]
    if not any(found):
        columns = sorted({name for record in used.records for name in record.extra})
        having = f"the further columns {show_names(columns)}" if columns else "no further column"
        raise CustomCNNError(
            f"Folds are made by image, by group, or by a column of manifest.csv. Received: --by {show(column)}; "
            f"{show(used.root)} has {having}."
        )
    if not all(found):
        raise CustomCNNError(
            f"A column of folds has a value for every image. Received: {show(column)}, empty for "
            f"{sum(not value for value in found):,} of {len(found):,}. Use --by image or --by group."
        )
    values = sorted(set(found), key=_natural)
    if len(values) < 2 or folds not in (None, len(values)):
        wanted = "" if folds is None else f" and --folds {folds}"
        raise CustomCNNError(
            f"A column of folds has two values at least, and --folds is how many it has. Received: {show(column)} with "
            f"{len(values)}{wanted}. Leave --folds out, or use --by image or --by group."
        )
    numbers = {value: number for number, value in enumerate(values, start=1)}
    return np.array([numbers[value] for value in found]), values


def _natural(text: str) -> list[Any]:
    # fold_10 comes after fold_2; text and numbers take turns, so that like meets like.
    return [int(piece) if i % 2 else piece for i, piece in enumerate(re.split(r"(\d+)", text))]
