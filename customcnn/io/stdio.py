"""The process's own streams: what compiled libraries write past Python, held back."""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def prepare_streams() -> None:
    """Make the standard streams of a new process take whatever is printed, before it opens any file.

    Where it has none, as in a service, they become /dev/null: a file opened later would be taken for one of them. What
    the encoding of a terminal or a pipe lacks is escaped; in UTF-8, file names keep their bytes that are not UTF-8.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Hold back all that reaches the process's error stream, from Python or not; errors still come as exceptions.

    TF_CPP_MAX_VLOG_LEVEL in the environment asks TensorFlow for its whole log: then nothing is held back.
    """
    if "TF_CPP_MAX_VLOG_LEVEL" in os.environ or sys.stderr is None:
        yield
        return
    with _silent(2):
        yield


@contextmanager
def silent_stdout() -> Iterator[None]:
    """Hold back all that reaches the process's output stream, from Python or not."""
    with _silent(1):
        yield


@contextmanager
def _silent(number: int) -> Iterator[None]:
    _flush()
    kept, silence = os.dup(number), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, number)
        yield
    finally:
        _flush()
        os.dup2(kept, number)
        os.close(kept)
        os.close(silence)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    import ctypes

    ctypes.CDLL(None).fflush(None)  # what compiled code has written and not yet sent
