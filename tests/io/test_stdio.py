"""The standard streams of a process: whatever is printed, they take it."""

import io
import sys

import pytest

from customcnn.io.stdio import prepare_streams
from customcnn.progress import terminal


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("utf-8", "\u0141".encode() + b"\xff"),
        ("latin-1", rb"\u0141\udcff"),
        ("ascii", rb"\u0141\udcff"),
        ("cp1250", b"\xa3" + rb"\udcff"),
    ],
)
def test_every_name_can_be_printed(monkeypatch, encoding, printed):
    """A letter that the encoding may lack, and a byte of a file name that is not UTF-8."""
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding))
    prepare_streams()
    print("\u0141\udcff", end="", flush=True)
    assert data.getvalue() == printed


def test_streams_that_are_missing_take_everything(monkeypatch):
    """As under pythonw, and in some services."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with terminal(2, "silence") as advance:
        advance(2)
    prepare_streams()
    assert not sys.stdin.isatty() and not sys.stdout.isatty()
    print("x", file=sys.stdout)
    print("x", file=sys.stderr)
