"""The door: who may come in, where to, how often and with how much; what is said of it in the log."""

import time
from collections.abc import Callable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from customcnn.serve.limits import MB, Rate, Refused, is_loopback

OWN = {"/predict", "/healthz", "/report", "/docs", "/openapi.json"}

GRADIO = {
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/pwa_icon",
    "/gradio_api/info", "/gradio_api/app_id", "/gradio_api/startup-events", "/gradio_api/theme.css",
    "/gradio_api/upload", "/gradio_api/upload_progress", "/gradio_api/queue/join", "/gradio_api/queue/data",
    "/gradio_api/cancel", "/gradio_api/reset",
}  # fmt: skip
GRADIO_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/", "/pwa_icon/")
"""What the page needs of Gradio. Its other addresses serve files, fetch from elsewhere or show its inside."""

WITH_IMAGES = {"/predict", "/gradio_api/upload"}
COUNTED = WITH_IMAGES | {"/gradio_api/queue/join"}
"""Where a request makes work, and counts for the rate."""

SMALL = MB
"""Bytes of a body that brings no image."""

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""On every answer. The first lets a browser ask this server only, whatever a page holds."""

PROBLEM = "Something went wrong here. The server's log has more."


class Guard:
    """Stands before an app: refuses, limits, and writes the log.

    Args:
        app: what answers.
        host: the address it listens at; on this machine's own, only its own names are let in, so that no web page can
            reach it under a name of its own.
        rate: requests a minute and client; 0 for no limit.
        log: receives one line a request that made work or was refused. No name of an image is in it.
    """

    def __init__(self, app: ASGIApp, *, host: str, rate: int = 0, log: Callable[[str], object] = lambda line: None):
        self._app, self._log = app, log
        self._hosts = {"localhost", "127.0.0.1", "::1", host.lower()} if is_loopback(host) else None
        self._rate = Rate(rate) if rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message.get("headers", ())}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._limited(scope, receive), sent)
        except Refused as refused:
            if not status:
                await answer(refused)(scope, receive, sent)
        except Exception as error:
            self._log(f"Error: {type(error).__name__} at {_shown(scope)}: {' '.join(str(error).split())[:200]}")
            if not status:
                await answer(Refused(500, PROBLEM))(scope, receive, sent)
        if status >= 400 or scope["path"] in WITH_IMAGES:
            ms = (time.monotonic() - began) * 1000
            self._log(f"{time.strftime('%H:%M:%S')} {_shown(scope)} {status} {ms:.0f} ms")

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            raise Refused(400, "This server answers on its own machine only, as 127.0.0.1 or localhost.")
        if not is_known(scope["path"]):
            raise Refused(404, "There is nothing here. See / and /docs.")
        if scope["method"] == "POST" and headers.get("sec-fetch-site") == "cross-site":
            raise Refused(403, "Pages of other sites may not send images here.")
        if self._rate is not None and scope["method"] == "POST" and scope["path"] in COUNTED:
            client = (scope.get("client") or ("unknown",))[0]
            if wait := self._rate.seconds_to_wait(_network(client)):
                raise Refused(429, "Too many requests. Try again later.", after=int(wait) + 1)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return `receive` for a body that may be small only; those with images have limits of their own."""
        if scope["path"] in WITH_IMAGES:
            return receive
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > SMALL:
                raise Refused(413, "This request is too large.")
            return message

        return counted


def is_known(path: str) -> bool:
    """Tell whether there is anything at a path."""
    return path in OWN or path in GRADIO or path.startswith(GRADIO_BELOW)


def answer(refused: Refused) -> JSONResponse:
    """Return a refusal as JSON: `detail`, one line, and `images`, each with file and error, where they are at fault."""
    content: dict[str, object] = {"detail": refused.message}
    if refused.images:
        content["images"] = [{"file": name, "error": why} for name, why in refused.images]
    headers = {"retry-after": str(refused.after)} if refused.after else None
    return JSONResponse(content, status_code=refused.status, headers=headers)


def _shown(scope: Scope) -> str:
    # What is asked for may be the name of an image, or anything else; what is known is neither.
    path = scope["path"] if scope["path"] in OWN | GRADIO else "an unknown address"
    return f"{scope['method'] if scope['method'] in ('GET', 'HEAD', 'POST') else 'another method'} {path}"


def _host(header: str) -> str:
    name = header.strip().lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def _network(client: str) -> str:
    """Return the client's address; of IPv6, where one client has many, the part that is its network's."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    return client if address.version == 4 else address.exploded[:19]
