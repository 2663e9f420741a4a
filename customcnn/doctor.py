"""What this machine is, what customcnn does on it and why, and how fast a step of a training is."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from customcnn.backend import devices
from customcnn.backend.fused_batch_norm import fuse_batch_norm
from customcnn.backend.precision import Tried, try_precisions
from customcnn.inference.runtimes import is_installed
from customcnn.io.parallel import worker_count
from customcnn.models import get_spec
from customcnn.recipe.recipe import load_recipe
from customcnn.training.batches import targets
from customcnn.training.classification import input_size, new_model
from customcnn.training.optimizer import compile_model

EXTRAS = {
    "optuna": "tune",
    "albumentations": "albumentations",
    "tensorboard": "tensorboard",
    "openvino": "openvino",
    "kagglehub": "download",
    "numba": "fast",
    "opencv-python-headless": "deep",
    "faiss-cpu": "deep",
    "gradio": "serve",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "tf2onnx": "onnx",
    "ai-edge-litert": "litert",
    "mlflow-skinny": "mlflow",
}
"""Packages that customcnn works without, and the extra that installs each."""

INSTRUCTIONS = ("avx2", "avx512_bf16", "amx_bf16")
"""What a network computes faster with, as Linux names it."""

BATCH = 32
STEPS = 5
"""So many steps are measured in each precision; the first, which is not, also traces the network."""


@dataclass(frozen=True)
class Choice:
    """What customcnn does on this machine, and why."""

    value: str
    reason: str


@dataclass(frozen=True)
class Speed:
    """How fast one network trains.

    Attributes:
        model: its name.
        input_size: height and width in pixels.
        batch_size: images in a step.
        precision: the dtype policy that precision=auto chose.
        images_per_second: by dtype policy, the median of the rounds: the chosen one, and float32 beside it.
    """

    model: str
    input_size: tuple[int, int]
    batch_size: int
    precision: str
    images_per_second: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What `examine` found.

    Attributes:
        python, system, processor: in words.
        cores: that this process may use.
        memory: bytes that this process may use; 0 where the system does not say.
        instructions: whether the processor has each of INSTRUCTIONS; empty where the system does not say.
        packages: versions by name; None for what is not installed.
        extras: as `packages`, for what customcnn works without.
        backend: of Keras.
        devices: that the backend sees, by its names.
        device: "cpu" or "gpu": what --device auto takes.
        precision: what precision=auto chooses for a plain network.
        precision_depthwise: the same for one with depthwise convolutions.
        precisions: what each device made of each precision, tried on a tiny network.
        batch_norm: "fused" or "not fused".
        predict: "openvino" or "keras".
        speed: None where it was not measured.
    """

    python: str
    system: str
    processor: str
    cores: int
    memory: int
    instructions: dict[str, bool]
    packages: dict[str, str | None]
    extras: dict[str, str | None]
    backend: Choice
    devices: list[str]
    device: str
    precision: Choice
    precision_depthwise: Choice
    precisions: list[Tried]
    batch_norm: Choice
    predict: Choice
    speed: Speed | None


def examine(model: str = "small", *, measure_speed: bool = True) -> Report:
    """Look at this machine and at what customcnn does on it.

    Args:
        model: the network whose training step is measured, at its own input size.
        measure_speed: False leaves the measurements out: it is still tried which precisions work.

    Raises:
        CustomCNNError: an unknown network, or a backend that is not installed.
    """
    get_spec(model)
    device = devices.configure()
    return Report(
        python=platform.python_version(),
        system=platform.platform(),
        processor=devices.cpuinfo("model name") or platform.processor() or platform.machine(),
        cores=worker_count(None),
        memory=memory(),
        instructions=instructions(),
        packages=versions(devices.PACKAGES),
        extras=versions(tuple(EXTRAS)),
        backend=backend_choice(),
        devices=seen_devices(device),
        device=device,
        precision=precision_choice(device, depthwise=False),
        precision_depthwise=precision_choice(device, depthwise=True),
        precisions=try_precisions(device, measure=measure_speed),
        batch_norm=batch_norm_choice(device),
        predict=predict_choice(),
        speed=measure(model, device) if measure_speed else None,
    )


def instructions() -> dict[str, bool]:
    """Return whether the processor has each of INSTRUCTIONS; nothing where the system does not say."""
    flags = devices.cpuinfo("flags").split()
    return {name: name in flags for name in INSTRUCTIONS} if flags else {}


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or a container's limit; 0 if unknown."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdecimal() else whole


def versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    """Return the installed version of every package; None for what is not installed. Nothing is imported."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def backend_choice() -> Choice:
    """Return Keras's backend and what has chosen it; after `devices.configure`."""
    if os.environ.get("KERAS_BACKEND"):
        return Choice(devices.backend(), "KERAS_BACKEND says so")
    if devices.backend() == "tensorflow":
        return Choice("tensorflow", "the default; KERAS_BACKEND would choose another")
    return Choice(devices.backend(), "Keras's own file keras.json says so; KERAS_BACKEND would choose another")


def seen_devices(device: str) -> list[str]:
    """Return the devices that the backend sees, such as "cpu:0"; `device` alone where Keras cannot list them."""
    import keras

    try:
        return [str(device) for device in keras.distribution.list_devices()]
    except (AttributeError, NotImplementedError):  # Keras has no such list for PyTorch
        return [device]


