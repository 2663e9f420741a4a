"""Recipes: the report's defaults, TOML there and back, what is refused and how, --set, and what overrides what."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.errors import CustomCNNError
from customcnn.models import get_spec
from customcnn.recipe import CHOICES, KEYS, Recipe, load_recipe, parse_recipe, parse_settings, read_recipe

OTHERS = {
    "model": "small",
    "input_size": 48,
    "dropout": 0.25,
    "optimizer": "adam",
    "learning_rate": 0.5,
    "momentum": 0.9,
    "loss": "binary_crossentropy",
    "epochs": 3,
    "batch_size": 7,
    "seed": 11,
    "monitor": "val_loss",
    "positive": "all",
    "precision": "bfloat16",
    "device": "cpu",
    "tensorboard": True,
}
"""A value for every key that is not its default."""


def refused(values: dict[str, object]) -> str:
    """Return the message with which a recipe of these values is refused."""
    with pytest.raises(CustomCNNError) as caught:
        parse_recipe(values, "'my.toml'")
    return str(caught.value)


# ---------------------------------------------------------------- what a recipe is


def test_the_defaults_are_the_reports():
    assert Recipe() == Recipe(
        model="proposed",
        input_size=0,
        dropout=-1.0,
        optimizer="sgd",
        learning_rate=2e-4,
        momentum=0.0,
        loss="auto",
        epochs=100,
        batch_size=30,
        seed=120,
        monitor="val_accuracy",
        positive="",
        precision="auto",
        device="auto",
        tensorboard=False,
    )


def test_a_recipe_written_out():
    assert Recipe(input_size=(48, 64), positive='a "b"', tensorboard=True).to_toml() == (
        'model = "proposed"\ninput_size = [48, 64]\ndropout = -1.0\noptimizer = "sgd"\nlearning_rate = 0.0002\n'
        'momentum = 0.0\nloss = "auto"\nepochs = 100\nbatch_size = 30\nseed = 120\nmonitor = "val_accuracy"\n'
        'positive = "a \\"b\\""\nprecision = "auto"\ndevice = "auto"\ntensorboard = true\n'
    )


pixels = st.integers(0, 10**6)
recipes = st.builds(
    Recipe,
    model=st.text(),
    input_size=st.one_of(pixels, st.tuples(pixels), st.tuples(pixels, pixels)),
    dropout=st.one_of(st.just(-1.0), st.floats(0, 1, exclude_max=True)),
    learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
    momentum=st.floats(0, 1, exclude_max=True),
    epochs=st.integers(1),
    batch_size=st.integers(1),
    seed=st.integers(0, 2**32 - 1),
    positive=st.text(),
    tensorboard=st.booleans(),
    **{key: st.sampled_from(words) for key, words in CHOICES.items()},
)


@given(recipes)
def test_a_recipe_comes_back_from_its_toml(recipe):
    assert parse_recipe(tomllib.loads(recipe.to_toml()), "here") == recipe


def test_others_name_every_key():
    assert OTHERS.keys() == KEYS.keys()
    assert all(OTHERS[key] != KEYS[key].default for key in KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_set_and_comes_back(tmp_path, key):
    recipe = Recipe(**{key: OTHERS[key]})
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "recipe.toml", {}) == recipe
    assert load_recipe(None, {**vars(Recipe()), key: OTHERS[key]}) == recipe


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_explained(key):
    assert f"\n        {key}: " in (Recipe.__doc__ or "")


@pytest.mark.parametrize(
    ("given", "kept"), [(48, 48), ([48], (48,)), ([48, 64], (48, 64)), ((48, 64), (48, 64)), (0, 0)]
)
def test_sizes(given, kept):
    assert parse_recipe({"input_size": given}, "here").input_size == kept


def test_a_whole_number_does_for_a_float():
    rate = parse_recipe({"learning_rate": 1}, "here").learning_rate
    assert (rate, type(rate)) == (1.0, float)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("epoch", "epochs"),
        ("learningrate", "learning_rate"),
        ("lerning_rate", "learning_rate"),
        ("batchsize", "batch_size"),
        ("Model", "model"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, near):
    expected = f"A recipe has known keys only. Received: '{key}' in 'my.toml'. Did you mean {near}?"
    assert refused({key: 1}) == expected


def test_an_unknown_key_like_no_other_gets_the_list():
    assert refused({"zzz\n": 1}) == (
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
    ],
)
def test_wrong_types(key, value, wanted):
    assert refused({key: value}) == f"Recipe key {key} is {wanted}. Received: {value!r} in 'my.toml'."


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
        ("optimizer", "rmsprop", "one of sgd, adam"),
        ("loss", "mse", "one of auto, categorical_crossentropy, binary_crossentropy"),
        ("precision", "float64", "one of auto, float32, bfloat16, float16"),
        ("device", "tpu", "one of auto, cpu, gpu"),
        ("monitor", "val_f1", "one of val_accuracy, val_loss, accuracy, loss"),
    ],
)
def test_values_out_of_range(key, value, rule):
    assert refused({key: value}) == f"Recipe key {key}: {rule}. Received: {value!r}."


def test_a_number_too_large_for_a_float():
    assert refused({"learning_rate": 10**400}) == "Recipe key learning_rate: a number above 0. Received: inf."
    assert refused({"learning_rate": -(10**400)}) == "Recipe key learning_rate: a number above 0. Received: -inf."


def test_a_missing_file(tmp_path):
    path = tmp_path / "no\nfile.toml"
    with pytest.raises(CustomCNNError) as caught:
        read_recipe(path)
    expected = f"A recipe is a TOML file. Received: {str(path)!r} ([Errno 2] No such file or directory: {str(path)!r})."
    assert str(caught.value) == expected


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
    with pytest.raises(CustomCNNError) as caught:
        load_recipe(path, {})
    expected = f"A recipe has known keys only. Received: 'epoch' in {str(path)!r}. Did you mean epochs?"
    assert str(caught.value) == expected


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
    ],
)
def test_settings(setting, key, value):
    assert parse_settings([setting]) == {key: value}


def test_the_last_of_equal_settings_holds():
    assert parse_settings(["epochs=1", "seed=3", "epochs=2"]) == {"epochs": 2, "seed": 3}
    assert parse_settings([]) == {}


def test_a_setting_without_an_equals_sign():
    with pytest.raises(CustomCNNError) as caught:
        parse_settings(["epochs 3"])
    assert str(caught.value) == "--set takes key=value. Received: 'epochs 3'. Example: --set input_size=48."


def test_a_number_with_more_digits_than_python_reads():
    digits = "1" * 5000
    assert parse_settings([f"epochs={digits}"]) == {"epochs": digits}


# ---------------------------------------------------------------- what overrides what


def test_the_networks_own_habits_hold_where_nothing_is_set():
    recipe = load_recipe(None, {"model": "small"})
    assert get_spec("small").recipe
    assert vars(recipe) == {**vars(Recipe()), "model": "small", **get_spec("small").recipe}


def test_the_file_overrides_the_habits_and_the_settings_override_the_file(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('model = "small"\nepochs = 7\nlearning_rate = 0.5\n')
    assert load_recipe(None, {"model": "small"}).epochs == get_spec("small").recipe["epochs"]
    from_file = load_recipe(path, {})
    assert (from_file.epochs, from_file.learning_rate, from_file.optimizer) == (7, 0.5, "adam")
    both = load_recipe(path, {"epochs": 8, "optimizer": "sgd"})
    assert (both.epochs, both.learning_rate, both.optimizer) == (8, 0.5, "sgd")


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
    with pytest.raises(CustomCNNError) as caught:
        load_recipe(path, {})
    assert str(caught.value) == f"Recipe key model is text. Received: 3 in {str(path)!r}."
    with pytest.raises(CustomCNNError) as caught:
        load_recipe(None, {"epochs": "many"})
    assert str(caught.value) == "Recipe key epochs is a whole number. Received: 'many' in the command line."
