"""The way to a Ray cluster, or to one that is started on this machine alone; and tasks that run on it."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections import deque
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from customcnn.errors import CustomCNNError, show
from customcnn.io.atomic import write_as
from customcnn.io.parallel import safe_path
from customcnn.io.remote_path import BrokenOff
from customcnn.io.stdio import silent_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "ray"
"""The place that means a Ray of one's own, on this machine, for as long as the command runs."""

BLOCK = 32
"""Items of `Cluster.map` that make one task: those of images then cost many times what Ray takes to place them."""

RETRIES = 3
"""So often a task runs again whose worker or node was lost."""

ENDING = 10
"""Seconds that tasks have to end which nobody wants any more."""

PASSED_ON = ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS", "CUDA_DEVICE_ORDER", "AWS_ENDPOINT_URL")
"""Variables of the environment that tasks have as this process has them. No keys: Ray would keep them in the clear."""

SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Ray sends usage statistics to its makers unless it is told not to; a task that asks for no GPU sees none."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Told so, Ray is a cluster of one machine on every system: all its ports are bound to 127.0.0.1 alone."""


def parse_place(on: str | None) -> str | None:
    """Return the place that a user names after --on.

    Args:
        on: "ray" (a Ray of this command's own, or the cluster of the variable RAY_ADDRESS), "ray://HOST:PORT" (a
            cluster's client server) or "HOST:PORT" (a cluster that this machine is a node of); None for no cluster.

    Raises:
        CustomCNNError: it is none of them.
    """
    if on is None:
        return None
    if on == LOCAL:
        return os.environ.get("RAY_ADDRESS") or LOCAL
    if not re.fullmatch(r"(ray://)?[^\s/:]+:\d+|(ray://)?\[[0-9a-fA-F:]+\]:\d+", on):
        raise CustomCNNError(
            f"--on is ray, ray://HOST:PORT or HOST:PORT. Received: {show(on)}. Give --on ray for this machine alone."
        )
    return on


class LostTask(BrokenOff):
    """A task was lost with its worker or node, again and again."""