def precision_choice(device: str, *, depthwise: bool) -> Choice:
    """Return the dtype policy of precision=auto, and why.

    Args:
        device: "cpu" or "gpu", from `devices.configure`.
        depthwise: whether the network has depthwise convolutions.
    """
    chosen = devices.dtype_policy("auto", device, depthwise)
    if device == "gpu":
        place = "8.0 or above" if chosen == "mixed_bfloat16" else "below 8.0"
        return Choice(chosen, f"the GPU's compute capability is {place}")
    if not devices.cpu_has_bfloat16():
        reason = "the processor has neither avx512_bf16 nor amx_bf16, and would emulate bfloat16"
    elif devices.backend() != "tensorflow":
        reason = f"on a CPU, {devices.backend()} is not known to be faster in bfloat16"
    elif depthwise:
        reason = "depthwise convolutions are slower in bfloat16 on a CPU"
    else:
        has = [name for name, there in instructions().items() if there and name.endswith("bf16")]
        reason = f"the processor multiplies bfloat16 ({', '.join(has)})"
    return Choice(chosen, reason)


def batch_norm_choice(device: str) -> Choice:
    """Return whether batch normalisation is "fused" or "not fused", tried on a layer of its own, and why."""
    import keras

    if device != "cpu":
        return Choice("not fused", "only on a CPU is it Keras's own computation that is slow")
    image = keras.Input((2, 2, 1))
    if fuse_batch_norm(keras.Model(image, keras.layers.BatchNormalization(dtype="float32")(image))):
        return Choice("fused", "TensorFlow's kernels, one pass forward and one backward")
    return Choice("not fused", f"{devices.backend()} has no such kernel for a CPU in Keras")


def predict_choice() -> Choice:
    """Return which runtime `customcnn predict` takes at its best, and why."""
    if is_installed():
        return Choice("openvino", "for a run with an export (customcnn export); keras for others")
    return Choice("keras", f"openvino is {_missing('openvino')}")


def measure(model: str, device: str) -> Speed:
    """Measure training steps in the precision of precision=auto and in float32, in turn.

    Args:
        model: a network's name; it gets random images of its own input size.
        device: "cpu" or "gpu", from `devices.configure`.
    """
    recipe = load_recipe(None, {"model": model, "weights": "none", "batch_size": BATCH})
    chosen = devices.dtype_policy("auto", device, get_spec(model).depthwise)
    precisions = {chosen: "auto", "float32": "float32"}
    steps = {policy: _prepare(model, device, precision) for policy, precision in precisions.items()}
    rates: dict[str, list[float]] = {policy: [] for policy in steps}
    for step in steps.values():
        step()
    for _ in range(STEPS):
        for policy, step in steps.items():
            began = time.perf_counter()
            step()
            rates[policy].append(BATCH / (time.perf_counter() - began))
    medians = {policy: statistics.median(found) for policy, found in rates.items()}
    return Speed(model, input_size(recipe), BATCH, chosen, medians)


def _prepare(name: str, device: str, precision: str) -> Callable[[], object]:
    """Return a function that takes one step, as `train` does, and waits for its end."""
    recipe = load_recipe(None, {"model": name, "weights": "none", "precision": precision, "batch_size": BATCH})
    size = input_size(recipe)
    model, _ = new_model(recipe, ["a", "b"], size, device, lambda line: None)
    devices.prepare(model, device)
    compile_model(model, recipe)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, *size, 3), dtype=np.uint8)
    wanted = targets(rng.integers(0, 2, BATCH), 2, model.outputs[0].shape[-1])
    return lambda: model.train_on_batch(images, wanted)


def format_report(report: Report) -> str:
    """Return the report as text for people, in aligned lines."""
    return "\n\n".join(_lines(rows) for rows in (_machine(report), _packages(report), _choices(report)))


def _machine(report: Report) -> list[tuple[str, str]]:
    has = report.instructions
    return [
        ("Python", report.python),
        ("system", report.system),
        ("processor", report.processor),
        ("cores", str(report.cores)),
        ("memory", f"{report.memory / 2**30:.1f} GiB" if report.memory else "unknown"),
        ("instructions", ", ".join(name if has[name] else f"no {name}" for name in has) or "unknown"),
    ]


def _packages(report: Report) -> list[tuple[str, str]]:
    rows = [(name, version or "not installed") for name, version in report.packages.items()]
    return rows + [(name, version or _missing(name)) for name, version in report.extras.items()]


def _missing(package: str) -> str:
    return f"not installed: pip install 'customcnn[{EXTRAS[package]}]'"


def _choices(report: Report) -> list[tuple[str, str]]:
    rows = [
        ("Keras backend", _with_reason(report.backend)),
        ("devices", f"{', '.join(report.devices)}; --device auto takes the {report.device}"),
        ("precision", _with_reason(report.precision)),
        ("  depthwise", _with_reason(report.precision_depthwise)),
        *((f"  {tried.device} {tried.precision}", f"{tried.verdict}: {tried.reason}") for tried in report.precisions),
        ("batch norm", _with_reason(report.batch_norm)),
        ("predict", _with_reason(report.predict)),
    ]
    if report.speed:
        rows += _speed(report.speed)
    return rows


def _speed(speed: Speed) -> list[tuple[str, str]]:
    height, width = speed.input_size
    what = f"{speed.model} at {width} x {height}, batches of {speed.batch_size}; figures vary from call to call"
    rates = [(f"  {policy}", f"{_rate(value)} images/s") for policy, value in speed.images_per_second.items()]
    return [("training step", what), *rates]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _with_reason(choice: Choice) -> str:
    return f"{choice.value}: {choice.reason}"


def _lines(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)
