"""What an export says beside what Keras says, on images of the training where they still are."""

from __future__ import annotations

import json
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from customcnn.errors import CustomCNNError, show
from customcnn.images.decode import resize
from customcnn.images.readers import reader
from customcnn.inference.runtimes import BATCH, open_file
from customcnn.metrics.scores import two_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras

    from customcnn.data.manifest import Manifest
    from customcnn.export import Format
    from customcnn.runs.run_dir import RunDir

IMAGES = 128
"""So many images are read at most; every fourth is checked with, and the others are measured."""

DRAWN = 16
"""So many cells are drawn where there is no image."""


TIE = 0.002
"""Probabilities so near to each other may change places in any export: float32 may move each by .001."""


@dataclass(frozen=True)
class Pictures:
    """Images at the input size, uint8 (N, H, W, 3).

    Attributes:
        checked: to compare with Keras.
        measured: for the ranges of int8: others.
        real: whether they are images of the data, not drawn cells.
    """

    checked: np.ndarray
    measured: np.ndarray
    real: bool


@dataclass(frozen=True)
class Compared:
    """How an export differs from Keras.

    Attributes:
        difference: the largest of a probability; NaN where the export gives no number.
        same: how many images have the same class.
        others: how many have another class, though to Keras its two largest probabilities are more than TIE apart.
    """

    difference: float
    same: int
    others: int


def pictures(run: RunDir, size: tuple[int, int], data: Manifest | None, *, needed: bool) -> Pictures:
    """Read images of the training part, or of everything where nothing is split, evenly over the classes.

    Args:
        run: its manifest and its environment.json say what it was trained on, and where that was.
        size: height and width in pixels.
        data: where to take them from instead; None for the run's.
        needed: refuse to draw cells where there are no images.

    Raises:
        CustomCNNError: there are no images, and they are needed; or a file is no image.
    """
    paths = _paths(data) if data else _of_training(run)
    if not paths and needed:
        raise CustomCNNError(
            "int8 measures the range of values on images of the training. "
            f"Received: {show(run.path)}, whose images are not where they were. Give a folder of such images by --data."
        )
    if not paths:
        drawn = _drawn(size)
        return Pictures(drawn, drawn[:0], real=False)
    read = reader(len(paths))
    pixels = np.stack([read(path, size)[0] for path in paths])
    every = np.arange(len(pixels)) % 4 == 0
    # A folder of one image has none to spare.
    return Pictures(pixels[every], pixels[~every] if len(pixels) > 1 else pixels, real=True)


def _paths(data: Manifest) -> list[Path]:
    part = data.part("train") if "train" in data.parts else data
    places = np.linspace(0, len(part.records) - 1, min(IMAGES, len(part.records))).round().astype(int)
    return [data.root / part.records[place].path for place in places]


def _of_training(run: RunDir) -> list[Path]:
    from dataclasses import replace

    try:
        root = json.loads(run.environment.read_text())["data"]
        paths = _paths(replace(run.read_manifest(), root=Path(root)))
    except (OSError, ValueError, KeyError, CustomCNNError):  # an ensemble has no folder, a copied run may have no file
        return []
    return paths if all(path.is_file() for path in paths) else []


def _drawn(size: tuple[int, int]) -> np.ndarray:
    from customcnn.data.synthetic import LABELS, Stain, draw_cell

    cells = []
    for number in range(DRAWN):
        label = LABELS[number % len(LABELS)]
        cell = draw_cell(label, np.random.default_rng(number), Stain.of(0, label, str(number // 4)), 128)
        cells.append(np.asarray(resize(Image.fromarray(cell), size)))
    return np.stack(cells)


def expected(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the probabilities that Keras gives, float64 (N, classes)."""
    return two_columns(np.concatenate([np.asarray(model.predict_on_batch(batch)) for batch in _batches(images)]))


def compare(row: Format, path: Path, images: np.ndarray, truth: np.ndarray) -> Compared:
    """Open an export in the program that it is for, and compare its probabilities.

    Args:
        row: its format.
        path: of the file, or the folder.
        images: uint8 (N, H, W, 3) at the input size.
        truth: float64 (N, classes), see `expected`.
    """
    from customcnn.export import is_runtime

    if is_runtime(row):
        network = open_file(path, row.name).compile(len(images))
    else:
        network = pkgutil.resolve_name(f"{row.module}:opened")(path)
    found = two_columns(np.concatenate(list(network(_batches(images)))))
    same = found.argmax(axis=1) == truth.argmax(axis=1)
    second, first = np.sort(truth, axis=1)[:, -2:].T
    others = ~same & (first - second > TIE)
    return Compared(float(np.abs(found - truth).max()), int(same.sum()), int(others.sum()))


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))