class Cluster:
    """A Ray cluster that this process is connected to; from `connect`."""

    def __init__(self, place: str) -> None:
        self.place = place

    @property
    def count(self) -> int:
        """How many processors all its nodes have now; 1 at least."""
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def map(self, function: Callable[[T], R], items: Iterable[T], *, block: int = BLOCK) -> Iterator[R]:
        """Yield `function(item)` for every item, in the order of the items, computed on any of the nodes.

        Args:
            function: what cloudpickle can carry; it must give the same result when it is run again.
            items: any iterable; some blocks for each processor are taken in advance, so memory stays flat.
            block: so many items are one task.

        Raises:
            CustomCNNError: a task was lost more than `RETRIES` times.
            Exception: whatever `function` raised, for the first item (in order) that did.
        """
        import ray

        source = iter(items)
        shared = ray.put(function)  # once, and not with every task: it may carry much

        def submit() -> Iterator[Any]:
            while some := list(islice(source, block)):
                yield self.submit(_all, shared, some)

        tasks = submit()
        waiting = deque(islice(tasks, 3 * self.count))
        try:
            while waiting:
                results = self.result(waiting.popleft())
                waiting.extend(islice(tasks, 1))
                yield from results
        finally:
            self.cancel(waiting)
            # What they still write must not come after their files are removed.
            if waiting:
                ray.wait(list(waiting), num_returns=len(waiting), timeout=ENDING)

    def submit(
        self, function: Callable[..., R], *arguments: Any, cpus: float = 1, gpus: float = 0, fresh: bool = False
    ) -> Any:
        """Start a task on some node; return Ray's reference, for `result`.

        Args:
            function: what cloudpickle can carry. It runs again where its node is lost.
            arguments: of the function.
            cpus, gpus: what it needs of a node; fractions share a device.
            fresh: in a process of its own, which ends with the task: what trains a network leaves nothing behind.
        """
        task = _task(fresh).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, runtime_env=_environment())
        return task.remote(function, arguments)

    def on_every_node(self, function: Callable[..., R], *arguments: Any) -> dict[str, R]:
        """Run a function once on every node that is there; return its results by the nodes' names.

        A node that is lost meanwhile is left out.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        tasks = {}
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                how = _task(False).options(num_cpus=0, scheduling_strategy=there, runtime_env=_environment())
                tasks[f"{node['NodeName']} ({node['NodeID'][:8]})"] = how.remote(function, arguments)
        found = {}
        for name, task in tasks.items():
            with suppress(LostTask):
                found[name] = self.result(task)
        return found

    def result(self, task: Any) -> Any:
        """Wait for a task and return its result.

        Raises:
            LostTask: it was lost too often, or its node had too little memory.
            Exception: what the function raised.
        """
        import ray

        try:
            value, error = ray.get(task)
        except ray.exceptions.RayError as lost:
            raise LostTask(
                f"A task is lost {RETRIES} times at most. Received: {first_line(lost)}. Look at the node and its "
                "memory, and give the command again: it goes on where it can."
            ) from None
        if error is not None:
            raise error
        return value

    def finished(self, tasks: Iterable[Any], timeout: float | None = None) -> list[Any]:
        """Return those of the tasks that have ended, after one has or so many seconds are over."""
        import ray

        pending = list(tasks)
        return ray.wait(pending, num_returns=1, timeout=timeout)[0] if pending else []

    def cancel(self, tasks: Iterable[Any]) -> None:
        """Stop tasks whose results nobody wants any more."""
        import ray

        for task in tasks:
            ray.cancel(task, force=True)


@contextmanager
def connect(on: str) -> Iterator[Cluster]:
    """Connect this process to a cluster, or start one on this machine, until the end of the block.

    A cluster that is started here listens on 127.0.0.1 alone, has no dashboard, and asks for a token that is made for
    it. Other clusters ask for the one in ~/.ray/auth_token or RAY_AUTH_TOKEN. Nothing is sent anywhere.

    Args:
        on: from `parse_place`.

    Raises:
        CustomCNNError: Ray is not installed, or no cluster answers there.
    """
    os.environ.update(SILENT)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if on == LOCAL:
        os.environ.update(LOOPBACK)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray would keep one in the home folder
    try:
        import ray
    except ImportError:
        raise CustomCNNError(
            "--on and launch need the ray package. Received: none. Install customcnn[cluster]."
        ) from None
    _silence_losses()
    _send_nothing()
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "job_config": _job()}
    if on == LOCAL:
        how |= {"address": "local", "include_dashboard": False}
    else:
        _require_answer(on)
        how |= {"address": on}
    try:
        with silent_stderr(), safe_path():
            ray.init(**how)
    except Exception as error:  # of any kind: a plain Exception where a busy machine starts a node too slowly
        raise CustomCNNError(
            f"A Ray cluster answers at --on. Received: {show(on)} ({first_line(error)}). "
            "Check the address, the port and the token (~/.ray/auth_token), and that both have one version of Ray."
        ) from None
    try:
        yield Cluster(on)
    finally:
        ray.shutdown()


def _silence_losses() -> None:
    # Of a node that is lost Ray prints pages on standard output, which is for results; it has no option against that.
    from ray._private import worker

    setattr(worker, "print_to_stdstream", lambda *data, **how: None)  # noqa: B010


def _send_nothing() -> None:
    # Without a dashboard Ray starts its process all the same, for usage statistics: switched off, it still asks
    # 169.254.169.254 and metadata.google.internal which cloud this is. Nothing else here needs it.
    from ray._private import services

    setattr(services, "start_api_server", lambda *how, **more: (None, None))  # noqa: B010


class _NoPlaces(list[str]):
    """Of modules: Ray would put the working directory first in the path of its workers, before Python's own."""

    def extend(self, places: Iterable[str]) -> None:
        pass


def _job() -> Any:
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _NoPlaces()
    return job


def _require_answer(place: str) -> None:
    # Ray itself would try for minutes.
    host, _, port = place.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise CustomCNNError(
            f"A Ray cluster answers at --on. Received: {show(place)} ({error}). "
            "Check the address and the port, or give --on ray for this machine alone."
        ) from None


@cache
def _task(fresh: bool) -> Any:
    import ray

    return ray.remote(max_calls=1 if fresh else 0)(_outcome)


def _environment() -> dict[str, Any]:
    known = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"env_vars": known} if known else {}


def _all(function: Any, items: list[T]) -> list[Any]:
    import ray

    write_as(f"{socket.gethostname()}-{os.getpid()}")  # a node that seems lost may go on, beside who does it again
    own: Callable[[T], Any] = ray.get(function)
    return [own(item) for item in items]


def _outcome(function: Callable[..., R], arguments: tuple[Any, ...]) -> tuple[R | None, Exception | None]:
    # Our own errors go home as they are: Ray would wrap them into a page of text.
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].endswith(":"):  # of what another process said, its last line says what happened
        lines[0] = f"{lines[0]} {lines[-1]}"
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
