"""Writing whole or not at all: errors, kills, and several at once."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.errors import CustomCNNError, show, show_names
from customcnn.io import atomic
from customcnn.io.atomic import MARK, Busy, Staging, refuse_overlap, staging, write_as, write_bytes, write_text
from customcnn.io.parallel import parallel
from customcnn.io.remote_path import Address, BrokenOff, overlapped
from tests.support.errors import refused
from tests.support.folders import contents

tree = partial(contents, folders=True)


# ---------------------------------------------------------------- names in messages


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a b", "'a b'"),
        ("it's", '"it\'s"'),
        ("two\nlines\r", r"'two\nlines\r'"),
        ("Zölle 細胞", "'Zölle 細胞'"),
        ("\u2028\x1b[31m", r"'\u2028\x1b[31m'"),
        (os.fsdecode(b"caf\xe9"), r"'caf\udce9'"),
        (Path("all/1.bmp"), "'all/1.bmp'"),
    ],
)
def test_names_are_shown_quoted_and_on_one_line(name, shown):
    assert show(name) == shown


@given(st.text(st.characters(exclude_categories=[])))
def test_any_name_is_shown_in_one_printable_line(name):
    assert len(show(name).splitlines()) == 1
    show(name).encode()
    assert show_names([name, "b"]) == f"{show(name)}, 'b'"
    assert show_names("abcde") == "'a', 'b', 'c', 'd', 'e'"
    assert show_names(map(str, range(1005))) == "'0', '1', '2', '3', '4' and 1,000 more"


# ---------------------------------------------------------------- one file


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tiny_disk):
    write_bytes(tiny_disk / "a.bin", b"old")
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tiny_disk / "a.bin", bytes(1_000_000))
    assert tree(tiny_disk) == {"a.bin": b"old"}


def test_a_file_cannot_take_the_place_of_a_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(OSError):
        write_bytes(tmp_path / "a", b"new")
    assert tree(tmp_path) == {"a/": b"", "a/b/": b""}


def test_an_interrupted_write_leaves_nothing(tmp_path):
    # A pipe that nobody reads holds the write up until the signal comes.
    os.mkfifo(tmp_path / ".a.partial")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_bytes(tmp_path / "a", b"data")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_a_file_system_takes_can_be_written(tmp_path):
    for name in ("n" * 255, "é" * 127, "é" * 120 + ".bmp"):
        write_bytes(tmp_path / name, b"data")
        assert (tmp_path / name).read_bytes() == b"data"
    assert len(list(tmp_path.iterdir())) == 3


def test_names_that_are_not_utf8_are_kept_in_text(tmp_path):
    write_text(tmp_path / "a.txt", os.fsdecode(b"caf\xe9 \xc3\xa9"))
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9 \xc3\xa9"


def test_sha256_is_the_published_one():
    assert atomic.sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---------------------------------------------------------------- a folder, whole or not at all


def test_a_folder_appears_only_at_the_end(tmp_path):
    dst = tmp_path / "out"
    with Staging(dst) as work:
        (work / "a").write_text("a")
        assert not dst.exists()
    assert tree(tmp_path) == {"out/": b"", "out/a": b"a"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_removes_what_was_written(tmp_path, error):
    with pytest.raises(error), Staging(tmp_path / "out") as work:
        (work / "a").write_text("a")
        raise error
    assert tree(tmp_path) == {}


def test_an_error_removes_the_parents_that_were_made(tmp_path):
    with pytest.raises(ValueError), Staging(tmp_path / "made" / "deep" / "out"):
        raise ValueError
    assert tree(tmp_path) == {}


def test_an_empty_destination_may_exist(tmp_path):
    (tmp_path / "out").mkdir()
    with Staging(tmp_path / "out") as work:
        (work / "a").write_text("a")
    assert tree(tmp_path) == {"out/": b"", "out/a": b"a"}


def test_a_link_to_a_folder_may_be_the_destination(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with Staging(tmp_path / "out") as work:
        (work / "a").write_text("a")
    assert (tmp_path / "out").is_symlink()
    assert tree(tmp_path) == {"disk/": b"", "disk/a": b"a", "out/": b""}


def test_a_destination_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    with pytest.raises(CustomCNNError) as caught, Staging(tmp_path / "out"):
        raise AssertionError("not reached")
    assert str(caught.value) == f"Destination '{tmp_path}/out' is not empty. Use --replace to write over it."
    assert tree(tmp_path) == {"out/": b"", "out/a": b"old"}


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_as_destination_is_refused(tmp_path, replace):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(CustomCNNError) as caught, Staging(tmp_path / "out", replace=replace):
        raise AssertionError("not reached")
    assert str(caught.value) == (
        f"A destination is a folder. Received: '{tmp_path}/out', which is a file. Choose another name."
    )
    assert tree(tmp_path) == {"out": b"a file"}


def test_replace_keeps_the_old_folder_until_the_new_one_is_whole(tmp_path):
    dst = tmp_path / "out"
    dst.mkdir()
    (dst / "a").write_text("old")
    with pytest.raises(ValueError), Staging(dst, replace=True) as work:
        (work / "a").write_text("half")
        raise ValueError
    assert tree(tmp_path) == {"out/": b"", "out/a": b"old"}
    with Staging(dst, replace=True) as work:
        (work / "b").write_text("new")
        assert tree(dst) == {"a": b"old"}
    assert tree(tmp_path) == {"out/": b"", "out/b": b"new"}


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    # What such a kill leaves: the old folder set aside, the new one still under its working name.
    for name, text in ((".out.old", "old"), (".out.partial", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(text)
    with pytest.raises(CustomCNNError, match="is not empty"), Staging(tmp_path / "out"):
        raise AssertionError("not reached")
    assert (tmp_path / "out" / "a").read_text() == "old"
    with Staging(tmp_path / "out", replace=True) as work:
        assert tree(tmp_path / "out") == {"a": b"old"}
        (work / "a").write_text("new")
    assert tree(tmp_path) == {"out/": b"", "out/a": b"new"}


def test_a_kill_after_the_two_renames_keeps_the_new_folder(tmp_path):
    for name, text in ((".out.old", "old"), ("out", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(text)
    with pytest.raises(CustomCNNError, match="is not empty"), Staging(tmp_path / "out"):
        raise AssertionError("not reached")
    assert tree(tmp_path) == {"out/": b"", "out/a": b"new"}


def test_leftovers_of_a_kill_are_cleared_but_links_are_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a").write_text("kept")
    work = tmp_path / ".out.partial"
    (work / "sub").mkdir(parents=True)
    (work / "sub" / "b").write_text("left")
    (work / "c").write_text("left")
    (work / "link").symlink_to(tmp_path / "precious")
    with Staging(tmp_path / "out") as work:
        assert list(work.iterdir()) == []
    assert tree(tmp_path) == {"out/": b"", "precious/": b"", "precious/a": b"kept"}


@pytest.mark.parametrize("again, kept", [({"seed": 7, "n": 2}, True), ({"seed": 8, "n": 2}, False), (None, False)])
def test_work_goes_on_only_where_everything_is_equal(tmp_path, again, kept):
    with pytest.raises(KeyboardInterrupt), Staging(tmp_path / "out", resume={"n": 2, "seed": 7}) as work:
        (work / "a").write_text("done")
        raise KeyboardInterrupt
    assert not (tmp_path / "out").exists()
    with Staging(tmp_path / "out", resume=again) as work:
        assert (work / "a").exists() is kept
        (work / "b").write_text("done")
    assert tree(tmp_path) == {"out/": b"", **({"out/a": b"done"} if kept else {}), "out/b": b"done"}


def test_an_error_removes_work_that_a_kill_would_keep(tmp_path):
    with pytest.raises(ValueError), Staging(tmp_path / "out", resume={"n": 2}) as work:
        (work / "a").write_text("done")
        raise ValueError
    assert tree(tmp_path) == {}


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path):
    with Staging(tmp_path / "out") as work:
        (work / "a").write_text("a")
        with pytest.raises(CustomCNNError) as caught, Staging(tmp_path / "out", replace=True):
            raise AssertionError("not reached")
    assert str(caught.value) == (
        f"A destination is written by one process at a time. Received: '{tmp_path}/out', which another process is "
        "writing now. Wait for it, or choose another destination."
    )
    assert tree(tmp_path) == {"out/": b"", "out/a": b"a"}


@pytest.mark.parametrize("replace", [False, True])
def test_of_writers_at_the_same_time_each_wins_or_is_refused(tmp_path, replace):
    def write(i: int) -> bool:
        try:
            with Staging(tmp_path / "new" / "out", replace=replace) as work:
                (work / "a").write_text(str(i))
                (work / "b").write_text(str(i))
        except CustomCNNError:
            return False
        return True

    for _ in range(20):
        won = list(parallel(write, range(8), 8))
        assert sum(won) == 1 or (replace and sum(won) > 1)
        found = tree(tmp_path)
        assert found.keys() == {"new/", "new/out/", "new/out/a", "new/out/b"}
        assert found["new/out/a"] == found["new/out/b"]
        assert won[int(found["new/out/a"])]
        shutil.rmtree(tmp_path / "new")


def test_a_refused_call_holds_no_lock_and_no_file(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    (tmp_path / ".out.old").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(CustomCNNError, match="not empty"), Staging(tmp_path / "out"):
            raise AssertionError("not reached")
    assert len(os.listdir("/proc/self/fd")) == before
    with Staging(tmp_path / "out", replace=True):
        pass
    assert tree(tmp_path) == {"out/": b""}


WRITER = """
import sys, time
from pathlib import Path
from customcnn.io.atomic import Staging
with Staging(Path(sys.argv[1]), resume={"n": 1}) as work:
    (work / "a").write_text("done")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_no_lock_and_its_work_is_taken_up(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(CustomCNNError, match="which another process is writing now"):
            Staging(tmp_path / "out", resume={"n": 1}).__enter__()
        process.kill()
        process.wait()
    with Staging(tmp_path / "out", resume={"n": 1}) as work:
        assert (work / "a").read_text() == "done"
    assert tree(tmp_path) == {"out/": b"", "out/a": b"done"}


def test_a_mounted_destination_is_refused_before_the_work(tiny_disk):
    with pytest.raises(CustomCNNError) as caught, Staging(tiny_disk):
        raise AssertionError("not reached")
    assert str(caught.value) == (
        f"A destination is made beside its final place and renamed. Received: '{tiny_disk}', a mount point. "
        "Choose a folder inside it."
    )
    assert sorted(path.name for path in tiny_disk.parent.iterdir()) == ["disk"]


def test_a_folder_that_comes_between_is_not_lost(tmp_path):
    # Another program that does not know our lock makes the destination while we work.
    dst = tmp_path / "out"
    with pytest.raises(CustomCNNError, match="is not empty"), Staging(dst) as work:
        (work / "a").write_text("ours")
        dst.mkdir()
        (dst / "a").write_text("theirs")
    assert tree(tmp_path) == {"out/": b"", "out/a": b"theirs"}


@pytest.mark.parametrize("src, dst", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "link/b"), ("a", "x/../a/b")])
def test_source_and_destination_inside_each_other_are_refused(tmp_path, src, dst):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert refused(refuse_overlap, tmp_path / src, tmp_path / dst) == (
        "Source and destination are separate folders, neither inside the other. "
        f"Received: '{tmp_path}/{src}' and '{tmp_path}/{dst}'. Choose a destination beside the source."
    )
    refuse_overlap(tmp_path / "a" / "b", tmp_path / "ab")


