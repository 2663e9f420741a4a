"""What the tests of exports share: runs of networks with random weights, and images."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn.export import FORMATS
from customcnn.images.decode import decode
from customcnn.inference.classifier import predict
from customcnn.inference.runtimes import BATCH, NAMES
from customcnn.models import build_model, get_spec
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, save_model

SIZE = get_spec("small").minimum_size
IMAGES = 2 * BATCH + 3  # two full batches and a rest


def formats(precision: str = "float32", *, runtimes: bool = False) -> list[pytest.ParameterSet]:
    """Return the names of the formats that are written in a precision, as test parameters; `runtimes`: of these."""
    return [
        pytest.param(
            row.name,
            marks=pytest.mark.skipif(
                any(importlib.util.find_spec(package) is None for package in row.packages),
                reason=f"needs {', '.join(row.packages)}",
            ),
        )
        for row in FORMATS
        if precision in row.precisions and (row.name in NAMES or not runtimes)
    ]


def make_run(path: Path, name: str = "small", classes: int = 2, seed: int = 1, policy: str = "float32") -> RunDir:
    """Make a run of a network with random weights: export reads its best.keras only."""
    import keras

    run = RunDir(path)
    path.mkdir(exist_ok=True)
    run.recipe.write_text("")
    size = get_spec(name).minimum_size
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(policy)
    try:
        model = build_model(name, classes=classes, input_size=size)
    finally:
        keras.config.set_dtype_policy("float32")
    labels = [f"c{number}" for number in range(classes)]
    save_model(model, ModelInfo(name, labels, (size, size), labels[1] if classes == 2 else "", drawn=True), run.best)
    return run


def make_images(folder: Path, size: int = SIZE, count: int = IMAGES) -> Path:
    """Write noise of several brightnesses."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for number in range(count):
        pixels = rng.integers(0, 20 + 6 * number, (size, size + 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def pixels_of(folder: Path, size: int = SIZE) -> np.ndarray:
    """Return a folder's images as a network takes them, uint8 (N, size, size, 3)."""
    return np.stack([decode(path, (size, size)) for path in sorted(folder.iterdir())])


def shares(run: RunDir, images: Path, name: str, **options: object) -> np.ndarray:
    """Return the probabilities that a runtime gives, (N, classes)."""
    found = predict(run, [images], runtime=name, **options)
    assert [Path(one.file).name for one in found] == sorted(path.name for path in images.iterdir())
    return np.array([list(one.probabilities.values()) for one in found])
