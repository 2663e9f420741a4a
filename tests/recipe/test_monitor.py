"""Which epoch of a history is kept, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.recipe.monitor import best_epoch, chosen_by_validation, kept_epoch, kept_words
from customcnn.recipe.recipe import CHOICES, Recipe
from customcnn.recipe.schedules import Schedule
from tests.support.errors import refused


def history(accuracies: list[float], losses: list[float]) -> list[dict[str, float]]:
    """Return a history with these values on the validation part; the training loss falls."""
    pairs = enumerate(zip(accuracies, losses, strict=True), 1)
    return [
        {"epoch": n, "loss": 1 / n, "accuracy": 0.5, "val_accuracy": accuracy, "val_loss": loss}
        for n, (accuracy, loss) in pairs
    ]


TIED = history([0.5, 0.667, 0.6, 0.667, 0.667], [0.9, 0.8, 0.7, 0.5, 0.6])
LUCKY = history([0.88, 0.5, 0.6, 0.84, 0.86, 0.85, 0.82], [0.6, 0.9, 0.8, 0.5, 0.4, 0.45, 0.5])
"""The first epoch is best by luck. Means of three from epoch 3 on: .66, .6467, .7667, .85, .8433."""


@pytest.mark.parametrize(
    ("keep", "monitor", "epochs", "kept"),
    [
        ("best", "val_accuracy", TIED, 4),
        ("first-best", "val_accuracy", TIED, 2),
        ("last", "val_accuracy", TIED, 5),
        ("best", "val_loss", history([0.5, 0.5, 0.5], [0.9, 0.4, 0.4]), 2),
        ("best", "val_accuracy", history([0.5, 0.7, 0.7], [0.9, 0.4, 0.4]), 2),
        ("best", "val_accuracy", LUCKY, 1),
        ("best-smoothed", "val_accuracy", LUCKY, 6),
        ("best-smoothed", "val_accuracy", LUCKY[:2], 2),
        ("best-smoothed", "val_accuracy", LUCKY[:3], 3),
        ("best-smoothed", "val_loss", LUCKY, 6),
    ],
)
def test_the_epoch_that_is_kept(keep, monitor, epochs, kept):
    assert kept_epoch(epochs, Recipe(keep=keep, monitor=monitor)) == kept


@given(st.sampled_from(CHOICES["keep"]), st.lists(st.tuples(*[st.sampled_from([0.1, 0.2, 0.3])] * 2), min_size=2))
def test_one_epoch_more_keeps_the_old_one_or_the_new(keep, values):
    """best.keras is linked after every epoch: an older one could not be had any more."""
    epochs, recipe = history(*map(list, zip(*values, strict=True))), Recipe(keep=keep)
    assert kept_epoch(epochs, recipe) in (kept_epoch(epochs[:-1], recipe), len(epochs))


def test_the_schedule_lra_chooses_by_itself_unless_the_last_is_kept():
    lra = Schedule("lra", threshold=1.0)
    assert kept_epoch(TIED, Recipe(schedule=lra)) == 1  # the training accuracy never rose
    assert kept_epoch(TIED, Recipe(schedule=lra, keep="last")) == 5
    assert "best or last with the schedule lra" in refused(Recipe, schedule=lra, keep="best-smoothed")


@pytest.mark.parametrize(
    ("values", "chosen", "words"),
    [
        ({}, True, "Best epoch 4 of 5 by val_accuracy"),
        ({"monitor": "loss"}, False, "Best epoch 5 of 5 by loss"),
        ({"keep": "last"}, False, "Last epoch 5 of 5"),
        ({"keep": "best-smoothed"}, True, "Best epoch 5 of 5 by val_accuracy, the mean of 3 epochs"),
        ({"schedule": Schedule("lra"), "monitor": "loss"}, True, "Best epoch 1 of 5 by the schedule lra"),
    ],
)
def test_whether_validation_has_chosen_it_and_how_it_is_said(values, chosen, words):
    recipe = Recipe(**values)
    assert chosen_by_validation(recipe) is chosen
    assert kept_words(recipe, TIED) == words


def test_a_history_without_val_loss():
    assert best_epoch([{"accuracy": 0.5}, {"accuracy": 0.5}], "accuracy") == 1