# ---------------------------------------------------------------- several machines


def test_work_that_was_broken_off_is_kept(tmp_path):
    with pytest.raises(BrokenOff), Staging(tmp_path / "out", resume={"n": 2}) as work:
        (work / "a").write_text("done")
        raise BrokenOff("a node was lost")
    with (stage := Staging(tmp_path / "out", resume={"n": 2})):
        assert stage.kept() == {"a"}


def test_writers_of_several_machines_use_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_writer", "")
    write_as("node-7")
    seen = []
    own = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: seen.append(path.name) or own(path, data))
    write_bytes(tmp_path / "a", b"1")
    write_bytes(tmp_path / ("n" * 255), b"2")
    assert seen[0] == ".a.node-7.partial" and seen[1].endswith(".node-7.partial") and len(seen[1]) <= 255
    assert len(tree(tmp_path)) == 2


def test_what_a_lost_machine_was_writing_is_removed_in_the_end(tmp_path):
    with Staging(tmp_path / "out", shared=True) as work:
        (work / "all").mkdir()
        (work / "all" / "1.bmp").write_text("whole")
        (work / "all" / ".1.bmp.node-7.partial").write_text("ha")
    assert tree(tmp_path) == {"out/": b"", "out/all/": b"", "out/all/1.bmp": b"whole"}


