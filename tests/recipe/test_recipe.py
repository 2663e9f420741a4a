"""Recipes: the report's defaults, TOML there and back, what is refused and how, --set, and what overrides what."""

import json
import math
import re
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.augmentation.settings import ENGINES, FLIPS, Augmentation
from customcnn.errors import CustomCNNError
from customcnn.models import get_spec
from customcnn.recipe.recipe import (
    CHOICES,
    KEYS,
    TABLES,
    Recipe,
    flat,
    load_recipe,
    parse_recipe,
    parse_settings,
    read_recipe,
)
from customcnn.recipe.sampling import CLASS_WEIGHTS, Sampling
from customcnn.recipe.schedules import KINDS, Schedule
from tests.support.errors import refused

VALUES = {
    "model": ("proposed", "small"),
    "input_size": (0, 48),
    "head": ("", "transfer"),
    "pooling": ("", "max"),
    "classifier_activation": ("", "sigmoid"),
    "weights": ("none", "imagenet"),
    "freeze": ("none", "-20"),
    "dropout": (-1.0, 0.25),
    "auxiliary": (False, True),
    "batch_norm": (False, True),
    "normalize": ("own", "imagenet"),
    "center_crop": (0, 200),
    "l1": (0.0, 0.006),
    "l2": (0.0, 0.016),
    "regularize": ("all", "block5_*"),
    "optimizer": ("sgd", "adam"),
    "learning_rate": (2e-4, 0.5),
    "momentum": (0.0, 0.9),
    "weight_decay": (0.0, 0.01),
    "clip_norm": (0.0, 1.5),
    "ema": (0.0, 0.99),
    "loss": ("auto", "binary_crossentropy"),
    "focal_gamma": (2.0, 1.0),
    "label_smoothing": (0.0, 0.1),
    "epochs": (100, 3),
    "batch_size": (30, 8),
    "seed": (120, 11),
    "statistics": ("auto", "measured"),
    "monitor": ("val_accuracy", "val_loss"),
    "keep": ("best", "last"),
    "patience": (0, 4),
    "positive": ("", "all"),
    "precision": ("auto", "bfloat16"),
    "device": ("auto", "cpu"),
    "tensorboard": (False, True),
    "mlflow": ("none", "weights"),
    "augmentation.engine": ("arrays", "albumentations"),
    "augmentation.pipeline": ("", "pipeline.json"),
    "augmentation.flip": ("none", "both"),
    "augmentation.quarter_turns": (False, True),
    "augmentation.rotate": (0.0, 30.0),
    "augmentation.shift": (0.0, 0.1),
    "augmentation.zoom": (0.0, 0.2),
    "augmentation.crop": (0.0, 0.3),
    "augmentation.brightness": (0.0, 0.4),
    "augmentation.contrast": (0.0, 0.5),
    "augmentation.gamma": (0.0, 0.6),
    "augmentation.saturation": (0.0, 0.7),
    "augmentation.hue": (0.0, 0.05),
    "sampling.undersample": (0, 3050),
    "sampling.oversample": ("none", "2"),
    "sampling.class_weights": ("none", "balanced"),
    "sampling.views": (0, 20000),
    "sampling.shards": (1, 2),
    "schedule.kind": ("constant", "plateau"),
    "schedule.warmup": (0, 2),
    "schedule.factor": (0.5, 0.1),
    "schedule.every": (10, 5),
    "schedule.patience": (1, 0),
    "schedule.minimum": (0.0, 1e-6),
    "schedule.threshold": (0.9, 0.8),
    "schedule.dwell": (True, False),
    "schedule.stop_patience": (3, 2),
    "schedule.ask_epoch": (0, 10),
}
"""Every key in the order of a recipe's file: the report's value, and another one."""

DEFAULTS = {key: default for key, (default, _) in VALUES.items()}
OTHERS = {key: other for key, (_, other) in VALUES.items()}


def parse(values: dict[str, object]) -> Recipe:
    """Return the recipe of these values in my.toml."""
    return parse_recipe(values, "'my.toml'")


# ---------------------------------------------------------------- what a recipe is


def test_the_defaults_are_the_reports():
    assert flat(Recipe()) == DEFAULTS


