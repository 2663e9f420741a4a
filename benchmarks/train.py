"""One training step of a network on the CPU: customcnn's own against plain Keras and native PyTorch."""

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.race import Racer, race, report

BASE = "PyTorch bfloat16 channels_last"
STEPS = 2


def batch(size: int, images: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return random images, uint8 (N, size, size, 3), and one-hot targets, float32 (N, classes)."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    return pixels, np.eye(classes, dtype=np.float32)[rng.integers(0, classes, images)]


def keras_step(name: str, size: int, images: int, policy: str, rewrite: bool) -> Callable[[], int]:
    """Plain Keras on TensorFlow, with a dtype policy or with TensorFlow's own rewrite of the graph to bfloat16."""
    import keras
    import tensorflow as tf

    from customcnn.models import build_model

    if rewrite:
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    keras.config.set_dtype_policy(policy)
    model = build_model(name, classes=2, input_size=size)
    model.compile(keras.optimizers.SGD(2e-4), "categorical_crossentropy", metrics=["accuracy"])
    pixels, targets = batch(size, images)

    def work() -> int:
        for _ in range(STEPS):
            model.train_on_batch(pixels, targets)
        return STEPS * images

    return work


def own_step(name: str, size: int, images: int, precision: str = "auto") -> Callable[[], int]:
    """The step that `customcnn train` takes, by the functions that it calls."""
    from customcnn.backend import devices
    from customcnn.recipe.recipe import load_recipe
    from customcnn.training.classification import new_model
    from customcnn.training.optimizer import compile_model

    recipe = load_recipe(None, {"model": name, "precision": precision})
    device = devices.configure("cpu")
    model, _ = new_model(recipe, ["a", "b"], (size, size), device, print)
    devices.prepare(model, device)
    compile_model(model, recipe)
    pixels, targets = batch(size, images)
    if model.outputs[0].shape[-1] == 1:
        targets = targets[:, 1:]

    def work() -> int:
        for _ in range(STEPS):
            model.train_on_batch(pixels, targets)
        return STEPS * images

    return work


def torch_step(size: int, images: int, bfloat16: bool) -> Callable[[], int]:
    """The network `proposed`, written in PyTorch as its users would: channels_last, autocast, plain SGD."""
    import torch

    from benchmarks.twin import proposed

    model = proposed(size).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-4)
    loss = torch.nn.CrossEntropyLoss()
    pixels, targets = batch(size, images)
    raw, wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(targets)

    def work() -> int:
        for _ in range(STEPS):
            x = (raw.float() / 255).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                found = model(x)
            optimizer.zero_grad()
            loss(found.float(), wanted).backward()
            optimizer.step()
        return STEPS * images

    return work


@click.command()
@click.option("--model", default="proposed", show_default=True, help="PyTorch takes part with proposed only.")
@click.option("--input-size", default=150, show_default=True)
@click.option("--batch-size", default=30, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write everything as JSON.")
def main(model: str, input_size: int, batch_size: int, rounds: int, out: Path | None) -> None:
    """Race one training step on the CPU."""
    of = (model, input_size, batch_size)
    racers = [
        Racer("customcnn", own_step, of),
        Racer("customcnn float32", own_step, (*of, "float32")),
        Racer("Keras float32", keras_step, (*of, "float32", False)),
        Racer("Keras mixed_bfloat16", keras_step, (*of, "mixed_bfloat16", False)),
        Racer("Keras float32, rewritten by TensorFlow", keras_step, (*of, "float32", True)),
    ]
    base = "Keras float32"
    if model == "proposed":
        base = BASE
        racers.append(Racer(BASE, torch_step, (*of[1:], True)))
        racers.append(Racer("PyTorch float32 channels_last", torch_step, (*of[1:], False)))
    results = race(racers, rounds=rounds)
    report(f"Training step of {model} at {input_size} x {input_size}, batches of {batch_size}", results, base, out)
