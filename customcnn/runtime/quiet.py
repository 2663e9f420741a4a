"""What libraries in C++ write to the error stream past Python, held back."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back all that the process writes to the error stream; errors still come as exceptions."""
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
