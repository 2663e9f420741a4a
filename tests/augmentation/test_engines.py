"""On-line augmentation: what is drawn, what each change does to the pixels by hand, and the same of every engine."""

import colorsys
import json
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customcnn.augmentation import make_transform
from customcnn.augmentation.draws import Amounts, draw
from customcnn.augmentation.numpy_engine import change
from customcnn.augmentation.settings import ENGINES, FLIPS, Augmentation, Transform
from tests.support.errors import refused

CHANGES: dict[str, Any] = {
    "flip": "both",
    "quarter_turns": True,
    "rotate": 40.0,
    "shift": 0.2,
    "zoom": 0.3,
    "crop": 0.5,
    "brightness": 0.4,
    "contrast": 0.4,
    "gamma": 1.0,
    "saturation": 0.5,
    "hue": 0.2,
}
"""A value for every key that changes something."""

PLACE = ("flip", "quarter_turns", "rotate", "shift", "zoom", "crop")
MANY = 4000
RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)

every_key = pytest.mark.parametrize("key", CHANGES)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Return each engine that is installed."""
    if request.param == "albumentations":
        pytest.importorskip("albumentations")
    return request.param


def new_transform(**keys: Any) -> Transform:
    """Return a new transform of these keys."""
    return make_transform(Augmentation(**keys))


def transformed(images: np.ndarray, key: tuple[int, ...] = (120, 1, 0), **keys: Any) -> np.ndarray:
    """Return what a new transform of these keys makes of the images."""
    return new_transform(**keys)(images, key)


def grey(values: list[list[int]]) -> np.ndarray:
    """Return an image whose three channels are alike."""
    return np.repeat(np.array(values, np.uint8)[:, :, None], 3, axis=2)


def row(*values: int) -> np.ndarray:
    """Return a square grey image in which every row holds these values."""
    return grey([list(values)] * len(values))


def pixel(*rgb: int) -> np.ndarray:
    return np.array([[rgb]], np.uint8)


def assert_reaches(found: np.ndarray, low: float, high: float, *, slack: float = 0.02, error: float = 1e-9) -> None:
    """Hold that values come near both ends of a range, and not beyond them by more than the error of measurement."""
    near = slack * (high - low) + error
    assert low - error <= found.min() <= low + near, (found.min(), low)
    assert high - near <= found.max() <= high + error, (found.max(), high)


# ---------------------------------------------------------------- the keys


def test_changes_name_every_key() -> None:
    assert [f.name for f in fields(Augmentation)] == ["engine", "pipeline", *CHANGES]


@every_key
def test_every_key_makes_it_active(key: str) -> None:
    assert not Augmentation().active
    assert not Augmentation(engine="layers").active
    assert Augmentation(**{key: CHANGES[key]}).active
    assert Augmentation(engine="albumentations", pipeline="a.json").active


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"engine": "numpy"}, "engine: one of arrays, layers, albumentations. Received: 'numpy'."),
        ({"flip": "diagonal"}, "flip: one of none, horizontal, vertical, both. Received: 'diagonal'."),
        ({"rotate": 181.0}, "rotate: 0 to 180 degrees. Received: 181.0."),
        ({"shift": 1.0}, "shift: 0 <= shift < 1. Received: 1.0."),
        ({"zoom": 0.6}, "zoom: 0 to 0.5. Received: 0.6."),
        ({"crop": -0.1}, "crop: 0 <= crop < 1. Received: -0.1."),
        ({"brightness": float("nan")}, "brightness: 0 <= brightness < 1. Received: nan."),
        ({"gamma": 9.5}, "gamma: 0 to 9. Received: 9.5."),
        ({"hue": 0.6}, "hue: 0 to 0.5. Received: 0.6."),
        ({"pipeline": "a.json"}, "pipeline: a file for engine = \"albumentations\" only. Received: 'a.json'."),
        (
            {"engine": "albumentations", "pipeline": "a.json", "flip": "both", "hue": 0.1},
            "pipeline: stands instead of the other keys, here flip, hue. Received: 'a.json'.",
        ),
    ],
)
def test_values_out_of_range_and_keys_that_exclude_each_other(keys: dict[str, Any], message: str) -> None:
    assert refused(new_transform, **keys) == f"Recipe key augmentation.{message}"


def test_nothing_asked_for_gives_the_images_as_they_are(engine: str) -> None:
    assert transformed(NOISE, engine=engine) is NOISE


# ---------------------------------------------------------------- what is drawn


def drawn(count: int = MANY, key: tuple[int, ...] = (120, 3, 5), **keys: Any) -> dict[str, np.ndarray]:
    """Return every amount of so many images as an array."""
    rows = [astuple(amounts) for amounts in draw(Augmentation(**keys), key, count)]
    return {f.name: np.array(column) for f, column in zip(fields(Amounts), zip(*rows, strict=True), strict=True)}


def test_no_keys_no_changes() -> None:
    assert {replace(amounts, across=0.5, along=0.5) for amounts in draw(Augmentation(), (1, 2, 3), 50)} == {Amounts()}


@pytest.mark.parametrize(
    ("amount", "keys", "low", "high"),
    [
        ("angle", {"rotate": 40.0}, -40, 40),
        ("zoom", {"zoom": 0.3}, 0.7, 1.3),
        ("right", {"shift": 0.2}, -0.2, 0.2),
        ("down", {"shift": 0.2}, -0.2, 0.2),
        ("window", {"crop": 0.5}, 0.5, 1),
        ("across", {"crop": 0.5}, 0, 1),
        ("along", {"crop": 0.5}, 0, 1),
        ("brightness", {"brightness": 0.4}, 0.6, 1.4),
        ("contrast", {"contrast": 0.4}, 0.6, 1.4),
        ("gamma", {"gamma": 1.0}, 0.5, 2),
        ("saturation", {"saturation": 0.5}, 0.5, 1.5),
        ("hue", {"hue": 0.2}, -0.2, 0.2),
    ],
)
def test_an_amount_reaches_both_ends_of_its_range_and_is_even(
    amount: str, keys: dict[str, float], low: float, high: float
) -> None:
    values = drawn(**keys)[amount]
    assert_reaches(values, low, high, slack=0.005)
    evenly = np.log(values) if amount == "gamma" else values
    below = np.mean(evenly < evenly.min() + np.ptp(evenly) / 4)
    assert below == pytest.approx(0.25, abs=0.03)  # 4 standard deviations of a share of 4000


@pytest.mark.parametrize("flip", FLIPS)
def test_flips_fire_half_the_time_and_independently(flip: str) -> None:
    found = drawn(flip=flip)
    mirrored, upside_down = found["mirrored"], found["upside_down"]
    assert mirrored.mean() == pytest.approx(0.5 if flip in ("horizontal", "both") else 0, abs=0.03)
    assert upside_down.mean() == pytest.approx(0.5 if flip in ("vertical", "both") else 0, abs=0.03)
    if flip == "both":
        assert (mirrored & upside_down).mean() == pytest.approx(0.25, abs=0.03)


def test_quarter_turns_are_equally_likely() -> None:
    counts = np.bincount(drawn(quarter_turns=True)["quarter_turns"], minlength=4)
    assert len(counts) == 4
    np.testing.assert_allclose(counts / MANY, 0.25, atol=0.03)


def test_amounts_have_nothing_to_do_with_each_other() -> None:
    found = np.array(list(drawn(**CHANGES).values()), float)
    correlations = np.corrcoef(found) - np.eye(len(found))
    assert np.abs(correlations).max() < 0.07


@every_key
def test_an_amount_depends_neither_on_other_keys_nor_on_the_size_of_the_batch(key: str) -> None:
    alone, among = drawn(50, **{key: CHANGES[key]}), drawn(9, **CHANGES)
    same = {name for name in alone if name not in ("across", "along") and (alone[name][:9] == among[name]).all()}
    expected = {
        "flip": {"mirrored", "upside_down"},
        "rotate": {"angle"},
        "shift": {"right", "down"},
        "crop": {"window"},
    }
    assert same == expected.get(key, {key})


def test_amounts_are_not_made_of_the_numbers_that_shuffle_an_epoch() -> None:
    numbers = np.random.default_rng((120, 3)).random(15)
    assert np.array_equal(numbers, np.random.default_rng((120, 3, 0)).random(15)), "why a purpose ends the seed"
    assert drawn(1, (120, 3, 0), crop=0.5)["across"] != numbers[8]


# ---------------------------------------------------------------- what a change does, by hand


@pytest.mark.parametrize(
    ("amounts", "result"),
    [
        (Amounts(), [[1, 2], [3, 4]]),
        (Amounts(mirrored=True), [[2, 1], [4, 3]]),
        (Amounts(upside_down=True), [[3, 4], [1, 2]]),
        (Amounts(quarter_turns=1), [[2, 4], [1, 3]]),
        (Amounts(quarter_turns=2), [[4, 3], [2, 1]]),
        (Amounts(quarter_turns=3), [[3, 1], [4, 2]]),
        (Amounts(mirrored=True, quarter_turns=1), [[1, 3], [2, 4]]),
    ],
)
def test_flips_and_turns_by_hand(amounts: Amounts, result: list[list[int]]) -> None:
    np.testing.assert_array_equal(change(grey([[1, 2], [3, 4]]), amounts), grey(result))


@pytest.mark.parametrize(("turns", "result"), [(0, [1, 2, 3]), (1, [1, 2, 3]), (2, [3, 2, 1]), (3, [3, 2, 1])])
def test_what_is_not_square_turns_by_half_circles(turns: int, result: list[int]) -> None:
    np.testing.assert_array_equal(change(grey([[1, 2, 3]]), Amounts(quarter_turns=turns)), grey([result]))


@pytest.mark.parametrize(
    ("amounts", "result"),
    [
        (Amounts(right=0.25), [0, 0, 40, 80]),  # what comes in at the left is reflected
        (Amounts(right=-0.25), [40, 80, 120, 120]),
        (Amounts(right=0.5), [40, 0, 0, 40]),
        (Amounts(right=0.125), [0, 20, 60, 100]),
        (Amounts(down=0.25), [0, 40, 80, 120]),
        (Amounts(zoom=2.0), [30, 50, 70, 90]),
        (Amounts(zoom=0.5), [20, 20, 100, 100]),  # the places -1, 1, 3 and 5, half between two pixels each
        (Amounts(window=0.5), [30, 50, 70, 90]),
        (Amounts(window=0.5, across=0.0), [0, 10, 30, 50]),
        (Amounts(window=0.5, across=1.0), [70, 90, 110, 120]),
        (Amounts(window=0.5, along=1.0), [30, 50, 70, 90]),
        (Amounts(zoom=2.0, right=0.25), [10, 30, 50, 70]),  # the shift is not enlarged
        (Amounts(window=0.5, right=0.25), [0, 10, 30, 50]),  # but the window is
        (Amounts(angle=180.0), [120, 80, 40, 0]),
    ],
)
def test_moves_by_hand(amounts: Amounts, result: list[int]) -> None:
    # Pillow cuts the fraction off, so 39.99999 counts as 39.
    np.testing.assert_allclose(change(row(0, 40, 80, 120), amounts).astype(int), row(*result), atol=1)


def test_a_rotation_by_90_degrees_is_a_quarter_turn() -> None:
    for angle, turns in ((90.0, 1), (-90.0, 3)):
        turned = change(NOISE[0], Amounts(angle=angle)).astype(int)
        np.testing.assert_allclose(turned, np.rot90(NOISE[0], turns), atol=1)


sizes = st.integers(1, 14)
moves = st.builds(
    Amounts,
    angle=st.floats(-180, 180),
    zoom=st.floats(0.5, 1.5),
    right=st.floats(-1, 1),
    down=st.floats(-1, 1),
    window=st.floats(0.05, 1),
    across=st.floats(0, 1),
    along=st.floats(0, 1),
)


@given(sizes, sizes, moves)
def test_moves_are_those_of_scipy(height: int, width: int, amounts: Amounts) -> None:
    from scipy.ndimage import affine_transform

    image = np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    # Forwards, step by step; numpy_engine.py has the map back as one formula. Places are (y, x, 1), centres at n + .5.
    angle, cut = np.radians(amounts.angle), 1 - amounts.window
    to_centre = np.array([[1, 0, -height / 2], [0, 1, -width / 2], [0, 0, 1]])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    enlarge = np.diag([amounts.zoom, amounts.zoom, 1])
    shift = np.array([[1, 0, amounts.down * height], [0, 1, amounts.right * width], [0, 0, 1]])
    corner = np.array([[1, 0, -amounts.along * cut * height], [0, 1, -amounts.across * cut * width], [0, 0, 1]])
    window = np.diag([1 / amounts.window, 1 / amounts.window, 1]) @ corner
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # scipy's pixels have their centre at n
    forwards = np.linalg.inv(half) @ window @ np.linalg.inv(to_centre) @ shift @ enlarge @ turn @ to_centre @ half
    back = np.linalg.inv(forwards)
    expected = np.stack(
        [affine_transform(image[..., c].astype(float), back, order=1, mode="reflect") for c in range(3)], axis=-1
    )
    np.testing.assert_allclose(change(image, amounts).astype(float) + 0.5, expected, atol=0.51)


@pytest.mark.parametrize(
    ("amounts", "before", "after"),
    [
        (Amounts(brightness=1.5), [10, 100, 200], [15, 150, 255]),
        (Amounts(brightness=0.5), [10, 100, 201], [5, 50, 100]),  # 100.5: half to even
        (Amounts(contrast=0.5), [0, 50, 250], [50, 75, 175]),  # the mean is 100
        (Amounts(contrast=2.0), [40, 50, 60], [30, 50, 70]),
        (Amounts(contrast=2.0), [0, 100, 200], [0, 100, 255]),
        (Amounts(contrast=1.5, brightness=2.0), [0, 50, 250], [0, 91, 255]),  # of 0, 100 and 255: 118.3
        (Amounts(gamma=2.0), [0, 51, 255], [0, 10, 255]),  # 255 / 25 = 10.2
        (Amounts(gamma=0.5), [0, 51, 255], [0, 114, 255]),  # 255 / sqrt(5) = 114.04
        (Amounts(gamma=2.0, brightness=0.5), [0, 102, 255], [0, 10, 64]),  # 127.5 ^ 2 / 255 = 63.75
    ],
)
def test_tones_by_hand(amounts: Amounts, before: list[int], after: list[int]) -> None:
    np.testing.assert_array_equal(change(grey([before]), amounts), grey([after]))


def test_the_mean_of_contrast_is_that_of_all_channels() -> None:
    np.testing.assert_array_equal(change(pixel(0, 60, 240), Amounts(contrast=0.5)), pixel(50, 80, 170))  # mean 100


@pytest.mark.parametrize(
    ("amounts", "before", "after"),
    [
        (Amounts(saturation=0.0), (100, 200, 50), (153, 153, 153)),  # 29.9 + 117.4 + 5.7
        (Amounts(saturation=0.5), (100, 200, 50), (126, 176, 102)),  # 126.5, 176.5 and 101.5 by half to even
        (Amounts(saturation=2.0), (100, 110, 90), (94, 114, 74)),  # grey 104.73
        (Amounts(hue=1 / 3), (255, 0, 0), (0, 255, 0)),
        (Amounts(hue=1 / 3), (0, 255, 0), (0, 0, 255)),
        (Amounts(hue=-1 / 3), (255, 0, 0), (0, 0, 255)),
        (Amounts(hue=0.5), (200, 100, 100), (100, 200, 200)),
        (Amounts(hue=1 / 12), (200, 100, 100), (200, 150, 100)),
        (Amounts(hue=0.3), (77, 77, 77), (77, 77, 77)),
        (Amounts(saturation=0.0, hue=0.3), (255, 0, 0), (76, 76, 76)),
    ],
)
def test_colours_by_hand(amounts: Amounts, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    np.testing.assert_allclose(change(pixel(*before), amounts).astype(int), pixel(*after), atol=1)


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20), st.floats(-0.5, 0.5))
def test_hues_are_those_of_colorsys(colours: list[tuple[int, int, int]], hue: float) -> None:
    changed = change(np.array([colours], np.uint8), Amounts(hue=hue))[0]
    for rgb, found in zip(colours, changed, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in rgb))
        np.testing.assert_allclose(found, 255 * np.array(colorsys.hsv_to_rgb((h + hue) % 1, s, v)), atol=0.51)


def test_steps_come_in_order() -> None:
    """Place before tone before colour: the same as one after the other."""
    steps = [
        Amounts(mirrored=True, quarter_turns=1),
        Amounts(angle=20.0, zoom=1.2, right=0.1, window=0.8),
        Amounts(brightness=1.4, contrast=0.7, gamma=1.5),
        Amounts(saturation=1.5, hue=0.1),
    ]
    together: dict[str, Any] = {}
    image = NOISE[0]
    for step in steps:
        image = change(image, step)
        together |= {f.name: getattr(step, f.name) for f in fields(step) if getattr(step, f.name) != f.default}
    np.testing.assert_array_equal(change(NOISE[0], Amounts(**together)), image)


# ---------------------------------------------------------------- every engine, every key


@every_key
def test_the_key_shows_and_the_rest_holds(engine: str, key: str) -> None:
    """Every image has its own change, of the same shape and range, from the key alone; the input stays as it is."""
    transform = make_transform(Augmentation(engine=engine, **{key: CHANGES[key]}))
    same = np.repeat(NOISE[:1], 12, axis=0)
    before = same.copy()
    changed = transform(same, (120, 1, 7))
    np.testing.assert_array_equal(same, before)
    assert type(changed) is np.ndarray
    assert changed.shape == same.shape
    assert changed.dtype == (np.float32 if engine == "layers" else np.uint8)
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert np.mean([np.any(image != same[0]) for image in changed]) > 0.3
    assert len({image.tobytes() for image in changed}) >= (3 if key in ("flip", "quarter_turns") else 6)
    assert np.any(transform(same, (120, 1, 8)) != changed)
    assert np.any(transform(same, (121, 1, 7)) != changed)
    np.testing.assert_array_equal(transform(same, (120, 1, 7)), changed)


@pytest.mark.parametrize("shape", [(3, 16, 16, 3), (1, 9, 14, 3), (2, 49, 1, 3), (0, 8, 8, 3)])
def test_everything_at_once_keeps_the_shape(engine: str, shape: tuple[int, ...]) -> None:
    changed = transformed(RNG.integers(0, 256, shape, dtype=np.uint8), engine=engine, **CHANGES)
    assert changed.shape == shape


@pytest.mark.parametrize("engine", ["arrays", "albumentations"])
@settings(max_examples=30)
@given(count=st.integers(0, 4), height=sizes, width=sizes)
def test_any_shape(count: int, height: int, width: int, engine: str) -> None:
    if engine == "albumentations":
        pytest.importorskip("albumentations")
    images = np.random.default_rng((height, width)).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    changed = transformed(images, engine=engine, **CHANGES)
    assert (changed.shape, changed.dtype) == (images.shape, np.uint8)


def test_neither_the_order_of_calls_nor_the_thread_matters(engine: str) -> None:
    augmentation = Augmentation(engine=engine, **CHANGES)
    keys = [(120, epoch, batch) for epoch in range(2) for batch in range(4)]
    first = make_transform(augmentation)
    expected = [first(NOISE, key) for key in keys]
    np.testing.assert_array_equal([first(NOISE, key) for key in reversed(keys)], expected[::-1])
    np.testing.assert_array_equal(make_transform(augmentation)(NOISE, keys[5]), expected[5])
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda key: first(NOISE, key), keys))
    np.testing.assert_array_equal(together, expected)


def test_the_generators_of_others_are_left_alone(engine: str) -> None:
    random.seed(3)
    np.random.seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist()
    transformed(NOISE, engine=engine, **CHANGES)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


@pytest.mark.parametrize("key", ["flip", "quarter_turns"])
def test_flips_and_turns_lose_no_pixel_and_are_equally_likely(engine: str, key: str) -> None:
    corner = np.zeros((400, 5, 5, 3), np.uint8)
    corner[:, 0, 0] = 201
    changed = transformed(corner, engine=engine, **{key: CHANGES[key]})[..., 0]
    assert np.array_equal(np.unique(changed), [0, 201])
    assert (np.count_nonzero(changed, axis=(1, 2)) == 1).all()
    shares = [np.mean(changed[:, y, x] == 201) for y in (0, -1) for x in (0, -1)]
    np.testing.assert_allclose(shares, 0.25, atol=0.09)  # 4 standard deviations of a share of 400


@pytest.mark.parametrize(("flip", "views"), [("horizontal", [(0, 0), (0, -1)]), ("vertical", [(0, 0), (-1, 0)])])
def test_one_flip_leaves_the_other_axis_alone(engine: str, flip: str, views: list[tuple[int, int]]) -> None:
    corner = np.zeros((40, 4, 6, 3), np.uint8)
    corner[:, 0, 0] = 255
    changed = transformed(corner, engine=engine, flip=flip)[..., 0]
    assert all(changed[:, y, x].any() for y, x in views)
    assert sum(changed[:, y, x].sum() for y, x in views) == changed.sum()


@pytest.mark.parametrize("shape", [(8, 8), (6, 10)])
def test_no_place_stays_empty(engine: str, shape: tuple[int, int]) -> None:
    plain = np.full((30, *shape, 3), 200, np.uint8)
    place = {key: CHANGES[key] for key in PLACE} | {"rotate": 180.0, "shift": 0.9, "zoom": 0.5}
    np.testing.assert_allclose(transformed(plain, engine=engine, **place), 200, atol=1)


def maps(engine: str, **keys: float) -> tuple[np.ndarray, np.ndarray]:
    """Measure by images of two ramps how an engine maps places.

    Returns:
        (N, 2, 2) matrices and (N, 2) centres, as shares of the edge from the middle: the place (x, y) of the result, in
        pixels from its middle, is that of the image after the matrix, seen from the centre.
    """
    size, step = 33, 7
    y, x = np.indices((size, size))
    ramps = np.stack([x, y, x * 0], axis=-1) * step
    changed = transformed(np.repeat(ramps[None].astype(np.uint8), 300, axis=0), engine=engine, **keys)
    middle = changed[:, size // 2 - 3 : size // 2 + 4, size // 2 - 3 : size // 2 + 4, :2].astype(float) / step
    places = np.stack([*np.indices((7, 7))[::-1] - 3, np.ones((7, 7))], axis=-1).reshape(-1, 3)
    solved = np.linalg.lstsq(places, middle.transpose(1, 2, 0, 3).reshape(49, -1), rcond=None)[0]
    solved = solved.reshape(3, 300, 2)
    return solved[:2].transpose(1, 2, 0), (solved[2] - size // 2) / size


def test_the_range_of_rotations(engine: str) -> None:
    matrices, centres = maps(engine, rotate=40.0)
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert_reaches(angles, -40, 40, slack=0.04, error=1)
    assert np.abs(centres).max() < 0.01
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=0.06)


def test_the_range_of_zooms(engine: str) -> None:
    matrices, centres = maps(engine, zoom=0.3)
    assert_reaches(1 / matrices[:, 0, 0], 0.7, 1.3, slack=0.04, error=0.02)
    np.testing.assert_allclose(matrices[:, 0, 0], matrices[:, 1, 1], atol=0.02)
    assert np.abs(centres).max() < 0.02


def test_the_range_of_shifts(engine: str) -> None:
    matrices, centres = maps(engine, shift=0.2)
    for axis in (0, 1):
        assert_reaches(centres[:, axis], -0.2, 0.2, slack=0.04, error=0.02)
    assert abs(np.corrcoef(centres.T)[0, 1]) < 0.25
    np.testing.assert_allclose(matrices, np.broadcast_to(np.eye(2), matrices.shape), atol=0.02)


def test_the_range_of_crops(engine: str) -> None:
    matrices, centres = maps(engine, crop=0.5)
    shares = matrices[:, 0, 0]
    assert_reaches(shares, 0.5, 1, slack=0.05, error=0.04)
    np.testing.assert_allclose(matrices[:, 1, 1], shares, atol=0.05)
    room = (1 - shares) / 2  # how far a window's centre can be from the middle
    assert (np.abs(centres) <= room[:, None] + 0.03).all()
    far = shares < 0.7
    for axis in (0, 1):
        assert_reaches(centres[far, axis] / room[far], -1, 1, slack=0.1, error=0.15)


def measured(engine: str, colours: list[tuple[int, ...]], **keys: float) -> np.ndarray:
    """Return what an engine makes of an image of two halves: float (300, 2, 3), the colours of both."""
    image = np.array([colours], np.uint8).repeat(4, axis=1).repeat(8, axis=0)
    changed = transformed(np.repeat(image[None], 300, axis=0), engine=engine, **keys)
    return changed[:, 0, [0, -1]].astype(float)


def test_the_range_of_brightness(engine: str) -> None:
    low, high = (0, 202) if engine == "layers" else (60, 140)  # Keras adds -102 to 102
    assert_reaches(measured(engine, [(100, 100, 100), (100, 100, 100)], brightness=0.4), low, high, error=1)


def test_the_range_of_contrast(engine: str) -> None:
    found = measured(engine, [(60, 60, 60), (140, 140, 140)], contrast=0.4)
    assert_reaches(found[:, 0], 44, 76, error=1)
    np.testing.assert_allclose(found.mean(axis=1), 100, atol=1)


def test_the_range_of_gamma(engine: str) -> None:
    assert_reaches(measured(engine, [(51, 51, 51), (51, 51, 51)], gamma=1.0), 10.2, 114.04, error=1)


def test_the_range_of_saturation(engine: str) -> None:
    found = measured(engine, [(100, 100, 150), (120, 120, 120)], saturation=0.5)
    assert_reaches(found[:, 0, 2] - found[:, 0, 0], 25, 75, error=1.1)
    np.testing.assert_allclose(found[:, 1], 120, atol=1)


def test_the_range_of_hue(engine: str) -> None:
    found = measured(engine, [(200, 100, 100), (120, 120, 120)], hue=0.2)
    hues = np.array([colorsys.rgb_to_hsv(*rgb)[0] for rgb in found[:, 0] / 255])
    assert_reaches((hues + 0.5) % 1 - 0.5, -0.2, 0.2, error=0.012)
    np.testing.assert_allclose(found[:, 1], 120, atol=1)


# ---------------------------------------------------------------- layers


def test_crops_and_gammas_of_layers_are_those_of_arrays() -> None:
    keys = {"quarter_turns": True, "crop": 0.6, "gamma": 1.0}
    ours, theirs = (transformed(NOISE, engine=engine, **keys) for engine in ("arrays", "layers"))
    np.testing.assert_allclose(ours, theirs, atol=4)  # arrays round twice; gamma enlarges that


def test_a_keras_without_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.delattr(keras.layers, "RandomHue")
    monkeypatch.setattr(keras, "__version__", "3.7")
    assert refused(new_transform, engine="layers", hue=0.1) == (
        "Recipe key augmentation.hue needs keras.layers.RandomHue where augmentation.engine is layers. "
        "Received: Keras '3.7' without it. Update Keras, or take the engine arrays."
    )
    assert transformed(NOISE, engine="layers", flip="both").shape == NOISE.shape


def test_layers_do_not_follow_the_habits_of_the_process() -> None:
    import keras

    expected = transformed(NOISE, engine="layers", **CHANGES)
    policy, order = keras.config.dtype_policy(), keras.config.image_data_format()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.config.set_image_data_format("channels_first")
        np.testing.assert_array_equal(transformed(NOISE, engine="layers", **CHANGES), expected)
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(order)


# ---------------------------------------------------------------- albumentations


@pytest.fixture
def library() -> Any:
    """Return Albumentations, imported without a look at the network."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return pytest.importorskip("albumentations")