def test_a_recipe_written_out():
    """Every key under its table, in order; of these values TOML's notation is JSON's."""
    changed = {
        "input_size": (48, 64),
        "positive": 'a "b"',
        "tensorboard": True,
        "augmentation.flip": "both",
        "sampling.oversample": "2",
        "schedule.kind": "step",
        "schedule.minimum": 1e-6,
    }
    expected, table = "", ""
    for key, value in {**DEFAULTS, **changed}.items():
        part, _, name = key.rpartition(".")
        expected += f"\n[{part}]\n" * (part != table) + f"{name} = {json.dumps(value)}\n"
        table = part
    assert parse_recipe(changed, "here").to_toml() == expected
    for lines in EXCERPTS:
        assert lines in expected


EXCERPTS = (
    'model = "proposed"\ninput_size = [48, 64]\nhead = ""\n',
    "dropout = -1.0\nauxiliary = false\n",
    'optimizer = "sgd"\nlearning_rate = 0.0002\n',
    'positive = "a \\"b\\""\nprecision = "auto"\n',
    'tensorboard = true\nmlflow = "none"\n\n[augmentation]\nengine = "arrays"\n',
    'shards = 1\n\n[schedule]\nkind = "step"\nwarmup = 0\n',
    "minimum = 1e-06\n",
)
"""Of the file of that recipe: a value of every type, and where a table begins."""


pixels = st.integers(0, 10**6)
counts = st.integers(0)
at_least_one = st.integers(1)
shares = st.floats(0, 1, exclude_max=True)
amounts = st.floats(0, allow_infinity=False)

augmentations = st.builds(
    Augmentation,
    engine=st.sampled_from(ENGINES),
    flip=st.sampled_from(FLIPS),
    quarter_turns=st.booleans(),
    rotate=st.floats(0, 180),
    zoom=st.floats(0, 0.5),
    gamma=st.floats(0, 9),
    hue=st.floats(0, 0.5),
    **dict.fromkeys(("shift", "crop", "brightness", "contrast", "saturation"), shares),
) | st.builds(Augmentation, engine=st.just("albumentations"), pipeline=st.text())
samplings = st.builds(
    Sampling,
    undersample=counts,
    oversample=st.sampled_from(["none", "balance"]) | st.floats(1, 1000).map(str),
    class_weights=st.sampled_from(CLASS_WEIGHTS),
) | st.builds(Sampling, undersample=counts, views=counts)
schedules = st.builds(
    Schedule,
    kind=st.sampled_from(KINDS),
    factor=st.floats(0, 1, exclude_min=True, exclude_max=True),
    minimum=amounts,
    threshold=st.floats(0, 1),
    dwell=st.booleans(),
    **dict.fromkeys(("warmup", "patience", "ask_epoch"), counts),
    **dict.fromkeys(("every", "stop_patience"), at_least_one),
)
averaged = {"ema": shares, "schedule": schedules.filter(lambda schedule: schedule.kind != "lra")}
build = partial(
    st.builds,
    Recipe,
    input_size=st.one_of(pixels, st.tuples(pixels), st.tuples(pixels, pixels)),
    freeze=st.sampled_from(["none", "all"]) | st.integers().map(str),
    dropout=st.just(-1.0) | shares,
    learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
    seed=st.integers(0, 2**32 - 1),
    augmentation=augmentations,
    sampling=samplings,
    **dict.fromkeys(("model", "head", "pooling", "classifier_activation", "weights"), st.text()),
    **dict.fromkeys(("regularize", "positive"), st.text()),
    **dict.fromkeys(("auxiliary", "batch_norm", "tensorboard"), st.booleans()),
    **dict.fromkeys(("momentum", "label_smoothing"), shares),
    **dict.fromkeys(("l1", "l2", "weight_decay", "clip_norm", "focal_gamma"), amounts),
    **dict.fromkeys(("center_crop", "patience"), counts),
    **dict.fromkeys(("epochs", "batch_size"), at_least_one),
    **{key: st.sampled_from(words) for key, words in CHOICES.items()},
)
by_itself = st.sampled_from([word for word in CHOICES["keep"] if word != "best-smoothed"])
recipes = build(ema=st.just(0.0), schedule=schedules, keep=by_itself) | build(**averaged)


@given(recipes)
def test_a_recipe_comes_back_from_its_toml(recipe):
    values = tomllib.loads(recipe.to_toml())
    assert parse_recipe(values, "here") == recipe
    # Over any other recipe too: every key is written.
    assert parse_recipe(values, "here", others()) == recipe


@given(recipes)
def test_a_recipe_comes_back_from_its_flat_values(recipe):
    assert list(flat(recipe)) == list(KEYS)
    assert parse_recipe(flat(recipe), "here", others()) == recipe


ALONE = ("augmentation.pipeline", "sampling.views")
"""Keys that some of the others exclude."""


