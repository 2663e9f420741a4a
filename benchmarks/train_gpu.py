"""Training on a GPU: customcnn on JAX with its images on the card, against plain Keras on JAX and native PyTorch."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.race import Racer, Result, race, report
from benchmarks.train import batch

if TYPE_CHECKING:
    import keras

BASE = "PyTorch bfloat16 channels_last compiled"
PLAIN = "Keras float32 on JAX"
PRODUCT = "product of two matrices in bfloat16"
PRODUCTS = 20
STEPS = {"gpu": 50, "cpu": 2}
# The racers live side by side: JAX would take three quarters of the card for the first of them.
ON = {
    "gpu": {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    "cpu": {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""},
}


def own_fit(name: str, size: int, images: int, steps: int, device: str, on_device: bool) -> Callable[[], int]:
    """An epoch of `steps` steps as `customcnn train` takes them, with flips and quarter turns.

    The peers do not augment. Checkpoints and validation, which come once an epoch, are left out.
    """
    from customcnn.augmentation import make_transform
    from customcnn.augmentation.settings import Augmentation
    from customcnn.backend import devices
    from customcnn.progress import silent
    from customcnn.recipe.recipe import load_recipe
    from customcnn.training import device_cache
    from customcnn.training.batches import batches
    from customcnn.training.callbacks import Bar, StopAtNaN
    from customcnn.training.classification import new_model
    from customcnn.training.optimizer import compile_model

    recipe = load_recipe(None, {"model": name, "batch_size": images})
    augmentation = Augmentation(flip="both", quarter_turns=True)
    used = devices.configure(device)
    model, _ = new_model(recipe, ["a", "b"], (size, size), used, print)
    devices.prepare(model, used)
    compile_model(model, recipe)
    pixels, targets = batch(size, steps * images)
    if model.outputs[0].shape[-1] == 1:
        targets = targets[:, 1:]
    rows = np.arange(len(pixels))
    held = device_cache.hold(pixels, rows, rows[:0], augmentation, on_cpu=True)[0] if on_device else None
    if on_device and held is None:
        raise MemoryError("the images do not fit into half of the free memory")
    change = make_transform(augmentation)
    fed = batches(pixels, targets, rows, images, 0, transform=change, outputs=len(model.outputs), resident=held)
    callbacks = [Bar(recipe, len(rows), silent, lambda line: None), StopAtNaN(used)]

    def work() -> int:
        model.fit(fed, shuffle=False, verbose=0, callbacks=callbacks)
        return len(rows)

    return work


def keras_fit(name: str, size: int, images: int, steps: int) -> Callable[[], int]:
    """Plain Keras: the same network in float32, fitted to arrays in memory."""
    import keras

    from customcnn.models import build_model

    model = build_model(name, classes=2, input_size=size)
    model.compile(keras.optimizers.SGD(2e-4), "categorical_crossentropy", metrics=["accuracy"])
    pixels, targets = batch(size, steps * images)

    def work() -> int:
        model.fit(pixels, targets, batch_size=images, verbose=0)
        return len(pixels)

    return work


def torch_steps(size: int, images: int, steps: int, device: str, compiled: bool) -> Callable[[], int]:
    """The network `proposed` in native PyTorch: bfloat16, channels_last, its images on the card, too."""
    import torch

    from benchmarks.twin import proposed

    place = "cuda" if device == "gpu" else "cpu"
    torch.backends.cudnn.benchmark = True
    model: Any = proposed(size).to(place, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-4, fused=True)
    loss = torch.nn.CrossEntropyLoss()
    pixels, targets = batch(size, steps * images)
    raw, wanted = torch.from_numpy(pixels).to(place), torch.from_numpy(targets).to(place)
    model = torch.compile(model) if compiled else model

    def work() -> int:
        total = torch.zeros((), device=place)
        for chosen in torch.randperm(len(raw), device=place).split(images):
            x = raw[chosen].permute(0, 3, 1, 2).float() / 255  # channels_last as it lies
            with torch.autocast(place, torch.bfloat16):
                found = model(x)
            step_loss = loss(found.float(), wanted[chosen])
            optimizer.zero_grad()
            step_loss.backward()
            optimizer.step()
            total += step_loss.detach()
        total.item()  # waits until all is computed
        return len(raw)

    return work


def product(edge: int) -> Callable[[], int]:
    """Products of two square matrices in bfloat16, which the card computes fastest; counts operations, not images."""
    import jax

    first, second = jax.random.normal(jax.random.key(0), (2, edge, edge), jax.numpy.bfloat16)
    multiply = jax.jit(jax.numpy.matmul)

    def work() -> int:
        jax.block_until_ready([multiply(first, second) for _ in range(PRODUCTS)])
        return PRODUCTS * 2 * edge**3

    return work


def operations(model: "keras.Model") -> int:
    """Return the multiplications and additions of a training step for one image: three times those of its kernels.

    The gradients of a kernel and of its input take as many as the way forward. That of the image itself, which is not
    computed, is counted all the same: less than 1 % of most networks.
    """
    found = 0
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found += operations(layer)
            continue
        for name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            kernel = getattr(layer, name, None)
            if kernel is not None:
                found += 3 * 2 * math.prod(kernel.shape) * math.prod(layer.output.shape[1:-1])
    return found


def facts(name: str, size: int) -> tuple[str, str, int]:
    """Return platform and name of the device that JAX computes on, and the operations of a training step an image."""
    import jax

    from customcnn.models import build_model

    device = jax.devices()[0]
    return device.platform, device.device_kind, operations(build_model(name, classes=2, input_size=size))


def set_environment(variables: dict[str, str]) -> None:
    """Set variables of this process."""
    os.environ.update(variables)


def elsewhere(environment: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of this module returns in a process of its own, with these variables set."""
    with ProcessPoolExecutor(1, get_context("spawn"), set_environment, (environment,)) as pool:
        return pool.submit(function, *arguments).result()


