"""Images held on the device give the same batches and the same training as those read from the host.

Run as a script, this file is the worker: it computes with the backend of KERAS_BACKEND, on the CPU, where nothing is
held unless it is asked for, and writes what came out.
"""

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from customcnn.augmentation import make_transform
from customcnn.augmentation.settings import Augmentation
from customcnn.training import device_cache
from customcnn.training.batches import batches, targets

SEED, BATCH, EPOCHS = 5, 8, 2
SHAPES = {"square": (40, 12, 12, 3), "oblong": (40, 8, 14, 3)}
AUGMENTATIONS = {
    "plain": Augmentation(),
    "flips": Augmentation(flip="both"),
    "mirror": Augmentation(flip="horizontal"),
    "turns": Augmentation(quarter_turns=True),
    "all eight": Augmentation(flip="both", quarter_turns=True),
}


def pack_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def some_rows() -> tuple[np.ndarray, np.ndarray]:
    """Return 29 rows of an epoch, out of order and three of them twice, and 10 others to validate on."""
    rows = np.random.default_rng(1).permutation(40)
    return np.concatenate([rows[:26], rows[:3]]), np.sort(rows[30:])


# ---------------------------------------------------------------- the worker


def _batches_of(shape: tuple[int, ...], augmentation: Augmentation) -> dict[str, bool]:
    """Compare what the device gives with what the host gives, every batch of two epochs, the smaller last included."""
    images, (rows, valid) = pack_of(shape), some_rows()
    wanted = targets(np.arange(40) % 2, 2, 1)
    weights = np.linspace(0, 1, 40, dtype=np.float32)
    change = make_transform(augmentation)
    held = device_cache.hold(images, rows, valid, augmentation, on_cpu=True)
    assert held[0] is not None and held[1] is not None
    pairs = [
        (
            batches(images, wanted, rows, BATCH, SEED, transform=change, weights=weights),
            batches(images, wanted, rows, BATCH, SEED, weights=weights, resident=held[0]),
        ),
        (batches(images, wanted, valid, BATCH, None), batches(images, wanted, valid, BATCH, None, resident=held[1])),
    ]
    same, moved, sizes, on_device = True, False, set(), True
    for host, device in pairs:
        for _ in range(EPOCHS):
            for index in range(len(host)):
                expected, found = host[index], device[index]
                on_device &= not isinstance(found[0], np.ndarray)
                pixels = np.asarray(found[0])
                same &= pixels.dtype == np.uint8 and pixels.shape == expected[0].shape
                same &= pixels.tobytes() == np.ascontiguousarray(expected[0]).tobytes()
                same &= all(np.array_equal(a, b) for a, b in zip(expected[1:], found[1:], strict=True))
                sizes.add(len(pixels))
                plain = images[np.sort(host.orders()[0][index * BATCH : (index + 1) * BATCH])]
                moved |= not np.array_equal(pixels, plain)
            host.on_epoch_end()
            device.on_epoch_end()
    return {"same": same, "moved": moved, "two sizes": len(sizes) > 2, "on the device": on_device}


def _kinds(dataset: object) -> list[str]:
    """Return the types of the images that Keras hands to the training step."""
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    adapter = PyDatasetAdapter(dataset)
    jax = keras.backend.backend() == "jax"
    fed = adapter.get_jax_iterator() if jax else adapter.get_torch_dataloader()
    return sorted({f"{type(batch[0]).__module__.partition('.')[0]} {batch[0].dtype}" for batch in fed})


