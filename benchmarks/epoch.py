"""Whole epochs of `customcnn train` against their bare steps, validation against inference, and checkpoints."""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.race import Racer, race, report

STEPS = "bare steps"
INFERENCE = "predict_on_batch"


class HeldFit:
    """One training that is held before every epoch, so that others may have their turn: `next` lets one go by."""

    def __init__(self, model: Any, training: Any, callbacks: list[Any]) -> None:
        import keras

        self.go, self.done, self.ended = threading.Semaphore(0), threading.Semaphore(0), False
        gate = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.go.acquire(),
            on_epoch_end=lambda epoch, logs: self.done.release(),
        )
        from customcnn.training.batches import for_fit
        from customcnn.training.callbacks import Epochs

        watchers = [Epochs(training), *callbacks, gate]
        arguments = {"epochs": 10_000, "shuffle": False, "verbose": 0, "callbacks": watchers}
        threading.Thread(target=self._fit, args=(model, for_fit(training), arguments), daemon=True).start()

    def next(self) -> None:
        """Let one epoch go by."""
        self.go.release()
        self.done.acquire()
        if self.ended:
            raise RuntimeError("the training has ended")

    def _fit(self, model: Any, training: Any, arguments: dict[str, Any]) -> None:
        try:
            model.fit(training, **arguments)
        finally:
            self.ended = True
            self.done.release()


def prepared(name: str, size: int, images: int, batch_size: int, folder: Path) -> tuple[Any, Any, Any, Any]:
    """Return a network, its batches and its callbacks as `customcnn train` makes them, and the images."""
    from customcnn.backend import devices
    from customcnn.progress import silent
    from customcnn.recipe.recipe import load_recipe
    from customcnn.runs.run_dir import RunDir
    from customcnn.runs.saved_model import ModelInfo
    from customcnn.training.batches import batches, targets
    from customcnn.training.callbacks import callbacks
    from customcnn.training.classification import new_model
    from customcnn.training.optimizer import compile_model

    settings = {"model": name, "batch_size": batch_size, "epochs": 10_000, "input_size": size, "monitor": "loss"}
    recipe = load_recipe(None, settings)
    device = devices.configure("auto")
    model, _ = new_model(recipe, ["a", "b"], (size, size), device, print)
    devices.prepare(model, device)
    compile_model(model, recipe)
    pixels = np.random.default_rng(0).integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    mapped = np.load(folder / "images.npy", mmap_mode="r")
    wanted = targets(np.arange(images) % 2, 2, model.outputs[0].shape[-1])
    training = batches(mapped, wanted, np.arange(images), batch_size, 0)
    run = RunDir(folder / "run")
    run.path.mkdir(exist_ok=True)
    info = ModelInfo(name, ["a", "b"], (size, size), "b")
    watchers = list(callbacks(run, recipe, info, images, silent, lambda line: None))
    return model, training, watchers, (mapped, wanted)


def whole_epochs(name: str, size: int, images: int, batch_size: int, folder: Path, saving: bool) -> Callable[[], int]:
    """Epochs as `customcnn train` has them, without a validation part; the first two, which are longer, come before."""
    folder.mkdir()
    model, training, watchers, _ = prepared(name, size, images, batch_size, folder)
    epochs = HeldFit(model, training, watchers if saving else watchers[1:])
    epochs.next()
    epochs.next()

    def work() -> int:
        epochs.next()
        return images

    return work


