"""Recipes: everything that decides a training, in TOML. Nothing executes, and unknown keys fail."""

import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from customcnn.errors import CustomCNNError, show
from customcnn.models import get_spec

CHOICES = {
    "optimizer": ("sgd", "adam"),
    "loss": ("auto", "categorical_crossentropy", "binary_crossentropy"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "device": ("auto", "cpu", "gpu"),
    "monitor": ("val_accuracy", "val_loss", "accuracy", "loss"),
}


@dataclass(frozen=True)
class Recipe:
    """One training. The defaults are the report's: SGD 2e-4, batches of 30, 100 epochs, best validation accuracy.

    Attributes:
        model: a name from `customcnn models`.
        input_size: height and width in pixels, one number or two; 0 for the network's own.
        dropout: share of units dropped, 0 <= x < 1; -1 for the network's own.
        optimizer: "sgd" or "adam".
        learning_rate: of the optimizer, above 0.
        momentum: of SGD, 0 <= x < 1.
        loss: "auto" takes binary cross-entropy for one sigmoid output and categorical cross-entropy for a softmax.
        epochs: how many times every training image is seen.
        batch_size: images in a step.
        seed: of the weights, the order of the images and dropout.
        monitor: what chooses best.keras.
        positive: the positive class of two; "" for the second in alphabetical order.
        precision: of the arithmetic; "auto" is float32 on a CPU and bfloat16 or float16 by what a GPU has.
        device: where to compute.
        tensorboard: write TensorBoard logs into the run directory.
    """

    model: str = "proposed"
    input_size: int | tuple[int, int] = 0
    dropout: float = -1.0
    optimizer: str = "sgd"
    learning_rate: float = 2e-4
    momentum: float = 0.0
    loss: str = "auto"
    epochs: int = 100
    batch_size: int = 30
    seed: int = 120
    monitor: str = "val_accuracy"
    positive: str = ""
    precision: str = "auto"
    device: str = "auto"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        sizes = self.input_size if isinstance(self.input_size, tuple) else (self.input_size,)
        rules = {
            "input_size": (all(s >= 0 for s in sizes) and len(sizes) in (1, 2), "one or two numbers of pixels"),
            "dropout": (self.dropout == -1 or 0 <= self.dropout < 1, "0 <= dropout < 1"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0"),
            "momentum": (0 <= self.momentum < 1, "0 <= momentum < 1"),
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "seed": (0 <= self.seed < 2**32, "a whole number from 0 to 2^32 - 1"),
            **{key: (getattr(self, key) in words, f"one of {', '.join(words)}") for key, words in CHOICES.items()},
        }
        for key, (fine, rule) in rules.items():
            if not fine:
                raise CustomCNNError(f"Recipe key {key}: {rule}. Received: {getattr(self, key)!r}.")

    def to_toml(self) -> str:
        """Return the recipe as TOML, every key written out."""
        return "".join(f"{f.name} = {_toml(getattr(self, f.name))}\n" for f in fields(self))


KEYS = {f.name: f for f in fields(Recipe)}


def parse_recipe(values: Mapping[str, object], source: str, base: Recipe | None = None) -> Recipe:
    """Check keys and types and return a recipe.

    Args:
        values: what to set.
        source: where they come from, for messages.
        base: what holds where nothing is set; None for the defaults.

    Raises:
        CustomCNNError: an unknown key (with the nearest known one), a wrong type, or a value out of range.
    """
    checked = {key: _checked(key, value, source) for key, value in values.items()}
    return replace(base or Recipe(), **checked)  # type: ignore[arg-type]


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
    return parse_recipe(settings, "the command line", parse_recipe(from_file, show(str(path)), base))


def read_recipe(path: Path) -> dict[str, object]:
    """Read a TOML recipe; its values are checked by `parse_recipe`.

    Raises:
        CustomCNNError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise CustomCNNError(f"A recipe is a TOML file. Received: {show(path)} ({error}).") from None


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
        found = tomllib.loads(f"x = {text}")
    except ValueError:
        return text
    # A class may be called 1 or true. More than x is found where the text holds a line break.
    is_text = key in KEYS and isinstance(KEYS[key].default, str) and not isinstance(found["x"], str)
    return text if is_text or len(found) > 1 else found["x"]


def _checked(key: str, value: object, source: str) -> object:
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(KEYS)}."
        raise CustomCNNError(f"A recipe has known keys only. Received: {show(key)} in {source}. {hint}")
    if key == "input_size" and isinstance(value, list | tuple) and all(type(v) is int for v in value):
        return tuple(value)
    wanted: Any = type(KEYS[key].default)
    if wanted is float and type(value) is int:
        return _float(value)
    if type(value) is not wanted:
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        rule = names[wanted] + (", or two in square brackets" if key == "input_size" else "")
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