def _fit(on_device: bool) -> tuple[dict[str, list[float]], int, list[str]]:
    """Train two epochs of four full batches; return the history, how often the step was traced, and `_kinds`."""
    import keras

    keras.utils.set_random_seed(0)
    traces = 0

    class Counted(keras.Sequential):
        def train_step(self, *given):  # on JAX run when the step is traced, not when it is taken
            nonlocal traces
            traces += 1
            return super().train_step(*given)

    layers = keras.layers
    model = Counted([layers.Input((12, 12, 3)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu")])
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    images, augmentation = pack_of(SHAPES["square"]), AUGMENTATIONS["all eight"]
    wanted, rows, valid = targets(np.arange(40) % 2, 2, 1), np.arange(32), np.arange(32, 40)
    train, check = device_cache.hold(images, rows, valid, augmentation, on_cpu=True) if on_device else (None, None)
    change = make_transform(augmentation)
    training = batches(images, wanted, rows, BATCH, SEED, transform=change, resident=train)
    kinds = _kinds(training)
    model.fit(training, epochs=EPOCHS, shuffle=False, verbose=0)
    history = {key: list(map(float, values)) for key, values in model.history.history.items()}
    scores = model.evaluate(batches(images, wanted, valid, BATCH, None, resident=check), verbose=0)
    return history | {"validation": list(map(float, scores))}, traces, kinds


def _worker(path: str) -> None:
    import keras

    results: dict[str, object] = {"backend": keras.backend.backend()}
    for shape in SHAPES:
        for name, augmentation in AUGMENTATIONS.items():
            results[f"{shape}, {name}"] = _batches_of(SHAPES[shape], augmentation)
    (rows, valid), images = some_rows(), pack_of(SHAPES["square"])
    held = device_cache.hold(images, rows, valid, Augmentation(flip="both", hue=0.1), on_cpu=True)
    results["colours"] = [None if part is None else len(part.rows) for part in held]
    results["unasked"] = [part is None for part in device_cache.hold(images, rows, valid, Augmentation())]
    device_cache.SLICE = 16  # 39 images in three slices, the last of which overlaps
    whole = device_cache.hold(images, np.arange(39), np.arange(3), Augmentation(), on_cpu=True)[1]
    assert whole is not None
    results["slices"] = np.array_equal(np.asarray(whole.held), images[:39])
    results["host"], results["device"] = _fit(on_device=False), _fit(on_device=True)
    Path(path).write_text(json.dumps(results))


@cache
def worker(backend: str, path: Path) -> dict:
    environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "KERAS_TORCH_DEVICE": "cpu"}
    command = [sys.executable, str(Path(__file__).resolve()), str(path)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(path.read_text())
    assert found["backend"] == backend
    return found


@pytest.fixture(params=["jax", "torch"])
def found(request, tmp_path_factory):
    """What one backend came to; computed once."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return worker(request.param, tmp_path_factory.getbasetemp() / f"resident-{request.param}.json")


# ---------------------------------------------------------------- the tests


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_batches_are_those_of_the_host(found, shape, name):
    expected = {"same": True, "moved": name != "plain", "two sizes": True, "on the device": True}
    assert found[f"{shape}, {name}"] == expected


def test_all_that_changes_colours_stays_on_the_host(found):
    assert found["colours"] == [None, 10], "the validation part alone is held"


def test_nothing_is_held_on_a_cpu_unless_it_is_asked_for(found):
    assert found["unasked"] == [True, True]


def test_slices_make_up_the_whole(found):
    assert found["slices"]


def test_a_training_is_that_of_the_host(found):
    (host, _, _), (device, _, _) = found["host"], found["device"]
    assert len(host["loss"]) == EPOCHS and host.keys() == device.keys()
    assert device == host


def test_the_arrays_stay_on_the_device_and_the_step_is_traced_once(found):
    (_, host_traces, host_kinds), (_, traces, kinds) = found["host"], found["device"]
    if found["backend"] == "jax":
        assert (host_kinds, kinds) == (["numpy uint8"], ["jaxlib uint8"])
        assert host_traces == traces == 1
    else:  # Keras takes its steps one by one on torch
        assert kinds == ["torch torch.uint8"]
        assert host_traces == traces == EPOCHS * 32 / BATCH


def test_turns_are_those_that_the_host_draws():
    """Against the amounts of each single image, whatever the size of the batch."""
    from customcnn.augmentation.draws import draw

    augmentation = AUGMENTATIONS["all eight"]
    drawn = draw(augmentation, (1, 2, 3), 50)
    mirrored, upside_down, quarter = device_cache.turns(augmentation, (1, 2, 3), 50, square=True)
    half = [amounts.quarter_turns >= 2 for amounts in drawn]
    assert mirrored.tolist() == [a.mirrored != turned for a, turned in zip(drawn, half, strict=True)]
    assert upside_down.tolist() == [a.upside_down != turned for a, turned in zip(drawn, half, strict=True)]
    assert quarter.tolist() == [a.quarter_turns % 2 == 1 for a in drawn]
    assert not device_cache.turns(augmentation, (1, 2, 3), 50, square=False)[2].any()


@pytest.mark.parametrize(("share", "holds"), [(0.4, True), (0.5, True), (0.6, False)])
@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_half_of_the_free_memory_may_be_taken(monkeypatch, backend, share, holds):
    import keras

    shape = (200, 10, 10, 3)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(device_cache, "_free_memory", lambda: round(np.prod(shape) / share))
    assert device_cache.fits(shape) is (holds and backend != "tensorflow")
    monkeypatch.setattr(device_cache, "_free_memory", lambda: 0)  # a GPU that does not tell
    assert not device_cache.fits(shape, on_cpu=True)


@pytest.mark.parametrize(
    ("platform", "told", "free"),
    [
        ("gpu", {"bytes_limit": 100, "bytes_in_use": 30}, 70),
        ("gpu", None, 0),
        ("cpu", None, None),
    ],
)
def test_free_memory_as_jax_tells_it(monkeypatch, platform, told, free):
    import keras

    device = SimpleNamespace(id=0, platform=platform, memory_stats=lambda: told)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(keras.ops, "zeros", lambda shape: SimpleNamespace(devices=lambda: [device]))
    assert device_cache._free_memory() == free


@pytest.mark.parametrize(("kind", "free"), [("cuda", 70), ("mps", 0), ("cpu", None)])
def test_free_memory_as_torch_tells_it(monkeypatch, kind, free):
    import keras

    cuda = SimpleNamespace(mem_get_info=lambda device: (70, 100))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(keras.ops, "zeros", lambda shape: SimpleNamespace(device=SimpleNamespace(type=kind)))
    assert device_cache._free_memory() == free


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [
        (Augmentation(), True),
        (Augmentation(flip="both", quarter_turns=True), True),
        (Augmentation(flip="both", rotate=5), False),
        (Augmentation(engine="layers", flip="both"), False),
    ],
)
def test_what_the_device_can_do(augmentation, expected):
    assert device_cache.only_turns(augmentation) is expected


if __name__ == "__main__":
    _worker(sys.argv[1])
