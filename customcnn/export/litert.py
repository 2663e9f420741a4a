"""The format litert: one .tflite file for LiteRT, which was TensorFlow Lite, on telephones and small computers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from customcnn.export.tf_function import serving
from customcnn.inference.runtimes.litert import INFO
from customcnn.io.stdio import silent_stderr
from customcnn.runs.temperature import SCALE, without_temperature

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from customcnn.export import Job

LABELS = "labels.txt"
"""The entry with a class name a line: where apps for TensorFlow Lite look for them."""


def write(job: Job, target: Path) -> None:
    """Write the file; a ZIP archive behind the network holds the metadata and the class names."""
    with silent_stderr():
        target.write_bytes(_converter(job).convert())
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(INFO, json.dumps(job.metadata))
        archive.writestr(LABELS, "\n".join(job.info.classes) + "\n")


def _converter(job: Job) -> Any:
    import tensorflow as tf

    model, last = logits_first(job.model) if job.precision == "int8" else (job.model, lambda x: x)
    function = serving(model, last)
    # Not with the network as the object to track: its weights would be left out, and read as nothing.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    if job.precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    if job.precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _one_by_one(job)
    return converter


def _one_by_one(job: Job) -> Iterator[list[Any]]:
    for image in job.images:
        yield [image[None]]


def logits_first(model: keras.Model) -> tuple[keras.Model, Callable[[Any], Any]]:
    """Return a network that ends with its logits, and what makes calibrated probabilities of them.

    LiteRT computes all in eight bits. A temperature behind the softmax would take the logarithm of probabilities that
    were rounded to 1/256; before it, it changes a scale.

    Args:
        model: its last layer is changed in place. That of an ensemble has no logits, and stays; so do calibrated
            sigmoids of several classes, whose shares a temperature changes.
    """
    import keras

    base = without_temperature(model)
    end = base.get_layer("predictions")
    calibrated = base is not model
    if not isinstance(end, keras.layers.Dense) or (calibrated and end.units > 1 and _is_sigmoid(end)):
        return model, lambda x: x
    activation, end.activation = end.activation, keras.activations.linear
    scale = model.get_layer(SCALE).scale if calibrated else 1.0
    return base, lambda x: activation(x * scale)


def _is_sigmoid(layer: keras.layers.Dense) -> bool:
    import keras

    return layer.activation is keras.activations.sigmoid
