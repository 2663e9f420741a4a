"""The format keras: a .keras file for inference alone, in float32, without what only the training has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from customcnn.runs.saved_model import save_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np

    from customcnn.export import Job
    from customcnn.inference.runtimes import Network


def write(job: Job, target: Path) -> None:
    """Write the file; `keras.models.load_model` reads it on any backend, without customcnn."""
    import keras

    # A new one: the one that was loaded may hold its optimizer, which is twice as large as the network.
    plain = keras.Model(job.model.inputs[0], job.model.outputs[0], name=job.model.name)
    save_model(plain, job.info, target)


def opened(path: Path) -> Network:
    """Return the network as Keras reads it."""
    import keras

    model = keras.models.load_model(path)

    def network(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield model.predict_on_batch(batch)

    return network
