"""Work spread over threads, processes or the workers of many machines, its results in order."""

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context, parent_process, resource_tracker
from typing import Protocol, TypeAlias, TypeGuard, TypeVar

from customcnn.errors import CustomCNNError
from customcnn.io.remote_path import Address, Folder, overlapped

T = TypeVar("T")
R = TypeVar("R")

TOGETHER = 32
"""So many items are one task of a `Pool`: what it costs to send one is then little beside the work."""

SAMPLE, BLOCK = 128, 4096
"""So many items `parallel` does by threads and so many alone, and then this many by what was faster."""

QUICK = 0.005
"""Seconds: of items that take longer, none is done alone to see whether that were faster."""

SAFE_PATH = "PYTHONSAFEPATH"
"""Set in the environment, it keeps the working directory from the places where a new Python looks for modules."""

_ENVIRONMENT_LOCK = threading.RLock()


class Pool(Protocol):
    """Workers that are not this process's own, such as those of a `customcnn.cluster.Cluster`."""

    @property
    def count(self) -> int:
        """How many items they work on at a time."""

    def map(self, function: Callable[[T], R], items: Iterable[T], *, block: int = TOGETHER) -> Iterator[R]:
        """Yield `function(item)` for every item, in the order of the items; so many items are one task."""


Workers: TypeAlias = int | Pool | None


def is_pool(workers: Workers) -> TypeGuard[Pool]:
    """Tell whether the workers are a `Pool`."""
    return not (workers is None or isinstance(workers, int))


