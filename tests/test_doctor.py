"""What customcnn doctor says: true of this machine, with reasons that follow the package's own choices."""

import configparser
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from customcnn import doctor
from customcnn.backend import devices
from customcnn.backend.precision import PRECISIONS, Tried
from customcnn.doctor import Choice, Report, Speed, examine, format_report, instructions, measure, memory
from customcnn.errors import CustomCNNError
from customcnn.models import get_spec
from customcnn.training.optimizer import compile_model
from tests.support.commands import error_line, printed

REPORT = Report(
    python="3.12.1",
    system="Linux",
    processor="A processor",
    cores=4,
    memory=12 * 2**30,
    instructions={"avx2": True, "avx512_bf16": True, "amx_bf16": False},
    packages={"customcnn": "0.1.0", "jax": None},
    extras={"optuna": None, "openvino": "2026.4.1"},
    backend=Choice("tensorflow", "the default"),
    devices=["cpu:0"],
    device="cpu",
    precision=Choice("mixed_bfloat16", "it is faster"),
    precision_depthwise=Choice("float32", "it is faster there"),
    precisions=[
        Tried("cpu", "float32", "works", "the others are compared with it", 1.0),
        Tried("cpu", "float16", "refused", "TypeError: no kernel"),
    ],
    batch_norm=Choice("fused", "two passes"),
    predict=Choice("openvino", "it is installed"),
    speed=Speed("small", (100, 200), 32, "mixed_bfloat16", {"mixed_bfloat16": 1234.5, "float32": 9.26}),
)

TEXT = """\
Python        3.12.1
system        Linux
processor     A processor
cores         4
memory        12.0 GiB
instructions  avx2, avx512_bf16, no amx_bf16

customcnn  0.1.0
jax        not installed
optuna     not installed: pip install 'customcnn[tune]'
openvino   2026.4.1

Keras backend     tensorflow: the default
devices           cpu:0; --device auto takes the cpu
precision         mixed_bfloat16: it is faster
  depthwise       float32: it is faster there
  cpu float32     works: the others are compared with it
  cpu float16     refused: TypeError: no kernel
batch norm        fused: two passes
predict           openvino: it is installed
training step     small at 200 x 100, batches of 32; figures vary from call to call
  mixed_bfloat16  1,234 images/s
  float32         9.3 images/s"""


@pytest.fixture(autouse=True)
def configured():
    devices.configure()


@pytest.fixture
def tiny(monkeypatch):
    """Let the networks be measured on the smallest pictures."""
    size = get_spec("small").minimum_size
    monkeypatch.setattr(doctor, "input_size", lambda recipe: (size, size))


# ---------------------------------------------------------------- the whole


def test_the_text_by_hand():
    assert format_report(REPORT) == TEXT


def test_what_is_unknown_or_not_measured():
    text = format_report(replace(REPORT, memory=0, instructions={}, speed=None))
    assert "memory        unknown\ninstructions  unknown\n" in text
    assert text.endswith("openvino: it is installed")


@pytest.mark.docs
def test_json_on_the_command_line(shell):
    output, _ = printed(*shell("doctor", "--no-measure", "--json"))
    found = json.loads(output)
    assert found.keys() == Report.__dataclass_fields__.keys()
    assert found["packages"] == devices.environment()["packages"]
    assert found["backend"]["value"] == devices.backend()
    assert found["precision"]["value"] == devices.dtype_policy("auto", found["device"])
    assert found["precision_depthwise"]["value"] == devices.dtype_policy("auto", found["device"], True)
    assert found["speed"] is None
    assert {(one["device"], one["precision"]) for one in found["precisions"]} >= {("cpu", p) for p in PRECISIONS}
    assert all(one["speed"] is None for one in found["precisions"])


@pytest.mark.docs
def test_text_on_the_command_line(tiny, shell):
    output, _ = printed(*shell("doctor"))
    assert "\ntraining step " in output and " images/s\n" in output


@pytest.mark.parametrize("words", [[], ["--no-measure"]])
def test_an_unknown_network(words, shell):
    assert error_line(*shell("doctor", "--model", "smal", *words)).startswith("The model must be one of ")


def test_an_unknown_network_in_python():
    with pytest.raises(CustomCNNError, match="Did you mean small"):
        examine("smal")


# ---------------------------------------------------------------- the machine


def test_memory_is_that_of_the_machine_or_less():
    assert 0 < memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(("limit", "expected"), [("4096\n", 4096), ("max\n", None), (None, None)])
def test_memory_of_a_container(monkeypatch, limit, expected):
    def read(path):
        if limit is None:
            raise FileNotFoundError(path)
        return limit

    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(doctor.Path, "read_text", read)
    assert memory() == (expected or whole)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 amx_bf16", {"avx2": True, "avx512_bf16": False, "amx_bf16": True}),
        ("", {}),
    ],
)
def test_instructions(monkeypatch, flags, expected):
    monkeypatch.setattr(devices, "cpuinfo", lambda key: flags if key == "flags" else "")
    assert instructions() == expected


