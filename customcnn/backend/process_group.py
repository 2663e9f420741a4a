"""The processes that train one network, as each of them sees the job: one alone here, several in `jax_processes`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from customcnn.errors import CustomCNNError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import keras


T = TypeVar("T")


class Job:
    """The processes that train together, as one of them sees them; this class is a process alone.

    Attributes:
        number: of this process.
        world: how many there are.
    """

    number, world = 0, 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.number == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, ready for JSON, by number. All must call it."""
        return [value]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Return what the first process made, ready for JSON. All must call it.

        Raises:
            CustomCNNError: as in the first process.
        """
        found = self.gather(self._tried(make) if self.first else None)[0]
        if "error" in found:
            raise CustomCNNError(found["error"])
        return found["value"]

    def together(self, work: Callable[[], T]) -> T:
        """Do a piece of work in every process, and return this one's result. All must call it.

        Raises:
            CustomCNNError: any of them failed; all say the same.
        """
        result: list[T] = []
        outcomes = self.gather(self._tried(lambda: result.append(work())))
        for number, outcome in enumerate(outcomes):
            if "error" in outcome:
                raise CustomCNNError(outcome["error"] if self.alone else f"{outcome['error']} (rank {number})")
        return result[0]

    def _tried(self, make: Callable[[], Any]) -> dict[str, Any]:
        if self.alone:
            return {"value": make()}
        try:
            return {"value": make()}
        except CustomCNNError as error:
            return {"error": str(error)}
        except OSError as error:
            return {"error": f"The system refused a file operation: {error}. Check the space and the permissions."}

    @contextmanager
    def file_of_first(self, path: Path) -> Iterator[Path]:
        """Have a file of the first process: itself there, for a while a copy in the others. All must call it."""
        yield path

    def share(self, items: int) -> range:
        """Return which of so many items are this process's own: each has as many as the others, or one less."""
        return range(self.number, items, self.world)

    def shards(self, count: int) -> range:
        """Return which of so many shards are this process's own."""
        each = count // self.world
        return range(self.number * each, (self.number + 1) * each)

    def devices(self, device: str) -> list[str]:
        """Return the names of all processes' devices of a kind; none for a process alone."""
        return []

    @contextmanager
    def spread(self, names: list[str]) -> Iterator[None]:
        """Let networks that are built, loaded, compiled and trained meanwhile live on all processes' devices."""
        yield

    def seed(self, number: int) -> None:
        """Before a network is loaded in several processes: Keras makes a new one first, and all must make the same."""

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside `spread`: let what is computed meanwhile stay in this process."""
        yield

    def twin(self, model: keras.Model, compile: Callable[[keras.Model], None]) -> keras.Model:
        """Return a network like one on all devices that lives in this process alone, compiled, with other values."""
        import keras

        with self.apart():
            twin = keras.Model.from_config(model.get_config())
            compile(twin)
            twin.optimizer.build(twin.trainable_variables)
        return twin


ALONE = Job()


def copy_values(model: keras.Model, twin: keras.Model) -> None:
    """Give a network in this process the values of one on all devices: weights, statistics, the optimizer's state.

    Args:
        model: of the job, on all devices.
        twin: the same network in this process alone; its optimizer is built.
    """
    pairs = [*zip(model.variables, twin.variables, strict=True)]
    pairs += zip(model.optimizer.variables, twin.optimizer.variables, strict=True)
    for value, target in pairs:
        target.assign(np.asarray(value.value))