def others() -> Recipe:
    """Return a recipe in which no value is the default, but for the pipeline that stands instead of other keys."""
    return parse_recipe({**OTHERS, **{key: KEYS[key].default for key in ALONE}}, "here")


def test_others_name_every_key():
    assert OTHERS.keys() == KEYS.keys()
    assert all(OTHERS[key] != KEYS[key].default for key in KEYS)


def with_other(key: str) -> dict[str, object]:
    """Return the defaults with another value for one key, and with the engine that a pipeline asks for."""
    engine = {"augmentation.engine": "albumentations"} if key == "augmentation.pipeline" else {}
    return {**flat(Recipe()), **engine, key: OTHERS[key]}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_set_and_comes_back(tmp_path, key):
    recipe = parse_recipe(with_other(key), "here")
    table, _, name = key.rpartition(".")
    assert getattr(getattr(recipe, table) if table else recipe, name) == OTHERS[key]
    assert flat(recipe) == with_other(key)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "recipe.toml", {}) == recipe
    assert load_recipe(None, with_other(key)) == recipe


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ALONE])
def test_a_key_alone_changes_nothing_else(key):
    assert flat(parse_recipe({key: OTHERS[key]}, "here")) == with_other(key)
    back = {key: KEYS[key].default}
    assert flat(parse_recipe(back, "here", others())) == {**flat(others()), **back}


@pytest.mark.parametrize("part", [Recipe, *TABLES.values()], ids=lambda part: part.__name__)
def test_every_key_is_explained(part):
    """In the docstring of its dataclass, in the order of the attributes; several may share a line."""
    attributes = (part.__doc__ or "").partition("    Attributes:\n")[2]
    explained = [
        name for line in re.findall(r"^ {8}(\w+(?:, \w+)*): \S", attributes, re.M) for name in line.split(", ")
    ]
    assert explained == list(part.__dataclass_fields__)


@pytest.mark.parametrize(
    ("given", "kept"), [(48, 48), ([48], (48,)), ([48, 64], (48, 64)), ((48, 64), (48, 64)), (0, 0)]
)
def test_sizes(given, kept):
    assert parse_recipe({"input_size": given}, "here").input_size == kept


def test_a_whole_number_does_for_a_float():
    rate = parse_recipe({"learning_rate": 1}, "here").learning_rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("sampling.oversample", 2, "2"),
        ("sampling.oversample", 1.5, "1.5"),
        ("sampling.oversample", "2", "2"),
        ("freeze", -20, "-20"),
        ("freeze", "all", "all"),
    ],
)
def test_a_number_or_a_word(key, value, kept):
    assert flat(parse_recipe({key: value}, "here"))[key] == kept


def test_a_table_may_be_written_either_way():
    table = parse_recipe({"schedule": {"kind": "step", "every": 5}}, "here")
    assert table == parse_recipe({"schedule.kind": "step", "schedule.every": 5}, "here")
    assert table == parse_recipe({"schedule": Schedule(kind="step", every=5)}, "here")
    assert table == Recipe(schedule=Schedule(kind="step", every=5))


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_table_changes_nothing(table):
    assert parse_recipe({table: {}}, "here", others()) == others()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("epoch", "epochs"),
        ("learningrate", "learning_rate"),
        ("lerning_rate", "learning_rate"),
        ("batchsize", "batch_size"),
        ("Model", "model"),
        ("schedule.patients", "schedule.patience"),
        ("sampling.oversampling", "sampling.oversample"),
        ("augmentation.rotation", "augmentation.rotate"),
        ("warmup", "schedule.warmup"),
        ("rotation", "augmentation.rotate"),
        ("patiense", "patience"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, near):
    expected = f"A recipe has known keys only. Received: '{key}' in 'my.toml'. Did you mean {near}?"
    assert refused(parse, {key: 1}) == expected


def test_an_unknown_key_of_a_table_is_named_in_full():
    expected = "A recipe has known keys only. Received: 'schedule.kin' in 'my.toml'. Did you mean schedule.kind?"
    assert refused(parse, {"schedule": {"kin": "step"}}) == expected


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("value", [3, "step", [1], True])
def test_a_table_is_a_table(table, value):
    assert refused(parse, {table: value}) == (
        f"Recipe key {table} is a table: [{table}] in a file, {table}.<key>=<value> with --set. "
        f"Received: {value!r} in 'my.toml'."
    )


