"""What comes in with a request: its images, in memory, within the limits, under names that are only names."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from customcnn.errors import printable, show
from customcnn.serve.limits import MB, Limits, Refused

IDLE = 20
"""Seconds in which some bytes of a body must come."""

SLOWEST = 300
"""Seconds in which the whole body must come."""

LEAST_RATE = 10_000
"""Bytes a second, after IDLE seconds: a body above 1 MB has one of few places, see `customcnn.serve.service`."""

LINGER = 10
"""Seconds for which the rest of a body that is too large is read and thrown away: a client that is cut off while it
sends would not see the answer."""

LONGEST_NAME = 120  # letters
PARTS = 1000  # of a request, whatever they are


@dataclass(frozen=True)
class Upload:
    """One file as it came: its name, and its bytes."""

    name: str
    data: bytes


def plain_name(raw: str, place: int) -> str:
    """Return the name of a file without its folders and on one line, for showing it: it is never opened.

    Args:
        raw: whatever the client calls it.
        place: its number in the request, from 1, for what has no name.
    """
    name = printable(re.split(r"[/\\]", raw)[-1]).strip()
    if not name.strip("."):
        return f"image {place}"
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


async def read_uploads(request: Request, limits: Limits, field_name: str) -> list[Upload]:
    """Read the files of a request, multipart/form-data, into memory.

    Args:
        request: its body is not read yet.
        limits: how much it may hold.
        field_name: the fields that hold images; others are passed over.

    Raises:
        Refused: 415 another type, 413 too large or too many, 400 a damaged body, 408 too slow, 422 no image in it.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(
            415,
            f"Images come as multipart/form-data, in fields named {field_name}. Received: "
            f"{show(printable(kind.decode('latin-1'))[:80])}. With curl: -F {field_name}=@cell.png.",
        )
    try:
        found = await _read(request, _Form(options[b"boundary"], limits, field_name), limits)
    except FormParserError:
        raise _damaged() from None
    except ClientDisconnect:
        raise Refused(400, "The connection was closed before the end of the request.") from None
    except TimeoutError:
        raise Refused(
            408,
            f"A request comes within {SLOWEST} seconds, without breaks of {IDLE}, at {LEAST_RATE // 1000} kB a second "
            "or more. Received: a slower one. Send its images one by one.",
        ) from None
    if not found.ended:
        raise _damaged()
    if not found.uploads:
        others = ", ".join(show(name) for name in sorted(found.others)[:5]) or "no field at all"
        raise Refused(422, f"A request holds images in fields named {field_name}. Received: {others}.")
    return found.uploads


def _damaged() -> Refused:
    return Refused(400, "The body is multipart/form-data, whole. Received: a damaged one.")


async def _read(request: Request, form: "_Form", limits: Limits) -> "_Form":
    announced = request.headers.get("content-length", "")
    refused = _too_large(limits) if announced.isdecimal() and int(announced) > limits.max_request else None
    if refused and request.headers.get("expect", "").lower() == "100-continue":
        raise refused  # the client waits for a word before it sends
    chunks = request.stream()
    size, began = 0, time.monotonic()
    async with asyncio.timeout(SLOWEST):
        while not refused:
            async with asyncio.timeout(IDLE):
                chunk = await anext(chunks, None)
            if chunk is None:
                return form
            size += len(chunk)
            seconds = time.monotonic() - began
            if seconds > IDLE and size < LEAST_RATE * seconds:
                raise TimeoutError
            try:
                form.write(chunk)
                refused = _too_large(limits) if size > limits.max_request else None
            except Refused as error:
                refused = error
    form.forget()
    await _throw_away(chunks, 4 * limits.max_request)
    raise refused


async def _throw_away(chunks: AsyncIterator[bytes], most: int) -> None:
    try:
        async with asyncio.timeout(LINGER):
            async for chunk in chunks:
                most -= len(chunk)
                if most < 0:
                    return
    except (TimeoutError, ClientDisconnect):
        return


def _too_large(limits: Limits) -> Refused:
    return Refused(
        413, f"A request has at most {limits.max_request / MB:g} MB. Received: more. Send its images one by one."
    )


@dataclass
class _Part:
    field_name: str = ""
    file_name: str = ""
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """Collects the parts of one body as its pieces come.

    Attributes:
        uploads: the files so far.
        others: names of the fields that are not wanted.
        ended: whether the last boundary has come.
    """

    def __init__(self, boundary: bytes, limits: Limits, field_name: str) -> None:
        self.uploads: list[Upload] = []
        self.others: set[str] = set()
        self.ended = False
        self._limits, self._wanted = limits, field_name
        self._part, self._parts = _Part(), 0
        self._header, self._value = bytearray(), bytearray()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        self._parser.write(chunk)

    def forget(self) -> None:
        """Let go of what was collected."""
        self.uploads.clear()
        self._part = _Part()

    def _on_part_begin(self) -> None:
        self._part, self._parts = _Part(), self._parts + 1
        if self._parts > PARTS:
            raise Refused(413, f"A request has at most {PARTS} fields. Received: more.")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._part.field_name = _text(options.get(b"name", b""))
            self._part.file_name = _text(options.get(b"filename", b""))
        self._header.clear()
        self._value.clear()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.field_name != self._wanted:
            return
        if len(self._part.data) + end - start > self._limits.max_size:
            name = plain_name(self._part.file_name, len(self.uploads) + 1)
            most = f"{self._limits.max_size / MB:g} MB"
            raise Refused(
                413, f"An image has at most {most}. Received: {show(name)}, larger than that.", [(name, "too large")]
            )
        self._part.data += data[start:end]

    def _on_part_end(self) -> None:
        if self._part.field_name != self._wanted:
            if len(self.others) < 10:
                self.others.add(printable(self._part.field_name)[:40])
            return
        if len(self.uploads) == self._limits.max_files:
            raise Refused(
                413, f"A request has at most {self._limits.max_files} images. Received: more. Send several requests."
            )
        name = plain_name(self._part.file_name, len(self.uploads) + 1)
        self.uploads.append(Upload(name, bytes(self._part.data)))
        self._part = _Part()

    def _on_end(self) -> None:
        self.ended = True


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
