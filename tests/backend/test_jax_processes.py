"""Several processes train one network, and come to what one process comes to; where one dies, none hangs."""

import csv
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customcnn.augmentation import make_transform
from customcnn.augmentation.settings import Augmentation
from customcnn.backend.process_group import ALONE, Job
from customcnn.data.manifest import scan
from customcnn.data.split import shares, split_folder
from customcnn.data.synthetic import draw_samples
from customcnn.errors import CustomCNNError
from customcnn.recipe.recipe import parse_recipe
from customcnn.recipe.sampling import deal
from customcnn.training.batches import batches
from customcnn.training.multi_process import Portion
from tests.support.jobs import alone, environment, epochs, finish, free_port, start

SMALL = ("--model", "small", "--set", "input_size=32", "--batch-size", "8", "--precision", "float32")
ENDS_WITHIN = 30  # seconds that the others may take when one is killed


class Rank(Job):
    """A process of several, as far as numbers go."""

    def __init__(self, number, world):
        self.number, self.world = number, world


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    draw_samples(folder / "cells", subjects=5, cells=9, size=48, seed=1)
    split_folder(scan(folder / "cells"), folder / "parts", shares(0.78, None, None), seed=3)
    return folder / "parts"


def history(run):
    with (run / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def weights(run):
    import keras

    return keras.models.load_model(run / "last.keras").get_weights()


def same_training(one, other):
    first, second = history(one), history(other)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------- shards


@settings(max_examples=15)
@given(images=st.integers(4, 60), shards=st.integers(1, 4), share=st.integers(1, 5), epoch=st.integers(0, 3))
def test_the_processes_batches_are_together_those_of_one(images, shards, share, epoch):
    pixels = np.random.default_rng(0).integers(0, 256, (images, 4, 4, 3), dtype=np.uint8)
    wanted = np.arange(images, dtype=np.float32)[:, None]
    change = make_transform(Augmentation(flip="both", quarter_turns=True))

    def dataset(own=None):
        size = shards * share
        made = batches(pixels, wanted, np.arange(images), size, 7, transform=change, shards=shards, own=own)
        made.epoch = epoch
        return made

    whole, pieces = dataset(), [dataset(range(n, n + 1)) for n in range(shards)]
    assert {len(piece) for piece in pieces} == {len(whole)}
    assert whole.per_epoch == images // shards * shards
    taken = []
    for place in range(len(whole)):
        found = [piece[place] for piece in pieces]
        assert len({len(x) for x, _ in found}) == 1  # all processes step alike
        np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), whole[place][0])
        np.testing.assert_array_equal(np.concatenate([y for _, y in found]), whole[place][1])
        taken += whole[place][1].ravel().tolist()
    assert len(set(taken)) == len(taken) == whole.per_epoch


def test_what_does_not_go_up_evenly_is_left_out_of_an_epoch_and_other_images_in_each():
    wanted = np.arange(11, dtype=np.float32)[:, None]
    made = batches(np.zeros((11, 2, 2, 3), np.uint8), wanted, np.arange(11), 4, 0, shards=2)
    seen = set()
    for made.epoch in range(12):
        of_epoch = {value for place in range(len(made)) for value in made[place][1].ravel().tolist()}
        assert len(of_epoch) == 10
        seen |= of_epoch
    assert seen == set(range(11))


@given(count=st.integers(0, 50), shards=st.integers(1, 7))
def test_every_row_is_dealt_once_and_shards_differ_by_one_at_most(count, shards):
    dealt = deal(np.arange(count), shards)
    assert sorted(itertools.chain(*(part.tolist() for part in dealt))) == [*range(count)]
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@given(items=st.integers(0, 40), each=st.integers(1, 4), world=st.integers(1, 5))
def test_items_and_shards_go_to_one_process_each(items, each, world):
    ranks = [Rank(number, world) for number in range(world)]
    assert sorted(n for rank in ranks for n in rank.share(items)) == [*range(items)]
    assert [n for rank in ranks for n in rank.shards(each * world)] == [*range(each * world)]


def test_one_shard_is_the_order_that_there_was_before():
    rows = np.arange(10)
    made = batches(np.zeros((10, 2, 2, 3), np.uint8), rows[:, None].astype(np.float32), rows, 4, 5)
    order = np.random.default_rng((5, 0)).permutation(10)
    assert [made[n][1].ravel().astype(int).tolist() for n in range(3)] == [
        sorted(order[start : start + 4].tolist()) for start in (0, 4, 8)
    ]


def test_a_batch_is_shared_evenly():
    with pytest.raises(CustomCNNError, match=r"a multiple of sampling\.shards, which is 4"):
        parse_recipe({"batch_size": 30, "sampling.shards": 4}, "a test")
    with pytest.raises(CustomCNNError, match=r"sampling\.shards: 1 or more"):
        parse_recipe({"sampling.shards": 0}, "a test")


def test_a_portion_is_indexed_by_the_numbers_of_the_whole():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    found = Portion(images, np.array([2, 5, 6]), 8)
    assert (len(found), found.shape, found.dtype) == (8, (8, 4, 5, 3), np.uint8)
    np.testing.assert_array_equal(found[np.array([6, 2])], images[[2, 0]])
    with pytest.raises(IndexError, match="another process"):
        found[np.array([2, 3])]


