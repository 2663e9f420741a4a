"""Weights to begin with: layers taken over from another run, by name and shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from customcnn.errors import CustomCNNError, show
from customcnn.io.atomic import sha256
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_info

if TYPE_CHECKING:
    import keras

WORDS = ("none", "imagenet")


@dataclass(frozen=True)
class TakenOver:
    """What came of `take_over`.

    Attributes:
        path: the file.
        sha256: of its bytes.
        drawn: whether its network was trained on drawn cells.
        taken: names of the layers whose weights were taken over.
        left: names of the other layers with weights: they begin at random.
    """

    path: Path
    sha256: str
    drawn: bool
    taken: list[str]
    left: list[str]

    def __str__(self) -> str:
        left = f"; new: {', '.join(self.left)}" if self.left else ""
        return f"Weights: {len(self.taken)} layers from {self.path}{left}."


def run_weights(weights: str) -> Path | None:
    """Return the .keras file that the recipe's `weights` name; None where they are no run's.

    Raises:
        CustomCNNError: the path does not exist, or is a folder that is no trained run.
    """
    if weights in WORDS or weights.endswith(".h5"):
        return None
    path = Path(weights)
    if path.is_dir():
        return RunDir(path).weights("best")
    if not path.is_file():
        raise CustomCNNError(
            f"weights are none, imagenet, a run, or a file of weights. Received: {show(weights)}, which does not "
            "exist. Check its name."
        )
    return path


def take_over(model: keras.Model, path: Path, classes: list[str]) -> TakenOver:
    """Copy the weights of every layer that a saved network has too, by name and shapes.

    The layer `predictions` is taken over only where the saved network knows the same classes.

    Args:
        model: the new network; changed in place.
        path: a .keras file.
        classes: what the new network tells apart.

    Raises:
        CustomCNNError: the file is damaged, or no layer fits.
    """
    info = read_info(path)
    saved = {layer.name: layer for layer in load_model(path, whole=True).layers}
    taken, left = [], []
    for layer in model.layers:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if not shapes:
            continue
        other = saved.get(layer.name)
        known = layer.name != "predictions" or info.classes == classes
        if known and other is not None and [tuple(weight.shape) for weight in other.weights] == shapes:
            layer.set_weights(other.get_weights())
            taken.append(layer.name)
        else:
            left.append(layer.name)
    if not taken:
        raise CustomCNNError(
            f"Weights are taken over from layers of the same name and shape. Received: {show(path)} of {info.model}, "
            f"which shares none with {model.name}. Give a run of the same network."
        )
    return TakenOver(path, sha256(path.read_bytes()), info.drawn, taken, left)