# ---------------------------------------------------------------- addresses


@pytest.fixture
def far() -> Iterator[Address]:
    """A folder in fsspec's own memory."""
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    memory.store.clear()
    yield Address("memory", "bucket/out")
    memory.store.clear()


def far_tree(folder: Address) -> dict[str, str]:
    return {name: (folder / name).get().decode() for name in folder.files()}


def test_a_folder_at_an_address_is_marked_until_it_is_whole(far):
    with staging(far) as work:
        (work / "all/1.bmp").write_bytes(b"1")
        assert far_tree(far) == {MARK: "null", "all/1.bmp": "1"}
    assert far_tree(far) == {"all/1.bmp": "1"}


@pytest.mark.parametrize("error, kept", [(ValueError, False), (KeyboardInterrupt, True), (BrokenOff, True)])
def test_an_error_at_an_address(far, error, kept):
    with pytest.raises(error), staging(far, resume={"n": 1}) as work:
        (work / "a").write_bytes(b"1")
        raise error
    assert far_tree(far) == ({MARK: '{"n": 1}', "a": "1"} if kept else {})


@pytest.mark.parametrize("again, kept", [({"n": 1}, {"a"}), ({"n": 2}, set()), (None, set())])
def test_work_at_an_address_goes_on_only_where_everything_is_equal(far, again, kept):
    with pytest.raises(KeyboardInterrupt), staging(far, resume={"n": 1}) as work:
        (work / "a").write_bytes(b"1")
        raise KeyboardInterrupt
    stage = staging(far, resume=again)
    with stage as work:
        assert stage.kept() == kept
        (work / "b").write_bytes(b"2")
    assert far_tree(far) == {**dict.fromkeys(kept, "1"), "b": "2"}