def test_a_process_alone_hears_itself():
    assert ALONE.gather({"a": 1}) == [{"a": 1}]
    assert ALONE.from_first(lambda: 3) == ALONE.together(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):  # as it is: there is nobody to tell
        ALONE.together(lambda: 1 // 0)


# ---------------------------------------------------------------- errors


def test_other_backends_are_refused(parts, tmp_path):
    found = alone("train", parts, "--hosts", "127.0.0.1:7654", "--rank", "0", "--world", "2", KERAS_BACKEND="torch")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.splitlines() == [
        "Error: --hosts needs Keras on jax. Received: KERAS_BACKEND=torch. Set KERAS_BACKEND=jax, or leave it out."
    ]


# ---------------------------------------------------------------- real processes


@pytest.mark.backend
def test_two_processes_equal_one(parts, tmp_path):
    options = [f"augmentation.{key}" for key in ("flip=both", "quarter_turns=true")]
    options += ["sampling.class_weights=balanced", "sampling.views=43"]
    options = [word for option in options for word in ("--set", option)]
    words = ("train", parts, *SMALL, "--epochs", 3, *options)
    found = finish(start(*words, "--out", tmp_path / "two"))
    assert [status for status, _, _ in found] == [0, 0], found
    (_, said, _), (_, silent, error) = found
    assert "Best epoch" in said and "2 processes with 2 devices share each batch of 8." in found[0][2]
    assert (silent, error) == ("", "")
    one = alone(*words, "--out", tmp_path / "one", "--set", "sampling.shards=2")
    assert one.returncode == 0, one.stderr
    same_training(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one/recipe.toml").read_text() == (tmp_path / "two/recipe.toml").read_text()
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    packs = sorted((parts / ".customcnn").glob("pack-*/images.npy"))
    sizes = sorted({len(np.load(path, mmap_mode="r")) for path in packs})
    assert sizes[0] <= 90 // 2 + 1 and sizes[-1] == 90  # each process packed its share alone


@pytest.mark.backend
@pytest.mark.kill
@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_is_killed_the_others_end_and_all_go_on(parts, tmp_path, killed):
    run, unbroken = tmp_path / "run", tmp_path / "unbroken"
    job = start("train", parts, *SMALL, "--epochs", 500, "--out", run)
    try:
        while epochs(run) < 2:
            assert all(process.poll() is None for process in job), [process.communicate() for process in job]
            time.sleep(0.05)
        os.kill(job[killed].pid, signal.SIGKILL)
        other = job[1 - killed]
        other.wait(ENDS_WITHIN)
        assert other.returncode not in (0, None)
        assert "Traceback" not in other.stderr.read()
    finally:
        for process in job:
            process.kill()
    done = epochs(run)
    assert 2 <= done < 500
    if killed == 0:
        return  # what it left is what the other one leaves
    # A run goes on with the recipe that it has; only its end may change.
    last = str(done + 2)
    found = finish(start("train", parts, "--resume", "--epochs", last, "--out", run))
    assert [status for status, _, _ in found] == [0, 0], found
    assert f"Resuming after epoch {done} of {last}." in found[0][2]
    whole = alone("train", parts, *SMALL, "--epochs", last, "--set", "sampling.shards=2", "--out", unbroken)
    assert whole.returncode == 0, whole.stderr
    same_training(run, unbroken)


WAITING = """
import sys
from customcnn.backend.jax_processes import join
from customcnn.backend.rank import Rank

with join(Rank(sys.argv[1], int(sys.argv[2]), 2)) as job:
    job.gather("here")
    print("met", flush=True)
    if job.number == int(sys.argv[3]):
        sys.stdin.read()  # and never comes to the next meeting
    job.gather("again")
"""


@pytest.mark.backend
@pytest.mark.kill
@pytest.mark.parametrize("killed", [0, 1])
def test_who_waits_for_one_that_is_killed_ends_too(killed):
    pytest.importorskip("jax")
    address = f"127.0.0.1:{free_port()}"
    job = [
        subprocess.Popen(
            [sys.executable, "-c", WAITING, address, str(rank), str(killed)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        # Not before both have read the last word: who loses the coordinator loses what it has not read yet, too.
        assert [process.stdout.readline() for process in job] == ["met\n", "met\n"]
        job[killed].kill()
        assert job[1 - killed].wait(ENDS_WITHIN) != 0
    finally:
        for process in job:
            process.kill()
            process.communicate()


@pytest.mark.backend
def test_an_error_of_one_process_is_the_error_of_all(parts, tmp_path):
    """Rank 1 gets a folder with other images; then the first finds a run in its way."""
    draw_samples(tmp_path / "cells", subjects=5, cells=8, size=48, seed=2)
    split_folder(scan(tmp_path / "cells"), tmp_path / "others", shares(0.78, None, None), seed=3)
    (tmp_path / "link0").symlink_to(parts)
    (tmp_path / "link1").symlink_to(tmp_path / "others")
    # The folder is the last word, so that each rank can have its own.
    differ = start("train", *SMALL, "--out", tmp_path / "run", own=lambda rank: (tmp_path / f"link{rank}",))
    for status, said, error in finish(differ):
        assert (status, said) == (1, "")
        assert error.splitlines()[-1].startswith("Error: All processes have the same images. Received: rank 1 with")
    assert not (tmp_path / "run").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    for status, said, error in finish(start("train", parts, *SMALL, "--out", tmp_path / "taken")):
        assert (status, said) == (1, "")
        assert error.splitlines()[-1].startswith("Error: Run ") and "exists." in error


@pytest.mark.backend
def test_what_several_processes_cannot_do_is_said_by_all(parts, tmp_path):
    job = start("train", parts, *SMALL, "--set", "ema=0.9", "--out", tmp_path / "run")
    for status, _, error in finish(job):
        assert status == 1
        assert error.splitlines()[-1].startswith("Error: Several processes train without ema")
    assert not (tmp_path / "run").exists()
