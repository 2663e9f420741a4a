"""Schedules on histories made by hand: the learning rate of every epoch, what the transfer study's callback does, when
a training stops early, and that nothing but the history so far decides."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customcnn.recipe.monitor import should_stop
from customcnn.recipe.schedules import KINDS, LEAST_GAIN, Lra, Schedule, lra, next_rate
from tests.support.errors import refused

NAN = math.nan

Row = dict[str, float]


def losses(*values: float) -> list[Row]:
    """Return a history of these val_losses."""
    return history(*((0.5, value) for value in values))


def history(*rows: tuple[float, float]) -> list[Row]:
    """Return a history of pairs of accuracy and val_loss."""
    return [
        {"epoch": n, "loss": 1.0, "accuracy": accuracy, "val_loss": val_loss, "val_accuracy": 0.5, "learning_rate": 1.0}
        for n, (accuracy, val_loss) in enumerate(rows, 1)
    ]


def rates(schedule: Schedule, rows: list[Row], base_rate: float = 1.0, epochs: int | None = None) -> list[float]:
    """Return the rate of every epoch of a history, and that of the epoch after it unless `epochs` ends before."""
    count = len(rows) + 1 if epochs is None else epochs
    return [next_rate(schedule, base_rate, count, rows[:done]) for done in range(count)]


# ---------------------------------------------------------------- constant, step, cosine, warm-up


def test_constant():
    assert rates(Schedule(), losses(1, 2, 3), 2e-4) == [2e-4] * 4


def test_step():
    # Multiplied after 2, 4 and 6 epochs.
    schedule = Schedule("step", factor=0.5, every=2)
    assert rates(schedule, losses(*[1] * 6)) == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8]


def test_step_does_not_look_at_the_values():
    schedule = Schedule("step", every=1)
    assert rates(schedule, losses(NAN, math.inf, 0)) == rates(schedule, losses(3, 2, 1)) == [1, 1 / 2, 1 / 4, 1 / 8]


def test_cosine_from_the_first_epoch_to_the_last():
    # Five epochs: (1 + cos) / 2 at 0, 45, 90, 135, 180 degrees; cos 45 = sqrt(1/2).
    half = math.sqrt(0.5)
    expected = [1, (1 + half) / 2, 1 / 2, (1 - half) / 2, 0]
    assert rates(Schedule("cosine"), losses(*[1] * 5), epochs=5) == pytest.approx(expected, abs=1e-15)


def test_cosine_ends_at_the_minimum():
    # Three epochs: 0, 90, 180 degrees, from 1 to 0.2.
    schedule = Schedule("cosine", minimum=0.2)
    assert rates(schedule, losses(1, 1), epochs=3) == pytest.approx([1, 0.6, 0.2], abs=1e-15)
    assert rates(schedule, losses(1, 1), epochs=3)[-1] == 0.2
    # A training that goes on after its last epoch stays there.
    assert next_rate(schedule, 1.0, 3, losses(1, 1, 1, 1)) == 0.2


def test_cosine_over_one_epoch_has_the_full_rate():
    assert rates(Schedule("cosine"), [], epochs=1) == [1]
    assert rates(Schedule("cosine", warmup=1), losses(1), epochs=2) == [1 / 2, 1]


def test_warm_up():
    # Three epochs: 1/4, 2/4, 3/4; the fourth has the full rate.
    assert rates(Schedule(warmup=3), losses(*[1] * 4)) == [1 / 4, 2 / 4, 3 / 4, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_comes_before_every_kind(kind):
    # The values are all worse than the first, and none of it counts before epoch 4.
    rows = history((0.5, 1), (0.4, 2), (0.3, 3))
    assert rates(Schedule(kind, warmup=3, every=1), rows, epochs=9)[:4] == [1 / 4, 2 / 4, 3 / 4, 1]


def test_a_warm_up_longer_than_the_training_rises_to_the_end():
    for kind in KINDS:
        assert rates(Schedule(kind, warmup=5), losses(1, 1, 1), epochs=3) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_the_steps_and_the_cosine_begin_after_the_warm_up():
    assert rates(Schedule("step", warmup=1, every=2), losses(*[1] * 5)) == [1 / 2, 1, 1, 1 / 2, 1 / 2, 1 / 4]
    # Full in epoch 2, half way in epoch 3, 0 in epoch 4.
    assert rates(Schedule("cosine", warmup=1), losses(*[1] * 3), epochs=4) == pytest.approx([1 / 2, 1, 1 / 2, 0])


@pytest.mark.parametrize("kind", ["step", "plateau", "lra"])
def test_the_minimum(kind):
    # Every epoch after the first changes the rate: 1, 1, .5, .25 and .125, which are below .3.
    rows = history((0.5, 1), (0.4, 1), (0.3, 1), (0.2, 1), (0.1, 1))
    expected = {"step": [1, 0.5, 0.3, 0.3, 0.3, 0.3]}.get(kind, [1, 1, 0.5, 0.3, 0.3, 0.3])
    assert rates(Schedule(kind, every=1, minimum=0.3), rows) == expected


def test_the_minimum_holds_in_the_warm_up():
    assert rates(Schedule(warmup=3, minimum=0.6), losses(1, 1, 1)) == [0.6, 0.6, 3 / 4, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_below_the_minimum_from_the_start_stays(kind):
    assert rates(Schedule(kind, every=1, minimum=0.5), losses(1, 1, 1), base_rate=0.1) == [0.1] * 4


# ---------------------------------------------------------------- plateau


def test_plateau():
    # Epoch:          1    2    3     4     5     6     7
    # val_loss:       1   .9  .95   .92    .8   .81   .82
    # not better in a row: 0    1     2     0     1     2; changed after epochs 4 and 7.
    schedule = Schedule("plateau", factor=0.5, patience=2)
    rows = losses(1, 0.9, 0.95, 0.92, 0.8, 0.81, 0.82)
    assert rates(schedule, rows) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_plateau_counts_anew_after_a_change():
    # Not better: epochs 2 to 7, changed after the second, fourth and sixth of them.
    rows = losses(1, 2, 2, 2, 2, 2, 2)
    assert rates(Schedule("plateau", patience=2), rows) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_plateau_goes_by_the_best_so_far_not_by_the_epoch_before():
    # .95 and .92 are below the epoch before each of them, but not below .9.
    assert rates(Schedule("plateau"), losses(0.9, 1, 0.95, 0.92, 0.89)) == [1, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 8]


@pytest.mark.parametrize("patience", [0, 1])
def test_patience_0_and_1_change_the_rate_after_the_first_epoch_without_improvement(patience):
    schedule = Schedule("plateau", factor=0.5, patience=patience)
    assert rates(schedule, losses(0.7, 0.6, 0.61, 0.5, 0.55, 0.56)) == [1, 1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 8]


def test_a_gain_too_small_ends_no_plateau():
    assert LEAST_GAIN == 1e-4
    assert rates(Schedule("plateau"), losses(0.5, 0.49995)) == [1, 1, 1 / 2]
    assert rates(Schedule("plateau"), losses(0.5, 0.4998)) == [1, 1, 1]
    # Small gains add up: .49985 is .00015 below .5, which is still the best.
    assert rates(Schedule("plateau", patience=2), losses(0.5, 0.49992, 0.49985, 0.6)) == [1] * 5


def test_plateau_nan_is_never_better():
    assert rates(Schedule("plateau"), losses(1, NAN, 0.9)) == [1, 1, 1 / 2, 1 / 2]
    assert rates(Schedule("plateau"), losses(NAN, 0.9, 0.8, 0.9)) == [1, 1 / 2, 1 / 2, 1 / 2, 1 / 4]


def test_the_warm_up_sets_the_best_val_loss_of_a_plateau_but_counts_no_epoch():
    # Epochs 2 and 3 are not better, but belong to the warm-up; epoch 4 is not better than epoch 1.
    schedule = Schedule("plateau", warmup=3, patience=1)
    assert rates(schedule, losses(0.5, 0.6, 0.6, 0.55, 0.4)) == [1 / 4, 2 / 4, 3 / 4, 1, 1 / 2, 1 / 2]


grid = st.integers(0, 40).map(lambda n: 0.3 + n * 8e-5)
"""Losses so close that one step is too small a gain and two are enough, and no float32 is in doubt."""


@settings(max_examples=60)
@given(
    st.lists(grid, max_size=30), st.integers(0, 4), st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.0, 0.01, 0.3])
)
def test_plateau_is_that_of_keras(values, patience, factor, minimum):
    import keras

    callback = keras.callbacks.ReduceLROnPlateau("val_loss", factor=factor, patience=patience, min_lr=minimum)
    optimizer = SimpleNamespace(learning_rate=0.7)
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    schedule = Schedule("plateau", factor=factor, patience=patience, minimum=minimum)
    rows = losses(*values)
    for done, row in enumerate(rows, 1):
        callback.on_epoch_end(done - 1, {"val_loss": row["val_loss"]})
        assert next_rate(schedule, 0.7, 30, rows[:done]) == pytest.approx(optimizer.learning_rate, rel=1e-5)


# ---------------------------------------------------------------- the transfer study's callback


def steps(schedule: Schedule, *rows: tuple[float, float]) -> list[tuple[float, int, bool, bool]]:
    """Return rate, best epoch, restore and stop after every epoch."""
    all_rows = history(*rows)
    found = [lra(schedule, 1.0, all_rows[:done]) for done in range(1, len(rows) + 1)]
    return [(state.rate, state.best_epoch, state.restore, state.stop) for state in found]


def test_lra_before_the_first_epoch():
    assert lra(Schedule("lra"), 1e-5, []) == Lra(1e-5, 0, False, False)


def test_lra_as_the_study_has_it():
    schedule = Schedule("lra", threshold=0.9, factor=0.5, patience=1, dwell=True, stop_patience=3)
    assert steps(
        schedule,
        (0.60, 0.70),  # the first is the best
        (0.70, 0.80),  # below .9: a better accuracy, whatever val_loss is
        (0.70, 0.40),  # not better: an equal accuracy; half the rate, the weights of epoch 2 put back
        (0.92, 0.65),  # above .9: below the lowest val_loss of the better epochs, .70, .80
        (0.95, 0.66),  # not better: the rate is a quarter, the weights of epoch 4 put back
        (0.94, 0.50),  # better
        (0.99, 0.51),  # not better, first change in a row: 1/8
        (0.98, 0.52),  # second: 1/16
        (0.99, 0.50),  # third: 1/32, the end; an equal val_loss is not better
    ) == [
        (1, 1, False, False),
        (1, 2, False, False),
        (1 / 2, 2, True, False),
        (1 / 2, 4, False, False),
        (1 / 4, 4, True, False),
        (1 / 4, 6, False, False),
        (1 / 8, 6, True, False),
        (1 / 16, 6, True, False),
        (1 / 32, 6, True, True),
    ]


def test_lra_at_the_switch_the_lowest_val_loss_of_the_better_epochs_is_to_be_beaten():
    # Epoch 3 has the lowest val_loss, but was not better by accuracy: .3 of epoch 1 is what counts, not .2 and not .5.
    rows = [(0.6, 0.3), (0.7, 0.5), (0.65, 0.2)]
    schedule = Schedule("lra", patience=9)
    assert steps(schedule, *rows, (0.95, 0.4))[-1] == (1, 2, False, False)
    assert steps(schedule, *rows, (0.95, 0.29))[-1] == (1, 4, False, False)


def test_lra_the_threshold_itself_watches_val_loss():
    assert steps(Schedule("lra", threshold=0.9), (0.5, 1.0), (0.9, 1.1))[-1] == (1 / 2, 1, True, False)
    assert steps(Schedule("lra", threshold=0.9), (0.5, 1.0), (0.8999, 1.1))[-1] == (1, 2, False, False)


def test_lra_epochs_without_improvement_count_on_over_the_switch():
    # One below the threshold, one above: together two.
    assert steps(Schedule("lra", patience=2), (0.7, 1), (0.6, 1), (0.95, 2))[-1] == (1 / 2, 1, True, False)


def test_lra_an_accuracy_that_falls_back():
    # After a better epoch above the threshold none below it is better.
    assert steps(Schedule("lra"), (0.8, 1), (0.95, 0.9), (0.89, 0.1))[-1] == (1 / 2, 2, True, False)
    # Where the epoch above was not better, accuracy goes on from where it was.
    assert steps(Schedule("lra"), (0.8, 1), (0.95, 1.1), (0.89, 2))[-1] == (1 / 2, 3, False, False)


@pytest.mark.parametrize("patience", [0, 1])
def test_lra_patience_0_does_as_1(patience):
    rows = [(0.7, 1), (0.6, 1), (0.6, 1)]
    expected = [(1, 1, False, False), (1 / 2, 1, True, False), (1 / 4, 1, True, False)]
    assert steps(Schedule("lra", patience=patience), *rows) == expected


def test_lra_patience_counts_epochs_in_a_row():
    # Epochs 2 and 3 are two in a row; 4 is better; 5, 6 are two again, and 7 is the first of the next two.
    rows = [(0.5, 1), (0.4, 1), (0.4, 1), (0.6, 1), (0.5, 1), (0.5, 1), (0.5, 1)]
    assert steps(Schedule("lra", patience=2), *rows) == [
        (1, 1, False, False),
        (1, 1, False, False),
        (1 / 2, 1, True, False),
        (1 / 2, 4, False, False),
        (1 / 2, 4, False, False),
        (1 / 4, 4, True, False),
        (1 / 4, 4, False, False),
    ]


def test_lra_without_dwell_puts_nothing_back():
    rows = [(0.7, 1), (0.6, 1), (0.6, 1), (0.6, 1)]
    found = steps(Schedule("lra", dwell=False), *rows)
    assert [restore for _, _, restore, _ in found] == [False] * 4
    assert found[-1] == (1 / 8, 1, False, True)


def test_lra_a_better_epoch_between_two_changes_starts_the_count_to_the_end_anew():
    rows = [(0.5, 1), (0.4, 1), (0.4, 1), (0.6, 1), (0.4, 1), (0.4, 1), (0.4, 1)]
    stops = [stop for *_, stop in steps(Schedule("lra", stop_patience=3), *rows)]
    assert stops == [False] * 6 + [True]
    assert [stop for *_, stop in steps(Schedule("lra", stop_patience=1), *rows)][:2] == [False, True]


def test_lra_stops_at_the_minimum_too():
    rows = [(0.5, 1), (0.4, 1), (0.4, 1), (0.4, 1)]
    assert steps(Schedule("lra", minimum=1.0), *rows)[-1] == (1, 1, True, True)


def test_lra_nan_is_never_better():
    # An accuracy that is no number is not above the threshold, and not better.
    assert steps(Schedule("lra"), (NAN, 0.1), (0.5, 1), (NAN, 0.1)) == [
        (1 / 2, 0, False, False),  # nothing to put back
        (1 / 2, 2, False, False),
        (1 / 4, 2, True, False),
    ]
    # Epoch 2 is better by accuracy; its val_loss is no number, and that of epoch 1 stays to be beaten.
    schedule = Schedule("lra", patience=9)
    best = [epoch for _, epoch, _, _ in steps(schedule, (0.5, 1), (0.6, NAN), (0.95, 1.1), (0.95, 0.9), (0.95, NAN))]
    assert best == [1, 2, 2, 4, 4]


def test_lra_in_the_warm_up_epochs_may_be_better_but_do_not_count():
    # Epoch 3 is the first that counts; with patience 1 it changes the rate, and the weights of epoch 1 come back.
    schedule = Schedule("lra", warmup=2)
    assert steps(schedule, (0.6, 1), (0.5, 1), (0.5, 1)) == [
        (2 / 3, 1, False, False),
        (1, 1, False, False),
        (1 / 2, 1, True, False),
    ]


# ---------------------------------------------------------------- early stopping


def stops(monitor: str, patience: int, *values: float) -> list[bool]:
    """Return after every epoch whether to stop."""
    rows = [{monitor: value} for value in values]
    return [should_stop(monitor, patience, rows[:done]) for done in range(1, len(rows) + 1)]


def test_patience_3_stops_after_the_third_epoch_in_a_row():
    # Not better in a row: 0, 1, 2, 0, 1, 2, 3.
    assert stops("val_loss", 3, 0.9, 0.9, 1.0, 0.8, 0.9, 0.85, 0.8) == [False] * 6 + [True]
    assert stops("val_accuracy", 3, 0.1, 0.1, 0.0, 0.2, 0.1, 0.15, 0.2) == [False] * 6 + [True]


def test_patience_1_stops_at_once_and_0_never():
    assert stops("loss", 1, 0.9, 0.8, 0.8) == [False, False, True]
    assert stops("accuracy", 1, 0.8, 0.9, 0.9) == [False, False, True]
    assert stops("loss", 0, 1, 2, 3, 4) == [False] * 4


def test_nothing_stops_before_the_first_epoch():
    assert not should_stop("loss", 1, [])


def test_early_stopping_nan_is_never_better():
    assert stops("val_loss", 2, 1, NAN, 0.9, NAN, NAN) == [False] * 4 + [True]
    assert stops("val_accuracy", 2, NAN, NAN) == [False, True]


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, NAN]), max_size=12), st.integers(1, 4))
def test_early_stopping_counts_the_epochs_since_the_best(values, patience):
    numbers = [value for value in values if not math.isnan(value)]
    since = len(values) - 1 - values.index(min(numbers)) if numbers else len(values)
    assert should_stop("val_loss", patience, [{"val_loss": value} for value in values]) == (since >= patience)


# ---------------------------------------------------------------- what holds for all of them

some_losses = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, NAN])
histories = st.lists(st.tuples(st.sampled_from([0.5, 0.8, 0.9, 0.95, NAN]), some_losses), max_size=25).map(
    lambda rows: history(*rows)
)
schedules = st.builds(
    Schedule,
    kind=st.sampled_from(KINDS),
    warmup=st.integers(0, 5),
    factor=st.floats(0, 1, exclude_min=True, exclude_max=True),
    every=st.integers(1, 8),
    patience=st.integers(0, 4),
    minimum=st.floats(0, 2),
    threshold=st.floats(0, 1),
    dwell=st.booleans(),
    stop_patience=st.integers(1, 4),
)


@given(schedules, histories, st.floats(1e-8, 2), st.integers(1, 30))
def test_the_rate_stays_between_its_bounds_and_rises_in_the_warm_up_only(schedule, rows, base_rate, epochs):
    found = [next_rate(schedule, base_rate, epochs, rows[:done]) for done in range(len(rows) + 1)]
    assert all(min(schedule.minimum, base_rate) <= rate <= base_rate for rate in found)
    rising, falling = found[: schedule.warmup + 1], found[schedule.warmup :]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


@given(schedules, histories)
def test_the_callback_is_where_it_stood_at_every_epoch(schedule, rows):
    """The replay of a history's beginning equals the state of a callback that was there all the time."""
    best, waited, in_a_row, rate, highest, lowest = 0, 0, 0, 1.0, -math.inf, math.inf
    for number, row in enumerate(rows, 1):
        changed = False
        gain = lowest - row["val_loss"] if row["accuracy"] >= schedule.threshold else row["accuracy"] - highest
        if gain > 0:
            best, waited, in_a_row = number, 0, 0
            highest, lowest = np.nanmax([highest, row["accuracy"]]), np.nanmin([lowest, row["val_loss"]])
        elif number > schedule.warmup:
            waited += 1
            if waited == schedule.patience or schedule.patience == 0:
                waited, in_a_row, rate, changed = 0, in_a_row + 1, rate * schedule.factor, True
        state = lra(schedule, 1.0, rows[:number])
        restore = changed and schedule.dwell and best > 0
        assert (state.best_epoch, state.restore, state.stop) == (best, restore, in_a_row >= schedule.stop_patience)
        if number >= schedule.warmup:
            assert state.rate == pytest.approx(max(rate, min(1.0, schedule.minimum)))


@given(schedules, histories, st.floats(1e-8, 2))
def test_both_functions_give_the_same_rate_and_leave_the_history_alone(schedule, rows, base_rate):
    before = [dict(row) for row in rows]
    if schedule.kind == "lra":
        assert next_rate(schedule, base_rate, 30, rows) == lra(schedule, base_rate, rows).rate
    assert next_rate(schedule, base_rate, 30, rows) == next_rate(schedule, base_rate, 30, tuple(rows))
    assert repr(rows) == repr(before)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "linear"}, "kind: one of constant, step, cosine, plateau, lra. Received: 'linear'."),
        ({"factor": 1.0}, "factor: 0 < factor < 1. Received: 1.0."),
        ({"minimum": math.inf}, "minimum: a number, 0 or more. Received: inf."),
        ({"threshold": 90.0}, "threshold: 0 to 1. Received: 90.0."),
    ],
)
def test_what_is_refused(values, message):
    assert refused(Schedule, **values) == f"Recipe key schedule.{message}"
