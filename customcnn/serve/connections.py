"""The connections: how many there are, and how slow each may be. Silent ones make room for those who ask."""

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 512
"""More at once take the place of the oldest that has not asked yet; where all have, they are told to come back."""

HEADER = 10
"""Seconds in which a request's header must come, also after an answer."""

LONGEST_HEADER = 16_384
"""Bytes of a header."""

BODY = 330
"""Seconds in which its body must come: a little more than `customcnn.serve.multipart.SLOWEST`, which has words."""

AFTER = 15
"""Seconds for the rest of a body whose answer has been sent: a little more than `customcnn.serve.multipart.LINGER`."""

READING, LEAST_READ = 20, 100_000
"""Who takes less than so many bytes of a waiting answer in so many seconds is cut off: an answer fills memory."""

PIECES, LEAST_PIECE = 1000, 64
"""A body may have so many pieces of any size; of more, the mean must have so many bytes. Each costs as much as a large
one to take apart, during which nobody else is served."""

READ_AT_ONCE = 16_384
"""Bytes that are taken from a connection before the others have their turn."""


class Counted(h11.Connection):
    """Refuses bodies in tiny pieces."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:
        """Return the next event, as h11 does.

        Raises:
            h11.RemoteProtocolError: the pieces are too small; or as by h11.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces, self._bytes = self._pieces + 1, self._bytes + len(event.data)
            if self._pieces > PIECES and self._bytes < LEAST_PIECE * self._pieces:
                raise h11.RemoteProtocolError("A body in tiny pieces.")
        return event


class Connection(H11Protocol):
    """One connection, as uvicorn has it, that is cut off where it is too slow."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = Counted(h11.SERVER, LONGEST_HEADER)
        self._since = time.monotonic()
        self._state: object = None
        self._waiting: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Take a new connection, in the place of a silent one where there are too many."""
        # asyncio would take 256 kB at once: long work where they are many small pieces.
        transport.max_size = READ_AT_ONCE
        super().connection_made(transport)
        self._make_room()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Put the timers away."""
        for timer in (self._waiting, self._reading):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Say that the request is damaged, unless its answer has begun."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # whatever it answers comes too late
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.cut()

    def pause_writing(self) -> None:
        """Watch whether the client reads."""
        super().pause_writing()
        self._check_reading(None)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()

    def cut(self) -> None:
        """End the connection at once, and forget what waits for it."""
        self.connections.discard(self)
        self.transport.abort()

    @property
    def asks(self) -> bool:
        """Whether a whole request has come, which is being answered."""
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)

    def _make_room(self) -> None:
        if len(self.connections) < CONNECTIONS:
            return
        silent = [c for c in self.connections if isinstance(c, Connection) and c is not self and not c.asks]
        if silent:
            min(silent, key=lambda c: (c.conn.their_state is h11.SEND_BODY, c._since)).cut()

    def _watch(self) -> None:
        """Set the timer anew where the connection waits for something else than before."""
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        state = (self.conn.their_state, answered)
        if state == self._state:
            return
        self._state, self._since = state, time.monotonic()
        if self._waiting is not None:
            self._waiting.cancel()
        seconds = {h11.IDLE: HEADER, h11.SEND_BODY: AFTER if answered else BODY}.get(self.conn.their_state)
        self._waiting = self.loop.call_later(seconds, self.cut) if seconds else None

    def _check_reading(self, before: int | None) -> None:
        left = self.transport.get_write_buffer_size()
        if before is not None and left > before - LEAST_READ:
            self.cut()
        else:
            self._reading = self.loop.call_later(READING, self._check_reading, left)
