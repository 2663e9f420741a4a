"""Recipes: everything that decides a training, in TOML. Nothing executes, and unknown keys fail."""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from customcnn.augmentation.settings import Augmentation
from customcnn.errors import CustomCNNError, one_of, require, show
from customcnn.models import get_spec
from customcnn.recipe.sampling import Sampling
from customcnn.recipe.schedules import Schedule

CHOICES = {
    "optimizer": ("sgd", "adam", "adamw", "rmsprop"),
    "loss": ("auto", "categorical_crossentropy", "binary_crossentropy", "focal"),
    "normalize": ("own", "imagenet", "raw"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "device": ("auto", "cpu", "gpu"),
    "monitor": ("val_accuracy", "val_loss", "accuracy", "loss"),
    "keep": ("best", "first-best", "best-smoothed", "last"),
    "statistics": ("auto", "measured", "moving"),
    "mlflow": ("none", "logs", "weights"),
}


@dataclass(frozen=True)
class Recipe:
    """One training. The defaults are the report's: SGD 2e-4, batches of 30, 100 epochs, best validation accuracy.

    Attributes:
        model: a name from `customcnn models`.
        input_size: height and width in pixels, one number or two; 0 for the network's own.
        head: what stands on a backbone; "" for the network's own.
        pooling: of the head's features, "avg" or "max"; "" for the head's own.
        classifier_activation: of a backbone's outputs, one for each class: "softmax" or "sigmoid"; "" for softmax.
        weights: "none" (random), "imagenet", a file of weights for the backbone, or a run whose layers are taken over.
        freeze: layers that are not trained: "none", "all" (everything before the head), N (the first N), -N (all but
            the last N).
        dropout: share of units dropped, 0 <= x < 1; -1 for the network's own.
        auxiliary: train GoogLeNet with its two auxiliary classifiers.
        batch_norm: give GoogLeNet batch normalisation.
        normalize: "own" scaling of the network, by ImageNet's mean and deviation, or "raw" for pixels as they are.
        center_crop: edge in pixels of the square about the centre of the input that the network looks at; 0 for all.
        l1: penalty on the absolute weights of the layers that `regularize` names.
        l2: penalty on the squared weights of the layers that `regularize` names.
        regularize: "all", "conv", "dense", or a pattern of layer names such as "block5_*".
        optimizer: "sgd", "adam", "adamw" or "rmsprop".
        learning_rate: of the optimizer, above 0.
        momentum: of SGD and RMSprop, 0 <= x < 1.
        weight_decay: share of the weights taken off in every step, times the learning rate; 0 for none.
        clip_norm: the gradient of all weights together is shortened to this length; 0 for never.
        ema: decay of a moving average of the weights, which is what is scored and kept; 0 for none.
        loss: "auto" takes binary cross-entropy for sigmoid outputs and categorical cross-entropy for a softmax;
            "focal" takes the focal form of the same.
        focal_gamma: how much the focal loss turns to what is hard.
        label_smoothing: share of every target that is spread over all classes.
        epochs: how many times every training image is seen.
        batch_size: images in a step.
        seed: of the weights, the order of the images, augmentation and dropout.
        statistics: what batch normalisation normalises by when the network is scored and kept: "moving" averages over
            the steps, as Keras has them; "measured" anew on up to 512 training images before each validation; "auto"
            measures them where an epoch has too few steps for the averages to follow.
        monitor: what chooses best.keras and what early stopping watches.
        keep: the epoch of best.keras: the "best" by `monitor`, of equals the one with the lowest val_loss;
            "first-best", of equals the first, as in Keras; "best-smoothed", by the mean of `monitor` over an epoch and
            the two before it; or the "last".
        patience: stop after so many epochs without a better `monitor`; 0 never stops early.
        positive: the positive class of two; "" for `all` of C-NMC's all and hem, else for the second in alphabetical
            order.
        precision: of the arithmetic, the weights are float32 always; "auto" is bfloat16 where the CPU multiplies it
            (but for depthwise convolutions), float32 on other CPUs, and bfloat16 or float16 by what a GPU has.
        device: where to compute.
        tensorboard: write TensorBoard logs into the run directory.
        mlflow: "logs" gives the recipe, every epoch and the pictures to MLflow, "weights" best.keras too; "none" does
            not.
        augmentation, sampling, schedule: the tables [augmentation], [sampling] and [schedule] of the file.
    """

    model: str = "proposed"
    input_size: int | tuple[int, int] = 0
    head: str = ""
    pooling: str = ""
    classifier_activation: str = ""
    weights: str = "none"
    freeze: str = "none"
    dropout: float = -1.0
    auxiliary: bool = False
    batch_norm: bool = False
    normalize: str = "own"
    center_crop: int = 0
    l1: float = 0.0
    l2: float = 0.0
    regularize: str = "all"
    optimizer: str = "sgd"
    learning_rate: float = 2e-4
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.0
    loss: str = "auto"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    epochs: int = 100
    batch_size: int = 30
    seed: int = 120
    statistics: str = "auto"
    monitor: str = "val_accuracy"
    keep: str = "best"
    patience: int = 0
    positive: str = ""
    precision: str = "auto"
    device: str = "auto"
    tensorboard: bool = False
    mlflow: str = "none"
    augmentation: Augmentation = field(default_factory=Augmentation)
    sampling: Sampling = field(default_factory=Sampling)
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        sizes = self.input_size if isinstance(self.input_size, tuple) else (self.input_size,)
        rules = {
            "input_size": (all(s >= 0 for s in sizes) and len(sizes) in (1, 2), "one or two numbers of pixels"),
            "freeze": (re.fullmatch(r"none|all|-?\d+", self.freeze) is not None, "none, all, or a number of layers"),
            "dropout": (self.dropout == -1 or 0 <= self.dropout < 1, "0 <= dropout < 1"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0"),
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "seed": (0 <= self.seed < 2**32, "a whole number from 0 to 2^32 - 1"),
        }
        for name in ("momentum", "ema", "label_smoothing"):
            rules[name] = (0 <= getattr(self, name) < 1, f"0 <= {name} < 1")
        for name in ("l1", "l2", "weight_decay", "clip_norm", "focal_gamma"):
            rules[name] = (0 <= getattr(self, name) < math.inf, "a number, 0 or more")
        for name in ("center_crop", "patience"):
            rules[name] = (getattr(self, name) >= 0, "0 or more")
        averaged = self.ema > 0 and self.schedule.kind == "lra" and self.schedule.dwell
        if averaged and rules["ema"][0]:
            rules["ema"] = (False, "0 with the schedule lra, which puts weights back; or set schedule.dwell=false")
        if self.batch_size >= 1 and self.batch_size % self.sampling.shards:
            rules["batch_size"] = (False, f"a multiple of sampling.shards, which is {self.sampling.shards}")
        rules |= {key: one_of(getattr(self, key), words) for key, words in CHOICES.items()}
        if self.keep == "best-smoothed" and self.schedule.kind == "lra":
            rules["keep"] = (False, "best or last with the schedule lra, which chooses the best epoch by itself")
        require(self, "", rules)

    def to_toml(self) -> str:
        """Return the recipe as TOML, every key written out."""
        lines = [f"{name} = {_toml(value)}" for name, value in vars(self).items() if name not in TABLES]
        for table in TABLES:
            lines += ["", f"[{table}]"]
            lines += [f"{name} = {_toml(value)}" for name, value in vars(getattr(self, table)).items()]
        return "\n".join(lines) + "\n"


TABLES: dict[str, type] = {"augmentation": Augmentation, "sampling": Sampling, "schedule": Schedule}
"""The tables of a recipe file; their keys are written augmentation.rotate and so on everywhere else."""

KEYS = {f.name: f for f in fields(Recipe) if f.name not in TABLES}
KEYS |= {f"{table}.{f.name}": f for table, part in TABLES.items() for f in fields(part)}
"""Every key by its full name."""

NUMBER_OR_WORD = ("freeze", "sampling.oversample")

NAMES = {key.rpartition(".")[2]: key for key in reversed(KEYS)} | {key: key for key in KEYS}
"""Every key by its full name, and by the name that it has within its table where no other key is called so."""


def flat(recipe: Recipe) -> dict[str, Any]:
    """Return every value by its full key."""
    return dict(_flat(vars(recipe)))


def _flat(values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if key in TABLES and isinstance(value, Mapping | TABLES[key]):
            inside = value if isinstance(value, Mapping) else vars(value)
            yield from ((f"{key}.{name}", inner) for name, inner in inside.items())
        else:
            yield key, value


def parse_recipe(values: Mapping[str, object], source: str, base: Recipe | None = None) -> Recipe:
    """Check keys and types and return a recipe.

    Args:
        values: what to set, by key; a table as a mapping, or its keys written `table.key`.
        source: where they come from, for messages.
        base: what holds where nothing is set; None for the defaults.

    Raises:
        CustomCNNError: an unknown key (with the nearest known one), a wrong type, or a value out of range.
    """
    return _over(base or Recipe(), _typed(values, source))


def _typed(values: Mapping[str, object], source: str) -> dict[str, Any]:
    return {key: _checked(key, value, source) for key, value in _flat(values)}


def _over(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    found = {key: value for key, value in values.items() if "." not in key}
    for table in TABLES:
        inside = {key.removeprefix(f"{table}."): v for key, v in values.items() if key.startswith(f"{table}.")}
        if inside:
            found[table] = replace(getattr(base, table), **inside)
    return replace(base, **found)


def load_recipe(path: Path | None, settings: Mapping[str, object], base: Recipe | None = None) -> Recipe:
    """Put a recipe together: the network's own habits, over them the file, over that the settings.

    Args:
        path: a TOML recipe, or None.
        settings: what the command line sets.
        base: starts from this recipe (a run's own) instead of the network's habits.

    Raises:
        CustomCNNError: as by `read_recipe` and `parse_recipe`, or an unknown network.
    """
    from_file = read_recipe(path) if path else {}
    if base is None:
        source = "the command line" if "model" in settings else show(str(path))
        model = settings.get("model", from_file.get("model", Recipe.model))
        base = parse_recipe({"model": model}, source)
        base = parse_recipe(get_spec(base.model).recipe, f"the table's row of {base.model}", base)
    # Put together before ranges are looked at: a key of the file may ask for one that the command line sets.
    return _over(base, _typed(from_file, show(str(path))) | _typed(settings, "the command line"))


def read_recipe(path: Path) -> dict[str, object]:
    """Read a TOML recipe; its values are checked by `parse_recipe`.

    Raises:
        CustomCNNError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise CustomCNNError(f"A recipe is a TOML file. Received: {show(path)} ({error}).") from None


BARE_POINT = re.compile(r"^([+-]?)\.(\d)")
"""A number without a digit before its point, which TOML does not take and people write: .25"""


def parse_settings(settings: Iterable[str]) -> dict[str, object]:
    """Read `key=value` settings; a value is TOML, or plain text where it is not or where the key is text.

    Raises:
        CustomCNNError: a setting without an equals sign.
    """
    values: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise CustomCNNError(f"--set takes key=value. Received: {show(setting)}. Example: --set input_size=48.")
        values[key.strip()] = _value(key.strip(), text.strip())
    return values


def _value(key: str, text: str) -> object:
    try:
        found = tomllib.loads(f"x = {BARE_POINT.sub(lambda match: match[1] + '0.' + match[2], text)}")
    except ValueError:
        return text
    # A class may be called 1 or true. More than x is found where the text holds a line break.
    is_text = key in KEYS and isinstance(KEYS[key].default, str) and not isinstance(found["x"], str)
    return text if is_text or len(found) > 1 else found["x"]


def _checked(key: str, value: object, source: str) -> object:
    if key == "search":
        raise CustomCNNError(
            f"A recipe is one training. Received: {source} with a table [search], which is for customcnn tune. "
            "Use that command, or take the table out."
        )
    if key in TABLES:
        raise CustomCNNError(
            f"Recipe key {key} is a table: [{key}] in a file, {key}.<key>=<value> with --set. "
            f"Received: {value!r} in {source}."
        )
    if key not in KEYS:
        near = difflib.get_close_matches(key, NAMES, n=1)
        hint = f"Did you mean {NAMES[near[0]]}?" if near else f"Known keys: {', '.join(KEYS)}."
        raise CustomCNNError(f"A recipe has known keys only. Received: {show(key)} in {source}. {hint}")
    if key == "input_size" and isinstance(value, list | tuple) and all(type(v) is int for v in value):
        return tuple(value)
    wanted: Any = type(KEYS[key].default)
    if key in NUMBER_OR_WORD and type(value) in (int, float):
        return str(value)
    if wanted is float and type(value) is int:
        return _float(value)
    if type(value) is not wanted:
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        rule = names[wanted] + (", or two in square brackets" if key == "input_size" else "")
        rule += " or a number" if key in NUMBER_OR_WORD else ""
        raise CustomCNNError(f"Recipe key {key} is {rule}. Received: {value!r} in {source}.")
    return value


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too, and for pairs of surrogates.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return repr(value)