def shares(results: Sequence[Result], of_an_image: int, rate: float) -> dict[str, float]:
    """Return for each racer that ran which share of the device's matrix rate its training steps come to."""
    return {result.name: result.median * of_an_image / rate for result in results if result.rates}


@click.command()
@click.option("--model", default="proposed", show_default=True, help="PyTorch takes part with proposed only.")
@click.option("--input-size", default=150, show_default=True)
@click.option("--batch-size", default=30, show_default=True)
@click.option("--steps", type=int, help="Training steps a round.  [default: 50, on a CPU 2]")
@click.option("--rounds", default=7, show_default=True)
@click.option("--device", type=click.Choice(["gpu", "cpu"]), default="gpu", show_default=True, help="cpu: to try it.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write everything as JSON.")
def main(
    model: str, input_size: int, batch_size: int, steps: int | None, rounds: int, device: str, out: Path | None
) -> None:
    """Race training steps on a GPU."""
    environment = ON[device]
    try:
        platform, kind, of_an_image = elsewhere(environment, facts, model, input_size)
    except ImportError as error:
        raise click.ClickException(f"train-gpu needs JAX. Received: {error}. Install jax[cuda12].") from None
    if platform != device:
        raise click.ClickException(
            f"train-gpu needs a GPU that JAX can use. Received: {platform}. Install jax[cuda12], or try --device cpu."
        )
    of = (model, input_size, batch_size, steps or STEPS[device])
    racers = [
        Racer("customcnn", own_fit, (*of, device, True), environment),
        Racer("customcnn, fed from the host", own_fit, (*of, device, False), environment),
        Racer(PLAIN, keras_fit, of, environment),
    ]
    base = PLAIN
    if model == "proposed":
        base = BASE
        racers.append(Racer(BASE, torch_steps, (*of[1:], device, True), environment))
        racers.append(Racer("PyTorch bfloat16 channels_last", torch_steps, (*of[1:], device, False), environment))
    racers.append(Racer(PRODUCT, product, (8192 if device == "gpu" else 512,), environment))
    *results, matrices = race(racers, rounds=rounds, warmup=2)
    rate = matrices.median if matrices.rates else math.nan
    found = shares(results, of_an_image, rate)
    title = f"Training of {model} at {input_size} x {input_size}, batches of {batch_size}, on {kind} ({device})"
    figures = {"device": kind, "operations_per_image": of_an_image, "matrix_rate": rate, "shares": found}
    report(title, results, base, out, **figures)
    print(f"Share of the {rate / 1e12:,.3g} TFLOP/s that a product of two matrices in bfloat16 reaches here:")
    for name, share in found.items():
        print(f"  {name}: {share:.1%}")
