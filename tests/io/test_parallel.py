"""Work over threads and processes: in order, and stopped cleanly."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from customcnn.errors import CustomCNNError
from customcnn.io.parallel import as_seen, is_pool, on_files, parallel, safe_path, worker_count
from customcnn.io.remote_path import Address
from tests.support import ROOT


def square(x: int) -> int:
    return x * x


def fail_at(bad: set[int], x: int) -> int:
    time.sleep(0.001 * (x % 3))
    if x in bad:
        raise ValueError(f"item {x}")
    return x


def die_at(bad: int, x: int) -> int:
    if x == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def broken_image(path: str) -> None:
    from customcnn.images.decode import BadImage

    raise BadImage(path, "an empty file")


@pytest.mark.parametrize("workers", [None, 1, 2, 8])
def test_results_come_in_order(workers):
    assert list(parallel(partial(fail_at, set()), range(100), workers)) == list(range(100))
    assert list(parallel(square, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_results_of_processes_come_in_order(workers):
    assert list(parallel(square, range(100), workers, processes=True)) == [x * x for x in range(100)]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_first_error_in_order_is_raised_after_the_results_before_it(workers):
    results = parallel(partial(fail_at, {5, 3, 90}), range(100), workers)
    got = []
    with pytest.raises(ValueError, match=r"^item 3$"):
        got.extend(results)
        raise AssertionError("not reached")
    assert list(results) == []


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_few_items_are_taken_in_advance(workers):
    taken = 0

    def items():
        nonlocal taken
        for i in range(1000):
            taken += 1
            yield i

    for done, _ in enumerate(parallel(square, items(), workers), start=1):
        assert taken <= done + 4 * workers
    assert taken == 1000


@pytest.mark.parametrize("workers", [1, 2])
def test_leaving_early_stops_the_work(workers):
    started = []
    results = parallel(lambda x: started.append(x) or x, range(1000), workers)
    assert next(results) == 0
    results.close()
    count = len(started)
    time.sleep(0.05)
    assert len(started) == count <= 1 + 4 * workers


def test_our_errors_come_whole_from_a_worker_process():
    with pytest.raises(CustomCNNError) as caught:
        list(parallel(broken_image, ["all/1.bmp"], 2, processes=True))
    assert str(caught.value) == ("Images are single pictures of a known format. Received: 'all/1.bmp', an empty file.")


def test_worker_processes_run_nothing_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    Path("struct.py").write_text("open('ran', 'w')")
    assert list(parallel(square, range(3), 2, processes=True)) == [0, 1, 4]
    assert not Path("ran").exists()
    assert "PYTHONSAFEPATH" not in os.environ, "what else this process starts is not our business"


def test_threads_that_start_workers_at_once_leave_the_environment_as_it_was(monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    first_is_in = threading.Event()

    def first() -> None:
        with safe_path():
            first_is_in.set()
            time.sleep(0.1)

    def second() -> None:
        first_is_in.wait()
        with safe_path():
            time.sleep(0.2)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system can be mounted by root only")
def test_without_shared_memory_this_process_does_the_work_of_processes(tmp_path):
    code = (
        "from customcnn.io.parallel import parallel; import os; ids = parallel(eval, ['os.getpid()'] * 3, 2,"
        " processes=True); assert set(ids) == {os.getpid()}"
    )
    alone = f"mount -t tmpfs -o ro tmpfs /dev/shm && exec {shlex.join([sys.executable, '-c', code])}"
    apart = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*apart, "mount -t tmpfs -o ro tmpfs /dev/shm"], capture_output=True).returncode:
        pytest.skip("this machine lets us hide nothing")
    done = subprocess.run([*apart, alone], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_killed_worker_is_a_clear_error():
    with pytest.raises(CustomCNNError) as caught:
        list(parallel(partial(die_at, 3), range(50), 2, processes=True))
    assert str(caught.value) == (
        "A worker process was killed (out of memory?). Received: no result from it. Try again with fewer --workers."
    )


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(workers):
    with pytest.raises(CustomCNNError) as caught:
        list(parallel(square, [1], workers))
    assert str(caught.value) == f"Work needs at least one worker. Received: {workers}. Give --workers 1 or more."


def test_one_worker_for_every_core_by_default():
    assert worker_count(None) == len(os.sched_getaffinity(0))
    assert worker_count(3) == 3


# ---------------------------------------------------------------- a pool


class Pool:
    """Workers that are not this process's own, as far as `parallel` can tell."""

    count = 5

    def __init__(self):
        self.blocks = []

    def map(self, function, items, *, block=32):
        self.blocks.append(block)
        return map(function, items)