def test_files_are_kept_only_where_each_is_whole(far, monkeypatch):
    """Of another protocol than an object store's a file may be there in part."""
    monkeypatch.setattr(atomic, "WHOLE", frozenset())
    with pytest.raises(KeyboardInterrupt), staging(far, resume={"n": 1}) as work:
        (work / "a").write_bytes(b"1")
        raise KeyboardInterrupt
    assert far_tree(far) == {}


def test_an_address_with_something_in_it_is_refused_or_replaced(far):
    (far / "a").put(b"old")
    with pytest.raises(CustomCNNError) as caught, staging(far):
        raise AssertionError("not reached")
    assert str(caught.value) == "Destination 'memory://bucket/out' is not empty. Use --replace to write over it."
    with staging(far, replace=True) as work:
        (work / "b").write_bytes(b"new")
    assert far_tree(far) == {"b": "new"}
    with (
        pytest.raises(CustomCNNError, match=r"A destination is a folder\. Received: .*, which is a file"),
        staging(far / "b"),
    ):
        raise AssertionError("not reached")


def test_a_kill_while_old_files_are_deleted_does_not_keep_them(far, monkeypatch):
    (far / "a").put(b"old")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Address, "unlink", lambda self, missing_ok: (_ for _ in ()).throw(KeyboardInterrupt))
        staging(far, replace=True, resume={"n": 1}).__enter__()
    assert "a" in far.files()
    stage = staging(far, replace=True, resume={"n": 1})
    with stage:
        assert stage.kept() == set()
    assert far_tree(far) == {}


def test_two_writers_at_an_address_do_not_both_succeed(far):
    with (
        pytest.raises(CustomCNNError, match=r"written by one process at a time"),
        staging(far, resume={"n": 1}) as work,
    ):
        (work / "a").write_bytes(b"1")
        with staging(far, resume={"n": 2}) as other:
            (other / "a").write_bytes(b"2")


