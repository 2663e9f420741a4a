"""When the statistics of batch normalisation are measured anew."""

import keras
import numpy as np
import pytest

from customcnn.recipe.recipe import Recipe
from customcnn.training.callbacks import measure_statistics, measures_statistics


def network(momentum: float = 0.99, frozen: bool = False) -> keras.Model:
    """Return a batch normalisation inside a network inside another, as in an ensemble."""
    norm = keras.layers.BatchNormalization(momentum=momentum, trainable=not frozen, name="bn")
    inside = keras.Model(image := keras.Input((2, 2, 3)), norm(image), name="inside")
    return keras.Model(image := keras.Input((2, 2, 3)), inside(image))


@pytest.mark.parametrize(
    ("values", "model", "steps", "wanted"),
    [
        ({}, {}, 499, True),
        ({}, {}, 501, False),
        ({}, {"momentum": 0.9}, 49, True),
        ({}, {"momentum": 0.9}, 51, False),
        ({}, {"frozen": True}, 1, False),
        ({"statistics": "moving"}, {}, 1, False),
        ({"statistics": "measured"}, {}, 10_000, True),
        ({"statistics": "measured"}, {"frozen": True}, 1, False),
        ({"ema": 0.9, "statistics": "measured"}, {}, 1, False),  # the average is measured by its own callback
    ],
)
def test_where_it_is_needed(values, model, steps, wanted):
    assert measures_statistics(Recipe(**values), network(**model), steps) is wanted


def test_the_mean_over_the_batches():
    """Means 2 and 6, variances 1 and 4: 4 and 2.5 together; the momentum is as before, also after an error."""
    model = network(momentum=0.7)
    norm = model.get_layer("inside").get_layer("bn")
    batches = [center + width * np.array([-1.0, 1.0] * 6).reshape(1, 2, 2, 3) for center, width in ((2, 1), (6, 2))]

    def broken():
        yield batches[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_statistics(model, broken)
    measure_statistics(model, lambda: iter(batches))
    np.testing.assert_allclose(norm.moving_mean, [4, 4, 4], rtol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, [2.5, 2.5, 2.5], rtol=1e-6)
    assert norm.momentum == 0.7
