"""The wrong answers that a network was surest of, with what it saw in them."""

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from customcnn.backend import devices
from customcnn.errors import CustomCNNError
from customcnn.explain.gradcam import GradCam, overlay
from customcnn.images.decode import BadImage, decode, resize
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_classifier

SHOWN = 320  # pixels of the longer side of a picture in the page
SMALLEST = 160  # a smaller picture is enlarged to it, by whole pixels


@dataclass(frozen=True)
class Mistake:
    """One image with a wrong answer: its row of predictions.csv.

    Attributes:
        path: relative to the data's folder.
        label, predicted: class names, not equal.
        probability: of the predicted class, 0..1.
        group: "" if unknown.
    """

    path: str
    label: str
    predicted: str
    probability: float
    group: str = ""


@dataclass(frozen=True)
class Pictures:
    """JPEG files of one image: as it is, and under its Grad-CAM; None for a network without feature maps."""

    image: bytes
    overlay: bytes | None


def worst(predictions: Sequence[Mapping[str, str]], count: int) -> list[Mistake]:
    """Return the mistakes with the most probable wrong answers, the surest first; ties by path.

    Args:
        predictions: rows of predictions.csv.
        count: how many at most.
    """
    found = [
        Mistake(row["path"], row["label"], row["predicted"], _probability(row), row.get("group", ""))
        for row in predictions
        if row["label"] != row["predicted"]
    ]
    return sorted(found, key=lambda mistake: (-mistake.probability, mistake.path))[:count]


def _probability(row: Mapping[str, str]) -> float:
    try:
        return float(row[f"probability_{row['predicted']}"])
    except (KeyError, ValueError):
        return float("nan")


def picture_all(
    run: RunDir, mistakes: Sequence[Mistake], root: Path, *, weights: str = "best", device: str = "auto"
) -> dict[str, Pictures]:
    """Return the pictures of the mistakes whose files are there, by path.

    Args:
        run: a trained run.
        mistakes: from `worst`.
        root: the folder that their paths are relative to.
        weights: "best" or "last", those that made the mistakes.
        device: "auto", "cpu" or "gpu".

    Raises:
        CustomCNNError: the network is damaged.
    """
    there = [mistake for mistake in mistakes if _inside(mistake.path) and (root / mistake.path).is_file()]
    if not there:
        return {}
    path = run.weights(weights)
    info = read_classifier(path)
    devices.configure(device)
    model = load_model(path)
    explain: GradCam | None = None
    with suppress(CustomCNNError):  # a network without feature maps
        explain = GradCam(model)
    found: dict[str, Pictures] = {}
    for mistake in there:
        try:
            original, seen = (decode(root / mistake.path, size) for size in (None, info.input_size))
        except BadImage:
            continue
        shown = _shown(original)
        laid = None
        if explain and mistake.predicted in info.classes:
            laid = overlay(shown, explain(seen, info.classes.index(mistake.predicted)))
        found[mistake.path] = Pictures(_jpeg(shown), None if laid is None else _jpeg(laid))
    return found


def _inside(path: str) -> bool:
    """Tell whether a path stays in its folder: a run from elsewhere must not put other pictures on the page."""
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts


def _shown(pixels: np.ndarray) -> np.ndarray:
    """Return an image at a size to look at; its shape is kept."""
    height, width, _ = pixels.shape
    larger = max(height, width)
    if larger < SMALLEST:
        factor = -(-SMALLEST // larger)
        return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    share = min(1.0, SHOWN / larger)
    size = (max(1, round(height * share)), max(1, round(width * share)))
    return np.asarray(resize(Image.fromarray(pixels), size))


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=90, subsampling=0)
    return buffer.getvalue()
