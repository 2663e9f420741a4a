"""Which precisions work here: tried for real, and judged by a clock and by results that the tests make up."""

import contextlib
import itertools

import numpy as np
import pytest

from customcnn.backend import devices
from customcnn.backend import precision as module
from customcnn.backend.precision import PRECISIONS, Tried, try_precisions

HALF = np.full((2, 2), 0.5, np.float32)


@pytest.fixture(autouse=True)
def configured(monkeypatch):
    """Let the processor of the tests multiply bfloat16 and not float16."""
    devices.configure()
    monkeypatch.setattr(devices, "cpuinfo", lambda key: "avx2 avx512_bf16")


def made_up(monkeypatch, seconds: dict[str, float], predicted=lambda precision: HALF) -> None:
    """Let a step take so many seconds of a clock that stands still otherwise."""
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)

    def prepare(device, precision):
        if precision not in seconds:
            raise TypeError(f"no kernel\nfor {precision}")
        late = itertools.chain([10.0], itertools.repeat(1.0))  # the shortest step counts

        def step():
            nonlocal now
            now += seconds[precision] * next(late)

        return module._Prepared(step, predicted(precision))

    monkeypatch.setattr(module, "_prepare", prepare)


@pytest.mark.backend
def test_tried_on_this_machine():
    found = try_precisions("cpu", measure=False)
    assert [(one.device, one.precision) for one in found] == [("cpu", precision) for precision in PRECISIONS]
    assert found[0] == Tried("cpu", "float32", "works", "what the others are compared with")
    assert {one.verdict for one in found} <= {"works", "refused"} and all(one.reason for one in found)
    assert all(one.speed is None for one in found)


def test_the_steps_are_those_of_a_training():
    """The weights move, and the network computes in the precision that it says."""
    import keras

    seen = []
    network = module._network
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_network", lambda policy: seen.append(network(policy)) or seen[-1])
        one = module._prepare("cpu", "float32")
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in seen[0].trainable_variables]
    one.step()
    after = [keras.ops.convert_to_numpy(weight) for weight in seen[0].trainable_variables]
    assert any((x != y).any() for x, y in zip(before, after, strict=True))
    assert {layer.compute_dtype for layer in network("mixed_bfloat16").layers[1:-1]} == {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"


def test_verdicts_by_the_clock(monkeypatch):
    made_up(monkeypatch, {"float32": 2.0, "bfloat16": 1.0, "float16": 8.0})
    assert try_precisions("cpu") == [
        Tried("cpu", "float32", "works", "what the others are compared with", 1.0),
        Tried("cpu", "bfloat16", "works", "2 times as fast as float32", 2.0),
        Tried(
            "cpu",
            "float16",
            "slower",
            "0.25 times as fast as float32, as the processor has no instruction for it",
            0.25,
        ),
    ]


@pytest.mark.parametrize(("seconds", "verdict"), [(1.0, "works"), (1.1, "works"), (1.3, "slower")])
def test_a_little_slower_is_chance(monkeypatch, seconds, verdict):
    made_up(monkeypatch, {"float32": 1.0, "bfloat16": seconds})
    assert try_precisions("cpu")[1].verdict == verdict


def test_refused(monkeypatch):
    made_up(monkeypatch, {"float32": 1.0, "bfloat16": 1.0})
    assert try_precisions("cpu")[2] == Tried("cpu", "float16", "refused", "TypeError: no kernel")
    made_up(monkeypatch, {})
    assert {one.verdict for one in try_precisions("cpu")} == {"refused"}


@pytest.mark.parametrize("wrong", [HALF + 0.1, HALF * np.nan])
def test_wrong_results_are_refused(monkeypatch, wrong):
    steps = dict.fromkeys(PRECISIONS, 1.0)
    made_up(monkeypatch, steps, lambda precision: wrong if precision == "float16" else HALF + 0.01)
    assert [one.verdict for one in try_precisions("cpu")] == ["works", "works", "refused"]
    assert "wrong" in try_precisions("cpu")[2].reason


def test_with_a_gpu_the_processor_is_tried_too(monkeypatch):
    placed = []

    def place(kind, used):
        placed.append((kind, used))
        return contextlib.nullcontext()

    monkeypatch.setattr(module, "_placed", place)
    made_up(monkeypatch, dict.fromkeys(PRECISIONS, 1.0))
    assert [one.device for one in try_precisions("gpu")] == ["cpu"] * 3 + ["gpu"] * 3
    assert placed == [("cpu", "gpu"), ("gpu", "gpu")]


def test_what_is_hopelessly_slow_is_timed_twice(monkeypatch):
    now = 0.0
    steps: list[str] = []
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)

    def taking(name: str, seconds: float) -> module._Prepared:
        def step():
            nonlocal now
            steps.append(name)
            now += seconds

        return module._Prepared(step, HALF)

    seconds = {"float32": 1.0, "bfloat16": 4.0, "float16": 6.0}
    assert module._seconds({name: taking(name, time) for name, time in seconds.items()}) == seconds
    assert [steps.count(name) for name in seconds] == [module.ROUNDS, module.ROUNDS, 2]
