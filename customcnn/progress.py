"""Progress bars: the library asks for one by total and label, the command line draws it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], object]
Progress = Callable[[int, str], AbstractContextManager[Advance]]
"""`with progress(total, label) as advance:` and then `advance(n)` for every n items done."""


@contextmanager
def silent(total: int, label: str) -> Iterator[Advance]:
    """Draw nothing: the default of every library function."""
    yield lambda n: None


@contextmanager
def terminal(total: int, label: str) -> Iterator[Advance]:
    """Draw a bar with items per second and time left on standard error, and nothing when that is not a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=" images", disable=None, leave=False, dynamic_ncols=True) as bar:
        yield bar.update
