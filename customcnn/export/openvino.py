"""The format openvino: an .xml file with a .bin beside it, for OpenVINO."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

from customcnn.inference.runtimes import KEY
from customcnn.inference.runtimes.openvino import load_openvino

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from customcnn.export import Job


def write(job: Job, target: Path) -> None:
    """Write the files; the metadata are the entry "customcnn" of the rt_info."""
    openvino = load_openvino()
    converted = convert(job.model)
    converted.set_rt_info(json.dumps(job.metadata), [KEY])
    openvino.save_model(converted, target, compress_to_fp16=job.precision == "float16")


def convert(model: keras.Model) -> Any:
    """Return a network in float32 as an openvino.Model that takes uint8 (N, H, W, 3)."""
    openvino = load_openvino()
    from openvino.preprocess import PrePostProcessor

    with warnings.catch_warnings():
        # Keras wonders that OpenVINO's tracer gives the image without its name.
        warnings.filterwarnings("ignore", "The structure of `inputs`", UserWarning)
        around = PrePostProcessor(openvino.convert_model(model))
    around.input().tensor().set_element_type(openvino.Type.u8)
    return around.build()
