"""A trained network behind a web page and a small web API: in one process, on this machine, keeping no image."""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from customcnn.errors import CustomCNNError
from customcnn.runs.run_dir import RunDir
from customcnn.serve.limits import Limits

HOST, PORT = "127.0.0.1", 7860

Say = Callable[[str], object]

NEEDS = ("fastapi", "uvicorn", "python_multipart", "gradio")

SILENT: Mapping[str, str] = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""What keeps Gradio and the libraries that it loads from calling anyone. It is read while they are imported."""

DEVELOPERS = ("GRADIO_WATCH_DIRS", "GRADIO_VIBE_MODE", "GRADIO_PROFILING")
"""Switches of Gradio that would let a visitor read or change more than the page."""


def serve(
    run: RunDir,
    *,
    host: str = HOST,
    port: int = PORT,
    weights: str = "best",
    runtime: str = "auto",
    device: str = "auto",
    limits: Limits | None = None,
    examples: Path | None = None,
    page: bool = True,
    say: Say = print,
) -> None:
    """Serve a run until Ctrl-C: the page at /, POST /predict, GET /healthz, /report and /docs.

    Args:
        run: a trained run.
        host: the address to listen at; others than this machine's own let others in.
        port: 0 for any that is free.
        weights: "best" or "last".
        runtime: "auto", "keras", "openvino", "onnx" or "litert", as in `customcnn.inference.classifier.Classifier`.
        device: "auto", "cpu" or "gpu".
        limits: what is refused; None for `Limits.of(host)`.
        examples: a folder of example images for the page; None for drawn cells where the run was trained on such.
        page: whether there is the page.
        say: receives where it serves, the warnings, and one line a request, without the names of images.

    Raises:
        CustomCNNError: the extra `serve` is not installed, the address cannot be used, or as by `Classifier`.
        KeyboardInterrupt: Ctrl-C, when all is put away.
    """
    _require_packages()
    from customcnn.serve.listener import listen

    with listen(host, port) as listener, quiet_environment():
        from customcnn.inference.classifier import Classifier
        from customcnn.serve.server import run_server

        classifier = Classifier(run, weights=weights, runtime=runtime, device=device, say=say)
        run_server(classifier, limits or Limits.of(host), listener, host, examples=examples, page=page, say=say)


@contextmanager
def quiet_environment() -> Iterator[Path]:
    """Set what Gradio reads while it is imported, and yield its temporary folder, which goes away at the end."""
    # Nothing is to be written there: see `customcnn.serve.upload_store`. Should Gradio do so all the same, it does not
    # stay.
    with tempfile.TemporaryDirectory(prefix="customcnn-serve-") as folder:
        wanted: dict[str, str | None] = {**SILENT, "GRADIO_TEMP_DIR": folder, **dict.fromkeys(DEVELOPERS)}
        old = {name: os.environ.get(name) for name in wanted}
        _set(wanted)
        try:
            yield Path(folder)
        finally:
            _set(old)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _require_packages() -> None:
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise CustomCNNError(
            f"Serving needs Gradio and what it brings. Received: {', '.join(missing)} not installed. "
            "Install it: pip install 'customcnn[serve]'."
        )
