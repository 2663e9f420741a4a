"""Decoding: one that is slow keeps neither the others nor the end of the process waiting."""

import asyncio
import subprocess
import sys
import threading

import pytest

from customcnn.serve import decoders
from customcnn.serve.decoders import Decoders


def test_slow_ones_give_their_places_to_others(monkeypatch):
    monkeypatch.setattr(decoders, "SLOW", 0.05)
    go = threading.Event()

    async def main() -> None:
        pool = Decoders()
        slow = [asyncio.create_task(pool.run(go.wait)) for _ in range(decoders.SLOW_AT_ONCE)]
        async with asyncio.timeout(5):
            assert [await pool.run(lambda: 7) for _ in range(3)] == [7] * 3
        assert not any(task.done() for task in slow)
        go.set()
        assert await asyncio.gather(*slow) == [True] * len(slow)

    asyncio.run(main())


def test_only_so_many_go_on_beside_the_others(monkeypatch):
    monkeypatch.setattr(decoders, "SLOW", 0.01)
    monkeypatch.setattr(decoders, "SLOW_AT_ONCE", 1)
    monkeypatch.setattr(decoders.os, "cpu_count", lambda: 1)
    go, begun = threading.Event(), []

    def work() -> None:
        begun.append(1)
        go.wait()

    async def main() -> None:
        pool = Decoders()
        tasks = [asyncio.create_task(pool.run(work)) for _ in range(9)]
        await asyncio.sleep(0.3)
        assert len(begun) == 3, "two places, and one that gave its own away"
        go.set()
        await asyncio.gather(*tasks)
        assert len(begun) == 9

    asyncio.run(main())


def test_a_failure_is_raised():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Decoders().run(lambda: 1 / 0))


def test_the_process_ends_while_one_decodes():
    program = """
import asyncio, threading, time
from customcnn.serve.decoders import Decoders

async def main():
    pool = Decoders()
    for work in (threading.Event().wait, lambda: time.sleep(0.3)):
        asyncio.create_task(pool.run(work))
    await asyncio.sleep(0.1)
asyncio.run(main())
time.sleep(0.5)
print("the end")
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