def test_an_unknown_key_like_no_other_gets_the_list():
    assert refused(parse, {"zzz\n": 1}) == (
        f"A recipe has known keys only. Received: 'zzz\\n' in 'my.toml'. Known keys: {', '.join(KEYS)}."
    )


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("epochs", 1.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", "5", "a whole number"),
        ("batch_size", [3], "a whole number"),
        ("seed", None, "a whole number"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", False, "a number"),
        ("dropout", [0.5], "a number"),
        ("model", 3, "text"),
        ("optimizer", ["sgd"], "text"),
        ("tensorboard", 1, "true or false"),
        ("tensorboard", "yes", "true or false"),
        ("input_size", 48.5, "a whole number, or two in square brackets"),
        ("input_size", "48", "a whole number, or two in square brackets"),
        ("input_size", [48.0, 64.0], "a whole number, or two in square brackets"),
        ("input_size", [True, True], "a whole number, or two in square brackets"),
        ("auxiliary", 1, "true or false"),
        ("head", 3, "text"),
        ("freeze", True, "text or a number"),
        ("freeze", [1], "text or a number"),
        ("l2", "much", "a number"),
        ("augmentation.rotate", "much", "a number"),
        ("augmentation.quarter_turns", 1, "true or false"),
        ("augmentation.flip", True, "text"),
        ("sampling.undersample", 1.5, "a whole number"),
        ("sampling.oversample", True, "text or a number"),
        ("schedule.warmup", 1.5, "a whole number"),
        ("schedule.dwell", "yes", "true or false"),
        ("schedule.kind", {"step": 1}, "text"),
        ("epochs", {"first": 1}, "a whole number"),
    ],
)
def test_wrong_types(key, value, wanted):
    assert refused(parse, {key: value}) == f"Recipe key {key} is {wanted}. Received: {value!r} in 'my.toml'."


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("input_size", -1, "one or two numbers of pixels"),
        ("input_size", (), "one or two numbers of pixels"),
        ("input_size", (48, 48, 3), "one or two numbers of pixels"),
        ("input_size", (48, -48), "one or two numbers of pixels"),
        ("dropout", 1.0, "0 <= dropout < 1"),
        ("dropout", -0.5, "0 <= dropout < 1"),
        ("dropout", float("nan"), "0 <= dropout < 1"),
        ("learning_rate", 0.0, "a number above 0"),
        ("learning_rate", -1.0, "a number above 0"),
        ("learning_rate", float("inf"), "a number above 0"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("momentum", 1.0, "0 <= momentum < 1"),
        ("momentum", -0.1, "0 <= momentum < 1"),
        ("epochs", 0, "1 or more"),
        ("epochs", -3, "1 or more"),
        ("batch_size", 0, "1 or more"),
        ("seed", -1, "a whole number from 0 to 2^32 - 1"),
        ("seed", 2**32, "a whole number from 0 to 2^32 - 1"),
        ("optimizer", "lion", "one of sgd, adam, adamw, rmsprop"),
        ("loss", "mse", "one of auto, categorical_crossentropy, binary_crossentropy, focal"),
        ("normalize", "none", "one of own, imagenet, raw"),
        ("precision", "float64", "one of auto, float32, bfloat16, float16"),
        ("device", "tpu", "one of auto, cpu, gpu"),
        ("monitor", "val_f1", "one of val_accuracy, val_loss, accuracy, loss"),
        ("freeze", "some", "none, all, or a number of layers"),
        ("freeze", "1.5", "none, all, or a number of layers"),
        ("center_crop", -1, "0 or more"),
        ("patience", -1, "0 or more"),
        *[(key, 1.0, f"0 <= {key} < 1") for key in ("ema", "label_smoothing")],
        *[(key, -0.1, f"0 <= {key} < 1") for key in ("ema", "label_smoothing")],
        *[
            (key, value, "a number, 0 or more")
            for key in ("l1", "l2", "weight_decay", "clip_norm", "focal_gamma", "schedule.minimum")
            for value in (-0.1, math.inf, math.nan)
        ],
        ("augmentation.engine", "opencv", "one of arrays, layers, albumentations"),
        ("augmentation.flip", "left", "one of none, horizontal, vertical, both"),
        ("augmentation.rotate", 181.0, "0 to 180 degrees"),
        ("augmentation.rotate", -1.0, "0 to 180 degrees"),
        ("augmentation.zoom", 0.6, "0 to 0.5"),
        ("augmentation.gamma", 9.1, "0 to 9"),
        ("augmentation.gamma", -0.1, "0 to 9"),
        ("augmentation.hue", 0.6, "0 to 0.5"),
        ("augmentation.pipeline", "mine.json", 'a file for engine = "albumentations" only'),
        *[
            (f"augmentation.{name}", value, f"0 <= {name} < 1")
            for name in ("shift", "crop", "brightness", "contrast", "saturation")
            for value in (1.0, -0.1, math.nan)
        ],
        ("sampling.undersample", -1, "0 or more"),
        ("sampling.oversample", "0.5", "none, balance, or how often the smallest class is taken, 1 to 1000"),
        ("sampling.oversample", "twice", "none, balance, or how often the smallest class is taken, 1 to 1000"),
        ("sampling.views", -1, "0 or more"),
        ("sampling.class_weights", "equal", "one of none, balanced"),
        ("schedule.kind", "linear", "one of constant, step, cosine, plateau, lra"),
        *[(f"schedule.{name}", -1, "0 or more") for name in ("warmup", "patience", "ask_epoch")],
        *[(f"schedule.{name}", 0, "1 or more") for name in ("every", "stop_patience")],
        *[("schedule.factor", value, "0 < factor < 1") for value in (0.0, 1.0, math.nan)],
        *[("schedule.threshold", value, "0 to 1") for value in (-0.1, 1.1, math.nan)],
    ],
)
def test_values_out_of_range(key, value, rule):
    assert refused(parse, {key: value}) == f"Recipe key {key}: {rule}. Received: {value!r}."


