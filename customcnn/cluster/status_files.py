"""What trainings on other nodes tell while they run: lines of files in a folder that every node sees.

No port is opened for it, and nothing is lost with a node: who runs a training again writes on in the same file.
"""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from customcnn.errors import CustomCNNError, show
from customcnn.progress import Advance

PREFIX = ".cluster-"
"""Of the folder's name, inside that of the results; the rest is drawn, so that no node can know an older one."""


class NotShared(CustomCNNError):
    """A node does not see the folder: no fault of the training that was to run there."""


@dataclass(frozen=True)
class Post:
    """A task's place on the board; it travels to the node.

    Attributes:
        folder: the board's.
        key: of the task; its file has that name.
        home: the folder that relative paths start from, where the node has it.
        command: the command line, for the runs' environment.json.
        threads: OMP_NUM_THREADS as the user set it; None for not at all.
    """

    folder: Path
    key: str
    home: Path
    command: tuple[str, ...]
    threads: str | None

    def arrive(self, node: str) -> None:
        """Make the process of a task as the user's own is, and tell where it runs.

        Raises:
            NotShared: this node does not see the folder.
        """
        if self.home.is_dir():
            os.chdir(self.home)
        if not self.folder.is_dir():
            raise NotShared(
                f"All nodes see the folder of the results under one path. Received: {show(self.folder.parent)}, which "
                f"node {node} does not see. Give an --out on a shared folder."
            )
        sys.argv[:] = self.command
        if self.threads is None:
            # Ray sets it to the processors of the task, and other numbers of threads add up in another order.
            os.environ.pop("OMP_NUM_THREADS", None)
        self.tell("node", node)

    def tell(self, what: str, text: str) -> None:
        """Write one line: "node" where it runs, "bar" what it is at, "say" what a user should know."""
        with (self.folder / f"{self.key}.jsonl").open("a") as file:
            file.write(json.dumps([what, text]) + "\n")

    def say(self, line: str) -> None:
        """Tell what a user should know: a `say`."""
        self.tell("say", line)

    @contextmanager
    def progress(self, total: int, label: str) -> Iterator[Advance]:
        """Tell what is begun: a `Progress`."""
        self.tell("bar", label)
        yield lambda n: None


class Board:
    """The folder, on the side of the command: made empty, read again and again, removed at the end."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.folder = results / f"{PREFIX}{secrets.token_hex(4)}"
        self._read: dict[str, int] = {}

    def __enter__(self) -> "Board":
        for old in self.results.glob(f"{PREFIX}*"):  # of a command that was killed
            shutil.rmtree(old, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def post(self, key: str) -> Post:
        """Return the place of a task."""
        threads = os.environ.get("OMP_NUM_THREADS")
        return Post(self.folder, key, Path.cwd(), tuple(sys.argv), threads)

    def news(self, key: str) -> list[tuple[str, str]]:
        """Return what a task has told since the last call: see `Post.tell`."""
        path = self.folder / f"{key}.jsonl"
        if not path.is_file():
            return []
        with path.open("rb") as file:
            file.seek(self._read.get(key, 0))
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._read[key] = self._read.get(key, 0) + len(whole)
        told = []
        for line in whole.splitlines():
            try:
                what, text = json.loads(line)
            except ValueError:
                continue  # cut off where a node was lost
            told.append((what, text))
        return told