def bare_steps(name: str, size: int, images: int, batch_size: int, folder: Path) -> Callable[[], int]:
    """As many steps on one and the same batch, which lies in the memory of the backend already."""
    import keras

    folder.mkdir()
    model, training, _, _ = prepared(name, size, images, batch_size, folder)
    batch, wanted = (keras.ops.convert_to_tensor(values) for values in training[0])

    def work() -> int:
        for _ in range(images // batch_size):
            model.train_on_batch(batch, wanted)
        return images

    return work


def validation(name: str, size: int, images: int, batch_size: int, folder: Path) -> Callable[[], int]:
    """The validation of a training."""
    from customcnn.training.batches import batches, for_fit

    folder.mkdir()
    model, _, _, (mapped, wanted) = prepared(name, size, images, batch_size, folder)
    part = for_fit(batches(mapped, wanted, np.arange(images), batch_size, None))

    def work() -> int:
        model.evaluate(part, verbose=0)
        return images

    return work


def inference(name: str, size: int, images: int, batch_size: int, folder: Path) -> Callable[[], int]:
    """The same network's predictions of the same batches."""
    folder.mkdir()
    model, _, _, (mapped, _) = prepared(name, size, images, batch_size, folder)

    def work() -> int:
        for start in range(0, images, batch_size):
            model.predict_on_batch(mapped[start : start + batch_size])
        return images

    return work


def checkpoint(name: str, size: int, batch_size: int, folder: Path, rounds: int) -> dict[str, float]:
    """Return the medians of the seconds for which a training waits for a save, and in which the file is whole."""
    from customcnn.runs.saved_model import ModelInfo
    from customcnn.training.async_checkpoint import Checkpointer

    folder.mkdir()
    model, training, _, _ = prepared(name, size, batch_size, batch_size, folder)
    model.train_on_batch(*training[0])
    saver, info = Checkpointer(folder / "last.keras"), ModelInfo(name, ["a", "b"], (size, size), "b")
    saver.save(model, info, lambda: None, again=True)
    waits, wholes, plain = [], [], []
    for _ in range(rounds):
        began = time.perf_counter()
        saver.save(model, info, lambda: None, again=True)
        waits.append(time.perf_counter() - began)
        saver.wait()
        wholes.append(time.perf_counter() - began)
        began = time.perf_counter()
        model.save(folder / "plain.keras")
        plain.append(time.perf_counter() - began)
    saver.close()
    found = {"waits": waits, "whole": wholes, "model.save": plain}
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    return {"MB": (folder / "last.keras").stat().st_size / 1e6, **medians}


@click.command()
@click.option("--model", default="proposed", show_default=True)
@click.option("--input-size", default=150, show_default=True)
@click.option("--batch-size", default=30, show_default=True)
@click.option("--images", default=600, show_default=True, help="In an epoch; a multiple of the batch size.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write JSONs too: NAME-epoch, NAME-validation.")
def main(model: str, input_size: int, batch_size: int, images: int, rounds: int, out: Path | None) -> None:
    """Race whole epochs against their bare steps, and validation against inference; time checkpoints."""
    if images % batch_size:
        raise click.BadParameter(f"a multiple of the batch size, {batch_size}. Received: {images}.")
    of = (model, input_size, images, batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        racers = [
            Racer(STEPS, bare_steps, (*of, folder / "steps")),
            Racer("epochs, nothing saved", whole_epochs, (*of, folder / "unsaved", False)),
            Racer("epochs of customcnn train", whole_epochs, (*of, folder / "epochs", True)),
        ]
        title = f"{model} at {input_size} x {input_size}, batches of {batch_size}"
        report(f"Epochs of {images} images: {title}", race(racers, rounds=rounds), STEPS, _beside(out, "epoch"))
        racers = [
            Racer(INFERENCE, inference, (*of, folder / "inference")),
            Racer("validation", validation, (*of, folder / "validation")),
        ]
        report(f"Validation: {title}", race(racers, rounds=rounds), INFERENCE, _beside(out, "validation"))
        times = checkpoint(model, input_size, batch_size, folder / "checkpoint", rounds)
        plain = times["model.save"]
        print(f"A checkpoint of {times['MB']:.0f} MB: model.save takes {plain:.2f} s; of that a training waits")
        print(f"{times['waits'] / plain:.1%}; the file is whole after {times['whole'] / plain:.0%} on an idle machine.")


def _beside(out: Path | None, name: str) -> Path | None:
    return None if out is None else out.with_name(f"{out.stem}-{name}{out.suffix}")
