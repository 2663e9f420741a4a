"""Folders by a Ray cluster, and from and to S3: the same bytes as on one machine, also after a kill.

The cluster has two nodes on this machine, the S3 server answers on loopback. Both are real; the keys are not.
"""

import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from customcnn.audit import audit
from customcnn.audit.copies import find_copies
from customcnn.cli import cli
from customcnn.data.augment import augment_folder
from customcnn.data.augmentor import Operations
from customcnn.data.crop import crop_folder
from customcnn.data.manifest import scan
from customcnn.data.pack import pack, stream
from customcnn.data.split import shares, split_folder
from customcnn.errors import CustomCNNError
from customcnn.io import remote_path
from customcnn.io.atomic import MARK
from customcnn.io.remote_path import Address, Folder, parse_folder
from tests.support.commands import error_line, printed
from tests.support.errors import refused
from tests.support.folders import contents, stamps

pytestmark = pytest.mark.ray  # every folder is worked on by processes of their own, and S3 is a server

KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}
RAY = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "RAY_USAGE_STATS_ENABLED": "0"}
RAY |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

FORMATS = (".bmp", ".png", ".jpg", ".gif")


class Copying:
    """A pool that works in this process, on what pickle carries over: as far away as another machine."""

    count = 3

    def __init__(self) -> None:
        self.blocks: list[int] = []

    def map(self, function, items, *, block=32):
        items = iter(items)
        while some := list(islice(items, block)):
            self.blocks.append(len(some))
            own, sent = pickle.loads(pickle.dumps((function, some)))
            yield from pickle.loads(pickle.dumps([own(item) for item in sent]))


def draw(folder: Path, images: int, *, size: int = 40) -> Path:
    """Draw discs of several formats, sizes and shades, in two classes."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:size, :size]
    for i in range(images):
        radius, shade = rng.integers(6, 12), rng.integers(60, 200, 3)
        disc = (x - size / 2) ** 2 + (y - size / 2) ** 2 < radius**2
        pixels = np.where(disc[..., None], shade + rng.integers(-20, 20, (size, size, 3)), 0).astype(np.uint8)
        path = folder / ("all", "hem")[i % 2] / f"UID_{i % 5}_{i}_1_x{FORMATS[i // 2 % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=98)
    return folder


def upload(folder: Path, to: Address) -> Address:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (to / path.relative_to(folder).as_posix()).put(path.read_bytes())
    return to


def tree(folder: Folder) -> dict[str, bytes]:
    """Every file and its bytes; of the packs inside a local folder nothing."""
    if isinstance(folder, Address):
        return {name: (folder / name).get() for name in folder.files()}
    return contents(folder, packs=False)


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    return draw(tmp_path_factory.mktemp("drawn") / "cells", 32)


@dataclass
class Made:
    """What one machine makes of the cells, from one local folder to the next."""

    parts: Path
    cropped: Path
    augmented: Path


def split_it(src: Folder, dst: Folder, workers=None, **options) -> None:
    split_folder(scan(src), dst, shares(0.5, 0.25, 0.25), workers=workers, **options)


def crop_it(src: Folder, dst: Folder, workers=None, **options) -> None:
    crop_folder(scan(src), dst, 30, workers=workers, **options)


def turn_it(src: Folder, dst: Folder, workers=None, **options) -> None:
    augment_folder(scan(src), dst, 40, workers=workers, **options)


def change_it(src: Folder, dst: Folder, workers=None, **options) -> None:
    operations = Operations(rotate=10, brightness=0.2)
    augment_folder(scan(src), dst, 40, operations=operations, workers=workers, **options)


@pytest.fixture(scope="module")
def made(cells, tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    found = Made(folder / "parts", folder / "cropped", folder / "augmented")
    split_it(cells, found.parts)
    crop_it(found.parts, found.cropped)
    turn_it(found.cropped, found.augmented)
    return found


@pytest.fixture(scope="module")
def s3() -> Iterator[Address]:
    """A bucket of a real S3 server on loopback."""
    server_module = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        remote_path._filesystem.cache_clear()
        remote_path._filesystem("s3", os.getpid()).mkdir("s3://bucket")
        yield Address("s3", "bucket")
        remote_path._filesystem.cache_clear()
    server.stop()


@pytest.fixture
def far(s3) -> Address:
    """An empty folder of the bucket."""
    return s3 / uuid.uuid4().hex


@pytest.fixture(scope="module")
def nodes() -> Iterator[object]:
    """A Ray cluster of two nodes on this machine, with a processor each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in RAY.items():
            patch.setenv(name, value)
        pytest.importorskip("ray")  # reads those variables
        from ray.cluster_utils import Cluster as Nodes

        memory = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        found = Nodes(initialize_head=True, head_node_args={**memory, "include_dashboard": False})
        try:
            found.add_node(**memory)
            yield found
        finally:
            found.shutdown()


