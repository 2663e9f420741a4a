"""Threads that decode: a slow image keeps nobody waiting for long, and stopping waits for none."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

SLOW = 1.0
"""Seconds after which an image that is still being decoded gives its place to the next one."""

SLOW_AT_ONCE = 8
"""So many may go on beside the others; more keep their places."""

T = TypeVar("T")


class Decoders:
    """Does work in threads, in the order in which it comes, one piece a core at a time but for the slow ones."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._slow = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of some work.

        Raises:
            BaseException: whatever it raises.
        """
        async with self._places:
            done = in_thread(work)
            try:
                await asyncio.wait([done], timeout=SLOW)
                if not done.done() and self._slow >= SLOW_AT_ONCE:
                    await asyncio.wait([done])
            except asyncio.CancelledError:
                done.cancel()
                raise
        if done.done():
            return done.result()
        self._slow += 1
        try:
            return await done
        finally:
            self._slow -= 1


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Return what becomes the result of some work, done in a thread that Python does not wait for when it ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_it: Callable[[Any], None], value: object) -> None:
        if not future.done():
            set_it(value)

    def run() -> None:
        set_it: Callable[[Any], None] = future.set_result
        try:
            value: object = work()
        except BaseException as error:
            set_it, value = future.set_exception, error
        with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
            loop.call_soon_threadsafe(settle, set_it, value)

    threading.Thread(target=run, name="customcnn-decode", daemon=True).start()
    return future