@pytest.mark.parametrize("processes", [False, True])
def test_a_pool_is_handed_the_work(processes):
    pool = Pool()
    assert list(parallel(square, range(50), pool, processes=processes, block=7)) == [x * x for x in range(50)]
    assert pool.blocks == [7]
    assert worker_count(pool) == 5
    assert is_pool(pool) and not is_pool(None) and not is_pool(3)


def test_workers_of_a_pool_have_other_working_folders():
    assert as_seen(Path("cells"), Pool()) == Path.cwd() / "cells"
    assert as_seen(Path("cells"), 2) == Path("cells")


def size_of(path) -> int:
    return len(path.read_bytes())


@pytest.mark.parametrize("workers", [1, 2, Pool()], ids=["one", "two", "pool"])
@pytest.mark.parametrize("number", [0, 1, 100])
def test_files_at_an_address_are_read_in_blocks(workers, number):
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    memory.store.clear()
    files = [Address("memory", f"cells/{i}") for i in range(number)]
    for i, file in enumerate(files):
        file.put(bytes(i))
    assert list(on_files(size_of, files, workers, reads=lambda file: file)) == list(range(number))
    memory.store.clear()


def test_local_files_are_not_put_into_blocks(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    pool = Pool()
    assert list(on_files(size_of, [tmp_path / "a"] * 40, pool, reads=lambda file: file)) == [3] * 40
    assert pool.blocks == [32]


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from customcnn.io.parallel import parallel
from tests.io.test_parallel import own_id
if __name__ == "__main__":
    seen = set()
    for pid in parallel(own_id, range(1000), 2, processes=True):
        if pid not in seen:
            print(pid, flush=True)
        seen.add(pid)
        if len(seen) == 2:
            time.sleep(60)  # the workers finish what was taken in advance, and wait
"""


def own_id(x: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def start_parent(tmp_path: Path) -> tuple[subprocess.Popen, set[int]]:
    """Start a process with two workers of its own and wait until both have given a result and wait for more."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(ROOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What runs the tests in the background may have told them to ignore it, and a process hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    workers = {int(process.stdout.readline() or process.stderr.read()) for _ in range(2)}
    time.sleep(0.3)
    return process, workers


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pids: set[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(gone(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    process, workers = start_parent(tmp_path)
    with process:
        assert not any(gone(pid) for pid in workers)
        process.kill()
        process.wait()
        assert wait_until_gone(workers)


def test_ctrl_c_stops_the_workers_and_they_say_nothing(tmp_path):
    process, workers = start_parent(tmp_path)
    with process:
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
        errors = process.stderr.read()
        process.wait(20)
        assert wait_until_gone(workers)
    assert errors.count("Traceback") == 1, errors  # the parent's own; the command line says "Stopped."
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_threads_cost_no_signal_handling(monkeypatch):
    """They start nothing that Ctrl-C could break, and a million items would pay for it."""
    monkeypatch.setattr(signal, "pthread_sigmask", lambda *_: pytest.fail("blocked a signal"))
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("set a handler"))
    assert list(parallel(str, range(20), 2)) == [str(n) for n in range(20)]
