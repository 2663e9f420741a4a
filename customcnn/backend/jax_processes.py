"""One training in several processes, on one host or many: each packs its share of the images, and trains with it.

Keras's `DataParallel` on JAX computes; JAX's coordination service, which rank 0 runs at the job's address, tells the
processes of each other. Rank 0 alone writes. Every process stands or falls with the others: where one dies, the others
end within `HEARTBEAT` seconds or so, and all are started again with --resume.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.backend import devices
from customcnn.backend.data_parallel import data_parallel
from customcnn.backend.process_group import ALONE, Job
from customcnn.errors import LOST, CustomCNNError
from customcnn.io.stdio import silent_stderr, silent_stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from customcnn.backend.rank import Rank

HEARTBEAT = 10
"""Seconds without a sign of life after which a process counts as dead."""

MEETING = 300
"""Seconds that a process waits at the beginning for the others to come."""

PATIENCE = 24 * 3600 * 1000
"""Milliseconds that a process waits for another that is alive: it may have more images to pack."""

PIECE = 1 << 20
"""Bytes of a file that the processes hand on at a time."""

SIGNS = ("Gloo", "NCCL", "oordination service", "UNAVAILABLE", "Socket closed", "Connection reset")
"""What the errors of JAX say when another process has gone."""


class _Joined(Job):
    def __init__(self, rank: Rank) -> None:
        self.number, self.world = rank.number, rank.world
        self._said = 0

    @property
    def _store(self) -> Any:
        from jax._src import distributed  # what the processes tell each other; JAX has no public name for it

        return distributed.global_state.client

    def gather(self, value: Any) -> list[Any]:
        self._said += 1
        name = f"customcnn/{self._said}"
        self._store.key_value_set(f"{name}/{self.number}", json.dumps(value))
        found = [self._store.blocking_key_value_get(f"{name}/{n}", PATIENCE) for n in range(self.world)]
        return [json.loads(text) for text in found]

    def part(self) -> None:
        """Before this process leaves with an error that others may have, too: the first waits until they have heard."""
        with suppress(RuntimeError, ValueError):  # they do not come, or have gone
            if self.first:
                for number in range(1, self.world):
                    self._store.blocking_key_value_get(f"customcnn/parted/{number}", HEARTBEAT * 1000)
            else:
                self._store.key_value_set(f"customcnn/parted/{self.number}", "")

    @contextmanager
    def file_of_first(self, path: Path) -> Iterator[Path]:
        size = self.gather(path.stat().st_size if self.first else 0)[0]
        name, places = f"customcnn/file/{self._said}", range(0, size, PIECE)
        if self.first:
            with path.open("rb") as file:
                for place in places:
                    self._store.key_value_set_bytes(f"{name}/{place}", file.read(PIECE))
            self.gather(None)
            self._store.key_value_delete(name)
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder) / path.name
            with here.open("wb") as file:
                for place in places:
                    file.write(self._store.blocking_key_value_get_bytes(f"{name}/{place}", PATIENCE))
            self.gather(None)
            yield here

    def devices(self, device: str) -> list[str]:
        import jax

        counts = self.gather(len(jax.local_devices(backend=device)))
        if len(set(counts)) > 1:
            raise CustomCNNError(
                f"All processes of a job have equally many devices. Received: {', '.join(map(str, counts))}. "
                "Show each as many, by CUDA_VISIBLE_DEVICES."
            )
        return [f"{one.platform}:{one.id}" for one in jax.devices(device)]

    @contextmanager
    def spread(self, names: list[str]) -> Iterator[None]:
        from jax.experimental import multihost_utils

        with silent_stdout():  # Gloo says when it has connected the processes
            multihost_utils.sync_global_devices("customcnn")
        with data_parallel(names, divided=True):
            yield

    def seed(self, number: int) -> None:
        import keras

        keras.utils.set_random_seed(number)

    @contextmanager
    def apart(self) -> Iterator[None]:
        import keras

        before = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)


def require_jax() -> None:
    """Choose JAX for a process that trains with others, unless Keras is told or loaded otherwise.

    Raises:
        CustomCNNError: Keras is on another backend, or JAX is not installed.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "jax")
    name = devices.backend() if "keras" in sys.modules else os.environ["KERAS_BACKEND"]
    if name != "jax":
        raise CustomCNNError(
            f"--hosts needs Keras on jax. Received: KERAS_BACKEND={name}. Set KERAS_BACKEND=jax, or leave it out."
        )
    try:
        import jax  # noqa: F401
    except ImportError:
        raise CustomCNNError("--hosts needs the jax package. Received: none. Install customcnn[jax].") from None


@contextmanager
def join(rank: Rank | None) -> Iterator[Job]:
    """Meet the other processes, and stay with them until the end of the block.

    Rank 0 listens on the job's address, and nowhere else, for the others.

    Args:
        rank: from `customcnn.backend.rank.find_rank`; None for a process alone.

    Raises:
        CustomCNNError: the others do not come, or one of them was lost.
    """
    if rank is None or rank.world == 1:
        yield ALONE
        return
    require_jax()
    import jax

    # It would ask rank 0 now and then, and complain where that has left.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with silent_stderr():
            jax.distributed.initialize(
                rank.address,
                rank.world,
                rank.number,
                local_device_ids=None if rank.local is None else [rank.local],
                initialization_timeout=MEETING,
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=2 * HEARTBEAT,
                coordinator_bind_address=rank.address if rank.number == 0 else None,
            )
    except RuntimeError as error:
        raise CustomCNNError(
            f"All {rank.world} processes meet at --hosts within {MEETING} seconds. Received: {rank.address} "
            f"({_first_line(error)}). Check the address and that every rank runs."
        ) from None
    job = _Joined(rank)
    try:
        yield job
    except BaseException as error:
        if isinstance(error, CustomCNNError):
            job.part()
        _leave_at_once(130 if isinstance(error, KeyboardInterrupt) else 1)
        if _tells_of_a_loss(error):
            raise CustomCNNError(
                f"{LOST} Received: one was lost ({_first_line(error)}). Start all again with --resume."
            ) from None
        raise
    jax.distributed.shutdown()


def _tells_of_a_loss(error: BaseException) -> bool:
    """Tell whether an error comes from another process that has gone; they reach Python as various types."""
    return isinstance(error, RuntimeError | ValueError) and any(sign in str(error) for sign in SIGNS)


def _leave_at_once(status: int) -> None:
    # JAX would wait for the others at the end of the process; they may be gone, or wait for this one.
    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