def saved(path: Any, library: Any, transform: Any) -> dict[str, Any]:
    """Save a pipeline and return the keys that ask for it."""
    library.save(transform, path, data_format="json")
    return {"engine": "albumentations", "pipeline": str(path)}


def test_albumentations_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", None)
    assert refused(new_transform, engine="albumentations", flip="both") == (
        "augmentation.engine=albumentations needs the albumentations package. Received: none. "
        "Install customcnn[albumentations]."
    )


def test_the_library_does_not_ask_the_network(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE")
    make_transform(Augmentation(engine="albumentations", flip="both"))
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_a_saved_pipeline(tmp_path: Any, library: Any) -> None:
    keys = saved(tmp_path / "flip.json", library, library.Compose([library.HorizontalFlip(p=1)]))
    np.testing.assert_array_equal(transformed(NOISE, **keys), NOISE[:, :, ::-1])
    keys = saved(tmp_path / "one.json", library, library.VerticalFlip(p=1))
    np.testing.assert_array_equal(transformed(NOISE, **keys), NOISE[:, ::-1])


def test_a_saved_pipeline_is_repeatable(tmp_path: Any, library: Any) -> None:
    noise = library.OneOf([library.GaussNoise(p=1), library.CoarseDropout(p=1), library.ElasticTransform(p=1)])
    keys = saved(tmp_path / "noise.json", library, library.Compose([noise, library.RandomBrightnessContrast()]))
    transform = make_transform(Augmentation(**keys))
    first, second = transform(NOISE, (1, 1, 1)), transform(NOISE, (1, 1, 2))
    assert np.any(first != second)
    np.testing.assert_array_equal(transform(NOISE, (1, 1, 1)), first)
    np.testing.assert_array_equal(transformed(NOISE, (1, 1, 2), **keys), second)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "FileNotFoundError: [Errno 2] No such file or directory: "),
        ("{", "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[1]", "TypeError: "),
        ("{}", "KeyError: 'transform'"),
        (json.dumps({"transform": {"__class_fullname__": "Sharper", "p": 1}}), "KeyError: 'Sharper'"),
        (json.dumps({"transform": {"__class_fullname__": "Compose", "transforms": 5, "p": 1}}), "TypeError: "),
    ],
)
def test_a_file_that_is_no_pipeline(tmp_path: Any, library: Any, text: str | None, reason: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    message = refused(new_transform, engine="albumentations", pipeline=str(path))
    start = f"augmentation.pipeline is a JSON file that albumentations.save has written. Received: {str(path)!r} ("
    assert message.startswith(start + reason)
    assert message.endswith("). Save it again.")


def test_an_argument_that_no_transform_knows(tmp_path: Any, library: Any) -> None:
    keys = saved(tmp_path / "a.json", library, library.Compose([library.HorizontalFlip(p=1)]))
    data = json.loads((tmp_path / "a.json").read_text())
    data["transform"]["transforms"][0]["strength"] = 3
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.warns(UserWarning, match="strength"):
        message = refused(new_transform, **keys)
    assert "ValueError: Argument(s) 'strength' are not valid for transform HorizontalFlip" in message


def test_a_pipeline_that_wants_more_than_an_image(tmp_path: Any, library: Any) -> None:
    boxes = library.BboxParams(format="yolo", label_fields=["labels"])
    nested = library.OneOf([library.MaskDropout(p=1), library.HorizontalFlip(p=1)])
    for transform, wanted in (
        (library.Compose([library.HorizontalFlip()], bbox_params=boxes), "bboxes"),
        (library.Compose([library.HorizontalFlip()], additional_targets={"second": "image"}), "second"),
        (library.Compose([nested]), "mask"),
    ):
        keys = saved(tmp_path / "a.json", library, transform)
        assert refused(new_transform, **keys) == (
            f"augmentation.pipeline changes images and knows nothing else. Received: {str(tmp_path / 'a.json')!r}, "
            f"which wants {wanted}. Leave that out of it."
        )


@pytest.mark.parametrize("name", ["size", "values", "fails"])
def test_a_pipeline_that_does_not_fit_the_images(tmp_path: Any, library: Any, name: str) -> None:
    transforms = {
        "size": (library.CenterCrop(8, 6, p=1), "makes uint8 (8, 6, 3) of uint8 (12, 12, 3). Change it."),
        "values": (library.ToFloat(p=1), "makes float32 (12, 12, 3) of uint8 (12, 12, 3). Change it."),
        "fails": (library.CenterCrop(50, 50, p=1), "fails on one of 12 x 12 pixels (CropSizeError: "),
    }
    keys = saved(tmp_path / "a.json", library, library.Compose([transforms[name][0]]))
    assert f"Received: {str(tmp_path / 'a.json')!r}, which {transforms[name][1]}" in refused(transformed, NOISE, **keys)


# ---------------------------------------------------------------- turns and flips of a whole batch


@given(st.integers(0, 9), sizes, sizes, st.sampled_from(FLIPS), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_batch_of_turns_is_that_of_its_images_one_by_one(
    count: int, height: int, width: int, flip: str, quarter_turns: bool, seed: int
) -> None:
    augmentation = Augmentation(flip=flip, quarter_turns=quarter_turns)
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    before = images.copy()
    found = make_transform(augmentation)(images, (seed, 1, 2))
    assert (found.shape, found.dtype) == (images.shape, np.uint8)
    for place, amounts in enumerate(draw(augmentation, (seed, 1, 2), count)):
        wanted = images[place]
        wanted = wanted[:, ::-1] if amounts.mirrored else wanted
        wanted = wanted[::-1] if amounts.upside_down else wanted
        turns = amounts.quarter_turns if height == width else amounts.quarter_turns // 2 * 2
        wanted = np.rot90(wanted, turns)
        np.testing.assert_array_equal(found[place], wanted)
        np.testing.assert_array_equal(change(images[place], amounts), wanted)
    np.testing.assert_array_equal(images, before)