def test_a_system_without_cpuinfo(monkeypatch):
    def refuse(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(doctor.Path, "read_text", refuse)
    assert instructions() == {}


def test_a_package_that_is_not_there():
    found = doctor.versions(("numpy", "no-such-package"))
    assert found["numpy"] and found["no-such-package"] is None


# ---------------------------------------------------------------- the choices


@pytest.mark.parametrize(
    ("has", "backend", "depthwise", "policy", "reason"),
    [
        (True, "tensorflow", False, "mixed_bfloat16", "the processor multiplies bfloat16 (amx_bf16)"),
        (True, "tensorflow", True, "float32", "depthwise convolutions are slower in bfloat16"),
        (True, "jax", False, "float32", "jax is not known to be faster"),
        (False, "tensorflow", False, "float32", "has neither avx512_bf16 nor amx_bf16"),
    ],
)
def test_precision_on_a_cpu(monkeypatch, has, backend, depthwise, policy, reason):
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: has)
    monkeypatch.setattr(devices, "backend", lambda: backend)
    monkeypatch.setattr(devices, "cpuinfo", lambda key: "avx2 amx_bf16")
    found = doctor.precision_choice("cpu", depthwise=depthwise)
    assert found.value == policy == devices.dtype_policy("auto", "cpu", depthwise)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("capability", "policy", "reason"), [(9.0, "mixed_bfloat16", "8.0 or above"), (7.5, "mixed_float16", "below 8.0")]
)
def test_precision_on_a_gpu(monkeypatch, capability, policy, reason):
    monkeypatch.setattr(devices, "_compute_capability", lambda: capability)
    found = doctor.precision_choice("gpu", depthwise=False)
    assert found.value == policy and found.reason.endswith(reason)


@pytest.mark.parametrize(
    ("name", "reason"), [("", "the default; KERAS_BACKEND"), ("tensorflow", "KERAS_BACKEND says so")]
)
def test_what_chose_the_backend(monkeypatch, name, reason):
    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.setattr(devices, "backend", lambda: "tensorflow")
    found = doctor.backend_choice()
    assert found.value == "tensorflow" and found.reason.startswith(reason)


def test_a_backend_from_the_file_of_keras(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(devices, "backend", lambda: "jax")
    assert "keras.json" in doctor.backend_choice().reason


def test_batch_norm():
    expected = "fused" if devices.backend() == "tensorflow" else "not fused"
    assert doctor.batch_norm_choice("cpu").value == expected
    assert doctor.batch_norm_choice("gpu").value == "not fused"


@pytest.mark.parametrize(
    ("installed", "value", "reason"),
    [
        (True, "openvino", "customcnn export"),
        (False, "keras", "openvino is not installed: pip install 'customcnn[openvino]'"),
    ],
)
def test_what_predict_takes(monkeypatch, installed, value, reason):
    monkeypatch.setattr(doctor, "is_installed", lambda: installed)
    found = doctor.predict_choice()
    assert found.value == value and reason in found.reason


def test_every_extra_installs_its_package():
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[1] / "setup.cfg")
    for package, extra in doctor.EXTRAS.items():
        assert package in settings["options.extras_require"][extra]


# ---------------------------------------------------------------- the measurement


def test_median_of_steps_taken_in_turn(monkeypatch):
    """The clock stands still but for the steps: 5 s, 1, 2, 3, 4, 5 s in bfloat16, ten times that in float32."""
    now, turns = 0.0, []
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: now)
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(devices, "backend", lambda: "tensorflow")

    def prepare(name, device, precision):
        seconds = itertools.cycle([5, 1, 2, 3, 4])

        def step():
            nonlocal now
            now += next(seconds) * (10 if precision == "float32" else 1)
            turns.append(precision)

        return step

    monkeypatch.setattr(doctor, "_prepare", prepare)
    found = measure("small", "cpu")
    assert turns == ["auto", "float32"] * 6
    assert found.images_per_second == {"mixed_bfloat16": pytest.approx(32 / 3), "float32": pytest.approx(3.2 / 3)}
    assert (found.precision, found.batch_size, found.input_size) == ("mixed_bfloat16", 32, (224, 224))


def test_float32_is_measured_once_where_it_is_chosen(tiny, monkeypatch):
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: False)
    found = measure("small", "cpu")
    assert list(found.images_per_second) == [found.precision] == ["float32"]
    assert found.images_per_second["float32"] > 0


@pytest.mark.docs
def test_the_step_is_that_of_a_training(tiny, monkeypatch):
    """The weights of the measured network move: it is compiled and trained, not only computed."""
    import keras

    seen = []
    monkeypatch.setattr(
        doctor, "compile_model", lambda model, recipe: seen.append(model) or compile_model(model, recipe)
    )
    step = doctor._prepare("small", "cpu", "float32")
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in seen[0].trainable_variables]
    step()
    after = [keras.ops.convert_to_numpy(weight) for weight in seen[0].trainable_variables]
    assert any((one != other).any() for one, other in zip(before, after, strict=True))
