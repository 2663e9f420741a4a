"""What happens while a network trains: seeds, the history and checkpoints, the progress bar, the stop at NaN."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import keras
import numpy as np

from customcnn.errors import CustomCNNError
from customcnn.progress import Progress
from customcnn.recipe import Recipe
from customcnn.runs import ModelInfo, RunDir, best_epoch, link_or_copy, read_info, save_model

COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy")


class Recorder(keras.callbacks.Callback):
    """Write last.keras, best.keras and history.csv after every epoch, so that a kill at any moment loses one at most.

    The order matters: last.keras comes first and carries the history so far; best.keras is a link to it where the epoch
    was the best; history.csv follows. What a kill left undone is done when the run is resumed.
    """

    def __init__(self, run: RunDir, recipe: Recipe, info: ModelInfo) -> None:
        super().__init__()
        self.run, self.recipe, self.info = run, recipe, info
        self.history_rows = [dict(row) for row in info.history]
        if info.epoch:
            self._link_best()
            run.write_history(self.history_rows)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add the epoch to the history and write everything.

        Raises:
            CustomCNNError: the validation loss is not finite: the last step of the epoch broke the weights.
        """
        _require_finite((logs or {}).get("val_loss", 0.0), f"on the validation part after epoch {epoch + 1}")
        row = {"epoch": epoch + 1, **{key: float(logs[key]) for key in COLUMNS if logs and key in logs}}
        self.history_rows.append(row)
        self.info = replace(self.info, epoch=epoch + 1, history=self.history_rows)
        save_model(self.model, self.info, self.run.last)
        self._link_best()
        self.run.write_history(self.history_rows)

    def _link_best(self) -> None:
        best = best_epoch(self.history_rows, self.recipe.monitor)
        if best == self.info.epoch and not (self.run.best.is_file() and read_info(self.run.best).epoch == best):
            link_or_copy(self.run.last, self.run.best)


class StopAtNaN(keras.callbacks.Callback):
    """End the training with an error as soon as the loss is not a number: the checkpoints stay those before it."""

    epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch, for the message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the running mean of the loss."""
        _require_finite((logs or {}).get("loss", 0.0), f"at step {batch + 1} of epoch {self.epoch + 1}")


def _require_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise CustomCNNError(
            f"The loss stays a finite number. Received: {float(loss)} {where}. "
            "Lower --set learning_rate or use --precision float32, and --replace the run."
        )


class EpochSeeds(keras.callbacks.Callback):
    """Seed dropout anew for every epoch, by the recipe's seed and the epoch alone.

    Keras does not save where its random generators stand: without this, a resumed training would drop other units than
    an unbroken one.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Set the state of every generator in the network, a seed and how often it was used, and the global one."""
        states = [v for v in self.model.non_trainable_variables if v.name == "seed_generator_state"]
        seed, *seeds = np.random.default_rng((self.seed, epoch)).integers(2**31, size=1 + len(states)).tolist()
        keras.utils.set_random_seed(seed)  # what dropout draws from on torch
        for state, seed in zip(states, seeds, strict=True):
            state.assign(np.array([seed, 0], dtype=state.dtype))


class Bar(keras.callbacks.Callback):
    """Draw one bar an epoch, and say one line at its end."""

    def __init__(self, recipe: Recipe, images: int, progress: Progress, say: Callable[[str], object]) -> None:
        super().__init__()
        self.recipe, self.images, self.progress, self.say = recipe, images, progress, say
        self.stack = ExitStack()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Open the bar."""
        self.began = time.perf_counter()
        self.stack = ExitStack()
        self.advance = self.stack.enter_context(self.progress(self.images, f"epoch {epoch + 1}/{self.recipe.epochs}"))

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Move on by one batch; the last may be smaller."""
        size = self.recipe.batch_size
        self.advance(min(size, self.images - batch * size))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Close the bar and say the scores."""
        self.stack.close()
        scores = "  ".join(f"{key} {_short(float(logs[key]))}" for key in COLUMNS if logs and key in logs)
        seconds = time.perf_counter() - self.began
        self.say(f"Epoch {epoch + 1}/{self.recipe.epochs}  {scores}  ({self.images / seconds:,.0f} images/s)")

    def close(self) -> None:
        """Close the bar of an epoch that did not end."""
        self.stack.close()


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"  # a loss on its way to infinity


def callbacks(
    run: RunDir, recipe: Recipe, info: ModelInfo, images: int, progress: Progress, say: Callable[[str], object]
) -> tuple[Recorder, Bar, *tuple[keras.callbacks.Callback, ...]]:
    """Return the callbacks of a training: the recorder first, then the bar, which is to be closed.

    Args:
        run: where the checkpoints go.
        recipe: the training.
        info: what the saved models carry.
        images: how many training images an epoch has.
        progress: draws the bars.
        say: receives one line an epoch.
    """
    extra = [keras.callbacks.TensorBoard(str(run.logs), write_graph=False)] if recipe.tensorboard else []
    bar = Bar(recipe, images, progress, say)
    return Recorder(run, recipe, info), bar, EpochSeeds(recipe.seed), StopAtNaN(), *extra
