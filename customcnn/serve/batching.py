"""One thread that computes: what several requests bring at the same time is computed together."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

BATCH = 16
"""Images at a time: enough for the kernels' full speed, few enough that nobody waits long for the others."""

WAIT = 0.002
"""Seconds for which a batch that is not full waits for more images."""

T = TypeVar("T")


class Batcher:
    """Computes images in batches, and other work between them, in a thread of its own.

    The sizes of the batches are powers of two: few shapes, for each of which a backend prepares its kernels once.

    Args:
        compute: uint8 (N, H, W, 3) goes in, (N, classes) comes out.
        batch: images at a time, at most.
        wait: seconds, see `WAIT`.
    """

    def __init__(self, compute: Callable[[np.ndarray], np.ndarray], batch: int = BATCH, wait: float = WAIT) -> None:
        self._compute, self._batch, self._wait = compute, batch, wait
        self._images: deque[tuple[np.ndarray, Future[np.ndarray]]] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="customcnn-compute", daemon=True)
        self._thread.start()

    def submit(self, image: np.ndarray) -> "Future[np.ndarray]":
        """Return what becomes the output (classes,) of one image, uint8 (H, W, 3)."""
        return self._add(self._images, image)

    def call(self, work: Callable[[], T]) -> "Future[T]":
        """Return what becomes the result of some other work, done in the computing thread."""
        return self._add(self._calls, work)

    def close(self) -> None:
        """Drop what waits, and end the thread after what it computes now."""
        with self._changed:
            self._closed = True
            for waiting in (*self._images, *self._calls):
                waiting[1].cancel()
            self._images.clear()
            self._calls.clear()
            self._changed.notify_all()
        self._thread.join()

    def _add(self, queue: "deque[tuple[Any, Future[Any]]]", item: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("The batcher is closed.")
            queue.append((item, future))
            self._changed.notify_all()
        return future

    def _work(self) -> None:
        while not self._closed:
            # By turns: neither many images nor many pictures of Grad-CAM keep the other waiting.
            self._next_batch()
            self._next_call()
            with self._changed:
                self._changed.wait_for(lambda: self._images or self._calls or self._closed)

    def _next_batch(self) -> None:
        with self._changed:
            if not self._images:
                return
            until = time.monotonic() + self._wait
            while len(self._images) < self._batch and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            many = min(len(self._images), self._batch)
            size = 1 << (many.bit_length() - 1) if many else 0
            jobs = [self._images.popleft() for _ in range(size)]
        jobs = [job for job in jobs if job[1].set_running_or_notify_cancel()]
        if not jobs:
            return
        try:
            rows = self._compute(np.stack([image for image, _ in jobs]))
        except BaseException as error:
            for _, future in jobs:
                future.set_exception(error)
            return
        for (_, future), row in zip(jobs, rows, strict=True):
            future.set_result(row)

    def _next_call(self) -> None:
        with self._changed:
            if not self._calls:
                return
            work, future = self._calls.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
