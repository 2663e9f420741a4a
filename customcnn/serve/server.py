"""The server's life: put together, announced, run until Ctrl-C, put away."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from customcnn.inference.classifier import Classifier
from customcnn.serve.app import build_app
from customcnn.serve.connections import CONNECTIONS, Connection
from customcnn.serve.limits import Limits, is_loopback
from customcnn.serve.listener import url
from customcnn.serve.middleware import Guard
from customcnn.serve.service import Service

BACKLOG = 128
"""Connections that wait to be taken: as many are taken at once, and each has a file descriptor, of which many systems
give a process 1,024."""

LAST_SECONDS = 2
"""For requests that are being answered when the server is stopped."""

OPEN = (
    "Warning: whoever reaches {host} may use this server. It has no login and no encryption: "
    "put a proxy that has both before it."
)

Say = Callable[[str], object]


def run_server(
    classifier: Classifier,
    limits: Limits,
    listener: socket.socket,
    host: str,
    *,
    examples: Path | None = None,
    page: bool = True,
    say: Say = print,
) -> None:
    """Serve until Ctrl-C.

    Args:
        classifier: the network.
        limits: what is refused.
        listener: the socket to listen at.
        host: the address that it was asked for.
        examples: a folder of example images; None for drawn cells where the network knows such.
        page: whether there is the page.
        say: receives what happens, line by line.

    Raises:
        KeyboardInterrupt: Ctrl-C, when all is put away.
    """
    service = Service(classifier, limits)
    try:
        service.warm_up()
        app = build_app(service)
        if page:
            from customcnn.serve.page import add_page

            add_page(app, service, examples, say)
        _announce(app, lambda: _welcome(classifier, listener, host, service, say))
        config = configuration(Guard(app, host=host, rate=limits.rate, log=say))
        with _ends_at_sigterm(), _quiet_logs():
            _run(uvicorn.Server(config), listener)
    finally:
        service.close()


def configuration(app: Guard) -> uvicorn.Config:
    """Return how the app is run."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        backlog=BACKLOG,
        timeout_graceful_shutdown=LAST_SECONDS,
    )


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    stopped = False
    try:
        server.run(sockets=[listener])
    except (KeyboardInterrupt, asyncio.CancelledError):
        stopped = True
    # uvicorn raises the signal anew; whether that arrives as an exception depends on the version of Python.
    if stopped or signal.SIGINT in getattr(server, "_captured_signals", ()):
        raise KeyboardInterrupt


def _announce(app: FastAPI, welcome: Callable[[], None]) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(owner: FastAPI) -> AsyncIterator[Any]:
        async with inner(owner) as state:
            welcome()
            yield state

    app.router.lifespan_context = lifespan


def _welcome(classifier: Classifier, listener: socket.socket, host: str, service: Service, say: Say) -> None:
    say(f"Serving {classifier.run.path} at {url(listener)}, stop with Ctrl-C")
    if not is_loopback(host):
        say(OPEN.format(host=host))
    for warning in service.warnings:
        say(f"Warning: {warning}")


@contextmanager
def _ends_at_sigterm() -> Any:
    """Let SIGTERM end the process in good order, too: with the status that a shell gives it."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    old: Any = None
    with suppress(ValueError):  # not in the main thread
        old = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if old is not None:
            signal.signal(signal.SIGTERM, old)


@contextmanager
def _quiet_logs() -> Any:
    """Hold back uvicorn's own lines: the guard says what happens, and without names."""
    logger = logging.getLogger("uvicorn")
    level, logger.level = logger.level, logging.CRITICAL
    try:
        yield
    finally:
        logger.level = level