def test_a_number_too_large_for_a_float():
    rule = "Recipe key learning_rate: a number above 0. Received:"
    assert refused(parse, {"learning_rate": 10**400}) == f"{rule} inf."
    assert refused(parse, {"learning_rate": -(10**400)}) == f"{rule} -inf."


def test_a_missing_file(tmp_path):
    path = tmp_path / "no\nfile.toml"
    message = refused(read_recipe, path)
    expected = f"A recipe is a TOML file. Received: {str(path)!r} ([Errno 2] No such file or directory: {str(path)!r})."
    assert message == expected


@pytest.mark.parametrize(
    "content", [b"epochs = \n", b"epochs: 3", b"\xff\xfe", b"epochs = 1\nepochs = 2", b"x = 1" * 2]
)
def test_a_file_that_is_not_toml(tmp_path, content):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(
        CustomCNNError, match=r"^A recipe is a TOML file\. Received: '.*recipe.toml' \(.+\)\.$"
    ) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_a_recipe(tmp_path):
    with pytest.raises(CustomCNNError, match=r"^A recipe is a TOML file\. Received: .*Is a directory"):
        read_recipe(tmp_path)


def test_messages_stay_on_one_line_whatever_the_file_is_called(tmp_path):
    path = tmp_path / "my\nrecipe.toml"
    path.write_text("epoch = 3\n")
    message = refused(load_recipe, path, {})
    expected = f"A recipe has known keys only. Received: 'epoch' in {str(path)!r}. Did you mean epochs?"
    assert message == expected


# ---------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("input_size=48", "input_size", 48),
        ("input_size=[48, 64]", "input_size", [48, 64]),
        (" epochs = 3 ", "epochs", 3),
        ("learning_rate=2e-4", "learning_rate", 2e-4),
        ("learning_rate=1", "learning_rate", 1),
        ("tensorboard=true", "tensorboard", True),
        ("tensorboard=True", "tensorboard", "True"),
        ("optimizer=adam", "optimizer", "adam"),
        ('optimizer="adam"', "optimizer", "adam"),
        ("positive=all cells", "positive", "all cells"),
        ("positive=a=b", "positive", "a=b"),
        ("positive=", "positive", ""),
        ("positive=1", "positive", "1"),
        ("positive=true", "positive", "true"),
        ("positive=2024-01-01", "positive", "2024-01-01"),
        ('positive="1"', "positive", "1"),
        ("epochs=", "epochs", ""),
        ("epochs=1\nseed=2", "epochs", "1\nseed=2"),
        ("zzz=[1", "zzz", "[1"),
        ("augmentation.rotate=30", "augmentation.rotate", 30),
        ("dropout=.25", "dropout", 0.25),
        ("dropout=-.5", "dropout", -0.5),
        ("positive=.25", "positive", ".25"),
        ("weights=.5/first", "weights", ".5/first"),
        ("schedule.dwell=false", "schedule.dwell", False),
        ("schedule.kind=step", "schedule.kind", "step"),
        ("sampling.oversample=2", "sampling.oversample", "2"),
        ("sampling.oversample=1.5", "sampling.oversample", "1.5"),
        ("freeze=-20", "freeze", "-20"),
        ("weights=runs/first", "weights", "runs/first"),
    ],
)
def test_settings(setting, key, value):
    assert parse_settings([setting]) == {key: value}


