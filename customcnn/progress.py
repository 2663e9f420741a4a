"""Progress bars: the library asks for one by total and label, the command line draws it, unless told to be quiet."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], object]
Progress = Callable[[int, str], AbstractContextManager[Advance]]
"""`with progress(total, label) as advance:` and then `advance(n)` for every n items done."""

FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""tqdm's own, but slow work too is told in images per second, not in seconds per image."""

_quiet = False


@contextmanager
def quietly(wanted: bool) -> Iterator[None]:
    """Hold back bars and notes for a while, in all threads of the process, or let them through again."""
    global _quiet
    before, _quiet = _quiet, wanted
    try:
        yield
    finally:
        _quiet = before


def is_quiet() -> bool:
    """Tell whether bars and notes are held back."""
    return _quiet


@contextmanager
def silent(total: int, label: str) -> Iterator[Advance]:
    """Draw nothing: the default of every library function."""
    yield lambda n: None


@contextmanager
def terminal(total: int, label: str) -> Iterator[Advance]:
    """Draw a bar with images per second and time left on standard error; none without a terminal, or when quiet."""
    from tqdm import tqdm

    hidden = True if _quiet or sys.stderr is None else None  # tqdm takes None for: unless it is a terminal
    with tqdm(
        total=total, desc=label, unit=" images", disable=hidden, leave=False, dynamic_ncols=True, bar_format=FORMAT
    ) as bar:
        yield bar.update
