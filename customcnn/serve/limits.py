"""How much a visitor may ask for."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from customcnn.errors import CustomCNNError

MB = 1_000_000

IMAGES_A_REQUEST = 5
"""A request may hold this many images of the largest size, and more of smaller ones."""

RATE_ABROAD = 600
"""Requests a minute and client, where others than this machine are let in and --rate says nothing."""

CLIENTS = 10_000
"""The rate is counted for so many clients; of more, those that were away longest are forgotten."""


@dataclass(frozen=True)
class Limits:
    """What a request may hold, and how many may come.

    Attributes:
        max_size: bytes of one image.
        max_files: images of one request.
        rate: requests a minute and client; 0 for no limit.
    """

    max_size: int = 20 * MB
    max_files: int = 100
    rate: int = 0

    def __post_init__(self) -> None:
        if self.max_size < 1 or self.max_files < 1 or self.rate < 0:
            raise CustomCNNError(
                "A limit is a number above 0 (--rate: 0 for none). "
                f"Received: {self.max_size} bytes, {self.max_files} files, rate {self.rate}. Give larger ones."
            )

    @classmethod
    def of(cls, host: str, max_size: int = 20 * MB, max_files: int = 100, rate: int | None = None) -> "Limits":
        """Return the limits at an address: the rate has none on this machine alone, for there all are one client."""
        usual = 0 if is_loopback(host) else RATE_ABROAD
        return cls(max_size, max_files, usual if rate is None else rate)

    @property
    def max_request(self) -> int:
        """Bytes of one request."""
        return IMAGES_A_REQUEST * self.max_size


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        message: one line.
        images: (name, why) of the images at fault.
        after: in how many seconds to try again; 0 to say nothing about it.
        allow: the methods that an address answers; none to say nothing about it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        images: list[tuple[str, str]] | None = None,
        after: int = 0,
        allow: tuple[str, ...] = (),
    ) -> None:
        self.status, self.message, self.images, self.after, self.allow = status, message, images or [], after, allow
        super().__init__(message)


def is_loopback(host: str) -> bool:
    """Tell whether an address is one that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Rate:
    """Counts the requests of every client: a bucket of one minute's requests that fills up evenly.

    Args:
        a_minute: how many a client may make.
        clock: seconds.
    """

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._clock = a_minute, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_to_wait(self, client: str) -> float:
        """Count a request; return 0, or where there are too many, the seconds until there is room for it."""
        now = self._clock()
        left, last = self._left.pop(client, (float(self._size), now))
        left = min(self._size, left + (now - last) * self._size / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self._size
        self._left[client] = (left if wait else left - 1, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return wait