def worker_count(workers: Workers) -> int:
    """Return the number of workers: as given, those of a pool, or one for every core this process may use.

    Raises:
        CustomCNNError: `workers` is below 1.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(workers, int):
        return workers.count
    if workers < 1:
        raise CustomCNNError(f"Work needs at least one worker. Received: {workers}. Give --workers 1 or more.")
    return workers


def parallel(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: Workers = None,
    *,
    processes: bool = False,
    block: int = TOGETHER,
) -> Iterator[R]:
    """Yield `function(item)` for every item, in the order of the items, computed by threads, processes or a pool.

    Threads are given up, and taken up again, as that turns out to be faster.

    Args:
        function: for `processes`, a function of a module's top level (or a functools.partial of one).
        items: any iterable; no more than a few per worker are taken in advance, so memory stays flat.
        workers: how many; None for one a core; 1 runs in this process; or a `Pool`, which takes items from this
            process and gives results back, both by pickle.
        processes: worker processes instead of threads: for code that holds the interpreter lock or global state. Where
            the system lets them share nothing, this process does the work.
        block: so many items make one task of a pool.

    Raises:
        CustomCNNError: a worker process was killed.
        Exception: whatever `function` raised, for the first item (in order) that did.
    """
    if is_pool(workers):
        yield from workers.map(function, items, block=block)
        return
    count = worker_count(workers)
    if count == 1:
        yield from map(function, items)
        return
    try:
        pool = _processes(count) if processes else ThreadPoolExecutor(count)
    except (OSError, ImportError):  # no semaphores: /dev/shm is missing, full or read-only, as in some containers
        yield from map(function, items)
        return
    by = _by_processes if processes else _by_threads
    try:
        yield from by(pool, function, iter(items), 4 * count)
    except BrokenProcessPool:
        raise CustomCNNError(
            "A worker process was killed (out of memory?). Received: no result from it. Try again with fewer --workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def on_files(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: Workers = None,
    *,
    reads: Callable[[T], Folder] | None,
    writes: Folder | None = None,
    processes: bool = False,
) -> Iterator[R]:
    """Do the same where every item reads one file: the waits for files at an address overlap.

    Args:
        function, items, workers, processes: as of `parallel`.
        reads: returns the file that an item reads; None where it reads none.
        writes: the folder that is written to.
    """
    pairs = ((item, reads(item) if reads else None) for item in items)
    first = next(pairs, None)
    if first is None:
        return
    whole = chain([first], pairs)
    if not isinstance(first[1], Address) and not isinstance(writes, Address):
        yield from parallel(function, (item for item, _ in whole), workers, processes=processes)
        return
    blocks = iter(lambda: list(islice(whole, TOGETHER)), [])
    for results in parallel(partial(_far_block, function, writes), blocks, workers, processes=processes, block=1):
        yield from results


def _far_block(function: Callable[[T], R], writes: Folder | None, pairs: Sequence[tuple[T, Folder]]) -> list[R]:
    with overlapped((place for _, place in pairs), *([writes] if writes else [])):
        return [function(item) for item, _ in pairs]


def as_seen(folder: Folder, workers: Workers) -> Folder:
    """Return a folder under the name by which the workers find it: those of a pool have other working folders."""
    return folder.absolute() if is_pool(workers) else folder


def _by_processes(pool: Executor, function: Callable[[T], R], items: Iterator[T], ahead: int) -> Iterator[R]:
    return _in_order(partial(_submit, pool), function, items, ahead)


def _by_threads(pool: Executor, function: Callable[[T], R], items: Iterator[T], ahead: int) -> Iterator[R]:
    # For small files, threads that hand the interpreter lock to each other are slower than one of them alone.
    def threads(count: int) -> Iterator[R]:
        return _in_order(pool.submit, function, islice(items, count), ahead)

    def alone(count: int) -> Iterator[R]:
        return map(function, islice(items, count))

    seconds = 0.0
    while seconds < math.inf:
        faster, seconds = threads, (yield from _timed(threads(SAMPLE), SAMPLE))
        if seconds < QUICK and (yield from _timed(alone(SAMPLE), SAMPLE)) < seconds:
            faster = alone
        seconds = yield from _timed(faster(BLOCK), BLOCK)


def _timed(results: Iterator[R], count: int) -> Generator[R, None, float]:
    """Yield the results and return the seconds waited for each; infinity where there are fewer than `count`."""
    seconds = 0.0
    for _ in range(count):
        began = time.perf_counter()
        try:
            result = next(results)
        except StopIteration:
            return math.inf
        seconds += time.perf_counter() - began
        yield result
    return seconds / count


def _in_order(
    submit: Callable[..., Future[R]], function: Callable[[T], R], items: Iterator[T], ahead: int
) -> Iterator[R]:
    waiting: deque[Future[R]] = deque(submit(function, item) for item in islice(items, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(submit(function, item) for item in islice(items, 1))
        yield result


def _processes(count: int) -> Executor:
    with _starting():
        resource_tracker.ensure_running()  # its start would take the blocking back, in Python 3.11
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_prepare_worker)


def _submit(pool: Executor, function: Callable[[T], R], item: T) -> Future[R]:
    with _starting():  # this may start a worker
        return pool.submit(function, item)


@contextmanager
def _starting() -> Iterator[None]:
    """Start workers meanwhile that import nothing from the working directory and are not there half at Ctrl-C."""
    with safe_path(), _ctrl_c_waits():
        yield


@contextmanager
def safe_path() -> Iterator[None]:
    """Let the Python processes started meanwhile import nothing from the working directory, which may hold anything."""
    with _ENVIRONMENT_LOCK:  # two threads at once would each restore what the other one set
        before = os.environ.get(SAFE_PATH)
        os.environ[SAFE_PATH] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[SAFE_PATH]
            else:
                os.environ[SAFE_PATH] = before


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back, here and in the processes started meanwhile, which keep it blocked; then let it happen.

    A worker that is not up yet would print a traceback at Ctrl-C, and one whose parent is stopped while it starts it
    would wait in vain for what it is to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted, and only it may say how
        return
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())  # not only blocked: other threads let it through
    try:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed.is_set():
            signal.raise_signal(signal.SIGINT)


def _prepare_worker() -> None:
    # Ctrl-C reaches the workers too: what follows from it is their parent's to decide, and to say. It is blocked in
    # a worker that the main thread started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A pool's workers wait for ever when their parent is killed: each watches it and leaves.
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
