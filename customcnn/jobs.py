"""The processes that train one network, as each of them sees the job: one alone here, several in `customcnn.hosts`."""

from __future__ import annotations

import tomllib
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from customcnn import devices
from customcnn.errors import CustomCNNError
from customcnn.files import sha256
from customcnn.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import keras

    from customcnn.manifest import Manifest

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


class Portion:
    """Images of which this process has some: indexed by the numbers that they have among all.

    Attributes:
        shape: (N, H, W, 3), of all.
        dtype: uint8.
        ndim: 4.
    """

    ndim = 4

    def __init__(self, images: np.ndarray, rows: np.ndarray, total: int) -> None:
        """Take `images`, uint8 (n, H, W, 3), which are those of `rows`, int64 (n,), among `total`."""
        self.images = images
        self.dtype = images.dtype
        self.shape = (total, *images.shape[1:])
        self.places = np.full(total, -1, np.int64)
        self.places[rows] = np.arange(len(rows))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return the images of some numbers.

        Raises:
            IndexError: another process has one of them.
        """
        places = self.places[index]
        if np.min(places, initial=0) < 0:
            raise IndexError("another process has these images")
        return self.images[places]


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


def agreed(recipe: Recipe, job: Job, replicas: int | None) -> Recipe:
    """Return the recipe that all processes of a job train by: that of the first, with a shard for every device.

    Args:
        recipe: of this process.
        job: from `join`.
        replicas: what is asked for with --devices; a job uses all devices.

    Raises:
        CustomCNNError: a job cannot train by this recipe, or its devices do not share the batch or the shards evenly.
    """
    if job.alone:
        return recipe
    if replicas not in (1, None):
        raise CustomCNNError(
            f"A job trains on all devices that its processes see. Received: --devices {replicas} beside --hosts. "
            "Leave it out, and hide devices by CUDA_VISIBLE_DEVICES."
        )
    recipe = parse_recipe(tomllib.loads(job.from_first(recipe.to_toml)), "rank 0")
    for key, bad in (
        ("ema", recipe.ema > 0),
        ("schedule.dwell", recipe.schedule.kind == "lra" and recipe.schedule.dwell),
    ):
        if bad:
            raise CustomCNNError(
                f"Several processes train without {key}, which looks at all weights between the steps. Received: it is "
                f"on. Set it to {'0' if key == 'ema' else 'false'}, or train in one process, with --devices."
            )
    count = len(job.devices(devices.configure(recipe.device)))
    if recipe.sampling.shards == 1:
        recipe = replace(recipe, sampling=replace(recipe.sampling, shards=count))
    if recipe.sampling.shards % count:
        raise CustomCNNError(
            f"The shards of a recipe go evenly to the devices. Received: sampling.shards={recipe.sampling.shards} for "
            f"{count} devices. Give as many processes as divide it."
        )
    return recipe


def same_data(data: Manifest, job: Job) -> None:
    """Refuse to train on folders that differ. All must call it.

    Raises:
        CustomCNNError: some process has other images, classes or parts than the first.
    """
    rows = [(r.path, r.label, r.group, r.split) for r in data.records]
    told = job.gather(sha256(repr(rows).encode("utf-8", "surrogateescape")))
    others = [str(number) for number, one in enumerate(told) if one != told[0]]
    if others:
        raise CustomCNNError(
            f"All processes have the same images. Received: rank {', '.join(others)} with others than rank 0. "
            "Give each the same folder."
        )
