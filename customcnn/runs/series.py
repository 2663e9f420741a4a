"""A folder of many runs that one command makes: refused, resumed and replaced as a run is, by one process at a time."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customcnn.data.image_state import image_state, image_state_differs
from customcnn.data.manifest import Manifest
from customcnn.data.pack import pack
from customcnn.errors import CustomCNNError, show
from customcnn.io.atomic import Busy, lock_folder, refuse_inside, sha256, write_text
from customcnn.progress import Progress

STATE = "files"
"""The setting that says what the images' files were, from `image_state`."""


@dataclass(frozen=True)
class Series:
    """The folder of a cross-validation or of a search.

    Attributes:
        path: the folder.
        what: what it is, for messages: "cross-validation", "search".
        mark: the file inside that holds its settings; a folder without it is no such series.
    """

    path: Path
    what: str
    mark: str

    @property
    def settings_file(self) -> Path:
        """What decides the series, as JSON: written first, compared when it is resumed."""
        return self.path / self.mark

    def settings(self) -> dict[str, Any] | None:
        """Read the settings; None where there are none.

        Raises:
            CustomCNNError: the file is damaged.
        """
        if not self.settings_file.is_file():
            return None
        try:
            found = json.loads(self.settings_file.read_text("utf-8", "surrogateescape"))
            if not isinstance(found, dict):
                raise ValueError("no settings")
        except (OSError, ValueError) as error:
            raise CustomCNNError(
                f"A {self.what} holds its settings as JSON. Received: {show(self.settings_file)} ({error}). "
                "Choose another --out."
            ) from None
        return found

    def begun(self) -> dict[str, Any]:
        """Return the settings of the series to go on with; none where a kill came before they were written.

        Raises:
            CustomCNNError: the folder is missing or empty, or the settings are damaged.
        """
        if not self.path.is_dir() or not any(self.path.iterdir()):
            raise CustomCNNError(
                f"--resume goes on with a {self.what}. Received: {show(self.path)}, where there is none. "
                "Check --out, or leave out --resume to begin one."
            )
        return self.settings() or {}

    @contextmanager
    def opened(
        self,
        data: Manifest,
        settings: Mapping[str, Any],
        *,
        resume: bool,
        replace: bool,
        free: frozenset[str] = frozenset(),
    ) -> Iterator[None]:
        """Make the folder, or take it up again, and keep other processes out of it.

        Args:
            data: its images.
            settings: what decides the series, ready for JSON; `images` is a hash, see `hash_images`.
            resume: go on with what is there; start where there is nothing.
            replace: delete what is there.
            free: settings that may change when it is resumed; those of inner tables by `table.key`.

        Raises:
            CustomCNNError: something else is in the way, the settings differ, or another process is at it.
        """
        refuse_inside(data.root, self.path)
        settings = json.loads(json.dumps(settings))
        self._check(settings, resume, replace, free)
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        try:
            self._check(settings, resume, replace, free)  # again: who held the lock before may have written meanwhile
            if replace:
                self._clear()
            elif image_state_differs(data, (self.settings() or {}).get(STATE)):
                raise self._other_images(settings)
            write_text(self.settings_file, json.dumps({**settings, STATE: image_state(data)}, indent=2) + "\n")
            try:
                yield
            except BaseException:
                self._leave()
                raise
        finally:
            os.close(lock)

    def _lock(self) -> int:
        try:
            return lock_folder(self.path)
        except BlockingIOError:
            raise CustomCNNError(
                f"A {self.what} is made by one process at a time. Received: {show(self.path)}, which another process "
                "is at now. Wait for it, or choose another --out."
            ) from None

    def _check(self, settings: Mapping[str, Any], resume: bool, replace: bool, free: frozenset[str]) -> None:
        name = show(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise CustomCNNError(f"A {self.what} is a folder. Received: {name}, which is a file. Choose another --out.")
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return
        old = self.settings() if not replace else None
        if replace and not self.settings_file.is_file():
            raise CustomCNNError(
                f"--replace deletes a {self.what} only. Received: {name}, which is none (it has no {self.mark}). "
                "Choose another --out."
            )
        if not resume and not replace:
            raise CustomCNNError(
                f"{self.what.capitalize()} {name} exists. Use --resume to go on with it, or --replace to delete it."
            )
        if resume and old is None and not all(path.name.startswith(".") for path in self.path.iterdir()):
            raise CustomCNNError(f"--resume goes on with a {self.what}. Received: {name}, which is none.")
        if resume and old is not None:
            self._compare(settings, old, free)

    def _compare(self, settings: Mapping[str, Any], old: Mapping[str, Any], free: frozenset[str]) -> None:
        new, kept = _flat(settings), _flat({key: value for key, value in old.items() if key != STATE})
        # Where the data lies does not matter, what it is does.
        changed = [key for key in {**new, **kept} if key not in {"data", *free} and new.get(key) != kept.get(key)]
        if changed == ["images"]:
            raise self._other_images(settings)
        if changed:
            pairs = [f"{key} {new.get(key)!r} where it was {kept.get(key)!r}" for key in changed if key != "images"]
            raise CustomCNNError(
                f"A {self.what} is resumed with its own settings. Received: {', '.join(pairs)}. Choose another --out."
            )

    def _other_images(self, settings: Mapping[str, Any]) -> CustomCNNError:
        return CustomCNNError(
            f"A {self.what} is resumed on its own images. Received: {show(str(settings.get('data')))}, not as they "
            f"were when {show(self.path)} began. Choose another --out."
        )

    def _leave(self) -> None:
        """Remove the folder where no run has begun in it: the same command, put right, then starts afresh."""
        if {entry.name for entry in self.path.iterdir()} == {self.mark}:
            self.settings_file.unlink()
        with suppress(OSError):  # not empty, or a mount point
            self.path.rmdir()

    def _clear(self) -> None:
        # The settings go last: what a kill leaves is still a series, which may be replaced.
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != self.settings_file:
                entry.unlink()
        with suppress(FileNotFoundError):
            self.settings_file.unlink()


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat


def hash_images(manifest: Manifest) -> str:
    """Return a hash of what a manifest says of its images; it stays when the folder is moved or copied."""
    rows = [(r.path, r.label, r.group, r.split, r.sha256, sorted(r.extra.items())) for r in manifest.records]
    return sha256(repr(rows).encode("utf-8", "surrogateescape"))


def spoken_once(say: Callable[[str], object]) -> Callable[[str], None]:
    """Return a `say` for the runs of a series: what all of them have to say is said once, and no warning is.

    The warnings belong to the scores of the whole, and stand beside them.
    """
    said: set[str] = set()

    def speak(line: str) -> None:
        if line.startswith("Warning:") or line in said:
            return
        if line.startswith("Note:"):
            said.add(line)
        say(line)

    return speak


def pack_once(data: Manifest, size: tuple[int, int], workers: int | None, progress: Progress) -> None:
    """Make the pack of the images, or wait for the process of this or another node that is making it.

    Args:
        data, workers, progress: as of `customcnn.data.pack.pack`.
        size: height and width in pixels.
    """
    while True:
        try:
            pack(data, size, workers=workers, progress=progress)
            return
        except Busy:
            time.sleep(1)


def forget_networks() -> None:
    """Free what the last network held: those of many runs in one process would add up."""
    import keras

    keras.utils.clear_session()
