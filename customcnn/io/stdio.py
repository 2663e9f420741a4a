"""The process's own streams: what compiled libraries write past Python, held back."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
    ctypes.CDLL(None).fflush(None)  # what compiled code has written and not yet sent
