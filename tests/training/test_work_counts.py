"""What a training costs, counted: traces, operations, bytes and decoded images. Seconds depend on the machine."""

import gc
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn.backend import devices
from customcnn.data.manifest import Manifest, scan
from customcnn.data.pack import CACHE, pack
from customcnn.evaluation.evaluate import evaluate
from customcnn.images import readers
from customcnn.inference.classifier import BATCH
from customcnn.recipe.recipe import load_recipe
from customcnn.runs.run_dir import RunDir
from customcnn.training.batches import batches
from customcnn.training.classification import input_size, new_model
from customcnn.training.optimizer import compile_model
from customcnn.training.train import train
from tests.support.colors import SIZE, paint, recipe
from tests.support.commands import printed

keras = pytest.importorskip("keras")
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts TensorFlow's graphs")

TRAIN, VALIDATION = 28, 12
PARTS = {"train/all": 14, "train/hem": 14, "validation/all": 6, "validation/hem": 6}
"""The last of their batches of 10 is smaller."""

EPOCHS = 3


@pytest.fixture
def data(tmp_path) -> Manifest:
    return scan(paint(tmp_path / "data", PARTS))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    """A run of one epoch, to evaluate."""
    folder = tmp_path_factory.mktemp("trained")
    return train(scan(paint(folder / "data", PARTS)), RunDir(folder / "run"), recipe()).run


# ---------------------------------------------------------------- traces

TRAIN_TRACES = 1


@pytest.fixture
def traced(monkeypatch) -> Counter[str]:
    """Count how often Python runs the steps of a network: once for each graph, for a graph runs without Python."""
    found: Counter[str] = Counter()

    def count(name: str, step: Callable) -> None:
        def counting(model, data):
            found[name] += 1
            return step(model, data)

        monkeypatch.setattr(keras.Model, name, counting)

    for name in ("train_step", "test_step", "predict_step"):
        count(name, getattr(keras.Model, name))
    return found


@on_tensorflow
@pytest.mark.parametrize("no_pack", [False, True])
def test_a_smaller_last_batch_and_more_epochs_do_not_trace_a_training_again(data, traced, no_pack, tmp_path):
    """The dataset leaves the size of a batch open, so every batch of every epoch fits the first graph."""
    train(data, RunDir(tmp_path / "run"), recipe(epochs=EPOCHS), no_pack=no_pack)
    assert traced == {"train_step": TRAIN_TRACES, "test_step": 1}


@on_tensorflow
@pytest.mark.parametrize(("images", "traces"), [(2 * BATCH, 1), (2 * BATCH + 5, 2)])
def test_an_evaluation_traces_a_second_time_for_a_smaller_last_batch(run, traced, tmp_path, images, traces):
    """Batches come as arrays, whose size the first graph holds; the second is for any size."""
    traced.clear()
    evaluate(run, scan(paint(tmp_path / "more", {"all": images - 4, "hem": 4})), resamples=1)
    assert traced == {"predict_step": traces}


# ---------------------------------------------------------------- operations

UNFUSED = ("Rsqrt", "SquaredDifference", "FusedBatchNorm", "FusedBatchNormV2")
"""What Keras's own batch normalisation consists of."""

BOUNDS = {"all": 1700, "Cast": 30}
"""Operations of a step of `proposed` in float32: some 20 % more than there are with Keras 3.15 and TensorFlow 2.21."""


def operations(precision: str) -> tuple[Counter[str], "keras.Model"]:
    """Return the operations of the graph of a training step by type, and its network."""
    import tensorflow as tf

    wanted = load_recipe(None, {"model": "proposed", "precision": precision, "input_size": SIZE})
    device = devices.configure("cpu")
    model, _ = new_model(wanted, ["a", "b"], input_size(wanted), device, print)
    devices.prepare(model, device)
    compile_model(model, wanted)
    model.optimizer.build(model.trainable_variables)
    images = tf.TensorSpec((None, SIZE, SIZE, 3), tf.uint8)
    targets = tf.TensorSpec((None, model.outputs[0].shape[-1]), tf.float32)
    graph = tf.function(model.train_step).get_concrete_function((images, targets)).graph.as_graph_def()
    nodes = [node.op for node in graph.node]
    return Counter(nodes + [node.op for function in graph.library.function for node in function.node_def]), model


def layers(model: "keras.Model", kind: str) -> int:
    return sum(type(layer).__name__ == kind for layer in model.layers)


