"""The process's own streams: what compiled libraries write past Python, held back."""

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
    sys.stderr.flush()
    kept, silence = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silence)
