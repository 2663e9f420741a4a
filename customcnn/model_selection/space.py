"""What a search looks through: the table [search] of a recipe file, checked before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from customcnn.errors import CustomCNNError, show
from customcnn.recipe.recipe import KEYS, TABLES, Recipe, load_recipe, parse_recipe, read_recipe

TABLE = "search"
FIXED = ("monitor", "keep", "device", "tensorboard", "mlflow")
"""Keys that are the same for all trials: what compares them, and what touches no score."""


@dataclass(frozen=True)
class Axis:
    """One searched key of the recipe.

    Attributes:
        key: its full name, such as `augmentation.rotate`.
        choices: the values, as a recipe holds them; none where the key is drawn from a range.
        low, high: the ends of the range, both included; whole numbers for a key that is one.
        log: drawn evenly on a logarithmic scale.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @property
    def names(self) -> list[Any]:
        """The choices as JSON has them: a pair of numbers as text."""
        return [str(list(choice)) if isinstance(choice, tuple) else choice for choice in self.choices]

    def told(self) -> list[Any] | dict[str, Any]:
        """Return the axis as the table [search] has it."""
        if self.choices:
            return [list(choice) if isinstance(choice, tuple) else choice for choice in self.choices]
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Space:
    """The axes of a search, and the recipe around them.

    Attributes:
        axes: in the order of the file.
        values: what the file sets beside them, as in a recipe.
        settings: what the command line sets; it wins over the file.
        source: where it comes from, for messages.
    """

    axes: tuple[Axis, ...]
    values: Mapping[str, Any]
    settings: Mapping[str, Any]
    source: str

    def recipe(self, chosen: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a trial.

        Args:
            chosen: the values of the axes by key. A `model` among them brings the habits of its network along.

        Raises:
            CustomCNNError: a value that the recipe refuses.
        """
        model = {key: layer[key] for layer in (self.values, self.settings, chosen) for key in layer if key == "model"}
        base = load_recipe(None, model)
        for layer, source in (
            (self.values, self.source),
            (self.settings, "the command line"),
            (chosen, f"[{TABLE}] of {self.source}"),
        ):
            base = parse_recipe({key: value for key, value in layer.items() if key != "model"}, source, base)
        return base

    @property
    def size(self) -> int | None:
        """How many combinations a grid has; None where an axis is a range."""
        total = 1
        for axis in self.axes:
            total *= len(axis.choices)
        return total or None

    def table(self) -> dict[str, Any]:
        """Return the table [search], ready for JSON; `space_from` takes it."""
        return {axis.key: axis.told() for axis in self.axes}


def read_space(path: Path, settings: Mapping[str, Any]) -> Space:
    """Read a recipe file with a table [search].

    A key of the table is a full key of the recipe, with a list of choices or a range { low, high, log }. What the
    command line sets is not searched.

    Args:
        path: a TOML file.
        settings: what the command line sets.

    Raises:
        CustomCNNError: no table [search], an unknown key, a value that the recipe refuses, or a range of text.
    """
    values = read_recipe(path)
    return space_from(values.pop(TABLE, None), values, settings, show(path))


def space_from(search: object, values: Mapping[str, Any], settings: Mapping[str, Any], source: str) -> Space:
    """Check the parts of a search and put them together; see `read_space`.

    Args:
        search: the table [search].
        values: what the file sets beside it.
        settings: what the command line sets.
        source: where they come from, for messages.

    Raises:
        CustomCNNError: as by `read_space`.
    """
    if not isinstance(search, Mapping) or not search:
        raise CustomCNNError(
            f"A search is told by a table [{TABLE}] in the recipe. Received: {source} without one. "
            f"Example: [{TABLE}], and below it learning_rate = [0.001, 0.01]."
        )
    space = Space((), values, settings, source)
    base = space.recipe({})
    flat = _flat(search)
    given = set(_flat(space.settings))
    axes = [_axis(key, value, f"[{TABLE}] of {source}", base) for key, value in flat.items()]
    searched = tuple(axis for axis in axes if axis.key not in given)
    if not searched:
        raise CustomCNNError(
            f"A search has a key to search. Received: {source}, all of whose keys the command line sets. Leave one out."
        )
    return replace(space, axes=searched)


def _flat(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys by their full names; TOML makes a table of augmentation.rotate."""
    flat: dict[str, Any] = {}
    for key, value in search.items():
        if key in TABLES and isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


def _axis(key: str, value: object, source: str, base: Recipe) -> Axis:
    if key in FIXED:
        raise CustomCNNError(f"All trials have the same {key}. Received: {key} in {source}. Set it above the table.")
    if isinstance(value, Mapping):
        return _range(key, value, source, base)
    if key in KEYS and (not isinstance(value, list) or not value):
        raise CustomCNNError(
            f"A searched key has a list of choices, or a range. Received: {key} = {value!r} in {source}. "
            f"Example: {key} = {[KEYS[key].default]}, or {{ low = 0.1, high = 0.9 }} for a number."
        )
    choices = [_checked(key, choice, source, base) for choice in (value if isinstance(value, list) else [value])]
    twice = [choice for i, choice in enumerate(choices) if choice in choices[:i]]
    if twice:
        raise CustomCNNError(f"A choice stands once. Received: {key} = {value!r} in {source}. Take one out.")
    return Axis(key, tuple(choices))


def _range(key: str, value: Mapping[str, Any], source: str, base: Recipe) -> Axis:
    rule = f"A range is {{ low = ..., high = ..., log = true or false }}, with low below high. Received: {key}"
    low, high, log = value.get("low"), value.get("high"), value.get("log", False)
    numbers = all(type(end) in (int, float) for end in (low, high)) and type(log) is bool
    if not numbers or not set(value) <= {"low", "high", "log"}:
        raise CustomCNNError(f"{rule} = {dict(value)!r} in {source}. Give these, or a list of choices.")
    # An unknown key is said to be unknown; a whole number is refused a fraction; an end beyond the rules too.
    ends = [_checked(key, end, source, base) for end in (low, high)]
    if type(KEYS[key].default) not in (int, float):
        raise CustomCNNError(f"A range is for a number. Received: {key} in {source}. Give a list of choices.")
    if not ends[0] < ends[1] or (log and ends[0] <= 0):
        above = " above 0 for a logarithmic scale" if log else ""
        raise CustomCNNError(f"{rule} = {dict(value)!r} in {source}. Give low below high{above}.")
    return Axis(key, (), ends[0], ends[1], log)


def _checked(key: str, value: object, source: str, base: Recipe) -> Any:
    """Return a value as the recipe holds it, by trying it there."""
    if key == "model":
        load_recipe(None, {"model": value})
        return value
    found: Any = parse_recipe({key: value}, source, base)
    for name in key.split("."):
        found = getattr(found, name)
    return found


def chosen_values(axes: Sequence[Axis], names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a recipe takes, given the axes' names of them; see `Axis.names`."""
    return {
        axis.key: axis.choices[axis.names.index(names[axis.key])] if axis.choices else names[axis.key] for axis in axes
    }


def told(values: Mapping[str, Any]) -> str:
    """Return the values of a trial as text: "epochs 10, learning_rate 0.001"."""
    return ", ".join(f"{key} {plain(value)}" for key, value in values.items())


def plain(value: object) -> str:
    """Return a value as text, a fraction with four digits that count."""
    return f"{value:.4g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)
