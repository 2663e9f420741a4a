"""What happens while a network trains: seeds, the learning rate, history and checkpoints, the bar, the ends."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np

from customcnn.backend.fused_batch_norm import batch_norms
from customcnn.backend.process_group import ALONE, Job, copy_values
from customcnn.errors import CustomCNNError
from customcnn.progress import Progress
from customcnn.recipe.monitor import kept_epoch, stopped
from customcnn.recipe.recipe import Recipe
from customcnn.recipe.schedules import lra, next_rate
from customcnn.runs.run_dir import RunDir, link_or_copy
from customcnn.runs.saved_model import ModelInfo, load_model, read_info
from customcnn.training.async_checkpoint import Checkpointer
from customcnn.training.loggers import MlflowRun, log_epoch

MEMORIES = 5
"""Where an epoch has so many times the steps that batch normalisation remembers, its moving averages are up to date:
what they hold from before the epoch weighs less than exp(-5), below 1 %."""

COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy")


def scores(logs: Mapping[str, float] | None) -> dict[str, float]:
    """Return the columns of the history from what Keras logs; of several outputs those of the network's own."""
    found = logs or {}
    own = {key.replace("predictions_", ""): value for key, value in found.items() if "predictions_" in key}
    return {key: float(value) for key in COLUMNS if (value := own.get(key, found.get(key))) is not None}


class Recorder(keras.callbacks.Callback):
    """Write last.keras, best.keras and history.csv after every epoch, so that a kill loses little.

    The order matters: last.keras comes first and carries the history so far; best.keras is a link to it where the epoch
    was the best; history.csv follows. What a kill left undone is done when the run is resumed. A large network is
    written while the next epoch is at work (see `Checkpointer`): a kill then loses that epoch, and in its first seconds
    the one before it too.
    """

    def __init__(
        self,
        run: RunDir,
        recipe: Recipe,
        info: ModelInfo,
        average: "MovingAverage | None" = None,
        *,
        job: Job = ALONE,
        twin: keras.Model | None = None,
    ) -> None:
        """Take the run and what decides it.

        Args:
            run: where the checkpoints go.
            recipe: the training.
            info: what the saved models carry.
            average: of the weights, which is saved instead of them.
            job: the processes that train: the first of them writes.
            twin: the network to save instead of the trained one, which lies on the devices of several processes; the
                callback `ScoreApart` comes before this one.
        """
        super().__init__()
        self.run, self.recipe, self.info, self.average = run, recipe, info, average
        self.job, self.twin = job, twin
        self.history_rows = [dict(row) for row in info.history]
        self.checkpointer = Checkpointer(run.last)
        if info.epoch and job.first:
            self._follow(info)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add the epoch to the history and write everything.

        Raises:
            CustomCNNError: the validation loss is not finite: the last step of the epoch broke the weights.
        """
        row = scores(logs)
        _require_finite(row.get("val_loss", 0.0), f"on the validation part after epoch {epoch + 1}")
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.history_rows.append({"epoch": epoch + 1, **row, "learning_rate": rate})
        self.info = replace(self.info, epoch=epoch + 1, history=list(self.history_rows))
        if not self.job.first:
            return
        with self.job.apart(), self.average.in_model() if self.average else nullcontext():
            # A twin is written before the training goes on: Keras knows one distribution for all threads.
            follow, again = partial(self._follow, self.info), epoch + 1 < self.recipe.epochs and self.twin is None
            self.checkpointer.save(self.twin or self.model, self.info, follow, again=again)

    def close(self) -> None:
        """Wait until everything is written."""
        self.checkpointer.close()

    def _follow(self, info: ModelInfo) -> None:
        best = kept_epoch(info.history, self.recipe)
        if best == info.epoch and not (self.run.best.is_file() and read_info(self.run.best).epoch == best):
            link_or_copy(self.run.last, self.run.best)
        self.run.write_history(info.history)


class Epochs(keras.callbacks.Callback):
    """Tell the batches which epoch they are for."""

    def __init__(self, batches: Any) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Set the number of the epoch, from 0."""
        self.batches.epoch = epoch


class ScoreApart(keras.callbacks.Callback):
    """Score the network where several processes train it: each its own images, on a twin that it has for itself.

    The scores of all images go into the logs of the epoch, as if `fit` had computed them.
    """

    def __init__(self, job: Job, twin: keras.Model, validation: Any) -> None:
        super().__init__()
        self.job, self.twin, self.validation = job, twin, validation

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Give the twin the values of the network, score it, and take the mean over all processes' images."""
        copy_values(self.model, self.twin)
        images = self.validation.per_epoch
        with self.job.apart():
            found = self.twin.evaluate(self.validation, verbose=0, return_dict=True) if images else {}
        told = self.job.gather([images, {key: float(value) for key, value in found.items()}])
        total = sum(count for count, _ in told)
        if logs is not None:
            for key in next(values for count, values in told if count):
                logs[f"val_{key}"] = sum(count * values[key] for count, values in told if count) / total


