"""Writing that a kill cannot leave half done, and work spread over threads or processes."""

import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process, resource_tracker
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from customcnn.errors import CustomCNNError, show

T = TypeVar("T")
R = TypeVar("R")

RESUME_FILE = ".resume.json"

SAMPLE, BLOCK = 128, 4096
"""So many items `parallel` does by threads and so many alone, and then this many by what was faster."""

QUICK = 0.005
"""Seconds: of items that take longer, none is done alone to see whether that were faster."""


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a whole file or nothing: into `.<name>.partial` beside it, then renamed over it."""
    beside = path.with_name(f".{path.name}.partial")
    if len(os.fsencode(beside.name)) > 255:  # the longest name that file systems take
        beside = path.with_name(f".{sha256(os.fsencode(path.name))[:32]}.partial")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file or nothing; bytes of file names that are not UTF-8 are kept (surrogateescape)."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of the bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Staging:
    """A folder that appears whole or not at all: written as `.<name>.partial` beside it, renamed at the end.

    Use it as a context manager; it yields the folder to write into. An error removes what was written. A kill leaves
    the partial folder; the next call clears it, or goes on with it when `resume` equals what the killed one was given.

    Args:
        dst: the folder to make. It may exist if it is empty.
        replace: write over a `dst` that is not empty. The old one stays until the new one is whole.
        resume: what determines every byte of the result, ready for JSON; None starts afresh each time.

    Raises:
        CustomCNNError: `dst` is a file, a mount point, or not empty without `replace`; or another process is at it.
    """

    def __init__(self, dst: Path, *, replace: bool = False, resume: Mapping[str, object] | None = None) -> None:
        self.dst = Path(os.path.realpath(dst))  # a link to a folder stays, and the folder is made where it points to
        self.replace = replace
        self.resume = None if resume is None else json.dumps(resume, sort_keys=True)
        self.work = self.dst.with_name(f".{self.dst.name}.partial")
        self.old = self.dst.with_name(f".{self.dst.name}.old")
        self.parents: list[Path] = []
        self.lock = -1

    def __enter__(self) -> Path:
        if not self.old.is_dir():
            refuse_non_empty(self.dst, self.replace)
        if os.path.ismount(self.dst):
            raise CustomCNNError(
                "A destination is made beside its final place and renamed. "
                f"Received: {show(self.dst)}, a mount point. Choose a folder inside it."
            )
        self.parents = [parent for parent in self.dst.parents if not parent.exists()]
        self._take_lock()
        try:
            self._put_back_old()
            refuse_non_empty(self.dst, self.replace)  # again: who held the lock before may have made it meanwhile
            self._clear()
        except BaseException:
            self._give_up(remove=False)
            raise
        return self.work

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self._give_up(remove=self.resume is None or not isinstance(error, KeyboardInterrupt))
            return
        try:
            self._publish()
        except BaseException:
            self._give_up(remove=True)
            raise
        os.close(self.lock)

    def _take_lock(self) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.work, os.O_RDONLY)
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(self.lock), self.work.stat()):
                return
        except (BlockingIOError, FileNotFoundError, FileExistsError):
            if self.work.is_file():
                raise
        # Locked by another process, or moved to its final place by one while we opened it.
        if self.lock >= 0:
            os.close(self.lock)
        raise CustomCNNError(
            f"A destination is written by one process at a time. Received: {show(self.dst)}, which another process "
            "is writing now. Wait for it, or choose another destination."
        )

    def _clear(self) -> None:
        mark = self.work / RESUME_FILE
        if self.resume is not None and mark.is_file() and mark.read_text() == self.resume:
            return
        for entry in self.work.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if self.resume is not None:
            write_text(mark, self.resume)

    def _give_up(self, *, remove: bool) -> None:
        try:
            if remove:
                shutil.rmtree(self.work, ignore_errors=True)
            self._put_back_old()
            with suppress(OSError):  # not empty: something else is kept there
                for folder in (self.work, *self.parents):
                    if folder.exists():
                        folder.rmdir()
        finally:
            os.close(self.lock)

    def _publish(self) -> None:
        refuse_non_empty(self.dst, self.replace)
        (self.work / RESUME_FILE).unlink(missing_ok=True)
        if self.dst.exists() and any(self.dst.iterdir()):
            self.dst.rename(self.old)
        self.work.rename(self.dst)
        shutil.rmtree(self.old, ignore_errors=True)

    def _put_back_old(self) -> None:
        # A kill during _publish may leave the old folder set aside: it is put back unless the new one took its place.
        if self.old.is_dir():
            if self.dst.exists():
                shutil.rmtree(self.old, ignore_errors=True)
            else:
                self.old.rename(self.dst)


def refuse_non_empty(dst: Path, replace: bool) -> None:
    """Raise CustomCNNError where `dst` is a file, or a folder with something in it and `replace` is False."""
    if dst.exists() and not dst.is_dir():
        raise CustomCNNError(f"A destination is a folder. Received: {show(dst)}, which is a file. Choose another name.")
    if not replace and dst.is_dir() and any(dst.iterdir()):
        raise CustomCNNError(f"Destination {show(dst)} is not empty. Use --replace to write over it.")


def refuse_overlap(src: Path, dst: Path) -> None:
    """Raise CustomCNNError where one folder lies inside the other: work on one would change the other."""
    a, b = src.resolve(), dst.resolve()
    if a == b or a in b.parents or b in a.parents:
        raise CustomCNNError(
            f"Source and destination are separate folders, neither inside the other. Received: {show(src)} and "
            f"{show(dst)}. Choose a destination beside the source."
        )


def worker_count(workers: int | None) -> int:
    """Return the number of workers: as given, or one for every core this process may use.

    Raises:
        CustomCNNError: `workers` is below 1.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise CustomCNNError(f"Work needs at least one worker. Received: {workers}. Give --workers 1 or more.")
    return workers


def parallel(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None, *, processes: bool = False
) -> Iterator[R]:
    """Yield `function(item)` for every item, in the order of the items, computed by threads or processes.

    Threads are given up, and taken up again, as that turns out to be faster.

    Args:
        function: for `processes`, a function of a module's top level (or a functools.partial of one).
        items: any iterable; no more than a few per worker are taken in advance, so memory stays flat.
        workers: how many; None for one a core; 1 runs in this process, without a pool.
        processes: worker processes instead of threads: for code that holds the interpreter lock or global state.

    Raises:
        CustomCNNError: a worker process was killed.
        Exception: whatever `function` raised, for the first item (in order) that did.
    """
    count = worker_count(workers)
    if count == 1:
        yield from map(function, items)
        return
    pool = _processes(count) if processes else ThreadPoolExecutor(count)
    by = _by_processes if processes else _by_threads
    try:
        yield from by(pool, function, iter(items), 4 * count)
    except BrokenProcessPool:
        raise CustomCNNError(
            "A worker process was killed (out of memory?). Received: no result from it. Try again with fewer --workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


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
    with _ctrl_c_waits():
        resource_tracker.ensure_running()  # its start would take the blocking back, in Python 3.11
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_prepare_worker)


def _submit(pool: Executor, function: Callable[[T], R], item: T) -> Future[R]:
    with _ctrl_c_waits():  # this may start a worker
        return pool.submit(function, item)


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
