"""The global random generators: a training seeds them, and gives them back as they were."""

from __future__ import annotations

import random
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

KERAS_GLOBALS = ("global_random_seed", "global_seed_generator")
"""What keras.utils.set_random_seed sets besides (Keras 3.14 to 3.15): https://github.com/keras-team/keras, rng_utils.py
has no way to read it back."""


@contextmanager
def kept_generators() -> Iterator[None]:
    """Give the global generators of Python, NumPy, Keras and its backend back as they were.

    Keras draws a new layer's seeds from Python's generator, and set_random_seed sets all of them: without this, what a
    user draws next would depend on the training, and a search in the same process would draw alike each time.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.callback(np.random.set_state, numpy)
        stack.callback(random.setstate, python)
        stack.enter_context(_keras_kept())
        stack.enter_context(_tensorflow_kept())
        if "torch" in sys.modules:
            import torch

            # A GPU that is not in use has drawn nothing yet.
            gpus = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
            stack.enter_context(torch.random.fork_rng(devices=gpus))
        yield


@contextmanager
def _keras_kept() -> Iterator[None]:
    known = "keras" in sys.modules  # it must not be imported before the device is chosen
    before = {name: _keras_state().get_global_attribute(name) for name in KERAS_GLOBALS} if known else {}
    try:
        yield
    finally:
        if "keras" in sys.modules:
            for name in KERAS_GLOBALS:
                _keras_state().set_global_attribute(name, before.get(name))


def _keras_state() -> Any:
    from keras.src.backend.common import global_state

    return global_state


@contextmanager
def _tensorflow_kept() -> Iterator[None]:
    """Keep the seed of TensorFlow's eager operations, and the generator that it draws theirs from."""
    known = "tensorflow" in sys.modules
    # There is no generator before the first seed.
    before = {name: value for name, value in _tensorflow_state().items() if name in ("_seed", "_rng")} if known else {}
    try:
        yield
    finally:
        if "tensorflow" in sys.modules:
            _tensorflow_state().pop("_rng", None)
            _tensorflow_state().update({"_seed": None, **before})


def _tensorflow_state() -> dict[str, Any]:
    from tensorflow.python.eager import context  # tf.random has no way to read the seed back

    return vars(context.context())
