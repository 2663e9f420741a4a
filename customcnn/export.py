"""A trained network in OpenVINO's format, for inference without Keras. customcnn.runtime reads what is written here."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from customcnn import devices
from customcnn.errors import CustomCNNError, show
from customcnn.runs import RunDir, load_model, read_classifier
from customcnn.runtime import KEY, digest, export_path, is_installed

if TYPE_CHECKING:
    from pathlib import Path

    import keras

FORMATS = ("openvino",)


def export(run: RunDir, *, format: str = "openvino", weights: str = "best") -> Path:
    """Write a run's network in another format beside its .keras file; an older export is replaced.

    It takes raw pixels, uint8 (N, H, W, 3), RGB, for any N, and gives what the Keras network gives, float32
    (N, classes) or (N, 1). The weights stay float32. Classes, input size, positive class, model name, epoch,
    the drawn flag, the calibration and the SHA-256 of the .keras file are in its rt_info "customcnn", as JSON.

    Args:
        run: a trained run.
        format: "openvino".
        weights: "best" or "last".

    Returns:
        The .xml file; the weights are in the .bin beside it.

    Raises:
        CustomCNNError: no trained network, another format, OpenVINO is not installed, or Keras is not on TensorFlow.
    """
    if format not in FORMATS:
        raise CustomCNNError(f"--format is one of {', '.join(FORMATS)}. Received: {show(format)}. Choose one of them.")
    path = run.weights(weights)
    info = read_classifier(path)
    if not is_installed():
        raise CustomCNNError(
            "The format openvino needs OpenVINO. Received: it is not installed. "
            "Install it: pip install 'customcnn[openvino]'."
        )
    devices.configure("cpu")
    if devices.backend() != "tensorflow":
        raise CustomCNNError(
            f"An export is made with Keras on TensorFlow. Received: KERAS_BACKEND={devices.backend()}. "
            "Set it to tensorflow: any backend's network can be exported so."
        )
    metadata = {key: value for key, value in info.as_dict().items() if key != "history"} | {"sha256": digest(path)}
    converted = convert(load_model(path))
    converted.set_rt_info(json.dumps(metadata), [KEY])
    target = export_path(path)
    _save(converted, target)
    return target


def convert(model: keras.Model) -> Any:
    """Return the network as an openvino.Model that takes uint8 (N, H, W, 3) and computes in float32.

    Args:
        model: of this package, with one output; its layers are set to float32 in place.
    """
    import openvino
    from openvino.preprocess import PrePostProcessor

    # The rounding of a half-precision training is no part of the network: OpenVINO chooses its own precision.
    for layer in _layers(model):
        layer.dtype_policy = "float32"
    with warnings.catch_warnings():
        # Keras wonders that OpenVINO's tracer gives the image without its name.
        warnings.filterwarnings("ignore", "The structure of `inputs`", UserWarning)
        around = PrePostProcessor(openvino.convert_model(model))
    around.input().tensor().set_element_type(openvino.Type.u8)
    return around.build()


def _layers(model: keras.Model) -> list[Any]:
    found: list[Any] = []
    for layer in model.layers:
        found += [layer, *(_layers(layer) if hasattr(layer, "layers") else ())]
    return found


def _save(converted: Any, target: Path) -> None:
    import openvino

    beside = target.with_name(f".{target.stem}.partial.xml")
    try:
        # Weights in float16 alone move a probability by up to .008, and are no faster to compute with.
        openvino.save_model(converted, beside, compress_to_fp16=False)
        # Without its .xml a .bin is no export: a kill between these lines leaves none, never one of two halves.
        target.unlink(missing_ok=True)
        beside.with_suffix(".bin").replace(target.with_suffix(".bin"))
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
            beside.with_suffix(".bin").unlink(missing_ok=True)
        raise
