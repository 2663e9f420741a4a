"""The one exception that users meet, and how names are shown inside its message."""

from collections.abc import Iterable
from os import PathLike


class CustomCNNError(Exception):
    """A rule was broken by the input: the message is one line with the rule, what was received and the way out."""


def show(name: str | PathLike[str]) -> str:
    """Return a file name or value quoted and on one line: newlines, control characters and stray bytes are escaped."""
    text = str(name)
    return ascii(text) if any(0xD800 <= ord(c) <= 0xDFFF for c in text) else repr(text)


def show_all(names: Iterable[str | PathLike[str]]) -> str:
    """Return every name as by `show`, separated by commas: an error about files names them all."""
    return ", ".join(show(name) for name in names)