@on_tensorflow
def test_the_operations_of_a_step():
    convolutions, norms, dense = 14, 14, 3
    plain, model = operations("float32")
    mixed, _ = operations("bfloat16")
    assert [layers(model, kind) for kind in ("Conv2D", "BatchNormalization", "Dense")] == [convolutions, norms, dense]
    for found in (plain, mixed):
        assert found["Conv2D"] == found["Conv2DBackpropFilter"] == convolutions
        # Without a gradient for the image itself there may be one less; TensorFlow drops it only when it runs.
        assert found["Conv2DBackpropInput"] in (convolutions - 1, convolutions)
        assert found["FusedBatchNormV3"] == found["FusedBatchNormGradV3"] == norms
        assert found["MatMul"] <= 3 * dense, "forward, and the gradients for inputs and kernel"
        assert not any(found[kind] for kind in UNFUSED)
        assert found["Transpose"] == 0, "no layout but the one that images come in"
    assert sum(plain.values()) <= BOUNDS["all"] and plain["Cast"] <= BOUNDS["Cast"]
    # Kernel and bias are cast once forward, their gradients once back; so is the image, and what the loss takes.
    weights = 2 * (convolutions + dense)
    assert mixed["Cast"] - plain["Cast"] <= 2 * weights + 2
    assert sum(mixed.values()) - sum(plain.values()) <= 2 * weights + 2, "but for casts, the graph is the same"


@on_tensorflow
def test_unfused_moments_would_be_seen(monkeypatch):
    """The test above could not fail where Keras's own normalisation consisted of something else."""
    monkeypatch.setattr(devices, "fuse_batch_norm", lambda model: 0)
    found, _ = operations("float32")
    assert found["FusedBatchNormV3"] == 0 and any(found[kind] for kind in UNFUSED)
    assert sum(found.values()) > BOUNDS["all"]


# ---------------------------------------------------------------- bytes


def peak(function: Callable[[], object]) -> int:
    """Return the bytes of Python and numpy that a call holds at most, above what there was."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_a_batch_is_copied_once_from_the_memory_map(tmp_path):
    shape = (500, 40, 40, 3)
    np.save(tmp_path / "images.npy", np.zeros(shape, np.uint8))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    dataset = batches(images, np.zeros((500, 1), np.float32), np.arange(500), 100, 3)
    dataset.orders()
    size = 100 * 40 * 40 * 3
    assert len(dataset[0][0]) == 100
    assert size <= peak(lambda: dataset[1]) < 1.1 * size + 10_000


@pytest.mark.parametrize("workers", [1, 2])
def test_packing_holds_no_more_for_more_images(tmp_path, workers):
    edge = 100
    image = Image.fromarray(np.zeros((edge, edge, 3), np.uint8))
    peaks = []
    for count in (50, 200):
        folder = tmp_path / str(count)
        for label in ("all", "hem"):
            (folder / label).mkdir(parents=True)
            for number in range(count // 2):
                image.save(folder / label / f"{number}.bmp")
        manifest = scan(folder)
        peaks.append(peak(lambda manifest=manifest: pack(manifest, (edge, edge), workers=workers)))
    few, many = peaks
    # An image more for each thread, whichever moment the peak falls on, and some hundred bytes for each record.
    assert many - few < workers * 3 * edge**2 + 150 * 1000, "150 images more would be 4.5 MB"


# ---------------------------------------------------------------- decoded images


@pytest.fixture
def decoded(monkeypatch) -> Counter[str]:
    """Count how often each file is decoded."""
    found: Counter[str] = Counter()
    lock = threading.Lock()

    def read(path: Path, whole=readers.read_image):
        with lock:
            found[str(path)] += 1
        return whole(path)

    monkeypatch.setattr(readers, "read_image", read)
    return found


def test_without_a_pack_the_same_comes_out_and_nothing_stays(data, decoded, shell, tmp_path):
    """The pixels are the same, and so is every byte of the history and of the predictions."""
    Image.open(data.root / "train/all/0.bmp").convert("L").save(data.root / "train/all/0.bmp")
    shared = ["--model", "small", "--set", f"input_size={SIZE}", "--batch-size", 10, "--epochs", EPOCHS]
    times, errors = {}, {}
    for way in (["--no-pack"], []):
        run = tmp_path / ("run" if way else "packed")
        decoded.clear()
        _, errors[bool(way)] = printed(*shell("train", data.root, *shared, "--out", run, *way))
        times[bool(way), "train"] = sum(decoded.values()), len(decoded)
        decoded.clear()
        printed(*shell("evaluate", run, data.root, "--part", "validation", "--resamples", 2, *way))
        times[bool(way), "evaluate"] = sum(decoded.values())
        assert (data.root / CACHE).exists() == (not way)
    for name in ("history.csv", "predictions.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "packed" / name).read_bytes()
    images = TRAIN + VALIDATION
    looked_at = 3 * 10  # the first batch of training, for two purposes, and of validation
    assert times == {
        (True, "train"): (EPOCHS * images + looked_at, images),
        (True, "evaluate"): VALIDATION,
        (False, "train"): (images, images),
        (False, "evaluate"): 0,
    }
    assert "converted" in errors[False] and "converted" not in errors[True]


def test_an_evaluation_without_a_pack_of_a_folder_that_is_not_split(run, decoded, tmp_path):
    more = scan(paint(tmp_path / "more", {"all": BATCH, "hem": 9}))
    decoded.clear()
    without = evaluate(run, more, resamples=1, no_pack=True, workers=2)
    assert not (more.root / CACHE).exists() and sum(decoded.values()) == BATCH + 9
    assert evaluate(run, more, resamples=1).metrics == without.metrics
