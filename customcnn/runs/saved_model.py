"""What a saved network carries beside its weights, and how it is written and loaded."""

import errno
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.backend import devices
from customcnn.backend.randomness import kept_generators
from customcnn.errors import CustomCNNError, is_out_of_memory, show
from customcnn.metrics.conformal import METHODS, Conformal
from customcnn.metrics.out_of_distribution import Novelty
from customcnn.runs.temperature import without_temperature

if TYPE_CHECKING:
    import keras


INFO = "customcnn.json"
"""The entry of a .keras archive that holds a `ModelInfo`; Keras itself ignores it."""

MAX_EXPANSION = 4
"""How many times its size a .keras file may unpack to: Keras stores weights uncompressed, and they hardly compress."""

SMALL = 16_000_000
"""Bytes up to which it may unpack anyway: the configuration of a large network compresses well."""

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of the folder that Keras unpacks to, not of the file that it reads."""


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
        sides: the shortest and the longest side of the training images in pixels, before they were resized to the input
            size; None where that is not known.
    """

    model: str
    classes: list[str]
    input_size: tuple[int, int]
    positive: str
    drawn: bool = False
    epoch: int = 0
    history: Sequence[Mapping[str, float]] = ()
    calibration: Mapping[str, Any] | None = None
    sides: tuple[int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, ready for JSON; `calibration` and `sides` only where there are any."""
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
            _require_plain_sizes(archive, path)
            values = json.loads(archive.read(INFO))
        pairs = {key: tuple(values[key]) for key in ("input_size", "sides") if key in values}
        info = ModelInfo(**{**values, **pairs})
        _require_types(info)
        return info
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive raises BadZipFile, zlib.error, EOFError, NotImplementedError ...
        raise CustomCNNError(
            "A saved network is a .keras file written by customcnn. "
            f"Received: {show(path)} ({_first_line(error)}). {_way_out(error)}"
        ) from None


def _require_plain_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse an archive that declares to unpack to far more than it is, before anything is unpacked."""
    size = sum(entry.file_size for entry in archive.infolist())
    if size > max(SMALL, MAX_EXPANSION * path.stat().st_size):
        raise ValueError(f"it would unpack to {size:,} bytes, more than {MAX_EXPANSION} times its size")


def _require_types(info: ModelInfo) -> None:
    """Refuse what `save_model` never writes: JSON that another program changed.

    Raises:
        ValueError: names the first attribute that is wrong.
    """
    classes, size, calibration = info.classes, info.input_size, info.calibration
    texts = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    rules = {
        "model": (isinstance(info.model, str), "a name"),
        "classes": (
            texts and len(set(classes)) == len(classes) != 1,
            "a list of two or more different names, or of none",
        ),
        "input_size": (len(size) == 2 and all(_is_count(n) and n > 0 for n in size), "height and width in pixels"),
        "positive": (info.positive == "" or (texts and info.positive in classes), 'one of the classes, or ""'),
        "drawn": (isinstance(info.drawn, bool), "true or false"),
        "epoch": (_is_count(info.epoch), "a whole number"),
        "history": (_is_table(info.history), "a list of rows of numbers"),
        "calibration": (calibration is None or _is_calibration(calibration), "what customcnn calibrate writes"),
        "sides": (
            info.sides is None or (len(info.sides) == 2 and all(_is_count(n) and n > 0 for n in info.sides)),
            "two numbers of pixels",
        ),
    }
    for key, (fine, rule) in rules.items():
        if not fine:
            raise ValueError(f"{key} in its {INFO} must be {rule}, not {json.dumps(getattr(info, key))[:80]}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_table(rows: object) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(value, Real) for value in row.values()) for row in rows
    )


def _is_calibration(values: object) -> bool:
    if not isinstance(values, dict):
        return False
    try:
        sets = Conformal.from_dict(values["sets"]) if values.get("sets") else None
        if values.get("novelty"):
            Novelty.from_dict(values["novelty"])
    except (TypeError, ValueError, KeyError):
        return False
    numbers = [values.get("temperature", 1.0), *([sets.quantile, sets.coverage] if sets else [])]
    return all(isinstance(number, Real) for number in numbers) and (sets is None or sets.method in METHODS)


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


@kept_generators()
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
    except Exception as error:  # as in read_info, and whatever Keras and HDF5 make of damaged contents
        if is_out_of_memory(error) or _lacks_temporary_folder(error):
            raise
        if isinstance(error, OSError) and error.errno in STORAGE:
            raise _no_room(path, error) from None
        raise CustomCNNError(
            f"A saved network is a whole .keras file. Received: {show(path)} ({_first_line(error)}). {_way_out(error)}"
        ) from None
    if whole:
        return without_temperature(model)
    if len(model.outputs) > 1:
        import keras

        model = keras.Model(model.input, model.outputs[0], name=model.name)
    return devices.suited(model)


def _lacks_temporary_folder(error: Exception) -> bool:
    """Tell whether there is no temporary folder that may be written to, where Keras would unpack the weights."""
    return isinstance(error, OSError) and not error.filename and error.errno == errno.ENOENT


def _loaded(path: Path) -> "keras.Model":
    """Load a file under the global precision that it was trained in: Keras scales the loss by that in float16."""
    import keras

    with zipfile.ZipFile(path) as archive:
        _require_plain_sizes(archive, path)
        half = b'"mixed_float16"' in archive.read("config.json")
        info = read_info(path) if INFO in archive.namelist() else None
    policy = keras.config.dtype_policy()
    if half:
        keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.models.load_model(path)
    finally:
        keras.config.set_dtype_policy(policy)
    if info:
        _require_same_shape(info, model)
    return model


def _require_same_shape(info: ModelInfo, model: "keras.Model") -> None:
    """Refuse an input size or a number of classes that is not the network's own; an auto-encoder has no classes."""
    if tuple(model.inputs[0].shape[1:3]) != info.input_size:
        height, width = model.inputs[0].shape[1:3]
        raise ValueError(f"input_size in its {INFO} is {[*info.input_size]}, but the network takes {[height, width]}")
    outputs = model.outputs[0].shape[-1]
    if info.classes and outputs != len(info.classes) and (outputs, len(info.classes)) != (1, 2):
        raise ValueError(f"classes in its {INFO} are {len(info.classes)}, but the network has {outputs} outputs")


def _no_room(path: Path, error: OSError) -> CustomCNNError:
    # Keras unpacks an archive with an entry of its user's.
    return CustomCNNError(
        f"To load a network, Keras needs room for its file in the temporary folder. Received: {show(path)} of "
        f"{path.stat().st_size / 1e6:.1f} MB, and {show(tempfile.gettempdir())} ({error.strerror}). "
        "Free some room there, or set TMPDIR to another folder."
    )


def _way_out(error: Exception) -> str:
    return "Make it readable." if isinstance(error, PermissionError) else "Train it again."


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
