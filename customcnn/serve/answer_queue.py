"""Gradio's queue, taught to forget: it would keep the answers of two thousand visits, pictures included."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gradio.blocks import Blocks
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Queue
from gradio.utils import LRUCache
from pydantic import ValidationError

from customcnn.serve.upload_store import SECONDS

SESSIONS = 2000
"""Visits that may have answers waiting."""

LONGEST_SESSION = 64  # letters of a visit's name: Gradio's page has eleven

MOST = 256_000_000
"""Bytes of all the answers that wait. Of more, those that have waited longest are forgotten."""


class Mailbox(asyncio.Queue[Any]):
    """What waits for one visit: asyncio's queue, with the time and the size of each message."""

    def __init__(self, mailboxes: "Mailboxes") -> None:
        super().__init__()
        self._mailboxes = mailboxes
        self._waiting: deque[tuple[float, int]] = deque()

    @property
    def oldest(self) -> float:
        """When the oldest message came; infinity where none waits."""
        return self._waiting[0][0] if self._waiting else float("inf")

    @property
    def size(self) -> int:
        """Bytes of the messages."""
        return sum(size for _, size in self._waiting)

    def _put(self, item: Any) -> None:
        self._waiting.append((self._mailboxes.clock(), _size(getattr(item, "output", None))))
        super()._put(item)
        self._mailboxes.tidy()
        asyncio.get_running_loop().call_later(SECONDS + 0.1, self._mailboxes.tidy)

    def _get(self) -> Any:
        self._waiting.popleft()
        return super()._get()


class Mailboxes(LRUCache[str, asyncio.Queue[Any]]):
    """The mailboxes of all visits. One whose messages are not fetched goes away, and the work for it ends.

    Args:
        queue: Gradio's.
        most: bytes of all messages.
        clock: seconds.
    """

    def __init__(self, queue: Queue, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(SESSIONS)
        self.clock = clock
        self._queue, self._most = queue, most
        self._tasks: set[asyncio.Task[None]] = set()

    def __setitem__(self, session: str, _: object) -> None:
        super().__setitem__(session, Mailbox(self))

    def __missing__(self, session: str) -> asyncio.Queue[Any]:
        return asyncio.Queue()  # of a visit that was forgotten: what still comes for it is let go

    def is_read(self, session: str) -> bool:
        """Tell whether nothing waits for a visit."""
        return session not in self or self[session].empty()

    def tidy(self) -> None:
        """Forget what waits for too long, or is too much."""
        boxes: dict[str, Mailbox] = {k: v for k, v in self.items() if isinstance(v, Mailbox) and not v.empty()}
        total = sum(box.size for box in boxes.values())
        limit = self.clock() - SECONDS
        for session, box in sorted(boxes.items(), key=lambda item: item[1].oldest):
            if box.oldest > limit and total <= self._most:
                break
            total -= box.size
            self._forget(session)

    def _forget(self, session: str) -> None:
        del self[session]
        self._queue.pending_event_ids_session.pop(session, None)
        task = asyncio.create_task(self._queue.clean_events(session_hash=session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def put_in_order(blocks: Blocks) -> Mailboxes:
    """Let the queue of a page forget answers that nobody fetches, and refuse what the page does not ask."""
    queue = blocks._queue
    queue.pending_messages_per_session = mailboxes = Mailboxes(queue)
    push = queue.push

    async def checked(body: PredictBodyInternal, request: Any, username: str | None) -> Any:
        if not _is_of_the_page(blocks, body):
            return False, "The page asks for something else than this server has. Load it again.", "error"
        plain = body.model_copy(update={"batched": False, "simple_format": False, "event_data": None})
        return await push(plain, request, username)

    setattr(queue, "push", checked)  # noqa: B010
    return mailboxes


def _is_of_the_page(blocks: Blocks, body: PredictBodyInternal) -> bool:
    """Tell whether the page could ask this; Gradio would find out later, with a traceback."""
    function = blocks.fns.get(-1 if body.fn_index is None else body.fn_index)
    if function is None or len(body.data) != len(function.inputs):
        return False
    try:
        for block, value in zip(function.inputs, body.data, strict=True):
            model = getattr(block, "data_model", None)  # what only lays the page out has none
            if model is not None and value is not None:
                model.model_validate(value, context={"validate_meta": True})
    except (ValidationError, TypeError):
        return False
    return 0 < len(body.session_hash or "") <= LONGEST_SESSION


def _size(value: Any) -> int:
    """Return the bytes of the text in a message."""
    if isinstance(value, str):
        return sys.getsizeof(value)
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_size, inside))
