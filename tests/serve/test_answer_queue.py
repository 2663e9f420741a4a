"""Answers that wait for a visit: they are forgotten by age and by size, and what comes for them later goes nowhere."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio")

from customcnn.serve import quiet_environment


def test_answers_are_forgotten_by_age_and_by_size():
    with quiet_environment():
        import gradio as gr

        from customcnn.serve.answer_queue import Mailboxes
        from customcnn.serve.upload_store import SECONDS
    blocks, now = gr.Blocks(analytics_enabled=False), [0.0]

    def answer() -> SimpleNamespace:
        return SimpleNamespace(output={"data": [[["replace", [], "x" * 4000]], None]})

    async def main() -> None:
        boxes = Mailboxes(blocks._queue, 10_000, lambda: now[0])
        for number, visit in enumerate("abc"):
            boxes[visit] = asyncio.Queue()
            now[0] = float(number)
            boxes[visit].put_nowait(answer())
        assert list(boxes) == ["b", "c"], "the oldest made room"
        boxes["a"].put_nowait(answer())
        assert list(boxes) == ["b", "c"] and boxes.is_read("a") and not boxes.is_read("b")
        await boxes["b"].get()
        now[0] = SECONDS + 3.0
        boxes.tidy()
        assert list(boxes) == ["b"] and boxes.is_read("b"), "who has read stays"

    asyncio.run(main())
