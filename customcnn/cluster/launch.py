"""One training on several nodes: Ray places its processes, and all start again where one is lost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.errors import LOST, CustomCNNError
from customcnn.io.parallel import SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PLACING = 120
"""Seconds that Ray has to find room for all processes."""

GRACE = 15
"""Seconds that the other processes have to end by themselves when one has failed."""

LOOK = 0.5
"""Seconds between two looks at a process."""


@dataclass
class Needs:
    """What a job needs of a cluster.

    Attributes:
        nodes: how many processes there are, each on a node of its own where there are as many nodes.
        cpus: processors of each.
        gpus: GPUs of each; None for as many as each of the nodes has.
        restarts: so often all are started again at most.
    """

    nodes: int
    cpus: float = 1
    gpus: float | None = None
    restarts: int = 3


@dataclass
class _Member:
    """A process of the job, as the command sees it."""

    actor: Any
    status: int | None = None
    lost: str = ""
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=50))

    @property
    def ended(self) -> bool:
        return self.status is not None or bool(self.lost)

    @property
    def error(self) -> str:
        """The error that is this process's own; "" where it has none, or lost another process."""
        said = [line for line in self.errors if line.startswith(("Error:", "Usage:"))]
        own = self.status in (1, 2, 130) and not any(LOST in line for line in said)
        return (said or [f"Error: rank ended with status {self.status}"])[-1] if own else ""

    @property
    def reason(self) -> str:
        """Why it did not come to its end, in a few words."""
        if self.lost:
            return self.lost
        return f"killed by signal {-self.status}" if self.status and self.status < 0 else f"status {self.status}"


def launch(
    words: Sequence[str],
    needs: Needs,
    *,
    out: Callable[[str], object],
    say: Callable[[str], object],
) -> None:
    """Run one command in as many processes as nodes, and see it to its end; this process is connected to the cluster.

    DATA and the run lie in folders that every node sees under the same path. Where a process dies, a node is lost, or
    one cannot reach the others, the rest are stopped and all start again with --resume.

    Args:
        words: of the command: train, and its own.
        needs: of the job.
        out: receives what the first process prints on standard output, a line each.
        say: receives what it prints on standard error, and what becomes of the job.

    Raises:
        CustomCNNError: the cluster has no room, the command itself failed, or a process was lost too often.
    """
    given = [*words]
    for attempt in range(needs.restarts + 1):
        members = _run(given, needs, out, say)
        if all(member.status == 0 for member in members):
            return
        for number, member in enumerate(members):
            if member.error:
                first = members[0].error or member.error
                raise CustomCNNError(
                    f"{first.removeprefix('Error:').strip()} (rank {0 if members[0].error else number})"
                )
        failed = "; ".join(f"rank {n}: {m.reason}" for n, m in enumerate(members) if m.status != 0)
        if attempt < needs.restarts:
            say(f"Lost: {failed}. All start again from the last checkpoint, {attempt + 1} of {needs.restarts} times.")
        given = [*words, "--resume"] if "--resume" not in words else given
    raise CustomCNNError(
        f"A job is started again {needs.restarts} times at most. Received: {failed}. "
        "Look at the nodes and give the command again with --resume."
    )


def _run(
    words: Sequence[str], needs: Needs, out: Callable[[str], object], say: Callable[[str], object]
) -> list[_Member]:
    import ray
    from ray.util.placement_group import remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = _placed(needs)
    try:
        seat = ray.remote(Seat)
        room = group.bundle_specs[0]
        members = [
            _Member(
                seat.options(
                    num_cpus=room["CPU"],
                    num_gpus=room.get("GPU", 0),
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number),
                ).remote()
            )
            for number in range(needs.nodes)
        ]
        try:
            address = ray.get(members[0].actor.address.remote(), timeout=PLACING)
            for number, member in enumerate(members):
                place = ["--hosts", address, "--rank", str(number), "--world", str(needs.nodes)]
                member.actor.begin.remote([*words, *place], str(Path.cwd()))
            _watch(members, out, say)
        except ray.exceptions.RayError as error:
            members[0].lost = members[0].lost or type(error).__name__
        finally:
            for member in members:
                ray.kill(member.actor)
        return members
    finally:
        remove_placement_group(group)


