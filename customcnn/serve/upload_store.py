"""Where the page's images wait between their upload and their answer: in memory, for a short while, once."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from customcnn.serve.limits import Refused
from customcnn.serve.multipart import Upload

SECONDS = 60
"""An image that nobody asks about is forgotten after so long."""


class Store:
    """Images in memory, each under a name that cannot be guessed; each can be taken once.

    Args:
        folder: the names are paths below it, as Gradio wants them. No file is ever made there.
        most: bytes of all images together.
        clock: seconds.
    """

    def __init__(self, folder: Path, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._most, self._clock = folder, most, clock
        self._kept: dict[str, tuple[float, Upload]] = {}

    def put(self, uploads: list[Upload]) -> list[str]:
        """Keep images for a while; return their names.

        Raises:
            Refused: 503, too much waits already.
        """
        self.forget_old()
        size = sum(len(upload.data) for _, upload in self._kept.values())
        if size + sum(len(upload.data) for upload in uploads) > self._most:
            raise Refused(503, "Too many images wait for their answers. Try again later.", after=SECONDS)
        names = [str(self._folder / secrets.token_urlsafe(24)) for _ in uploads]
        self._kept |= {name: (self._clock(), upload) for name, upload in zip(names, uploads, strict=True)}
        return names

    def take(self, names: list[str]) -> list[Upload]:
        """Return images, and forget them; what is not there is passed over."""
        self.forget_old()
        found = [self._kept.pop(name, None) for name in names]
        return [one[1] for one in found if one is not None]

    def forget_old(self) -> None:
        """Forget what nobody has asked about."""
        limit = self._clock() - SECONDS
        self._kept = {name: kept for name, kept in self._kept.items() if kept[0] >= limit}

    def __len__(self) -> int:
        return len(self._kept)
