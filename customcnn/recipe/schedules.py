"""The learning rate from epoch to epoch, as pure functions of the history so far: a resumed run takes the same way.

A history has one row an epoch, as in history.csv: accuracy and loss of training, val_accuracy and val_loss. A value
that is not a number is never better than another.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from customcnn.errors import one_of, require

KINDS = ("constant", "step", "cosine", "plateau", "lra")

LEAST_GAIN = 1e-4
"""Only a val_loss that is lower by more than this ends a plateau: the default of Keras' ReduceLROnPlateau."""

History = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes from epoch to epoch.

    Attributes:
        kind: "constant"; "step": multiplied by `factor` every `every` epochs; "cosine": along half a cosine from the
            full rate in the first epoch after the warm-up to `minimum` in the last; "plateau": multiplied by `factor`
            after `patience` epochs without a better val_loss; "lra": the callback of the six-backbone transfer study.
        warmup: so many epochs at the start over which the rate rises evenly: with 3 it is 1/4, 2/4 and 3/4 of the full
            rate, which the fourth epoch has. The other keys begin to act after it.
        factor: what the rate is multiplied by, 0 < x < 1.
        every: epochs between two steps.
        patience: so many epochs in a row without a better value change the rate; 0 does as 1 does, as in Keras.
        minimum: the rate never falls below it; a rate that is below it from the start stays as it is.
        threshold: of "lra": the training accuracy from which on it watches val_loss instead.
        dwell: of "lra": put the best weights back when the rate changes.
        stop_patience: of "lra": stop after so many changes of the rate without a better epoch between them.
        ask_epoch: of "lra": on a terminal, ask after so many epochs whether to go on; 0 never asks.
    """

    kind: str = "constant"
    warmup: int = 0
    factor: float = 0.5
    every: int = 10
    patience: int = 1
    minimum: float = 0.0
    threshold: float = 0.9
    dwell: bool = True
    stop_patience: int = 3
    ask_epoch: int = 0

    def __post_init__(self) -> None:
        rules = {name: (getattr(self, name) >= 0, "0 or more") for name in ("warmup", "patience", "ask_epoch")}
        rules |= {name: (getattr(self, name) >= 1, "1 or more") for name in ("every", "stop_patience")}
        rules["minimum"] = (0 <= self.minimum < math.inf, "a number, 0 or more")
        rules["kind"] = one_of(self.kind, KINDS)
        rules["factor"] = (0 < self.factor < 1, "0 < factor < 1")
        rules["threshold"] = (0 <= self.threshold <= 1, "0 to 1")
        require(self, "schedule.", rules)


@dataclass(frozen=True)
class Lra:
    """Where the callback of the six-backbone transfer study stands after some epochs.

    Attributes:
        rate: the learning rate of the next epoch.
        best_epoch: the number, from 1, of the best epoch so far; 0 before there is one.
        restore: the weights of `best_epoch` are put back before the next epoch.
        stop: the training ends here.
    """

    rate: float
    best_epoch: int
    restore: bool
    stop: bool


def next_rate(schedule: Schedule, base_rate: float, epochs: int, history: History) -> float:
    """Return the learning rate of the epoch that follows a history.

    The full rate comes after the warm-up, in epoch `warmup` + 1. From there "step" multiplies it after `every`,
    2 * `every`, ... epochs.

    "cosine" has the full rate in epoch `warmup` + 1 and `minimum` in epoch `epochs`: with `minimum` 0 the last epoch
    changes no weights. Where only one epoch follows the warm-up, it has the full rate.

    "plateau" is Keras' ReduceLROnPlateau of val_loss with its other settings as they come. A val_loss is better where
    it is lower than the best so far by more than 0.0001; after `patience` epochs in a row that are not better the rate
    is multiplied, and the counting begins anew. With `patience` 0 the first epoch that is not better changes the rate;
    in Keras, and here, 1 does the same. Epochs of the warm-up set the best value, but are not counted.

    "lra" is explained at `lra`.

    Args:
        schedule: how the rate changes.
        base_rate: the full learning rate.
        epochs: how many epochs the training has.
        history: the epochs so far.

    Reference:
        The fourteen-network study trains EfficientNet-B0 with ReduceLROnPlateau, factor .5, patience 0.
    """
    after = len(history) - schedule.warmup  # epochs at the full rate that lie behind the next one
    if after < 0 or schedule.kind == "constant":
        rate = base_rate
    elif schedule.kind == "step":
        rate = base_rate * schedule.factor ** (after // schedule.every)
    elif schedule.kind == "cosine":
        rate = _cosine(base_rate, schedule.minimum, after, epochs - schedule.warmup)
    elif schedule.kind == "plateau":
        rate = base_rate * schedule.factor ** _plateaus(schedule, history)
    else:
        rate = lra(schedule, base_rate, history).rate
    return _bounded(schedule, base_rate, rate, len(history))


def _bounded(schedule: Schedule, base_rate: float, rate: float, done: int) -> float:
    """Return the rate of the epoch after `done` epochs, with the warm-up and between its bounds."""
    warm = min(1.0, (done + 1) / (schedule.warmup + 1))
    return min(max(rate * warm, schedule.minimum), base_rate)


def _cosine(high: float, low: float, done: int, epochs: int) -> float:
    way = min(1.0, done / (epochs - 1)) if epochs > 1 else 0.0
    share = (1 + math.cos(math.pi * way)) / 2
    return low + share * (high - low)


def _plateaus(schedule: Schedule, history: History) -> int:
    """Return how often val_loss has stood still for `patience` epochs."""
    found, waited, best = 0, 0, math.inf
    for number, row in enumerate(history, 1):
        if row["val_loss"] + LEAST_GAIN < best:
            best, waited = row["val_loss"], 0
        elif number > schedule.warmup:
            waited += 1
        if waited >= max(schedule.patience, 1):
            found, waited = found + 1, 0
    return found


def lra(schedule: Schedule, base_rate: float, history: History) -> Lra:
    """Return where the callback of the six-backbone transfer study stands, worked out anew from the whole history.

    An epoch whose training accuracy is below `threshold` is better where that accuracy is above the highest of the
    better epochs before it. An epoch at or above the threshold is better where its val_loss is below the lowest of the
    better epochs before it. The first epoch is better than nothing.

    So every epoch is judged by its own accuracy, and nothing starts anew at the switch: the first epoch above the
    threshold has to beat the lowest val_loss among the epochs that were better by accuracy, and the epochs without
    improvement before it count on. An accuracy that falls back below the threshold is watched again; it can
    be better only as long as none of the better epochs was above the threshold.

    After `patience` epochs in a row that are not better (0 does as 1 does) the rate is multiplied by `factor`, the
    counting begins anew, and with `dwell` the weights of the best epoch, which is the last better one, are put back.
    After `stop_patience` such changes without a better epoch between them the training stops; a change counts where the
    rate is at `minimum` already, too. When the training ends, here or after its last epoch, the weights of the best
    epoch are its result, with `dwell` and without. Epochs of the warm-up may be better, but those that are not are not
    counted.

    Args:
        schedule: threshold, patience, factor, dwell, stop_patience, minimum and warmup; its `kind` is not looked at.
        base_rate: the full learning rate.
        history: the epochs so far.

    Reference:
        The six-backbone transfer study: Adam 1e-5, threshold .9, factor .5, stop_patience 3.
    """
    accuracy, val_loss, changed = -math.inf, math.inf, False
    best_epoch = waited = changes = all_changes = 0
    for number, row in enumerate(history, 1):
        above = row["accuracy"] >= schedule.threshold
        better = row["val_loss"] < val_loss if above else row["accuracy"] > accuracy
        if better:
            best_epoch, waited, changes = number, 0, 0
            # In this order a value that is not a number leaves the old one.
            accuracy, val_loss = max(accuracy, row["accuracy"]), min(val_loss, row["val_loss"])
        elif number > schedule.warmup:
            waited += 1
        changed = waited >= max(schedule.patience, 1)
        if changed:
            waited, changes, all_changes = 0, changes + 1, all_changes + 1
    rate = _bounded(schedule, base_rate, base_rate * schedule.factor**all_changes, len(history))
    restore = changed and schedule.dwell and best_epoch > 0
    return Lra(rate, best_epoch, restore, changes >= schedule.stop_patience)
