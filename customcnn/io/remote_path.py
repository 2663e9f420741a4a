"""Folders that lie elsewhere: addresses such as s3://bucket/cells, read and written through fsspec.

An object is there whole or not at all, and cannot be renamed. Keys and the endpoint come from where the protocol's own
package looks for them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws, ...); none is kept or passed on here.
"""

import errno
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, TypeAlias

from customcnn.errors import CustomCNNError, show

AHEAD = 8
"""So many files of one worker are on their way from an address or to one at a time."""

DELETING = 32
"""So many objects are deleted at a time."""

WHOLE = frozenset(["s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "memory"])
"""Protocols of object stores, where a file that is there is whole."""

STAMPS = ("ETag", "etag", "md5", "mtime", "LastModified", "last_modified", "modified", "created")
"""What file systems call that which changes with a file's bytes, the best first."""


class BrokenOff(CustomCNNError):
    """Work ended before its end through no fault of its input: what is finished is kept for the same command again."""


Told: TypeAlias = Callable[[int], object]
"""It is called with the bytes that are copied so far, now and then, by any thread."""


@dataclass(frozen=True, slots=True)
class Address:
    """A file or folder that fsspec reaches. It has the methods of a `pathlib.Path` that this package needs.

    Attributes:
        protocol: such as "s3".
        path: what follows "://", without a slash at its end.
    """

    protocol: str
    path: str

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"

    __fspath__ = __str__

    def __truediv__(self, name: str | os.PathLike[str]) -> "Address":
        return Address(self.protocol, f"{self.path}/{os.fspath(name)}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The end of the name, from its last dot on."""
        return Path(self.name).suffix

    @property
    def parent(self) -> "Address":
        """The folder that it lies in."""
        return Address(self.protocol, self.path.rpartition("/")[0])

    def resolve(self) -> "Address":
        """Return itself: there are no links."""
        return self

    absolute = resolve

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: a folder is there as soon as there is a file in it."""

    def is_file(self) -> bool:
        """Tell whether there is a file."""
        return bool(self._ask("isfile"))

    def is_dir(self) -> bool:
        """Tell whether there is any file below it."""
        try:
            return any(self._names(entry) for entry in self._ask("ls", detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def exists(self) -> bool:
        """Tell whether it is a file or a folder."""
        return bool(self._ask("exists"))

    def read_bytes(self) -> bytes:
        """Return the whole file; the one that `overlapped` has read already, if it has."""
        waits = _here.waits
        return self.get() if waits is None else waits.read(self)

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write the whole file; within `overlapped` it is there at the end of that block."""
        waits = _here.waits
        if waits is None:
            self.put(bytes(data))
        else:
            waits.behind(self.put, bytes(data))

    def copy_from(self, source: "Address") -> None:
        """Have the store copy a file of its own; as `write_bytes` does."""
        waits = _here.waits
        if waits is None:
            source._ask("cp_file", str(self))
        else:
            waits.behind(source._ask, "cp_file", str(self))

    def get(self) -> bytes:
        """Read the whole file now."""
        data: bytes = self._ask("cat_file")
        return data

    def put(self, data: bytes) -> None:
        """Write the whole file now."""
        self._ask("pipe_file", data)

    def download(self, path: Path, told: "Told") -> None:
        """Copy the file, which may be larger than the memory, into a local one."""
        self._ask("get_file", str(path), callback=_callback(told))

    def upload(self, path: Path, told: "Told") -> None:
        """Make it a copy of a local file, which may be larger than the memory."""
        self._ask("put_file", source=path, callback=_callback(told))

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file."""
        try:
            self._ask("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def files(self) -> dict[str, tuple[int, str]]:
        """List all files below it at once, sorted: the size in bytes and a stamp that changes with the bytes, by name.

        Names are relative to it, with slashes. There are none where there is no such folder.
        """
        try:
            found: dict[str, dict[str, Any]] = self._ask("find", detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        named = ((self._names(path), entry) for path, entry in found.items())
        # Some tools mark a folder by an empty object that ends with a slash.
        return {
            name: (int(entry.get("size") or 0), str(next((entry[s] for s in STAMPS if entry.get(s)), "")))
            for name, entry in sorted(named, key=lambda pair: pair[0])
            if name and not name.endswith("/")
        }

    def clear(self, but: str = "") -> None:
        """Delete all files below it, but one by name."""
        # One by one: fsspec would take a star or a bracket in a name for a pattern.
        with ThreadPoolExecutor(DELETING) as pool:
            for _ in pool.map(lambda name: (self / name).unlink(missing_ok=True), set(self.files()) - {but}):
                pass

    def _names(self, path: str) -> str:
        """Return a path as fsspec lists it, relative to this folder; "" where it does not lie in it."""
        base = _filesystem(self.protocol, os.getpid())._strip_protocol(str(self)).strip("/")
        path = path.lstrip("/")
        return path[len(base) + 1 :] if path.startswith(f"{base}/") else ""

    def _ask(self, method: str, *arguments: Any, source: Path | None = None, **options: Any) -> Any:
        """Call a method of fsspec's for this file; one that takes a local file before it gets `source`."""
        system = _filesystem(self.protocol, os.getpid())
        before = () if source is None else (str(source),)
        try:
            return getattr(system, method)(*before, str(self), *arguments, **options)
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from None
        except (NotADirectoryError, IsADirectoryError):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self)) from None
        except PermissionError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self)) from None
        except UnicodeError:
            raise CustomCNNError(
                f"Names at an address are UTF-8. Received: {show(self)}, which has other bytes in it. Rename the file."
            ) from None
        except Exception as error:  # every package has errors of its own
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise  # of the disk here
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise BrokenOff(
                f"An address answers. Received: {show(self)} ({type(error).__name__}: {reason}). "
                "Check the endpoint (AWS_ENDPOINT_URL for S3), the keys and the network, and give the command again."
            ) from None


