"""Which precisions each device computes here: tried on steps of a tiny network, not read from a table."""

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.backend import devices
from customcnn.io.stdio import silent_stderr

if TYPE_CHECKING:
    import keras

PRECISIONS = ("float32", "bfloat16", "float16")
WORKS, SLOWER, REFUSED = "works", "slower", "refused"

EDGE, BATCH = 48, 16
ROUNDS = 8
"""So many steps are timed in each precision, in turn; the shortest counts."""

HOPELESS = 5
"""What took so many times float32's time twice is not timed again: an emulated precision may take seconds a step."""

CLEARLY = 0.85
"""Slower is what takes less than this share of float32's images per second: less than that is chance."""

FARTHEST = 0.05
"""Probabilities may differ from float32's by so much; bfloat16 has three digits."""

INSTRUCTIONS = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}
"""With what a processor multiplies each precision itself, as Linux names it."""


@dataclass(frozen=True)
class Tried:
    """One precision on one device.

    Attributes:
        device: "cpu" or "gpu".
        precision: one of `PRECISIONS`.
        verdict: "works", "slower" (than float32; it works, too) or "refused".
        reason: why, in words.
        speed: steps per second as a multiple of float32's there; None where it was not measured.
    """

    device: str
    precision: str
    verdict: str
    reason: str
    speed: float | None = None


@dataclass(frozen=True)
class _Prepared:
    step: Callable[[], object]
    predicted: np.ndarray  # before any step, float32 (BATCH, 2)


def try_precisions(device: str, *, measure: bool = True) -> list[Tried]:
    """Train a tiny network for some steps on every device in every precision.

    Args:
        device: "cpu" or "gpu", from `devices.configure`: with "gpu" both are tried.
        measure: False says only whether it works.
    """
    found: list[Tried] = []
    for kind in dict.fromkeys(("cpu", device)):
        # What a library has to say of a type that it cannot compute stands in the reason.
        with silent_stderr(), warnings.catch_warnings(), _placed(kind, device):
            warnings.simplefilter("ignore")
            found += _on_one(kind, measure)
    return found


def _placed(kind: str, used: str) -> AbstractContextManager[object]:
    if kind == used:
        return nullcontext()
    import keras

    # An index makes PyTorch copy the weights to where they are, and the copies would get no gradients.
    scope: AbstractContextManager[object] = keras.device(kind if devices.backend() == "torch" else f"{kind}:0")
    return scope


def _on_one(device: str, measure: bool) -> list[Tried]:
    prepared: dict[str, _Prepared] = {}
    refused: dict[str, str] = {}
    for precision in PRECISIONS:
        try:
            prepared[precision] = _prepare(device, precision)
        except Exception as error:  # whatever the backend's library says to a type that it cannot compute
            refused[precision] = _first_line(error)
    right = prepared["float32"].predicted if "float32" in prepared else None
    for precision, one in list(prepared.items()):
        if right is not None and not np.abs(one.predicted - right).max() <= FARTHEST:
            refused[precision] = "its results are wrong: they are not near float32's"
            del prepared[precision]
    seconds = _seconds(prepared) if measure else {}
    return [Tried(device, p, REFUSED, refused[p]) if p in refused else _judged(device, p, seconds) for p in PRECISIONS]


def _judged(device: str, precision: str, seconds: dict[str, float]) -> Tried:
    if precision == "float32":
        return Tried(device, precision, WORKS, "what the others are compared with", 1.0 if seconds else None)
    if not seconds or "float32" not in seconds:
        return Tried(device, precision, WORKS, "its results are float32's, but for rounding")
    speed = seconds["float32"] / seconds[precision]
    reason = f"{speed:.2g} times as fast as float32"
    if device == "cpu" and _emulated(precision):
        reason += ", as the processor has no instruction for it"
    return Tried(device, precision, WORKS if speed >= CLEARLY else SLOWER, reason, speed)


def _emulated(precision: str) -> bool:
    flags = devices.cpuinfo("flags").split()
    return bool(flags) and not {*INSTRUCTIONS[precision]} & {*flags}


def _seconds(prepared: dict[str, _Prepared]) -> dict[str, float]:
    found = {precision: float("inf") for precision in prepared}
    for turn in range(ROUNDS):
        for precision, one in prepared.items():
            if turn > 1 and found[precision] > HOPELESS * found.get("float32", np.inf):
                continue
            began = time.perf_counter()
            one.step()
            found[precision] = min(found[precision], time.perf_counter() - began)
    return found


def _prepare(device: str, precision: str) -> _Prepared:
    """Build the network on the device, take a first step, which traces it, and return how to take more."""
    import keras

    rng = np.random.default_rng(0)
    images = rng.random((BATCH, EDGE, EDGE, 3), dtype=np.float32)
    labels = rng.integers(0, 2, BATCH)
    model = _network(devices.dtype_policy(precision, device))
    # With a GPU in the machine, TensorFlow would compile for the processor as well, which training there does not.
    jit: Any = False if device == "cpu" and devices.backend() == "tensorflow" else "auto"
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit)
    predicted = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float32)

    def step() -> float:
        return float(np.asarray(model.train_on_batch(images, labels)).ravel()[0])

    loss = step()
    if not np.isfinite(loss):
        raise ArithmeticError(f"the loss of a first step is {loss}")
    return _Prepared(step, predicted)


def _network(policy: str) -> "keras.Model":
    """Return two convolutions and a matrix product whose weights are the same in every precision."""
    import keras
    from keras import layers

    def weights(seed: int) -> Any:
        return keras.initializers.GlorotUniform(seed)

    last: Any = {"data_format": "channels_last"}
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        image = x = keras.Input((EDGE, EDGE, 3))
        for seed in (1, 2):
            x = layers.Conv2D(32, 3, padding="same", activation="relu", kernel_initializer=weights(seed), **last)(x)
        x = layers.GlobalAveragePooling2D(**last)(x)
        x = layers.Dense(64, activation="relu", kernel_initializer=weights(3))(x)
        x = layers.Dense(2, activation="softmax", kernel_initializer=weights(4), dtype="float32")(x)
        return keras.Model(image, x)
    finally:
        keras.config.set_dtype_policy(before)


def _first_line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:160]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