class StopAtNaN(keras.callbacks.Callback):
    """End the training with an error as soon as the loss is not a number: the checkpoints stay those before it."""

    epoch = 0

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        # Keras then looks at the loss in a thread, some steps late: a GPU is not waited for at each of them.
        self.async_safe = device != "cpu"

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


class LearningRate(keras.callbacks.Callback):
    """Set the rate of every epoch from the history before it, and put the best weights back where LRA does.

    Schedules are functions of the history alone, so a resumed training goes the same way as an unbroken one.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder, self.recipe = recorder, recorder.recipe

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Set the rate; with LRA's `dwell` load the weights of the best epoch."""
        recipe, history = self.recipe, self.recorder.history_rows
        rate = next_rate(recipe.schedule, recipe.learning_rate, recipe.epochs, history)
        self.model.optimizer.learning_rate.assign(rate)
        if recipe.schedule.kind == "lra" and lra(recipe.schedule, recipe.learning_rate, history).restore:
            self.recorder.checkpointer.wait()  # it may be about to write that very file
            self.model.set_weights(load_model(self.recorder.run.best, whole=True).get_weights())


class Stopper(keras.callbacks.Callback):
    """End the training before its last epoch: by early stopping, by LRA, by a search, or because the user says so."""

    def __init__(
        self,
        recorder: Recorder,
        say: Callable[[str], object],
        ask: Callable[[str], bool] | None,
        stop: Callable[[list[dict[str, float]]], str] | None = None,
    ) -> None:
        super().__init__()
        self.recorder, self.say, self.ask, self.stop = recorder, say, ask, stop

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the history, and ask after `schedule.ask_epoch` epochs."""
        recipe, done = self.recorder.recipe, epoch + 1
        if done >= recipe.epochs:
            return
        reason = stopped(self.recorder.history_rows, recipe)
        if not reason and self.stop:
            reason = self.stop(self.recorder.history_rows)
        if not reason and self.ask and recipe.schedule.kind == "lra" and done == recipe.schedule.ask_epoch:
            reason = "" if self.ask(f"{done} of {recipe.epochs} epochs are trained. Go on?") else "it was told to"
        if reason:
            kept = kept_epoch(self.recorder.history_rows, recipe)
            self.say(f"Stopped after epoch {done} of {recipe.epochs}: {reason}. The best is epoch {kept}.")
            self.model.stop_training = True


def trained_batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the batch normalisations whose statistics follow the training: not those that are frozen."""
    return [layer for layer in batch_norms(model) if layer.trainable]


def measure_statistics(model: keras.Model, images: Callable[[], Iterator[np.ndarray]]) -> None:
    """Give batch normalisation the mean of its statistics over some batches, in place of the moving averages.

    Args:
        model: any network.
        images: yields the batches, uint8 (N, H, W, 3).

    Reference:
        Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 3 (precise BatchNorm).
    """
    momenta = {layer: layer.momentum for layer in trained_batch_norms(model)}
    if not momenta:
        return
    try:
        for done, batch in enumerate(images()):
            for layer in momenta:
                layer.momentum = done / (done + 1)  # the plain mean over all batches
            model(batch, training=True)
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum


def measures_statistics(recipe: Recipe, model: keras.Model, steps: int) -> bool:
    """Tell whether `FreshStatistics` is needed: `MovingAverage` measures the statistics of its average itself.

    Args:
        recipe: its `statistics` "auto" asks for them where the moving averages do not follow the weights. These
            remember about 1 / (1 - momentum) steps, 100 with Keras's .99; an epoch of `MEMORIES` times as many is
            enough.
        model: the network.
        steps: of an epoch.
    """
    if recipe.ema or recipe.statistics == "moving":
        return False
    always = recipe.statistics == "measured"
    return any(always or steps * (1 - layer.momentum) < MEMORIES for layer in trained_batch_norms(model))


