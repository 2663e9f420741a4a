"""What the files of the images were when a run began: it is resumed on the same, whatever their names."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from customcnn.data.manifest import Manifest, Record, fingerprint
from customcnn.errors import CustomCNNError
from customcnn.io.atomic import sha256


def image_state(data: Manifest) -> dict[str, str]:
    """Return what tells the files of a manifest from others, ready for JSON.

    `stamps` is a hash of their sizes and times, `contents` of their bytes; where the manifest has hashes of the files,
    these are taken and nothing is read. Files at an address are not read either: without hashes `contents` is "".
    Nothing is known where a file is missing: what decodes it says so.
    """
    try:
        stamps = fingerprint(data)
    except CustomCNNError:
        return {}
    if all(record.sha256 for record in data.records):
        return {"stamps": stamps, "contents": _joined(tuple(record.sha256 for record in data.records))}
    return {"stamps": stamps, "contents": _contents(data, stamps)}


def image_state_differs(data: Manifest, before: Any) -> bool:
    """Tell whether the bytes of the images are others than before, as far as that is known.

    Args:
        data: the images now. They are read where a size or a time is another one.
        before: what `image_state` returned; None where it is not known.
    """
    if not isinstance(before, Mapping) or not before.get("contents"):
        return False
    try:
        stamps = fingerprint(data)
    except CustomCNNError:
        return False
    return before.get("stamps") != stamps and _contents(data, stamps) not in ("", before["contents"])


def with_hashes(data: Manifest) -> list[Record]:
    """Return the records of a manifest, each with the SHA-256 of its file.

    Files of which the manifest has none are read where they lie on this machine; at an address they stay without.

    Raises:
        OSError: a file cannot be read.
    """
    root = data.root
    missing = tuple(record.path for record in data.records if not record.sha256)
    if not missing or not isinstance(root, Path):
        return [*data.records]
    read = dict(zip(missing, _hashes(root, missing), strict=True))
    return [replace(record, sha256=read.get(record.path, record.sha256)) for record in data.records]


@lru_cache(maxsize=8)
def _read(root: Path, paths: tuple[str, ...], stamps: str) -> str:
    """Return the hash of the files' bytes; the stamps tell whether those of an earlier call are the same."""
    return _joined(_hashes(root, paths))


def _hashes(root: Path, paths: tuple[str, ...]) -> tuple[str, ...]:
    with ThreadPoolExecutor() as pool:  # hashing frees Python's lock
        return tuple(pool.map(lambda path: sha256((root / path).read_bytes()), paths))


def _contents(data: Manifest, stamps: str) -> str:
    if not isinstance(data.root, Path):
        return ""
    return _read(data.root.resolve(), tuple(record.path for record in data.records), stamps)


def _joined(hashes: tuple[str, ...]) -> str:
    return sha256("\n".join(hashes).encode())
