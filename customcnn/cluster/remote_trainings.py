"""Trainings spread over a cluster: each is a task in a process of its own, and one table shows them all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customcnn.cluster.ray_cluster import Cluster, LostTask
from customcnn.cluster.status_files import Board, Post
from customcnn.errors import CustomCNNError

EVERY = 0.5
"""So many seconds lie between two looks at what the trainings tell."""

SPOKEN = ("Note:", "Warning:")
"""Lines that begin so are for the user, not about the state of a training."""


@dataclass
class Seat:
    """A row of the table: a training, what sets it apart, where it runs, and what it told last."""

    name: str
    detail: str
    node: str = ""
    epoch: str = ""
    text: str = "waiting"
    ended: bool = False

    def hear(self, what: str, text: str) -> str:
        """Take in what the training tells, see `Post.tell`; return the line to say where there is no table."""
        if what == "node":
            said = f"begun again on {text}" if self.node else f"begun on {text}, {self.detail}".rstrip(", ")
            self.node, self.text = text, "begun again" if self.node else "begun"
            return said
        if what == "bar" and text.startswith("epoch "):
            self.epoch = text.removeprefix("epoch ")
            return ""
        # Of "Epoch 2/9  loss ...  (80 images/s)" the scores: they stand until the next epoch has its own.
        self.text = text.partition("  ")[2].rpartition("  (")[0] if text.startswith("Epoch ") else text
        return text if what == "say" else ""


Show = Callable[[Sequence[Seat]], object]


@dataclass(frozen=True)
class Spread:
    """A cluster, and what each training needs of a node.

    Attributes:
        cluster: from `connect`.
        cpus: processors that a training holds; how many threads it starts is its own affair.
        gpus: GPUs that a training holds, fractions share one; None for 1 where any node has a GPU, 0 elsewhere.
        show: draws the table anew whenever it has changed; None where lines are said instead.
    """

    cluster: Cluster
    cpus: float = 1
    gpus: float | None = None
    show: Show | None = None

    def needs(self) -> tuple[float, float]:
        """Return the processors and the GPUs that a training gets.

        Raises:
            CustomCNNError: no node has that many.
        """
        nodes = _nodes()
        gpus = self.gpus if self.gpus is not None else float(any(node.get("GPU", 0) >= 1 for node in nodes))
        if not any(_room(node, self.cpus, gpus) for node in nodes):
            most = max(nodes, key=lambda node: node.get("CPU", 0), default={})
            raise CustomCNNError(
                f"A training runs on one node. Received: --cpus {self.cpus:g} and --gpus {gpus:g}, where the largest "
                f"node has {most.get('CPU', 0):g} and {most.get('GPU', 0):g}. Give fewer, or start a larger node."
            )
        return self.cpus, gpus

    @contextmanager
    def crew(self, results: Path, say: Callable[[str], object]) -> Iterator["Crew"]:
        """Open a crew; what still runs at the end of the block is stopped.

        Args:
            results: a folder that all nodes see under this path.
            say: receives one line of text for each thing a user should know.
        """
        needs = self.needs()
        with Board(results) as board:
            crew = Crew(self, needs, board, say)
            try:
                yield crew
            finally:
                self.cluster.cancel(crew.tasks)


class Crew:
    """The trainings of one command."""

    def __init__(self, spread: Spread, needs: tuple[float, float], board: Board, say: Callable[[str], object]) -> None:
        self.spread, self.needs, self.board, self.say = spread, needs, board, say
        self.tasks: dict[Any, str] = {}
        self.seats: dict[str, Seat] = {}

    @property
    def running(self) -> set[str]:
        """The keys of the trainings that have been started and have not ended."""
        return {*self.tasks.values()}

    @property
    def places(self) -> int:
        """How many trainings can run at a time now; 1 at least."""
        return max(1, sum(_room(node, *self.needs) for node in _nodes()))

    def start(self, key: str, name: str, detail: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Start a training on some node, as soon as one has room.

        Args:
            key: fit for the name of a file.
            name: what a user reads.
            detail: what sets it apart, in words.
            function: is called with a `Post` and the arguments, again where its node is lost.
            arguments: of the function.
        """
        cpus, gpus = self.needs
        post = self.board.post(key)
        task = self.spread.cluster.submit(_seated, post, function, arguments, cpus=cpus, gpus=gpus, fresh=True)
        self.tasks[task] = key
        self.seats[key] = Seat(name, detail)
        self._show()

    def train(self, key: str, name: str, detail: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Start a training, as `start` does.

        Args:
            key, name, detail: as of `start`.
            function: is called with the arguments, a `Progress`, a function that says a line, and `shared=True`: other
                processes may pack the same images now.
            arguments: of the function.
        """
        self.start(key, name, detail, _train, function, *arguments)

    def wait(self) -> tuple[str, Any]:
        """Wait for the next training that ends, and tell meanwhile what all of them do.

        Returns:
            Its key, and its result; a `LostTask` where it was lost too often.

        Raises:
            NotShared: a node does not see the folder of the results.
            Exception: what the function raised.
        """
        while True:
            ended = self.spread.cluster.finished(self.tasks, timeout=EVERY)
            self._listen()
            for task in ended:
                key = self.tasks.pop(task)
                try:
                    value = self.spread.cluster.result(task)
                except LostTask as lost:
                    value = lost
                self._listen()
                return key, value

    def finish(self) -> None:
        """Wait until all have ended, and tell of each that it is done.

        Raises:
            LostTask: one was lost too often.
            Exception: as by `wait`; the first one that fails.
        """
        while self.running:
            key, value = self.wait()
            if isinstance(value, LostTask):
                raise value
            self.end(key, "done")

    def end(self, key: str, text: str) -> None:
        """Tell how a training has ended."""
        seat = self.seats[key]
        seat.text, seat.ended = text, True
        if self.spread.show is None:
            self.say(f"{seat.name}: {text}")
        self._show()

    def _listen(self) -> None:
        at_work = [(key, seat) for key, seat in self.seats.items() if not seat.ended]
        heard = [(seat, *news) for key, seat in at_work for news in self.board.news(key)]
        for seat, what, text in heard:
            if what == "say" and text.startswith(SPOKEN):
                self.say(text)
                continue
            line = seat.hear(what, text)
            if line and self.spread.show is None:
                self.say(f"{seat.name}: {line}")
        if heard:
            self._show()

    def _show(self) -> None:
        if self.spread.show is not None:
            self.spread.show([*self.seats.values()])


def _seated(post: Post, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    post.arrive(_own_address())
    return function(post, *arguments)


def _train(post: Post, function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments, post.progress, post.say, shared=True)


def _own_address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _room(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Return how many trainings a node has room for."""
    counts = [node.get(name, 0) // need for name, need in (("CPU", cpus), ("GPU", gpus)) if need]
    return int(min(counts, default=1))
