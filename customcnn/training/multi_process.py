"""What several processes that train one network agree on, and each one's share of the images."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.backend import devices
from customcnn.errors import CustomCNNError
from customcnn.io.atomic import sha256
from customcnn.recipe.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    from customcnn.data.manifest import Manifest
from customcnn.backend.process_group import Job


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
    for key, bad, other in (
        ("ema", recipe.ema > 0, "0"),
        ("statistics=measured", recipe.statistics == "measured", "moving"),
        ("schedule.dwell", recipe.schedule.kind == "lra" and recipe.schedule.dwell, "false"),
    ):
        if bad:
            raise CustomCNNError(
                f"Several processes train without {key}, which looks at all weights between the steps. Received: it is "
                f"on. Set it to {other}, or train in one process, with --devices."
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
