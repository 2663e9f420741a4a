"""Ctrl-C during an import: not lost, and not before the import is done. In processes of their own, as it ends one."""

import subprocess
import sys

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

HANDLED = """
import signal, sys, time
from customcnn.io import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # however the tests were started
interrupts.install()
"""


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_ctrl_c_during_an_import_comes_after_it(tmp_path):
    (tmp_path / "loses_ctrl_c.py").write_text(LIBRARY)
    code = f"""{HANDLED}
sys.path.insert(0, {str(tmp_path)!r})
try:
    import loses_ctrl_c
    time.sleep(5)
    print("lost")
except KeyboardInterrupt:
    print("done" if sys.modules["loses_ctrl_c"].done else "before it was done")
"""
    assert said(code) == "done"


def test_ctrl_c_anywhere_else_comes_at_once():
    code = f"""{HANDLED}
try:
    signal.raise_signal(signal.SIGINT)
    print("went on")
except KeyboardInterrupt:
    print("at once")
"""
    assert said(code) == "at once"


def test_where_ctrl_c_is_ignored_it_stays_so():
    """As nohup has it, and a shell that starts a command in the background."""
    code = """
import signal
from customcnn.io import interrupts
signal.signal(signal.SIGINT, signal.SIG_IGN)
interrupts.install()
interrupts.uninstall()
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""
    assert said(code) == "True"
