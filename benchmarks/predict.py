"""Inference on the CPU: the exported network against Keras and its peers, and the start of one prediction."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.race import Racer, race, report

BASE = "Keras predict_on_batch float32"
SIZE = 150
REPEATS = 8
"""Batches in a round where a batch is one image."""

START_BASE = "python -c 'import keras'"


def pixels(images: int) -> np.ndarray:
    """Return random images, uint8 (N, 150, 150, 3)."""
    return np.random.default_rng(0).integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)


def repeated(once: Callable[[], object], images: int) -> Callable[[], int]:
    """Return a round of about a second: one large batch, or several of one image."""
    times = REPEATS if images == 1 else 1

    def work() -> int:
        for _ in range(times):
            once()
        return times * images

    return work


def keras_model(policy: str = "float32") -> Any:
    """Build `proposed` with random weights."""
    import keras

    from customcnn.models import build_model

    keras.config.set_dtype_policy(policy)
    return build_model("proposed", classes=2, input_size=SIZE)


def keras_batch(images: int, policy: str) -> Callable[[], int]:
    """Keras on TensorFlow: predict_on_batch."""
    model, data = keras_model(policy), pixels(images)
    return repeated(lambda: model.predict_on_batch(data), images)


def own_keras(images: int, policy: str) -> Callable[[], int]:
    """What `customcnn predict` calls without an export."""
    from customcnn.backend import devices

    model, data = keras_model(policy), pixels(images)
    devices.prepare(model, "cpu")
    return repeated(lambda: model.predict_on_batch(data), images)


def keras_predict(images: int) -> Callable[[], int]:
    """Keras on TensorFlow: predict, as its tutorials have it."""
    model, data = keras_model(), pixels(images)
    return repeated(lambda: model.predict(data, verbose=0), images)


def own(images: int, run: str, bfloat16: bool) -> Callable[[], int]:
    """What `customcnn predict` calls with an export, but for the decoding: a stream of images in its batches."""
    from customcnn.inference.runtimes import BATCH, open_exported

    data = pixels(images)
    network = open_exported(Path(run) / "best.keras", "openvino").compile(images, bfloat16=bfloat16)
    batches = [data[start : start + BATCH] for start in range(0, images, BATCH)]
    return repeated(lambda: list(network(batches)), images)


def onnx(images: int, path: str) -> Callable[[], int]:
    """ONNX Runtime on Keras's own ONNX export."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: pixels(images).astype(np.float32)}
    return repeated(lambda: session.run(None, feed), images)


def torch_twin(images: int, bfloat16: bool) -> Callable[[], int]:
    """The network in native PyTorch: channels_last, autocast."""
    import torch

    from benchmarks.twin import proposed

    model = proposed(SIZE).to(memory_format=torch.channels_last).eval()
    raw = torch.from_numpy(pixels(images)).permute(0, 3, 1, 2)

    def once() -> object:
        x = (raw.float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return model(x).float().softmax(1)

    return repeated(once, images)


def process(*command: str) -> Callable[[], int]:
    """A whole process, from its start to its end."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def work() -> int:
        subprocess.run(command, env=environment, capture_output=True, check=True)
        return 1

    return work


def make_run(folder: str) -> None:
    """Write a run of `proposed` with random weights, its export, its ONNX file where that works, and an image."""
    from PIL import Image

    from customcnn.backend import devices
    from customcnn.export import export
    from customcnn.runs.run_dir import RunDir
    from customcnn.runs.saved_model import ModelInfo, save_model

    devices.configure("cpu")
    run, model = RunDir(Path(folder)), keras_model()
    run.recipe.write_text("")
    save_model(model, ModelInfo("proposed", ["all", "hem"], (SIZE, SIZE), "hem"), run.best)
    export(run)
    Image.fromarray(pixels(1)[0]).save(run.path / "cell.png")
    model.predict_on_batch(pixels(1))  # Keras exports what was called before
    try:
        model.export(run.path / "proposed.onnx", format="onnx", verbose=False)
    except Exception as error:
        print(f"no ONNX file: {error}", file=sys.stderr)


def racers_of(images: int, run: Path) -> list[Racer]:
    """Return everyone who predicts batches of so many images."""
    found = [Racer(BASE, keras_batch, (images, "float32"))]
    if images == 1:
        found.append(Racer("Keras predict float32", keras_predict, (images,)))
    file = run / "proposed.onnx"
    known = [Racer("ONNX Runtime float32", onnx, (images, str(file)))] if file.is_file() else []
    return [
        *found,
        Racer("Keras mixed_bfloat16", keras_batch, (images, "mixed_bfloat16")),
        *known,
        Racer("PyTorch bfloat16 channels_last", torch_twin, (images, True)),
        Racer("PyTorch float32 channels_last", torch_twin, (images, False)),
        Racer("customcnn without an export, float32", own_keras, (images, "float32")),
        Racer("customcnn without an export, bfloat16", own_keras, (images, "mixed_bfloat16")),
        Racer("customcnn, exported", own, (images, str(run), False)),
        Racer("customcnn, exported, bfloat16", own, (images, str(run), True)),
    ]


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write everything as JSON; three files.")
def main(rounds: int, out: Path | None) -> None:
    """Race inference with the network `proposed` on the CPU, and the start of one prediction."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        # In a process of its own: TensorFlow's threads would stay awake in this one.
        code = f"from benchmarks.predict import make_run; make_run({folder!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        for images in (64, 1):
            results = race(racers_of(images, run), rounds=rounds)
            report(f"Inference of proposed at 150 x 150, batches of {images}", results, BASE, _named(out, f"-{images}"))
        one = [sys.executable, "-m", "customcnn", "predict", folder, str(run / "cell.png"), "--runtime"]
        starts = [
            Racer(START_BASE, process, (sys.executable, "-c", "import keras")),
            Racer("customcnn predict, exported", process, (*one, "openvino")),
            Racer("customcnn predict, Keras", process, (*one, "keras")),
        ]
        results = race(starts, rounds=rounds)
        report("One image in a new process", results, START_BASE, _named(out, "-start"))


def _named(out: Path | None, ending: str) -> Path | None:
    return out and out.with_name(f"{out.stem}{ending}{out.suffix}")