@pytest.mark.parametrize("name", ["a*.bmp", "cell[1].bmp", "#?%.bmp", "é 細.bmp"])
def test_names_are_never_patterns(far, name):
    (far / name).put(b"1")
    (far / "a1.bmp").put(b"2")
    (far / name).unlink()
    assert far_tree(far) == {"a1.bmp": "2"}
    (far / name).put(b"1")
    far.clear(but="a1.bmp")
    assert far_tree(far) == {"a1.bmp": "2"}


@pytest.mark.parametrize("src, dst", [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_addresses_inside_each_other_are_refused(src, dst):
    with pytest.raises(CustomCNNError, match=r"neither inside the other"):
        refuse_overlap(Address("s3", f"bucket/{src}"), Address("s3", f"bucket/{dst}"))
    refuse_overlap(Address("s3", "bucket/a"), Address("s3", "bucket/ab"))
    refuse_overlap(Address("s3", "bucket/a"), Address("gs", "bucket/a"))


@pytest.mark.parametrize("one", ["local", "far"])
@pytest.mark.parametrize("other", ["local", "far"])
def test_files_are_copied_between_folders_and_addresses(far, tmp_path, one, other):
    source = tmp_path / "a" if one == "local" else far / "a"
    target = tmp_path / "b" if other == "local" else far / "b"
    source.write_bytes(b"data")
    atomic.copy(source, target)
    assert target.read_bytes() == b"data"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_files_are_read_ahead_and_written_behind(far):
    names = [str(i) for i in range(30)]
    for name in names:
        (far / name).put(name.encode())
    with overlapped((far / name for name in names), far):
        found = []
        for name in names[::2]:  # not all that were announced are asked for
            found.append((far / name).read_bytes().decode())
            (far / f"out/{name}").write_bytes(memoryview(name.encode()))
    assert found == names[::2]
    assert {name: name for name in names[::2]} == far_tree(far / "out")


def test_an_error_of_a_file_read_ahead_comes_when_it_is_asked_for(far):
    (far / "a").put(b"1")
    with overlapped([far / "a", far / "missing", far / "other"]):
        assert (far / "a").read_bytes() == b"1"
        with pytest.raises(FileNotFoundError) as caught:
            (far / "missing").read_bytes()
    assert (caught.value.strerror, caught.value.filename) == (
        "No such file or directory",
        "memory://bucket/out/missing",
    )


def test_an_error_of_a_file_written_behind_is_raised(far, monkeypatch):
    def refuse(self, data):
        raise BrokenOff("no space")

    monkeypatch.setattr(Address, "put", refuse)
    with pytest.raises(BrokenOff), overlapped([], far):
        (far / "a").write_bytes(b"1")


# ---------------------------------------------------------------- locks where folders cannot be locked


@pytest.fixture
def like_nfs(monkeypatch):
    """Refuse to lock what is not open for writing, as NFS does by flock(2)."""
    flock = fcntl.flock

    def refusing(place, how):
        if fcntl.fcntl(place, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(place, how)

    monkeypatch.setattr(fcntl, "flock", refusing)


def test_on_nfs_a_file_beside_the_folder_is_locked(tmp_path, like_nfs):
    with Staging(tmp_path / "made") as work:
        (work / "file").write_text("whole")
        with pytest.raises(Busy, match="another process is writing"), Staging(tmp_path / "made"):
            pass
        assert (work / "file").is_file()
    assert (tmp_path / "made/file").read_text() == "whole"
    with Staging(tmp_path / "made", replace=True) as work:  # the lock has gone
        (work / "other").touch()
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["other"]


def test_on_nfs_a_folder_that_was_moved_meanwhile_is_made_anew(tmp_path, like_nfs, monkeypatch):
    lock = atomic.lock_folder

    def late(folder):
        found = lock(folder)
        folder.rename(tmp_path / "elsewhere")  # who held the lock before has published
        return found

    monkeypatch.setattr(atomic, "lock_folder", late)
    with Staging(tmp_path / "made") as work:
        assert work.is_dir()
