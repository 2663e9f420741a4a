"""The socket to listen at."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from customcnn.errors import CustomCNNError, show


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens at an address; port 0 takes any that is free.

    Raises:
        CustomCNNError: the address is not this machine's, or the port is in use or not allowed.
    """
    # The protocol is named: asyncio sends small answers at once only where a socket says that it is TCP.
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise _unusable(host, port, error) from None
    with listener:
        try:
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a server that has just ended
            listener.bind(place)
            listener.listen()
        except (OSError, OverflowError) as error:
            raise _unusable(host, port, error) from None
        yield listener


def _unusable(host: str, port: int, error: Exception) -> CustomCNNError:
    reason = getattr(error, "strerror", None) or str(error)
    return CustomCNNError(
        f"--host and --port name a free address of this machine. Received: {show(f'{host}:{port}')} "
        f"({reason.lower()}). Choose another; --port 0 takes a free port."
    )


def url(listener: socket.socket) -> str:
    """Return the address for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
