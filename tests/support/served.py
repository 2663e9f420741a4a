"""What the tests of the server share: a run with a network of random weights, and a client that can misbehave."""

import http.client
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from customcnn.data.synthetic import LABELS, Stain, draw_cell
from customcnn.inference.classifier import Classifier
from customcnn.metrics.conformal import Conformal
from customcnn.metrics.out_of_distribution import fit_novelty
from customcnn.recipe.recipe import load_recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, save_model
from customcnn.serve.limits import Limits
from tests.support.colors import SIZE

BOUNDARY = "a-boundary-7d8f"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"

Files = list[tuple[str, bytes]]

NOISE = 1e-6
"""Of a probability in float32: the same image in batches of other sizes is summed up in another order."""

SMALL = Limits(max_size=200_000, max_files=5)


def cell(number: int, size: int = 120) -> np.ndarray:
    """Draw one cell, uint8 (size, size, 3)."""
    label = LABELS[number % 2]
    return draw_cell(label, np.random.default_rng((5, number)), Stain.of(5, label, f"s{number % 5}"), size)


def png(pixels: np.ndarray) -> bytes:
    """Encode pixels as a PNG file."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


GOOD = png(cell(1))


def image_files(folder: Path) -> dict[str, Path]:
    """Write twenty files of several formats; return them by name."""
    found = {}
    for number in range(20):
        path = folder / f"cell {number}.{('png', 'jpg', 'bmp', 'tif', 'webp')[number % 5]}"
        Image.fromarray(cell(number, 90 + number)).convert(("RGB", "L")[number == 7]).save(path)
        found[path.name] = path
    return found


def bomb(edge: int = 100_000) -> bytes:
    """Return a PNG of a few bytes that would be `edge` by `edge` pixels."""
    parts = (b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 999))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*parts, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def saved_run(home: Path, *, calibrated: bool = True) -> RunDir:
    """Save a network of random weights as if it had been trained on drawn cells.

    Calibrated, it is sure of about half of `cell(0)` to `cell(29)`, and knows how they look.
    """
    import keras

    from customcnn.models import build_model

    run = RunDir(home)
    run.path.mkdir(parents=True)
    run.recipe.write_text(load_recipe(None, {"model": "small", "input_size": SIZE}).to_toml())
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy("float32")
    model = build_model("small", classes=2, input_size=SIZE)
    info = ModelInfo("small", list(LABELS), (SIZE, SIZE), LABELS[0], drawn=True, epoch=1)
    save_model(model, info, run.best)
    if not calibrated:
        return run
    known = Classifier(run, runtime="keras")
    pixels = np.stack([known.pixels(cell(number)) for number in range(30)])
    least = float(np.median(known.probabilities(pixels).min(axis=1)))
    found = {
        "sets": Conformal("lac", 0.9, 1 - least, "image", 30, None).as_dict(),
        "novelty": fit_novelty(pixels).as_dict(),
    }
    save_model(model, ModelInfo(**{**vars(info), "calibration": found}), run.best)
    return run


def multipart(files: Files, field: str = "file", *, end: bool = True) -> bytes:
    """Return a body with files, under whatever names, even ones that no file can have."""
    body = b""
    for name, data in files:
        head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{field}"; filename="'.encode()
        body += head + name.encode("utf-8", "surrogateescape") + b'"\r\n\r\n' + data + b"\r\n"
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Asks a server at a port of this machine."""

    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked=not isinstance(body, bytes))
            found = connection.getresponse()
            return Reply(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """Ask for an address."""
        return self.ask("GET", path, None, headers)

    def predict(self, files: Files, **headers: str) -> Reply:
        """Send images."""
        return self.ask("POST", "/predict", multipart(files), {"content-type": TYPE, **headers})


@contextmanager
def in_thread(app: Any) -> Iterator[Client]:
    """Serve an app from a thread of this process."""
    import uvicorn

    from customcnn.serve.listener import listen
    from customcnn.serve.server import configuration

    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(configuration(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def in_process(run: RunDir, *options: object, home: Path) -> Iterator[tuple[Client, subprocess.Popen[str], Path]]:
    """Start `customcnn serve` with a temporary folder of its own; yield a client, the process, and that folder."""
    folder = home / "tmp"
    folder.mkdir()
    log = (home / "log.txt").open("w+")
    command = [sys.executable, "-m", "customcnn", "serve", str(run.path), "--port", "0", *map(str, options)]
    environment = {**os.environ, "TMPDIR": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)
    try:
        yield Client(_port(process, Path(log.name))), process, folder
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    waiting = threading.Event()
    while process.poll() is None:
        if found := re.search(r"^Serving .+ at http://127\.0\.0\.1:(\d+), stop with Ctrl-C$", log.read_text(), re.M):
            return int(found[1])
        waiting.wait(0.1)
    raise AssertionError(f"the server has ended: {log.read_text()}")


@contextmanager
def serving(
    classifier: Classifier, limits: Limits = SMALL, *, page: bool = False
) -> Iterator[tuple[Client, list[str]]]:
    """Serve the web API, and where wanted the page, from this process; yield a client and the log."""
    from customcnn.serve import quiet_environment
    from customcnn.serve.app import build_app
    from customcnn.serve.middleware import Guard
    from customcnn.serve.service import Service

    log: list[str] = []
    service = Service(classifier, limits)
    try:
        inner = build_app(service)
        if page:
            with quiet_environment():
                from customcnn.serve.page import add_page

                add_page(inner, service, None, log.append)
        with in_thread(Guard(inner, host="127.0.0.1", rate=limits.rate, log=log.append)) as client:
            yield client, log
    finally:
        service.close()


def same(found: dict, wanted: dict) -> bool:
    """Tell whether two predictions are the same but for the folder and the noise."""
    keys = [key for key in wanted if key not in ("file", "probabilities")]
    return (
        list(found) == list(wanted)
        and found["file"] == Path(wanted["file"]).name
        and all(found[key] == wanted[key] for key in keys)
        and found["probabilities"] == pytest.approx(wanted["probabilities"], abs=NOISE)
        and list(found["probabilities"]) == list(wanted["probabilities"])
    )
