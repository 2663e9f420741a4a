"""The format saved-model: a folder for TensorFlow and TensorFlow Serving."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from customcnn.export.tf_function import INPUT, OUTPUT, load, serving
from customcnn.inference.runtimes import KEY
from customcnn.io.stdio import silent_stderr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np

    from customcnn.export import Job
    from customcnn.inference.runtimes import Network

EXTRA = "assets.extra"
"""The folder of a SavedModel for what its user puts there."""


def write(job: Job, target: Path) -> None:
    """Write the folder, with the signature serving_default; the metadata are assets.extra/customcnn.json."""
    import keras

    archive = keras.export.ExportArchive()
    archive.track(job.model)
    function = serving(job.model)
    function.get_concrete_function()
    archive.add_endpoint("serve", function)
    with silent_stderr():
        archive.write_out(str(target), verbose=False)
    (target / EXTRA).mkdir()
    (target / EXTRA / f"{KEY}.json").write_text(json.dumps(job.metadata))


def opened(path: Path) -> Network:
    """Return the network as TensorFlow reads it."""
    function = load(path)

    def network(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield function(**{INPUT: batch})[OUTPUT].numpy()

    return network