Folder: TypeAlias = Path | Address


def parse_folder(text: str | os.PathLike[str]) -> Folder:
    """Return a local path, or an address where the text has the form of one: `s3://bucket/cells`.

    Raises:
        CustomCNNError: fsspec, or its package for this protocol, is not installed; or nothing follows "://".
    """
    if isinstance(text, Path | Address):
        return text
    text = os.fspath(text)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", text, re.DOTALL)
    if not match:
        return Path(text)
    protocol, path = match[1].lower(), match[2].rstrip("/")
    if protocol in ("file", "local"):
        return Path(match[2] or "/")
    if not path.strip("/"):
        raise CustomCNNError(
            f"An address names a bucket or a folder. Received: {show(text)}. Example: s3://bucket/cells."
        )
    _filesystem(protocol, os.getpid())
    return Address(protocol, path)


@cache
def _filesystem(protocol: str, process: int) -> Any:
    """Return fsspec's file system for a protocol: one for all threads of a process, and none that a fork took over."""
    try:
        import fsspec
    except ImportError:
        raise CustomCNNError(
            f"Addresses are read by fsspec. Received: {protocol}://, and no fsspec. Install customcnn[cluster]."
        ) from None
    try:
        return fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise CustomCNNError(
            f"An address needs the package of its protocol. Received: {protocol}:// ({reason}). Install that package."
        ) from None
    except ValueError:
        raise CustomCNNError(
            f"An address begins with a protocol that fsspec knows. Received: {protocol}://. Example: s3://bucket/cells."
        ) from None


def _callback(told: Told) -> Any:
    """Return what fsspec's methods tell how far they are."""
    from fsspec.callbacks import Callback

    return Callback(hooks={"told": lambda size, value, **_: told(value)})


# ---------------------------------------------------------------- waits that overlap


class _Waits:
    """The reads and writes of one block of work in one thread, some of them under way at a time."""

    def __init__(self, pool: ThreadPoolExecutor, reads: Iterable[Address]) -> None:
        self.pool = pool
        self.next = iter(dict.fromkeys(reads))
        self.ahead: dict[Address, Future[bytes]] = {}
        self.writes: deque[Future[Any]] = deque()
        self._fill()

    def _fill(self) -> None:
        while len(self.ahead) < AHEAD and (address := next(self.next, None)) is not None:
            self.ahead[address] = self.pool.submit(address.get)

    def read(self, address: Address) -> bytes:
        if address not in self.ahead:
            return address.get()
        for passed in [*takewhile(lambda other: other != address, self.ahead)]:
            del self.ahead[passed]  # nobody asked for it
        future = self.ahead.pop(address)
        self._fill()
        return future.result()

    def behind(self, work: Any, *arguments: Any) -> None:
        if len(self.writes) >= AHEAD:
            self.writes.popleft().result()
        self.writes.append(self.pool.submit(work, *arguments))

    def finish(self) -> None:
        while self.writes:
            self.writes.popleft().result()


class _Here(threading.local):
    waits: _Waits | None = None


_here = _Here()


@contextmanager
def overlapped(reads: Iterable[Folder] = (), *writes: Folder) -> Iterator[None]:
    """In the block, and in this thread alone, read addresses ahead and write behind, so that the waits overlap.

    Args:
        reads: the files that will be read, in that order; local ones are left alone.
        writes: the folders that are written to. At the end of the block all is written.
    """
    far = (place for place in reads if isinstance(place, Address))
    first = next(far, None)
    if first is None and not any(isinstance(folder, Address) for folder in writes):
        yield
        return
    before = _here.waits
    pool = ThreadPoolExecutor(AHEAD)
    try:
        _here.waits = waits = _Waits(pool, chain([first] if first else [], far))
        yield
        waits.finish()
    finally:
        _here.waits = before
        pool.shutdown(cancel_futures=True)
