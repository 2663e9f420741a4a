"""The door: who may come in, where to, how often and with how much; what is said of it in the log."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from customcnn.serve.limits import MB, Rate, Refused, is_loopback

READ, SEND = ("GET", "HEAD"), ("POST",)

OWN = {"/predict": SEND, "/healthz": READ, "/report": READ, "/docs": READ, "/openapi.json": READ}

GRADIO = {
    **dict.fromkeys((
        "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt",
        "/gradio_api/info", "/gradio_api/app_id", "/gradio_api/startup-events", "/gradio_api/theme.css",
        "/gradio_api/upload_progress", "/gradio_api/queue/data",
    ), READ),
    **dict.fromkeys(
        ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"), SEND
    ),
}  # fmt: skip
GRADIO_BELOW = ("/assets/", "/static/", "/svelte/")
"""What the page needs of Gradio. Its other addresses serve files, fetch from elsewhere or show its inside."""

QUERY = {"session_hash", "upload_id"}
"""What the page asks with; Gradio would take more."""

LONGEST = 200
"""Letters of an address. No file that the page loads has half as many."""

WITH_IMAGES = {"/predict", "/gradio_api/upload"}
COUNTED = WITH_IMAGES | {"/gradio_api/queue/join"}
"""Where a request makes work, and counts for the rate."""

SMALL = MB
"""Bytes of a body that brings no image."""

SMALL_SECONDS = 20
"""Seconds in which such a body must come."""

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""On every answer. The first lets a browser ask this server only, whatever a page holds."""

CORS = b"access-control-"
"""What lets pages of other addresses read an answer. Gradio gives it to every port of this machine; nobody gets it."""

HOST = re.compile(r"(?:(?P<name>[a-z0-9._-]+)|\[(?P<six>[0-9a-f:.]+)\])(?::\d{1,5})?")
NUMBERS = re.compile(r"[\d.]+")
"""A name or an address, and a port; what is meant as an address."""

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
                kept = [(k, v) for k, v in message.get("headers", ()) if not k.lower().startswith(CORS)]
                present = {name.lower() for name, _ in kept}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present]
                message = {**message, "headers": [*kept, *more]}
            await send(message)

        try:
            self._check(scope)
            if scope["method"] == "POST" and scope["path"] not in WITH_IMAGES:
                receive = await _small(receive)
            await self._app(_plain(scope), receive, sent)
        except Refused as refused:
            if not status:
                await answer(refused)(scope, receive, sent)
        except Exception as error:
            if status and isinstance(error.__cause__ or error, HTTPException):
                # Gradio's, where nothing waits for a visit: its stream has said so, and has an end to come.
                await sent({"type": "http.response.body", "body": b""})
            else:
                self._log(fault(error, _shown(scope)))
            if not status:
                await answer(Refused(500, PROBLEM))(scope, receive, sent)
        if status >= 400 or scope["path"] in WITH_IMAGES:
            ms = (time.monotonic() - began) * 1000
            self._log(f"{time.strftime('%H:%M:%S')} {_shown(scope)} {status} {ms:.0f} ms")

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        names = [headers.get("host", ""), *headers.get("x-forwarded-host", "localhost").split(",")]
        host, *_ = hosts = [_host(name) for name in names]
        if "" in hosts:
            raise Refused(400, "A request names the host that it asks. Received: no host, or no such name.")
        if self._hosts is not None and host not in self._hosts:
            raise Refused(400, "This server answers on its own machine only, as 127.0.0.1 or localhost.")
        if not is_known(scope["path"]):
            raise Refused(404, "There is nothing here. See / and /docs.")
        allowed = {**OWN, **GRADIO}.get(scope["path"], READ)
        if scope["method"] not in allowed:
            raise Refused(405, f"This address answers {' and '.join(allowed)}. See /docs.", allow=allowed)
        if not _is_own(scope["method"], headers):
            raise Refused(403, "Pages of other sites may not use this server.")
        if self._rate is not None and scope["path"] in COUNTED:
            client = (scope.get("client") or ("unknown",))[0]
            if wait := self._rate.seconds_to_wait(_network(client)):
                raise Refused(429, "Too many requests. Try again later.", after=int(wait) + 1)


async def _small(receive: Receive) -> Receive:
    """Read a body that brings no image, and return what gives it again.

    Raises:
        Refused: 413, 408, 400, 422: it is too large, too slow, cut off, or no JSON.
    """
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(SMALL_SECONDS):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refused(400, "The connection was closed before the end of the request.")
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > SMALL:
                    raise Refused(413, "This request is too large.")
    except TimeoutError:
        raise Refused(408, f"A request comes within {SMALL_SECONDS} seconds. Received: not all of it.") from None
    try:  # Gradio has faults where letters are none
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused(422, "This address takes JSON. Received: something else.") from None
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()  # the end of the connection
        given = True
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return again


def _is_own(method: str, headers: Headers) -> bool:
    """Tell whether a request comes from a page of this server, from no page, or by a link to it."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        link = method in READ and headers.get("sec-fetch-mode") == "navigate"
        return site in ("same-origin", "none") or link
    origin = headers.get("origin")  # an older browser, or no page at all
    hosts = (headers.get("host"), headers.get("x-forwarded-host"))
    return origin is None or origin.partition("://")[2].lower() in [host.strip().lower() for host in hosts if host]


def _plain(scope: Scope) -> Scope:
    """Return a request without what the page does not ask, and HEAD as GET: uvicorn leaves the body out."""
    query = [(k, v) for k, v in parse_qsl(scope["query_string"].decode("latin-1")) if k in QUERY]
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "method": method, "query_string": urlencode(query).encode()}


def is_known(path: str) -> bool:
    """Tell whether there is anything at a path."""
    return len(path) <= LONGEST and (path in OWN or path in GRADIO or path.startswith(GRADIO_BELOW))


def answer(refused: Refused) -> JSONResponse:
    """Return a refusal as JSON: `detail`, one line, and `images`, each with file and error, where they are at fault."""
    content: dict[str, object] = {"detail": refused.message}
    if refused.images:
        content["images"] = [{"file": name, "error": why} for name, why in refused.images]
    headers = {"retry-after": str(refused.after)} if refused.after else {}
    headers |= {"allow": ", ".join(refused.allow)} if refused.allow else {}
    return JSONResponse(content, status_code=refused.status, headers=headers)


def fault(error: Exception, place: str) -> str:
    """Return the line of the log about a fault of our own."""
    return f"Error: {type(error).__name__} at {place}: {' '.join(str(error).split())[:200]}"


def _shown(scope: Scope) -> str:
    # What is asked for may be the name of an image, or anything else; what is known is neither.
    path = scope["path"] if scope["path"] in {**OWN, **GRADIO} else "an unknown address"
    return f"{scope['method'] if scope['method'] in ('GET', 'HEAD', 'POST') else 'another method'} {path}"


def _host(header: str) -> str:
    """Return a host without its port, in small letters and without brackets; "" for what is none."""
    found = HOST.fullmatch(header.strip().lower())
    if found is None:
        return ""
    try:
        if found["six"]:
            return str(IPv6Address(found["six"]))
        return str(IPv4Address(found["name"])) if NUMBERS.fullmatch(found["name"]) else found["name"]
    except ValueError:
        return ""


def _network(client: str) -> str:
    """Return the client's address; of IPv6, where one client has many, the part that is its network's."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    return client if address.version == 4 else address.exploded[:19]
