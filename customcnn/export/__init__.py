"""A trained network in the formats of other programs, each checked against Keras.

`customcnn.inference.runtimes` reads some back. A format has a row in FORMATS, and a module of this package with a
function `write`.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from customcnn.errors import CustomCNNError, show
from customcnn.inference.runtimes import CHECKSUMS, NAMES, digest, get_runtime, write_checksums

# The command line reads the table below: whatever is not needed for that is imported by the functions.
if TYPE_CHECKING:
    from pathlib import Path

    import keras
    import numpy as np

    from customcnn.data.manifest import Manifest
    from customcnn.export.verify import Compared
    from customcnn.runs.run_dir import RunDir
    from customcnn.runs.saved_model import ModelInfo

TOLERANCE = {"float32": 0.001, "float16": 0.05, "int8": 0.2}
"""By precision, how far a probability of an export may lie from what Keras says in float32."""

AGREEMENT = {"float32": 1.0, "float16": 0.95, "int8": 0.9}
"""By precision, the least share of the images for which an export must give Keras's class; near ties do not count, see
`customcnn.export.verify.Compared`."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: what `--format` takes; also the name of the extra that installs `packages`.
        title: in words, with the program that opens it.
        endings: of its files, behind the name of the .keras file; the first is the one to open.
        precisions: in which it is written, see `TOLERANCE`.
        packages: what is imported beside Keras and TensorFlow.
        module: has `write(job, target)`, and `opened(path)` where customcnn.inference.runtimes has no module for the
        format.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    module: str


def _endings(name: str) -> tuple[str, ...]:
    return get_runtime(name).endings


FORMATS = (
    Format("keras", "Keras, on any backend", (".export.keras",), ("float32",), (), "customcnn.export.keras"),
    Format(
        "saved-model",
        "TensorFlow and TensorFlow Serving",
        (".saved_model",),
        ("float32",),
        (),
        "customcnn.export.saved_model",
    ),
    Format(
        "onnx",
        "ONNX Runtime",
        _endings("onnx"),
        ("float32", "float16", "int8"),
        ("onnxruntime", "onnx", "tf2onnx"),
        "customcnn.export.onnx",
    ),
    Format(
        "litert",
        "LiteRT (TensorFlow Lite)",
        _endings("litert"),
        ("float32", "float16", "int8"),
        ("ai_edge_litert",),
        "customcnn.export.litert",
    ),
    Format(
        "openvino",
        "OpenVINO",
        _endings("openvino"),
        ("float32", "float16"),
        ("openvino",),
        "customcnn.export.openvino",
    ),
)


@dataclass(frozen=True)
class Job:
    """What a format is written from.

    Attributes:
        model: with one output, every layer in float32; a format may change it.
        info: what the .keras file carries, without the history.
        metadata: the same as a dict, with `precision` and the .keras file's `sha256`.
        precision: "float32", "float16" or "int8".
        images: to measure the range of values by, for int8: uint8 (N, H, W, 3).
    """

    model: keras.Model
    info: ModelInfo
    metadata: Mapping[str, Any]
    precision: str
    images: np.ndarray


