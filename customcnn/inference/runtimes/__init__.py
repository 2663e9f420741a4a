"""Exported networks, computed by small libraries: neither Keras nor its backend is loaded. See `customcnn.export`.

A library has a row in RUNTIMES, and a module of this package with a class that is an `Exported`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from customcnn.errors import CustomCNNError, show

if TYPE_CHECKING:
    from pathlib import Path

Network = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]
"""Batches of uint8 (N, H, W, 3) in, their raw outputs (N, classes) or (N, 1) out, in order."""

KEY = "customcnn"
"""Under this name the metadata stand in an export: one text, JSON."""

CHECKSUMS = ".sha256"
"""Ending of the file with an export's checksums, behind the name of the file that is opened: best.onnx.sha256."""

BATCH = 16
"""Images in one request: enough for the kernels' full speed, few enough that decoding and inference overlap."""


@dataclass(frozen=True)
class Runtime:
    """One library that computes exports.

    Attributes:
        name: what `--runtime` takes; also the name of the format, and of the extra that installs the library.
        library: its name, in words.
        package: what is imported of it.
        endings: of an export's files, behind the name of the .keras file; the first is the one that is opened.
        opener: "module:class", an `Exported` of the path of that file.
    """

    name: str
    library: str
    package: str
    endings: tuple[str, ...]
    opener: str


RUNTIMES = (
    Runtime(
        "openvino",
        "OpenVINO",
        "openvino",
        (".openvino.xml", ".openvino.bin"),
        "customcnn.inference.runtimes.openvino:Exported",
    ),
    Runtime("onnx", "ONNX Runtime", "onnxruntime", (".onnx",), "customcnn.inference.runtimes.onnx:Exported"),
    Runtime("litert", "LiteRT", "ai_edge_litert", (".tflite",), "customcnn.inference.runtimes.litert:Exported"),
)

NAMES = tuple(runtime.name for runtime in RUNTIMES)


class Exported(Protocol):
    """An exported network that is read, and ready to be compiled.

    Attributes:
        metadata: what `customcnn.export` wrote: the fields of `ModelInfo` but for the history, `precision`, and
            `sha256` of the .keras file; `calibration` only where there is one.
    """

    metadata: dict[str, Any]

    def compile(self, images: int) -> Network:
        """Return what computes about so many images at a time."""


class StaleExport(CustomCNNError):
    """There is no export that can be used: it is missing, damaged, or of another network."""


def get_runtime(name: str) -> Runtime:
    """Return the row of a runtime.

    Raises:
        KeyError: there is none of this name.
    """
    return {runtime.name: runtime for runtime in RUNTIMES}[name]


def is_installed(name: str = "openvino") -> bool:
    """Tell whether a runtime's library can be imported, without importing it."""
    return importlib.util.find_spec(get_runtime(name).package) is not None


def export_path(network: Path, name: str = "openvino") -> Path:
    """Return where the export of a .keras file lies that a runtime opens, such as best.onnx beside best.keras."""
    return network.with_name(network.stem + get_runtime(name).endings[0])


def digest(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; it is read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_file(path: Path, name: str) -> Exported:
    """Open an export by its file, whatever network it was made from.

    Raises:
        Exception: whatever the library makes of a damaged file.
    """
    opened: Exported = pkgutil.resolve_name(get_runtime(name).opener)(path)
    return opened


def _checksums(export: Path) -> Path:
    return export.with_name(f"{export.name}{CHECKSUMS}")


def write_checksums(export: Path) -> None:
    """Write the SHA-256 of every file of an export beside it, as `sha256sum -c` reads them.

    Args:
        export: its file, or its folder; alone in a folder with what belongs to it.
    """
    folder = export.parent
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    _checksums(export).write_text("".join(lines))


def _require_checksums(export: Path, names: Sequence[str]) -> bool:
    """Compare the files of an export with its checksums; return False where it has none.

    Raises:
        ValueError: a file is not as it was written.
    """
    file = _checksums(export)
    if not file.is_file():
        return False
    pairs = (line.split("  ", 1) for line in file.read_text("utf-8", "replace").splitlines())
    known = {pair[-1]: pair[0] for pair in pairs}
    for name in names:
        if known.get(name) != digest(export.with_name(name)):
            raise ValueError(f"{name} has not the SHA-256 that stands in {file.name}: it has changed since")
    return True


def open_exported(network: Path, name: str, say: Callable[[str], object] = lambda line: None) -> Exported:
    """Open the export of a .keras file, checked against it and against its own checksums.

    Args:
        network: the .keras file.
        name: of the runtime.
        say: receives the note about an export without checksums.

    Raises:
        StaleExport: no export, a damaged one, or one of another network than the file holds now.
        CustomCNNError: the runtime's library is not installed.
    """
    runtime, path = get_runtime(name), export_path(network, name)
    if not is_installed(name):
        raise CustomCNNError(
            f"This export needs {runtime.library}. Received: it is not installed. "
            f"Install it: pip install 'customcnn[{name}]'."
        )
    again = f"Export it again: customcnn export {show(network.parent)} --format {name}."
    names = [f"{network.stem}{ending}" for ending in runtime.endings]
    missing = [part for part in names if not path.with_name(part).is_file()]
    if missing:
        raise StaleExport(
            f"An export for {runtime.library} is {' with '.join(names)}. "
            f"Received: {show(path.with_name(missing[0]))} is missing. {again}"
        )
    try:
        checked = _require_checksums(path, names)
        opened = open_file(path, name)
        made_from = opened.metadata["sha256"]
    except Exception as error:  # each library has its own for all that a damaged file can hold
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise StaleExport(f"An export is whole. Received: {show(path)} ({reason}). {again}") from None
    if made_from != digest(network):
        raise StaleExport(
            f"An export belongs to the network beside it. Received: {show(path)}, "
            f"made from another {network.name}. {again}"
        )
    if not checked:
        say(f"Note: {show(path)} has no {_checksums(path).name}, so damage to it would not be noticed. {again}")
    return opened
