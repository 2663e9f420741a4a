"""A server with many clients beside Keras alone, one image after the other: images per second."""

import http.client
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.race import Racer, race, report

CLIENTS, EDGE = 20, 400
BOUNDARY = "a-boundary-2c61"

BASE = "Keras, one image after the other"


def make_run(folder: Path, model: str) -> Any:
    """Save a network of random weights, and drawn cells beside it; return the run."""
    import keras

    from customcnn.backend import devices
    from customcnn.data.synthetic import LABELS, draw_samples
    from customcnn.models import build_model, get_spec
    from customcnn.recipe.recipe import load_recipe
    from customcnn.runs.run_dir import RunDir
    from customcnn.runs.saved_model import ModelInfo, save_model

    devices.configure("cpu")
    keras.utils.set_random_seed(0)
    size = get_spec(model).input_size
    run = RunDir(folder / "run")
    run.path.mkdir()
    run.recipe.write_text(load_recipe(None, {"model": model}).to_toml())
    network = build_model(model, classes=2, input_size=size)
    save_model(network, ModelInfo(model, list(LABELS), (size, size), LABELS[0], drawn=True, epoch=1), run.best)
    draw_samples(folder / "cells", subjects=4, cells=8, size=EDGE, seed=0)
    return run


def _paths(folder: Path) -> list[Path]:
    return sorted((folder / "cells").rglob("*.bmp"))


def keras_alone(folder: str, images: int) -> Callable[[], int]:
    """Decode and predict_on_batch, one image at a time."""
    from customcnn.images.decode import decode
    from customcnn.runs.saved_model import load_model, read_info

    best = Path(folder) / "run" / "best.keras"
    model, size, paths = load_model(best), read_info(best).input_size, _paths(Path(folder))

    def work() -> int:
        for number in range(images):
            model.predict_on_batch(decode(paths[number % len(paths)], size)[None])
        return images

    return work


def served(folder: str, images: int, runtime: str, clients: int) -> Callable[[], int]:
    """Start the server, and send images from many clients at once."""
    command = [sys.executable, "-m", "customcnn", "serve", f"{folder}/run", "--port", "0", "--runtime", runtime]
    process = subprocess.Popen([*command, "--no-page"], stderr=subprocess.PIPE, text=True)
    Finalize(None, process.terminate, exitpriority=1)  # atexit is not asked in a process of multiprocessing
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    first = next((line for line in lines if line.startswith("Serving")), "")
    port = int(first.partition("http://127.0.0.1:")[2].partition(",")[0])
    log = ThreadPoolExecutor(1)
    log.submit(lambda: [None for _ in lines])
    bodies = [_body(path) for path in _paths(Path(folder))]

    def client(share: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(share):
            head = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
            connection.request("POST", "/predict", bodies[number % len(bodies)], head)
            answer = connection.getresponse()
            assert answer.read() and answer.status == 200
        connection.close()
        return share

    def work() -> int:
        with ThreadPoolExecutor(clients) as pool:
            return sum(pool.map(client, [images // clients] * clients))

    return work


def _body(path: Path) -> bytes:
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
    return head.encode() + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


def agreement(folder: Path) -> float:
    """Return the largest difference of a probability between batches of 16 and single images."""
    from customcnn.inference.classifier import Classifier
    from customcnn.runs.run_dir import RunDir

    known = Classifier(RunDir(folder / "run"), runtime="keras")
    images = np.stack([known.pixels(path) for path in _paths(folder)[:16]])
    single = np.concatenate([known.probabilities(images[i : i + 1]) for i in range(16)])
    return float(np.abs(known.probabilities(images) - single).max())


@click.command()
@click.option("--model", default="small", show_default=True, help="A network, of random weights.")
@click.option("--rounds", default=7, show_default=True, help="Measured rounds.")
@click.option("--images", default=200, show_default=True, help="In a round.")
@click.option("--clients", default=CLIENTS, show_default=True, help="At the same time.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write everything as JSON.")
def main(model: str, rounds: int, images: int, clients: int, out: Path | None) -> None:
    """Race the server with many clients against Keras alone, one image after the other."""
    from customcnn.inference.runtimes import is_installed

    folder = Path(tempfile.mkdtemp(prefix="serve-"))
    try:
        run = make_run(folder, model)
        name = str(folder)
        racers = [
            Racer(BASE, keras_alone, (name, images)),
            Racer("served, one client, Keras", partial(served, clients=1), (name, images, "keras")),
            Racer(f"served, {clients} clients, Keras", partial(served, clients=clients), (name, images, "keras")),
        ]
        if is_installed():
            from customcnn.export import export

            export(run)
            work = partial(served, clients=clients)
            racers.append(Racer(f"served, {clients} clients, OpenVINO", work, (name, images, "openvino")))
        results = race(racers, rounds=rounds)
        difference = agreement(folder)
        print(f"largest difference between a batch of 16 and single images: {difference:.1e}")
        title = f"{model}, {images} drawn cells of {EDGE} x {EDGE} a round"
        report(title, results, BASE, out, model=model, images=images, clients=clients, difference=difference)
    finally:
        shutil.rmtree(folder)