@dataclass(frozen=True)
class Written:
    """What `export` made.

    Attributes:
        path: the file, or the folder of a saved-model.
        format, precision: of it.
        size: of all its files together, in bytes.
        images: how many it was checked with; 0 for no check.
        difference: the largest of a probability from Keras in float32; None for no check.
        same: how many images have the class that Keras gives; None for no check.
        tolerance: how large the difference may be.
    """

    path: Path
    format: str
    precision: str
    size: int
    images: int
    difference: float | None
    same: int | None
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes."""
        return dict(vars(self))


def get_format(name: str, precision: str = "float32") -> Format:
    """Return the row of a format.

    Raises:
        CustomCNNError: there is none, it is not written in this precision, or what it needs is not installed.
    """
    by_name = {row.name: row for row in FORMATS}
    if name not in by_name:
        raise CustomCNNError(f"--format is one of {', '.join(by_name)}. Received: {show(name)}. Choose one of them.")
    row = by_name[name]
    if precision not in row.precisions:
        raise CustomCNNError(
            f"The format {name} is written in {' or '.join(row.precisions)}. Received: --precision {precision}. "
            f"Choose one of them, or a format that has it: {', '.join(_formats_in(precision)) or 'there is none'}."
        )
    missing = [package for package in row.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise CustomCNNError(
            f"The format {name} needs {', '.join(row.packages)}. Received: {', '.join(missing)} is not installed. "
            f"Install it: pip install 'customcnn[{name}]'."
        )
    return row


def _formats_in(precision: str) -> list[str]:
    return [row.name for row in FORMATS if precision in row.precisions]


def export(
    run: RunDir,
    *,
    format: str = "openvino",
    precision: str = "float32",
    weights: str = "best",
    data: Manifest | None = None,
    check: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Written:
    """Write a run's network in another format beside its .keras file; an older export of the format is replaced.

    It takes raw pixels, uint8 (N, H, W, 3), RGB, for any N, and gives what the Keras network gives, float32
    (N, classes) or (N, 1). Classes, input size, positive class, model name, epoch, the drawn flag, the calibration and
    the SHA-256 of the .keras file travel with it, as JSON. Before it takes its place it is opened by the program that
    it is for, and its probabilities are compared with those of Keras.

    Args:
        run: a trained run.
        format: a name of FORMATS.
        precision: "float32"; "float16": weights of half the size, computed with in float32; "int8": weights and values
            inside the network in eight bits, whose ranges are measured on images.
        weights: "best" or "last".
        data: labelled images to check and to measure with, from `scan`; None for those of the training, where they
            still are. Without any, the check takes drawn cells.
        check: compare with Keras.
        say: receives the note about drawn cells.

    Raises:
        CustomCNNError: no trained network, another format or precision, something is not installed, Keras is not on
            TensorFlow, no images for int8, an operation that the format lacks, or a difference above the tolerance.
    """
    from customcnn.export.staging import publish, size_of, staged
    from customcnn.export.tf_function import plain_operations
    from customcnn.export.verify import compare, expected, pictures
    from customcnn.runs.saved_model import read_classifier

    row = get_format(format, precision)
    path = run.weights(weights)
    info = read_classifier(path)
    images = pictures(run, info.input_size, data, needed=precision == "int8")
    job = _job(path, info, precision, images.measured)
    target = path.with_name(path.stem + row.endings[0])
    truth = expected(job.model, images.checked) if check else None
    found: Compared | None = None
    if is_runtime(row):
        plain_operations(job.model)  # Keras has answered: this is for the converters
    with staged(target) as folder:
        _write(row, job, folder / target.name)
        if truth is not None:
            if not images.real:
                say("Note: checked on drawn cells, for the images of the training are not there. Give --data.")
            found = compare(row, folder / target.name, images.checked, truth)
            _require_near(row, precision, found, len(truth))
        size = size_of(folder)
        write_checksums(folder / target.name)
        publish(folder, target, (*row.endings, row.endings[0] + CHECKSUMS))
    return Written(
        target,
        format,
        precision,
        size,
        images=0 if truth is None else len(truth),
        difference=found.difference if found else None,
        same=found.same if found else None,
        tolerance=TOLERANCE[precision],
    )


def _job(path: Path, info: ModelInfo, precision: str, images: np.ndarray) -> Job:
    from dataclasses import replace

    from customcnn.backend import devices
    from customcnn.export.tf_function import in_float32
    from customcnn.runs.saved_model import load_model

    devices.configure("cpu")
    if devices.backend() != "tensorflow":
        raise CustomCNNError(
            f"An export is made with Keras on TensorFlow. Received: KERAS_BACKEND={devices.backend()}. "
            "Set it to tensorflow: any backend's network can be exported so."
        )
    info = replace(info, history=())
    metadata = {key: value for key, value in info.as_dict().items() if key != "history"}
    metadata |= {"precision": precision, "sha256": digest(path)}
    return Job(in_float32(load_model(path)), info, metadata, precision, images)


def _write(row: Format, job: Job, target: Path) -> None:
    try:
        pkgutil.resolve_name(f"{row.module}:write")(job, target)
    except (CustomCNNError, OSError, MemoryError):
        raise
    except Exception as error:  # the converters have their own for what a format cannot hold
        reason = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())[:400]
        raise CustomCNNError(
            f"A network has a format's operations only. Received: {job.info.model}, which could not be written as "
            f"{row.name} in {job.precision} ({type(error).__name__}: {reason}). Choose another --format."
        ) from error


def _require_near(row: Format, precision: str, found: Compared, images: int) -> None:
    others = "--no-check" if precision == "float32" else "--precision float32 or --no-check"
    # Written so that no number at all is refused, too.
    if not found.difference <= TOLERANCE[precision]:
        raise CustomCNNError(
            f"An export in {precision} says what Keras says, to {TOLERANCE[precision]}. Received: {row.name}, where a "
            f"probability of {images} images differs by {found.difference:.2g}. Nothing was written. Use {others}."
        )
    if found.others > (1 - AGREEMENT[precision]) * images:
        raise CustomCNNError(
            f"An export in {precision} gives Keras's class for {AGREEMENT[precision]:.0%} of the images or more. "
            f"Received: {row.name}, with another class for {found.others} of {images}. Nothing was written. "
            f"Use {others}."
        )


def is_runtime(row: Format) -> bool:
    """Tell whether `customcnn predict --runtime` opens the format."""
    return row.name in NAMES
