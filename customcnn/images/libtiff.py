"""libtiff, with which Pillow decodes TIFFs: its own lines, which Pillow says in other words, stay off the terminal."""

import ctypes
from contextlib import suppress

from PIL import _imaging


def silence() -> None:
    """Have libtiff write nothing to the error stream in this process. (Its warnings Pillow silences itself.)"""
    # The symbol is looked up in what Pillow is linked to, wherever that lies; a Pillow without libtiff has none.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
