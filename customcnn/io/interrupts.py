"""Ctrl-C in a process of our own: at once, but between two imports, never inside one."""

import signal
import sys
from types import FrameType

IMPORTING = "<frozen importlib._bootstrap"
"""How the file names of the code begin that runs while a module is imported."""


def install() -> None:
    """Let Ctrl-C raise KeyboardInterrupt as soon as no module is being imported; not where it is ignored, as by nohup.

    Compiled libraries lose an exception that is raised while they load, or take it for one of their own.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def uninstall() -> None:
    """Let Ctrl-C end the process without a word: its work is done, and Python is taking it down."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    importing = None
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            importing = frame.f_back
        frame = frame.f_back
    if importing is None:
        raise KeyboardInterrupt
    # The outermost import's next line, its return or its error: as a debugger would stop there.
    importing.f_trace = _stop
    sys.settrace(lambda *event: None)


def _stop(*event: object) -> None:
    sys.settrace(None)
    raise KeyboardInterrupt