def test_the_last_of_equal_settings_holds():
    assert parse_settings(["epochs=1", "seed=3", "epochs=2"]) == {"epochs": 2, "seed": 3}
    assert parse_settings([]) == {}


def test_a_setting_without_an_equals_sign():
    assert refused(parse_settings, ["epochs 3"]) == (
        "--set takes key=value. Received: 'epochs 3'. Example: --set input_size=48."
    )


def test_a_number_with_more_digits_than_python_reads():
    digits = "1" * 5000
    assert parse_settings([f"epochs={digits}"]) == {"epochs": digits}


# ---------------------------------------------------------------- what overrides what


def test_the_networks_own_habits_hold_where_nothing_is_set():
    recipe = load_recipe(None, {"model": "small"})
    assert get_spec("small").recipe
    assert flat(recipe) == {**flat(Recipe()), "model": "small", **get_spec("small").recipe}


def test_the_file_overrides_the_habits_and_the_settings_override_the_file(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('model = "small"\nepochs = 7\nlearning_rate = 0.5\n')
    assert load_recipe(None, {"model": "small"}).epochs == get_spec("small").recipe["epochs"]
    from_file = load_recipe(path, {})
    assert (from_file.epochs, from_file.learning_rate, from_file.optimizer) == (7, 0.5, "adam")
    both = load_recipe(path, {"epochs": 8, "optimizer": "sgd"})
    assert (both.epochs, both.learning_rate, both.optimizer) == (8, 0.5, "sgd")


def test_the_keys_of_a_table_are_overridden_one_by_one(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[schedule]\nkind = "plateau"\npatience = 0\n\n[sampling]\noversample = 2\n')
    recipe = load_recipe(path, {"schedule.patience": 3}, Recipe(schedule=Schedule(warmup=2, patience=7)))
    assert recipe.schedule == Schedule(kind="plateau", warmup=2, patience=3)
    assert recipe.sampling == Sampling(oversample="2")
    assert recipe == replace(Recipe(), schedule=recipe.schedule, sampling=recipe.sampling)


def test_what_fits_only_with_the_settings_is_taken_together(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[augmentation]\npipeline = "mine.json"\n')
    recipe = load_recipe(path, {"augmentation.engine": "albumentations"})
    assert recipe.augmentation == Augmentation("albumentations", "mine.json")
    with pytest.raises(CustomCNNError, match=r"^Recipe key augmentation\.pipeline: a file for engine"):
        load_recipe(path, {})


def test_the_model_of_the_settings_brings_its_habits(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('model = "small"\nepochs = 7\n')
    recipe = load_recipe(path, {"model": "alexnet"})
    assert recipe == Recipe(model="alexnet", epochs=7)


def test_a_runs_own_recipe_is_the_ground_where_one_is_given(tmp_path):
    own = Recipe(model="small", epochs=2, learning_rate=0.5)
    path = tmp_path / "recipe.toml"
    path.write_text("batch_size = 4\n")
    assert load_recipe(path, {"epochs": 9}, own) == Recipe(model="small", epochs=9, learning_rate=0.5, batch_size=4)
    assert load_recipe(None, {}, own) == own


def test_an_unknown_network_is_refused():
    with pytest.raises(CustomCNNError, match=r"The model must be one of .*Received: 'smal'\. Did you mean small\?"):
        load_recipe(None, {"model": "smal"})


def test_a_wrong_type_says_where_it_stands(tmp_path):
    path = Path(tmp_path / "recipe.toml")
    path.write_text("model = 3\n")
    assert refused(load_recipe, path, {}) == f"Recipe key model is text. Received: 3 in {str(path)!r}."
    assert refused(load_recipe, None, {"epochs": "many"}) == (
        "Recipe key epochs is a whole number. Received: 'many' in the command line."
    )


def test_averages_and_weights_put_back_exclude_each_other():
    """LRA would put averages in the place of the weights that are trained."""
    rule = "0 with the schedule lra, which puts weights back; or set schedule.dwell=false"
    assert refused(parse, {"ema": 0.9, "schedule.kind": "lra"}) == f"Recipe key ema: {rule}. Received: 0.9."
    parse_recipe({"ema": 0.9, "schedule.kind": "lra", "schedule.dwell": False}, "here")
