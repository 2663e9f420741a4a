"""Ctrl-C during an import: not lost, and not before the import is done."""

import signal
import sys
import time

import pytest

from customcnn.io import interrupts

LIBRARY = """
import signal
done = False
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
done = True
"""
"""Presses Ctrl-C while it loads and, like some compiled ones, loses the exception that comes of it."""


@pytest.fixture
def installed():
    """Handle Ctrl-C as the program does, however the tests were started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.install()
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_during_an_import_comes_after_it(installed, tmp_path, monkeypatch):
    (tmp_path / "loses_ctrl_c.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        __import__("loses_ctrl_c")
        time.sleep(5)
    assert sys.modules.pop("loses_ctrl_c").done


def test_ctrl_c_anywhere_else_comes_at_once(installed):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")


def test_where_ctrl_c_is_ignored_it_stays_so():
    """As nohup has it, and a shell that starts a command in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts.install()
        interrupts.uninstall()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
