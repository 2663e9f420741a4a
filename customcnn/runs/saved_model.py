"""What a saved network carries beside its weights, and how it is written and loaded."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.backend import devices
from customcnn.errors import CustomCNNError, show
from customcnn.runs.temperature import without_temperature

if TYPE_CHECKING:
    import keras


INFO = "customcnn.json"
"""The entry of a .keras archive that holds a `ModelInfo`; Keras itself ignores it."""


@dataclass(frozen=True)
class ModelInfo:
    """What travels inside a saved model beside its weights.

    Attributes:
        model: its name in the table of networks.
        classes: the class names; an image's label is a place in this list. Empty for an auto-encoder.
        input_size: height and width in pixels.
        positive: the positive class of two; "" for more.
        drawn: whether it was trained on drawn cells.
        epoch: how many epochs it was trained.
        history: one row an epoch, up to that one.
        calibration: what `customcnn calibrate` found: temperature, part, images, groups, sets (see
            `customcnn.metrics.conformal.Conformal`) and novelty (see `customcnn.metrics.out_of_distribution.Novelty`);
            None where it has not run.
    """

    model: str
    classes: list[str]
    input_size: tuple[int, int]
    positive: str
    drawn: bool = False
    epoch: int = 0
    history: Sequence[Mapping[str, float]] = ()
    calibration: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, ready for JSON; `calibration` only where there is one."""
        return {key: value for key, value in vars(self).items() if value is not None}


def save_model(model: "keras.Model", info: ModelInfo, path: Path) -> None:
    """Write a .keras file that carries its `ModelInfo`, whole or not at all."""
    beside = path.with_name(f".{path.stem}.partial.keras")
    devices.load_tensorflow()
    try:
        model.save(beside)
        with zipfile.ZipFile(beside, "a") as archive:
            archive.writestr(INFO, json.dumps(info.as_dict()))
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def read_info(path: Path) -> ModelInfo:
    """Read the `ModelInfo` of a .keras file without loading the model.

    Raises:
        CustomCNNError: the file is missing, damaged, or was not saved by customcnn.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            values = json.loads(archive.read(INFO))
        return ModelInfo(**{**values, "input_size": tuple(values["input_size"])})
    except Exception as error:  # a damaged archive raises BadZipFile, zlib.error, EOFError, NotImplementedError ...
        raise CustomCNNError(
            "A saved network is a .keras file written by customcnn. "
            f"Received: {show(path)} ({_first_line(error)}). Train it again."
        ) from None


def read_classifier(path: Path) -> ModelInfo:
    """Read the `ModelInfo` of a network that gives images a class.

    Raises:
        CustomCNNError: as by `read_info`; or it is an auto-encoder, from `customcnn pretrain`.
    """
    info = read_info(path)
    if not info.classes:
        raise CustomCNNError(
            f"A trained classifier is needed. Received: {show(path)}, an auto-encoder. "
            "Train a classifier from it: customcnn train --weights RUN."
        )
    return info


def load_model(path: Path, *, whole: bool = False) -> "keras.Model":
    """Load a .keras file, in a precision that this machine has (see `devices.suited`).

    Args:
        path: of the file.
        whole: as the training had it: with the outputs that only the training has (GoogLeNet's auxiliary classifiers),
            in its own precision, and without the temperature of `customcnn calibrate`.

    Raises:
        CustomCNNError: the file is missing or damaged.
    """
    try:
        model = _loaded(path)
    except MemoryError:
        raise
    except Exception as error:  # as in read_info, and whatever Keras and HDF5 make of damaged contents
        raise CustomCNNError(
            f"A saved network is a whole .keras file. Received: {show(path)} ({_first_line(error)}). Train it again."
        ) from None
    if whole:
        return without_temperature(model)
    if len(model.outputs) > 1:
        import keras

        model = keras.Model(model.input, model.outputs[0], name=model.name)
    return devices.suited(model)


def _loaded(path: Path) -> "keras.Model":
    """Load a file under the global precision that it was trained in: Keras scales the loss by that in float16."""
    import keras

    with zipfile.ZipFile(path) as archive:
        half = b'"mixed_float16"' in archive.read("config.json")
    policy = keras.config.dtype_policy()
    if half:
        keras.config.set_dtype_policy("mixed_float16")
    try:
        return keras.models.load_model(path)
    finally:
        keras.config.set_dtype_policy(policy)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