def _placed(needs: Needs) -> Any:
    """Return a placement group with room for every process, spread over the nodes as far as they go."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = needs.gpus
    if gpus is None:
        counts = sorted((node.get("GPU", 0) for node in alive), reverse=True)[: needs.nodes]
        gpus = min(counts, default=0) if len(alive) >= needs.nodes else 0
    bundle = {"CPU": needs.cpus, **({"GPU": gpus} if gpus else {})}
    group = placement_group([bundle] * needs.nodes, strategy="SPREAD")
    if not group.wait(PLACING):
        remove_placement_group(group)
        found = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in alive)
        raise CustomCNNError(
            f"The cluster has room for every process. Received: {needs.nodes} with {needs.cpus:g} processors and "
            f"{gpus:g} GPUs each; its nodes have {found} (processors and GPUs). Give fewer --nodes, or wait for more."
        )
    return group


def _watch(members: list[_Member], out: Callable[[str], object], say: Callable[[str], object]) -> None:
    """Pass on what the first process prints, until all have ended or one has failed and the others had their time."""
    import ray

    looks = {member.actor.look.remote(): (number, member) for number, member in enumerate(members)}
    until = float("inf")
    while looks and time.monotonic() < until:
        ready, _ = ray.wait([*looks], timeout=2 * LOOK)
        for look in ready:
            number, member = looks.pop(look)
            try:
                lines, member.status = ray.get(look)
            except ray.exceptions.RayError as error:
                member.lost = "its node or worker is gone" if _is_gone(error) else type(error).__name__
            else:
                for stream, line in lines:
                    if stream == "err":
                        member.errors.append(line)
                    # The error that ends the job is said once, by the command itself.
                    if number == 0 and not line.startswith("Error:"):
                        (out if stream == "out" else say)(line)
                if not member.ended:
                    looks[member.actor.look.remote()] = (number, member)
        if any(member.lost or member.status for member in members):
            until = min(until, time.monotonic() + GRACE)
    for member in members:
        if not member.ended:
            member.lost = "stopped with the others"


def _is_gone(error: Exception) -> bool:
    import ray

    gone = (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError, ray.exceptions.NodeDiedError)
    return isinstance(error, gone)


class Seat:
    """An actor of Ray on one node, which starts a process there and tells what it prints."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.lines: deque[tuple[str, str]] = deque()
        self.readers: list[threading.Thread] = []

    def address(self) -> str:
        """Return this node's address, as the others reach it, with a free port."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as found:
            found.bind((host, 0))
            port = found.getsockname()[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def begin(self, words: list[str], home: str) -> None:
        """Start the process, in the folder `home` where this node has it."""
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}  # Ray's own: 1
        self.process = subprocess.Popen(
            [sys.executable, "-m", "customcnn.cluster.rank_main", *words],
            env={**environment, "KERAS_BACKEND": "jax", SAFE_PATH: "1"},
            cwd=home if Path(home).is_dir() else None,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for name, stream in (("out", self.process.stdout), ("err", self.process.stderr)):
            reader = threading.Thread(target=self._read, args=(name, stream), daemon=True)
            reader.start()
            self.readers.append(reader)

    def _read(self, name: str, stream: Any) -> None:
        for line in stream:
            # A bar redraws its line: what it is at last is enough.
            self.lines.append((name, line.rstrip("\n").rpartition("\r")[2]))

    def look(self) -> tuple[list[tuple[str, str]], int | None]:
        """Return what the process has printed since the last look, after a while, and its exit status if it ended."""
        assert self.process is not None
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LOOK)
        status = self.process.poll()
        if status is not None:
            for reader in self.readers:
                reader.join(LOOK)
        lines = []
        while self.lines:
            lines.append(self.lines.popleft())
        return lines, status
