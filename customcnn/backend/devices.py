"""The Keras backend: quiet, on the wanted device, in the wanted precision. `configure` comes before any network."""

import json
import os
import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from customcnn.backend.fused_batch_norm import fuse_batch_norm
from customcnn.errors import CustomCNNError, show
from customcnn.io.stdio import silent_stderr

if TYPE_CHECKING:
    import keras

PACKAGES = ("customcnn", "keras", "tensorflow", "jax", "torch", "numpy", "pillow", "scikit-learn", "Augmentor")


def configure(device: str = "auto") -> str:
    """Import Keras, quietly, and choose the device.

    On TensorFlow and a CPU, deterministic kernels are asked for: the same seed then gives the same history. The choice
    holds for the process.

    Args:
        device: "auto" (a GPU if there is one), "cpu" or "gpu".

    Returns:
        "cpu" or "gpu": what will be used.

    Raises:
        CustomCNNError: "gpu" where the backend sees none, or the backend of KERAS_BACKEND is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if device == "cpu":
        os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")  # Keras on torch looks at nothing else, and only once
    with silent_stderr():
        try:
            import keras
        except (ImportError, ValueError, AttributeError) as error:  # the last two from a file of settings
            raise CustomCNNError(_why_no_keras(error)) from None
        # Whatever an old keras.json says: the networks here are built for this.
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
        gpus = _gpus(keras.backend.backend())
    if device == "gpu" and not gpus:
        raise CustomCNNError(
            f"--device gpu needs a GPU that {keras.backend.backend()} can use. Received: none is visible. "
            "Use --device cpu, or install the backend's GPU build (customcnn[gpu] for TensorFlow)."
        )
    used = "gpu" if gpus and device != "cpu" else "cpu"
    if used == "cpu":
        _stay_on_cpu(keras.backend.backend(), hide=bool(gpus))
    return used


def _why_no_keras(error: Exception) -> str:
    settings = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")) / "keras.json"
    if "KERAS_BACKEND" not in os.environ and settings.is_file() and not isinstance(error, ImportError):
        return (
            f"Keras reads its settings from a file. Received: {show(settings)} ({error}). "
            "Delete it if it is older than Keras 3, or set KERAS_BACKEND to tensorflow, jax or torch."
        )
    wanted = os.environ.get("KERAS_BACKEND", "tensorflow")
    return (
        f"KERAS_BACKEND names an installed backend. Received: {show(wanted)} ({error}). "
        "Install it, or set KERAS_BACKEND to tensorflow, jax or torch."
    )


def _gpus(backend: str) -> int:
    if backend == "tensorflow":
        import tensorflow as tf

        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":
            # Its Python side does not read that level, and would explain retracing to whoever scores a few networks.
            tf.get_logger().setLevel("ERROR")
        return len(tf.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return sum(device.platform == "gpu" for device in jax.devices())
    if backend == "torch":
        import torch

        return torch.cuda.device_count()
    return 0


def _stay_on_cpu(backend: str, hide: bool) -> None:
    if backend == "tensorflow":
        import tensorflow as tf

        if hide:
            tf.config.set_visible_devices([], "GPU")
        tf.config.experimental.enable_op_determinism()
    elif backend == "jax" and hide:
        import jax

        jax.config.update("jax_default_device", jax.devices("cpu")[0])
    elif backend == "torch" and hide:
        import torch

        torch.set_default_device("cpu")


def load_tensorflow() -> None:
    """Import TensorFlow quietly where Keras will: on JAX and torch it does so to train and to save."""
    if "tensorflow" not in sys.modules:
        with silent_stderr(), suppress(ImportError):
            import tensorflow  # noqa: F401


def dtype_policy(precision: str, device: str, depthwise: bool = False) -> str:
    """Return the Keras dtype policy for a precision.

    Args:
        precision: "auto", "float32", "bfloat16" or "float16"; "auto" is bfloat16 on a CPU that multiplies it (see
            `cpu_has_bfloat16`) with TensorFlow, float32 on others, and on a GPU bfloat16 from compute capability 8.0
            (Ampere) on, float16 before.
        device: "cpu" or "gpu", from `configure`.
        depthwise: whether the network has depthwise convolutions: "auto" on a CPU is float32 then, which is faster.

    Returns:
        "float32", "mixed_bfloat16" or "mixed_float16"; weights are float32 in each.
    """
    if precision == "auto":
        if device == "cpu":
            fast = cpu_has_bfloat16() and backend() == "tensorflow" and not depthwise
            return "mixed_bfloat16" if fast else "float32"
        return "mixed_bfloat16" if _compute_capability() >= 8 else "mixed_float16"
    return "float32" if precision == "float32" else f"mixed_{precision}"


def cpu_has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 by itself (AVX-512 BF16 or AMX), as far as Linux says."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpuinfo("flags").split())


def cpuinfo(key: str) -> str:
    """Return what Linux says of the first processor under a key such as "flags"; "" where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def backend() -> str:
    """Return the name of Keras's backend: "tensorflow", "jax" or "torch"."""
    import keras

    return keras.backend.backend()


def suited(model: "keras.Model") -> "keras.Model":
    """Return a loaded network as this machine can compute it.

    A network that was trained in bfloat16 is built anew in float32, with the same weights, where neither a GPU nor the
    CPU has bfloat16: it would be emulated there, many times slower. Any other comes back as it is.

    Args:
        model: not compiled, or compiled and no longer trained: the new one is not compiled.
    """
    import keras

    mixed = any(layer.dtype_policy.name == "mixed_bfloat16" for layer in model.layers)
    if not mixed or cpu_has_bfloat16() or _gpus(backend()):
        return model
    config = json.loads(json.dumps(model.get_config()).replace('"mixed_bfloat16"', '"float32"'))
    plain = keras.Model.from_config(config)
    plain.set_weights(model.get_weights())
    return plain


def prepare(model: "keras.Model", device: str) -> None:
    """Let a new or a loaded network compute as fast as the device can, in place, before its first step.

    Args:
        model: of this package.
        device: "cpu" or "gpu", from `configure`.
    """
    if device == "cpu":
        fuse_batch_norm(model)


def _compute_capability() -> float:
    if backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return float(".".join(map(str, details.get("compute_capability", (7, 0)))))
    if backend() == "jax":
        import jax

        return float(getattr(jax.devices()[0], "compute_capability", 7.0))
    import torch

    return float(".".join(map(str, torch.cuda.get_device_capability())))


def environment() -> dict[str, object]:
    """Return what a result depends on beside its recipe: versions, backend, machine; ready for JSON."""
    import keras

    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "packages": versions,
    }