@pytest.fixture(scope="module")
def cluster(s3, nodes) -> Iterator[object]:
    """The same, connected; it knows the S3 server, for it was started after it."""
    from customcnn.cluster import connect

    with connect(nodes.address) as found:
        yield found


def process(*words: object, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a command line in a process of its own; return its status, output and error stream."""
    command = [sys.executable, "-m", "customcnn", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **RAY}, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


# ---------------------------------------------------------------- a pool of any kind


STEPS = [(split_it, "cells", "parts"), (crop_it, "parts", "cropped"), (turn_it, "cropped", "augmented")]
steps = pytest.mark.parametrize(("step", "src", "dst"), STEPS, ids=["split", "crop", "augment"])


def local(cells: Path, made: Made, name: str) -> Path:
    return cells if name == "cells" else getattr(made, name)


@steps
def test_a_pool_makes_the_same_bytes(cells, made, tmp_path, step, src, dst):
    pool = Copying()
    step(local(cells, made, src), tmp_path / "out", pool)
    assert tree(tmp_path / "out") == tree(getattr(made, dst))
    assert pool.blocks and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_pool_packs_the_same_bytes_in_blocks(made, tmp_path):
    pool = Copying()
    alone, spread = scan(made.augmented), scan(upload_locally(made.augmented, tmp_path / "again"))
    one, other = pack(alone, (20, 24)), pack(spread, (20, 24), workers=pool)
    assert (one.path / "images.npy").read_bytes() == (other.path / "images.npy").read_bytes()
    assert one.converted == other.converted != {}
    assert set(pool.blocks) == {1}


def upload_locally(folder: Path, to: Path) -> Path:
    for name, data in tree(folder).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(data)
    return to


def test_a_pool_audits_alike(made):
    data = scan(made.augmented)
    assert audit(data, workers=Copying()).as_dict() == audit(data, workers=1).as_dict()


def test_a_pool_finds_the_same_copies(made):
    data = scan(made.augmented).part("train")
    assert find_copies(data, workers=Copying()) == find_copies(data, workers=1)


@pytest.mark.parametrize("step", [split_it, crop_it, change_it])
def test_a_pool_names_bad_images_as_one_machine_does(cells, tmp_path, step):
    src = upload_locally(cells, tmp_path / "src")
    (src / "all/bad.bmp").write_bytes(b"BM")
    errors = [refused(step, src, tmp_path / "out", workers) for workers in (1, Copying())]
    assert errors[0] == errors[1] and "bad.bmp" in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["src"], "nothing half made is left"


class Killed(BaseException):
    """Stands for a kill: nothing that happens afterwards happens."""


def break_off_at(number: int, monkeypatch) -> None:
    """Let this process be killed, as far as a test can, at the so many-th file it writes."""
    from customcnn.io import atomic

    written = 0
    beside = atomic._beside

    def count(path):
        nonlocal written
        written += path.suffix in FORMATS
        if written > number:
            raise Killed
        return beside(path)

    monkeypatch.setattr(atomic, "_beside", count)
    monkeypatch.setattr(atomic.Staging, "_give_up", lambda self, *, remove: os.close(self.lock))


@pytest.mark.parametrize("step", [split_it, crop_it, turn_it])
def test_a_pool_goes_on_where_a_kill_stopped_it(cells, tmp_path, monkeypatch, step):
    step(cells, tmp_path / "whole")
    with monkeypatch.context() as patch:
        break_off_at(9, patch)
        with pytest.raises(Killed):
            step(cells, tmp_path / "out", Copying())
    finished = stamps(tmp_path / ".out.partial")
    assert len(finished) == 9
    (tmp_path / ".out.partial" / min(finished)).with_name(".0.bmp.lost-node-7.partial").write_bytes(b"half")
    step(cells, tmp_path / "out", Copying())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert finished.items() <= stamps(tmp_path / "out").items()


# ---------------------------------------------------------------- addresses


@steps
@pytest.mark.parametrize("back", [False, True], ids=["to S3", "to a folder"])
def test_s3_holds_the_same_bytes(cells, made, far, tmp_path, step, src, dst, back):
    source = upload(local(cells, made, src), far / "src")
    target = tmp_path / "out" if back else far / "out"
    step(source, target)
    assert tree(target) == tree(getattr(made, dst))


@steps
def test_local_folders_go_to_s3(cells, made, far, step, src, dst):
    step(local(cells, made, src), far / "out")
    assert tree(far / "out") == tree(getattr(made, dst))


def test_processes_change_images_of_s3_alike(cells, far, tmp_path):
    change_it(cells, tmp_path / "out")
    change_it(upload(cells, far / "src"), far / "out", 2)
    assert tree(far / "out") == tree(tmp_path / "out")


def test_s3_is_packed_and_audited_alike(made, far, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    alone, there = scan(made.augmented), scan(str(upload(made.augmented, far)))
    assert there.records == alone.records and there.root == far
    one, other = pack(alone, (20, 24)), pack(there, (20, 24))
    assert (one.path / "images.npy").read_bytes() == (other.path / "images.npy").read_bytes()
    assert tmp_path in other.path.parents and one.converted == other.converted
    assert pack(there, (20, 24)).path == other.path
    assert audit(there, workers=1).as_dict() == audit(alone, workers=1).as_dict()


def test_a_pack_is_uploaded_once_and_copied_from_there(made, far, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "one"))
    (tmp_path / "one").mkdir()
    upload(made.augmented, far)
    before = far.files()
    words = ["pack", str(far), "--size", "20x24", "--upload", "--workers", "2"]
    told = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    home = far / ".customcnn" / Path(told["pack"]).name
    assert told["uploaded"] == str(home)
    assert set(far.files()) - set(before) == {f".customcnn/{home.name}/{name}" for name in ("images.npy", "pack.json")}
    stamps = home.files()
    assert f"Uploaded: {home}\n" in CliRunner().invoke(cli, words).stdout and home.files() == stamps
    there = scan(far)
    assert there.records == scan(made.augmented).records  # the pack is none of the images

    def refused(*_):
        raise AssertionError("an image is read")

    (tmp_path / "two").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "two"))
    counts: list[int] = []

    @contextmanager
    def bar(total, label):
        yield counts.append

    with monkeypatch.context() as patch:
        patch.setattr("customcnn.data.pack._write", refused)
        copied = pack(there, (20, 24), progress=bar)
    assert tmp_path / "two" in copied.path.parents and sum(counts) == len(there.records)
    alone = pack(scan(made.augmented), (20, 24))
    np.testing.assert_array_equal(copied.images, alone.images)
    assert copied.converted == alone.converted

    # What is not whole is not used.
    for name, data in {"pack.json": b"{", "images.npy": (home / "images.npy").get()[:-1]}.items():
        whole = (home / name).get()
        (home / name).put(data)
        shutil.rmtree(copied.path)
        np.testing.assert_array_equal(pack(there, (20, 24)).images, alone.images)
        (home / name).put(whole)
    (home / "images.npy").unlink()
    shutil.rmtree(copied.path)
    np.testing.assert_array_equal(pack(there, (20, 24)).images, alone.images)


def test_a_folder_of_this_machine_is_not_uploaded(made):
    assert error_line(*process("pack", made.augmented, "--size", 8, "--upload")) == (
        f"A pack is uploaded to the address of its images. Received: '{made.augmented}', a folder of this "
        "machine. Leave out --upload."
    )


def test_images_of_s3_are_streamed_alike(made, far):
    there = scan(upload(made.cropped, far))
    np.testing.assert_array_equal(stream(there, (9, 9)).images[:], stream(scan(made.cropped), (9, 9)).images[:])


def test_a_changed_object_is_packed_anew(far, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    upload(draw(tmp_path / "drawn", 6), far)
    before = pack(scan(far), (8, 8)).path
    (far / "all/UID_0_0_1_x.bmp").put((far / "all/UID_2_2_1_x.png").get())
    assert pack(scan(far), (8, 8)).path != before


def test_an_image_of_s3_is_read_once_copied_by_the_store_and_never_asked_about(cells, far, monkeypatch):
    upload(cells, far / "src")
    asked: Counter[tuple[str, str]] = Counter()
    ask = Address._ask

    def note(self, method, *arguments, **options):
        asked[method, str(self)] += 1
        return ask(self, method, *arguments, **options)

    monkeypatch.setattr(Address, "_ask", note)
    data = scan(far / "src")
    split_folder(data, far / "out", shares(), workers=2)
    images = [str(far / "src" / record.path) for record in data.records]
    about = {(method, name): count for (method, name), count in asked.items() if name in images}
    assert about == {(method, name): 1 for name in images for method in ("cat_file", "cp_file")}


KILLED = """
import os, signal, sys
from customcnn.cli import main
from customcnn.io.remote_path import Address
ask, done = Address._ask, 0

def count(self, method, *arguments, **options):
    global done
    answer = ask(self, method, *arguments, **options)
    done += method in ("pipe_file", "cp_file") and self.suffix in (".bmp", ".png", ".jpg", ".gif")
    if done > 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

Address._ask = count
if __name__ == "__main__":
    main(sys.argv[1:])
"""


@steps
def test_the_same_command_goes_on_after_a_kill(cells, made, far, tmp_path, monkeypatch, step, src, dst):
    source = upload(local(cells, made, src), far / "src")
    options = {
        split_it: ["--ratio", ".5", "--val", ".25", "--test", ".25"],
        crop_it: ["--size", 30],
        turn_it: ["--count", 40],
    }[step]
    name = {split_it: "split", crop_it: "crop", turn_it: "augment"}[step]
    words = [str(word) for word in (name, source, far / "out", *options)]
    died = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    there = {*(far / "out").files()}
    assert MARK in there and 9 < len(there) - 1 < len(tree(getattr(made, dst))) - 1
    assert refused(scan, far / "out") == (
        f"Data is a folder that is whole. Received: '{far}/out', which is not complete: it is being written, or that "
        "was broken off. Give the command that writes it again."
    )
    written: list[str] = []
    put, copy = Address.put, Address.copy_from
    monkeypatch.setattr(Address, "put", lambda self, data: written.append(str(self)) or put(self, data))
    monkeypatch.setattr(Address, "copy_from", lambda self, other: written.append(str(self)) or copy(self, other))
    step(source, far / "out")
    assert tree(far / "out") == tree(getattr(made, dst))
    again = {str(far / "out" / name) for name in there - {MARK}} & {*written}
    assert not again, "what was finished is not written again"
    assert len(written) == len(tree(far / "out")) - (len(there) - 1)


def test_other_settings_do_not_go_on(cells, made, far):
    with pytest.raises(KeyboardInterrupt):
        turn_it(made.cropped, far / "out", 1, progress=breaking_off(20, KeyboardInterrupt))
    begun = {*(far / "out").files()}
    assert MARK in begun and len(begun) > 1
    augment_folder(scan(made.cropped), far / "out", 40, seed=8)
    expected = far / "fresh"
    augment_folder(scan(made.cropped), expected, 40, seed=8)
    assert tree(far / "out") == tree(expected)


def breaking_off(number: int, error: type[BaseException]) -> Callable[..., object]:
    """Return a progress that raises an error after so many images."""

    @contextmanager
    def progress(total: int, label: str):
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            if done >= number:
                raise error

        yield advance

    return progress


# ---------------------------------------------------------------- errors


def test_errors_about_addresses_are_one_line(cells, far, tmp_path):
    nowhere = Address("s3", f"no-such-{uuid.uuid4().hex[:8]}")
    assert error_line(*process("split", nowhere / "cells", tmp_path / "out")) == (
        f"Data is a folder of class folders. Received: '{nowhere}/cells', which is no folder. Check its name."
    )
    assert error_line(*process("split", cells, nowhere / "out")) == (
        f"A destination lies in a bucket that exists. Received: '{nowhere}/out'. Make the bucket first."
    )
    assert error_line(*process("split", cells, far / "out", "--link", "hard")) == (
        f"Links join files of one machine. Received: --link hard with '{cells}' and '{far}/out'. Use --link copy."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nosuch://bucket/x",
            "An address begins with a protocol that fsspec knows. Received: nosuch://. Example: s3://bucket/cells.",
        ),
        (
            "lacking://bucket/x",
            "An address needs the package of its protocol. Received: lacking:// (Install lackingfs). "
            "Install that package.",
        ),
        ("s3://", "An address names a bucket or a folder. Received: 's3://'. Example: s3://bucket/cells."),
    ],
)
def test_addresses_that_cannot_be_read(text, message, monkeypatch):
    from fsspec.registry import known_implementations

    monkeypatch.setitem(known_implementations, "lacking", {"class": "no_such_package.X", "err": "Install lackingfs"})
    assert refused(parse_folder, text) == message


def test_what_has_no_protocol_is_a_local_path():
    assert parse_folder("cells/all") == Path("cells/all")
    assert parse_folder("file:///data/cells") == Path("/data/cells")
    assert parse_folder("s3://bucket/a/") == Address("s3", "bucket/a") == Address("s3", "bucket") / "a"


def test_bad_images_of_s3_are_named_as_local_ones(cells, far, tmp_path):
    src = upload_locally(cells, tmp_path / "src")
    for name, data in {"all/bad.bmp": b"BM", "all/text.txt": b"", "stray.png": b"", "hem/sub/x.png": b""}.items():
        (src / name).parent.mkdir(exist_ok=True)
        (src / name).write_bytes(data)
    upload(src, far)
    errors = [refused(split_folder, scan(f, skip_bad=True), tmp_path / "out", shares()) for f in (src, far)]
    assert errors[0] == errors[1]
    one, other = (split_folder(scan(f, skip_bad=True), tmp_path / f"out{i}", shares(), skip_bad=True)
                  for i, f in enumerate((src, far)))  # fmt: skip
    assert sorted(one.skipped) == sorted(other.skipped) and len(one.skipped) == 4


def test_a_bad_image_of_s3_leaves_nothing(made, far):
    upload(made.cropped, far / "src")
    name = next(name for name in tree(far / "src") if name.startswith("test/"))
    (far / "src" / name).put(b"no image")
    with pytest.raises(CustomCNNError, match=r"not an image of a known format"):
        crop_it(far / "src", far / "out")
    assert tree(far / "out") == {}


def test_a_server_that_does_not_answer(tmp_path, monkeypatch):
    class Silent:
        def find(self, path, detail):
            raise RuntimeError("no route\nto host")

    monkeypatch.setattr(remote_path, "_filesystem", lambda protocol, process: Silent())
    assert refused(scan, Address("s3", "bucket/x")) == (
        "An address answers. Received: 's3://bucket/x' (RuntimeError: no route to host). Check the endpoint "
        "(AWS_ENDPOINT_URL for S3), the keys and the network, and give the command again."
    )


def test_workers_and_a_cluster_exclude_each_other(cells, tmp_path):
    status, _, errors = process("split", cells, tmp_path / "out", "--on", "ray", "--workers", 2)
    assert status == 2 and "--workers counts those of this machine" in errors


# ---------------------------------------------------------------- a Ray of one's own


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_command_on_a_ray_of_its_own(made, tmp_path):
    line = ["augment", "cropped", tmp_path / "out", "--count", 40, "--on", "ray"]
    _, errors = printed(*process(*line, cwd=made.cropped.parent))
    assert errors.startswith("Cluster: ")
    assert tree(tmp_path / "out") == tree(made.augmented)


# ---------------------------------------------------------------- two nodes


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, Path]:
    """A hundred originals, and the 2,000 images that one machine makes of them."""
    folder = tmp_path_factory.mktemp("many")
    augment_folder(scan(draw(folder / "cells", 100)), folder / "augmented", 2_000, workers=1)
    return folder / "cells", folder / "augmented"


class Meeting:
    """A cluster on which no task begins before each node has one; those of one node may never end."""

    def __init__(self, cluster, folder: Path, asleep: str = "") -> None:
        self.cluster, self.folder, self.asleep = cluster, folder, asleep
        self.count: int = cluster.count
        self.worked: Counter[str] = Counter()
        folder.mkdir()

    def map(self, function, items, *, block=32):
        folder, nodes, asleep = str(self.folder), self.count, self.asleep

        # Not of this module, which the workers could not import: it is carried there.
        def work(item):
            import os
            import time

            import ray

            own = ray.get_runtime_context().get_node_id()
            with open(f"{folder}/{own}", "a") as file:
                file.write(f"{os.getpid()}\n")
            end = time.monotonic() + 120
            while time.monotonic() < end and (own == asleep or len(os.listdir(folder)) < nodes):
                time.sleep(0.02)
            return own, function(item)

        for node, result in self.cluster.map(work, items, block=block):
            self.worked[node] += 1
            yield result


def test_two_nodes_augment_two_thousand_images_alike(many, cluster, tmp_path):
    cells, expected = many
    pool = Meeting(cluster, tmp_path / "nodes")
    augment_folder(scan(cells), tmp_path / "out", 2_000, workers=pool)
    found = tree(tmp_path / "out")
    assert len(found) == 2_001 and found == tree(expected)
    assert len(pool.worked) == 2, "each node has done some of it"


@pytest.mark.kill
def test_a_node_that_is_killed_at_work_changes_nothing(many, nodes, cluster, tmp_path):
    cells, expected = many
    node = nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    raylet = node.all_processes["raylet"][0].process
    pool = Meeting(cluster, tmp_path / "nodes", asleep=node.node_id)
    killed: list[int] = []

    def kill_in_the_middle() -> None:
        end = time.monotonic() + 100
        while time.monotonic() < end and not killed:
            time.sleep(0.02)
            done = len([*tmp_path.glob(".out.partial/*/[!.]*")])
            if done >= 300:  # it sleeps, and others work
                at_work = (pool.folder / node.node_id).read_text().split()
                for pid in (raylet.pid, *map(int, at_work)):
                    os.kill(pid, signal.SIGKILL)
                killed.append(done)

    thread = threading.Thread(target=kill_in_the_middle)
    thread.start()
    try:
        augment_folder(scan(cells), tmp_path / "out", 2_000, workers=pool)
    finally:
        thread.join()
        nodes.remove_node(node, allow_graceful=False)
    assert pool.count == 3 and killed and 300 <= killed[0] < 2_000
    assert node.node_id not in pool.worked, "what it had begun was done by others"
    assert tree(tmp_path / "out") == tree(expected)


@steps
def test_two_nodes_work_from_s3_to_s3(cells, made, cluster, far, step, src, dst):
    step(upload(local(cells, made, src), far / "src"), far / "out", cluster)
    assert tree(far / "out") == tree(getattr(made, dst))


def test_a_command_on_two_nodes_from_s3_to_a_folder(cells, made, nodes, far, tmp_path):
    upload(cells, far)
    line = ["split", far, "out", "--ratio", 0.5, "--val", 0.25, "--on", nodes.address]
    _, errors = printed(*process(*line, cwd=tmp_path))
    assert "Cluster: 2 processors." in errors.splitlines(), errors
    assert tree(tmp_path / "out") == tree(made.parts)


def test_two_nodes_pack_and_audit_alike(made, cluster, far, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    alone, there = scan(made.augmented), scan(upload(made.augmented, far))
    expected = (pack(alone, (20, 24)).path / "images.npy").read_bytes()
    assert (pack(there, (20, 24), workers=cluster).path / "images.npy").read_bytes() == expected
    again = scan(upload_locally(made.augmented, tmp_path / "again"))
    assert (pack(again, (20, 24), workers=cluster).path / "images.npy").read_bytes() == expected
    findings = json.dumps(audit(alone, workers=1).as_dict())
    assert json.dumps(audit(there, workers=cluster).as_dict()) == findings
    assert json.dumps(audit(alone, workers=cluster).as_dict()) == findings
    test = alone.part("test")
    assert find_copies(test, workers=cluster) == find_copies(test, workers=1) == find_copies(there.part("test"))


def test_bad_images_are_named_by_two_nodes_as_by_one_machine(cells, cluster, tmp_path):
    src = upload_locally(cells, tmp_path / "src")
    (src / "all/bad.bmp").write_bytes(b"BM")
    errors = [refused(crop_it, src, tmp_path / "out", workers) for workers in (1, cluster)]
    assert errors[0] == errors[1] and "bad.bmp" in errors[0]


def test_a_bad_image_on_two_nodes_leaves_nothing_at_an_address(cells, cluster, far, tmp_path):
    src = upload_locally(cells, tmp_path / "src")
    (src / "all/UID_0_0_0_x.bmp").write_bytes(b"BM")
    with pytest.raises(CustomCNNError, match=r"UID_0_0_0_x\.bmp"):
        augment_folder(scan(src), far / "out", 400, workers=cluster)
    assert tree(far / "out") == {}


KILLED_ON_RAY = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from customcnn.data.augment import augment_folder
from customcnn.cluster import connect
from customcnn.data.manifest import scan

@contextmanager
def progress(total, label):
    done = 0
    def advance(n):
        nonlocal done
        done += n
        if done >= 200:
            os.kill(os.getpid(), signal.SIGKILL)
    yield advance

with connect(sys.argv[1]) as cluster:
    augment_folder(scan(sys.argv[2]), Path(sys.argv[3]), 2_000, workers=cluster, progress=progress)
"""


@pytest.mark.kill
def test_work_on_a_cluster_goes_on_after_a_kill(many, nodes, cluster, tmp_path):
    cells, expected = many
    words = [sys.executable, "-c", KILLED_ON_RAY, nodes.address, str(cells), str(tmp_path / "out")]
    died = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **RAY})
    assert died.returncode == -signal.SIGKILL, died.stderr
    finished = stamps(tmp_path / ".out.partial")
    assert 200 <= len(finished) < 2_000
    augment_folder(scan(cells), tmp_path / "out", 2_000, workers=cluster)
    assert tree(tmp_path / "out") == tree(expected)
    assert finished.items() <= stamps(tmp_path / "out").items()


def test_all_nodes_must_see_a_folder(cluster, tmp_path):
    from customcnn.cluster import require_shared

    (tmp_path / "cells").mkdir()
    require_shared(cluster, [tmp_path / "cells", Address("s3", "bucket/x")], [tmp_path / "new" / "out"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells"]

    class Apart:
        """Two nodes, of which the second has other folders."""

        def on_every_node(self, function, path):
            return {"10.0.0.1": function(path), "10.0.0.2": function(f"{path}/elsewhere")}

    for sources, targets in (([tmp_path / "cells"], []), ([], [tmp_path / "out"])):
        message = refused(require_shared, Apart(), sources, targets)
        (folder,) = (*sources, *targets)
        assert message == (
            f"A folder is the same one on all nodes of --on, under the same path. Received: '{folder}', "
            "which node 10.0.0.2 does not have. Share it between the nodes, or use an address such as s3://bucket/cells."
        )