class FreshStatistics(keras.callbacks.Callback):
    """Measure the statistics of batch normalisation anew before each scoring: what is scored is what is kept.

    The training itself never uses them. In a short one the moving averages lag behind weights that change fast, and
    the network looks untrained on images that it knows.
    """

    def __init__(self, images: Callable[[], Iterator[np.ndarray]]) -> None:
        super().__init__()
        self.images = images

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Measure them."""
        measure_statistics(self.model, self.images)


class MovingAverage(keras.callbacks.Callback):
    """Score and save the moving average of the weights that the optimizer keeps, and train on the weights themselves.

    In a saved file the average stands in the network and the trained weights in the optimizer. The running statistics
    of batch normalisation belong to the trained weights and may be far from what the average makes of the same images,
    so they are measured anew for it on some training images before each scoring. The training itself never uses them.

    References:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992;
        Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, arXiv:1803.05407, for the
        statistics.
    """

    def __init__(self, resumed: bool, images: Callable[[], Iterator[np.ndarray]]) -> None:
        super().__init__()
        self.resumed, self.images = resumed, images

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Take the trained weights of a loaded file out of the optimizer."""
        if self.resumed:
            self._swap()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Put the average into the network, with statistics of its own."""
        self._swap()
        measure_statistics(self.model, self.images)

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Put the trained weights back."""
        self._swap()

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Hold the average in the network for a while."""
        self._swap()
        yield
        self._swap()

    def _swap(self) -> None:
        outer = self.model.optimizer
        optimizer = getattr(outer, "inner_optimizer", outer)  # of the loss scaling in float16
        # Keras has no public name for either list; its own SwapEMAWeights uses these, but loses digits by adding.
        pairs = zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True)
        for trained, average in pairs:
            kept = np.array(keras.ops.convert_to_numpy(trained))
            trained.assign(average)
            average.assign(kept)


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

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Move on by the batch before; at the end of a step Keras would wait for the GPU's loss first."""
        if batch:
            self.advance(self.recipe.batch_size)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Close the bar and say the scores."""
        size = self.recipe.batch_size
        self.advance(self.images - (self.images - 1) // size * size)  # the last batch, which may be smaller
        self.stack.close()
        found = "  ".join(f"{key} {_short(value)}" for key, value in scores(logs).items())
        seconds = time.perf_counter() - self.began
        self.say(f"Epoch {epoch + 1}/{self.recipe.epochs}  {found}  ({self.images / seconds:,.0f} images/s)")

    def close(self) -> None:
        """Close the bar of an epoch that did not end."""
        self.stack.close()


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"  # a loss on its way to infinity


class Mlflow(keras.callbacks.Callback):
    """Log every epoch to MLflow (see `loggers`); what comes after the training is logged by `train`."""

    def __init__(self, recorder: Recorder, say: Callable[[str], object]) -> None:
        super().__init__()
        self.recorder, self.say, self.ended = recorder, say, False
        self.log = MlflowRun(recorder.run, recorder.recipe)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Begin the run of MLflow or go on with it, and log the epochs before that it lacks."""
        self.log.open()
        if self.recorder.history_rows:
            log_epoch(self.log, self.recorder.history_rows, self.say)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Log the epoch."""
        log_epoch(self.log, self.recorder.history_rows, self.say)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Remember that the training came to its end."""
        self.ended = True

    def close(self) -> None:
        """Mark a training that did not."""
        if not self.ended:
            with suppress(Exception):  # the error that ended the training is the one to be seen
                self.log.end("KILLED" if isinstance(sys.exception(), KeyboardInterrupt) else "FAILED")


def callbacks(
    run: RunDir,
    recipe: Recipe,
    info: ModelInfo,
    images: int,
    progress: Progress,
    say: Callable[[str], object],
    ask: Callable[[str], bool] | None = None,
    some: Callable[[], Iterator[np.ndarray]] = lambda: iter(()),
    device: str = "cpu",
    job: Job = ALONE,
    twin: keras.Model | None = None,
    stop: Callable[[list[dict[str, float]]], str] | None = None,
) -> tuple[Recorder, Bar, *tuple[keras.callbacks.Callback, ...]]:
    """Return the callbacks of a training: the recorder first, then the bar, which both are to be closed.

    Args:
        run: where the checkpoints go.
        recipe: the training.
        info: what the saved models carry.
        images: how many training images an epoch has.
        progress: draws the bars.
        say: receives one line an epoch.
        ask: asks the user a question, yes or no; None where there is none to ask.
        some: yields batches of training images, to measure the statistics of batch normalisation on.
        device: "cpu" or "gpu", where the network is trained.
        job: the processes that train it: only the first writes and logs.
        twin: see `Recorder`.
        stop: see `customcnn.training.train.train`.
    """
    averages = [MovingAverage(info.epoch > 0, some)] if recipe.ema else []
    recorder = Recorder(run, recipe, info, *averages, job=job, twin=twin)
    others = [
        LearningRate(recorder),
        *averages,
        EpochSeeds(recipe.seed),
        StopAtNaN(device),
        Stopper(recorder, say, ask, stop),
    ]
    if not job.first:
        return recorder, Bar(recipe, images, progress, say), *others
    if recipe.tensorboard:
        others.append(keras.callbacks.TensorBoard(str(run.logs), write_graph=False))
    if recipe.mlflow != "none":
        others.append(Mlflow(recorder, say))
    return recorder, Bar(recipe, images, progress, say), *others
