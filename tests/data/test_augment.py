"""Augmentation: the shares, the chances, the bytes for a seed, and going on after a stop."""

import hashlib
import itertools
import os
import random
import re
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customcnn.data.apportion import apportion
from customcnn.data.augment import augment_folder, minority_samples, samples
from customcnn.data.augmentor import Operations, augment_image, shifted
from customcnn.data.manifest import Manifest, Record, read_manifest, scan
from customcnn.errors import CustomCNNError
from customcnn.images.decode import decode, encode, read_image, to_rgb
from customcnn.images.dihedral import eight_views
from tests.support.errors import refused
from tests.support.folders import contents, stamps

RNG = np.random.default_rng(3)
NOISE = Image.fromarray(RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8))


def augment(src, dst, count, **options):
    return augment_folder(scan(src), dst, count, workers=options.pop("workers", 1), **options)


def origin(path):
    """Return the path of a sample's original, read from the sample's name."""
    return re.fullmatch(r"(.*)-aug\d{4,}(\.\w+)", path).expand(r"\1\2")


def make_manifest(tmp_path, sizes):
    return Manifest(tmp_path, tuple(Record(f"{c}/{i}.png", c) for c, size in sizes.items() for i in range(size)))


# ---------------------------------------------------------------- how many of which


@pytest.mark.parametrize(
    ("count", "sizes", "parts"),
    [
        (20_000, [5817, 2711], [13642, 6358]),  # 13642.12 and 6357.88: the second has the larger remainder
        (10, [1, 1, 1], [4, 3, 3]),
        (3, [100, 1, 1], [1, 1, 1]),
        (4, [1000, 1], [3, 1]),
        (5, [1, 1], [3, 2]),
        (7, [3], [7]),
    ],
)
def test_shares_by_hand(count, sizes, parts):
    assert apportion(count, sizes) == parts


@given(st.data(), st.lists(st.integers(1, 10_000), min_size=1, max_size=8))
def test_shares_are_whole_and_within_one_of_proportional(data, sizes):
    count = data.draw(st.integers(len(sizes), 30_000))
    parts = apportion(count, sizes)
    exact = [count * size / sum(sizes) for size in sizes]
    assert sum(parts) == count
    assert min(parts) >= 1
    if min(exact) >= 1:
        assert all(abs(part - wanted) < 1 for part, wanted in zip(parts, exact, strict=True))
    ranked = sorted(zip(sizes, parts, strict=True))
    assert [part for _, part in ranked] == sorted(parts), "a larger class has no fewer samples"


def test_every_original_is_used_equally_often_give_or_take_one(tmp_path):
    manifest = make_manifest(tmp_path, {"all": 7, "hem": 3})
    tasks = list(samples(manifest, 48, seed=1, balance=False))
    assert Counter(task.record.label for task in tasks) == {"all": 34, "hem": 14}  # 33.6 and 14.4
    uses = Counter(task.record.path for task in tasks)
    assert sorted(uses[f"all/{i}.png"] for i in range(7)) == [4, 5, 5, 5, 5, 5, 5]
    assert sorted(uses[f"hem/{i}.png"] for i in range(3)) == [4, 5, 5]
    for path, used in uses.items():
        assert [task.copy for task in tasks if task.record.path == path] == list(range(used))


def test_the_seed_chooses_which_originals_are_used_once_more(tmp_path):
    manifest = make_manifest(tmp_path, {"all": 40, "hem": 40})

    def chosen(seed):
        return {task.record.path for task in samples(manifest, 40, seed=seed, balance=False)}

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
    assert {path.split("/")[1] for path in chosen(1) if path.startswith("all")} != {
        path.split("/")[1] for path in chosen(1) if path.startswith("hem")
    }


def test_balance_makes_the_classes_equal(tmp_path):
    manifest = make_manifest(tmp_path, {"a": 9, "b": 2, "c": 1})
    tasks = samples(manifest, 20, seed=1, balance=True)
    assert Counter(task.record.label for task in tasks) == {"a": 7, "b": 7, "c": 6}


@pytest.mark.parametrize("sizes", [{"a": 9, "b": 4, "c": 1}, {"a": 3, "b": 3}, {"a": 1, "b": 50}])
def test_minority_fills_every_class_up_to_the_largest(tmp_path, sizes):
    manifest = make_manifest(tmp_path, sizes)
    tasks = list(minority_samples(manifest, seed=1))
    kept = [task.record for task in tasks if task.copy < 0]
    assert sorted(kept, key=lambda record: record.path) == sorted(manifest.records, key=lambda record: record.path)
    most = max(sizes.values())
    assert Counter(task.record.label for task in tasks) == dict.fromkeys(sizes, most)
    for label, size in sizes.items():
        uses = Counter(task.record.path for task in tasks if task.record.label == label)
        assert set(uses.values()) <= {most // size, most // size + 1}, "equally often, give or take one"


@pytest.mark.parametrize("count", [0, -1, 1])
def test_a_count_below_one_for_each_class_is_refused(make_folder, tmp_path, count):
    assert refused(augment, make_folder({"all": 2, "hem": 2}), tmp_path / "out", count) == (
        f"--count is at least 1 for each of 2 classes. Received: {count}. Give more."
    )
    assert not (tmp_path / "out").exists()


def test_one_class_alone_and_a_folder_without_training_images_are_refused(make_folder, tmp_path):
    with pytest.raises(CustomCNNError, match="at least two classes"):
        augment(make_folder({"all": 2}, "one"), tmp_path / "out", 5)
    with pytest.raises(CustomCNNError, match="needs a training part"):
        augment(make_folder({"validation/all": 2, "validation/hem": 2}, "two"), tmp_path / "out", 5)


# ---------------------------------------------------------------- chance


def within_binomial_error(hits, draws, p):
    return abs(hits - draws * p) < 4 * (draws * p * (1 - p)) ** 0.5


def test_flips_fire_half_the_time_and_independently():
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    pixels = np.asarray(picture)
    outcomes = {pixels[::y, ::x].tobytes(): (y, x) for y in (1, -1) for x in (1, -1)}
    operations = Operations(turns=False)
    draws = 4000
    seen = Counter(outcomes[augment_image(picture, operations, str(i)).tobytes()] for i in range(draws))
    for outcome in outcomes.values():
        assert within_binomial_error(seen[outcome], draws, 0.25), seen
    for axis in (0, 1):  # Augmentor's own sample() would fire 55 times in 100: more than six standard deviations off
        assert within_binomial_error(sum(n for outcome, n in seen.items() if outcome[axis] == -1), draws, 0.5)


@pytest.mark.parametrize("p", [0.5, 0.1, 0.9])
def test_a_single_operation_fires_with_its_probability(p):
    operations = Operations(probability=p, turns=False, flips=False, random_erasing=0.5)
    black = Image.new("RGB", (20, 20))
    draws = 3000
    fired = sum(augment_image(black.copy(), operations, str(i)).getbbox() is not None for i in range(draws))
    assert within_binomial_error(fired, draws, p), fired / draws


def test_quarter_turns_follow_from_two_independent_operations():
    views = [view.tobytes() for view in map(np.ascontiguousarray, eight_views(np.asarray(NOISE))[:4])]
    draws = 4000
    seen = Counter(views.index(augment_image(NOISE, Operations(flips=False), str(i)).tobytes()) for i in range(draws))
    for view, p in ((0, 0.5), (1, 0.25), (2, 0.0), (3, 0.25)):  # both turns together are none
        assert within_binomial_error(seen[view], draws, p) or seen[view] == p == 0, seen


def test_probability_none_and_one_are_exact():
    pixels = np.asarray(NOISE)
    never = Operations(0.0, rotate=10, zoom=2.0, shear=5, shift=0.2, brightness=0.5, contrast=0.5, random_erasing=0.3)
    always = Operations(probability=1.0, turns=False)
    for i in range(200):
        np.testing.assert_array_equal(np.asarray(augment_image(NOISE, never, str(i))), pixels)
        np.testing.assert_array_equal(np.asarray(augment_image(NOISE, always, str(i))), pixels[::-1, ::-1])


@pytest.mark.parametrize(
    "option",
    [
        {"rotate": 20},
        {"zoom": 2.0},
        {"shear": 20},
        {"shift": 0.3},
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"random_erasing": 0.5},
    ],
    ids=lambda option: next(iter(option)),
)
def test_each_further_operation_changes_pixels_repeatably(option):
    operations = Operations(probability=1.0, turns=False, flips=False, **option)
    before = NOISE.tobytes()
    results = [augment_image(NOISE, operations, str(i)) for i in range(20)]
    assert {(image.size, image.mode) for image in results} == {((24, 24), "RGB")}
    assert sum(image.tobytes() != before for image in results) >= 15  # a turn by 0 degrees is possible
    assert len({image.tobytes() for image in results}) >= 10
    assert [image.tobytes() for image in results] == [
        augment_image(NOISE, operations, str(i)).tobytes() for i in range(20)
    ]
    assert NOISE.tobytes() == before, "the caller's image is left alone"


def test_the_further_operations_stay_in_their_ranges():
    grey = Image.new("RGB", (16, 16), (100, 100, 100))
    brightness = Operations(probability=1.0, turns=False, flips=False, brightness=0.2)
    levels = [np.asarray(augment_image(grey, brightness, str(i))).max() for i in range(300)]
    assert (79, 121) <= (min(levels), max(levels)) <= (82, 121)
    assert max(levels) >= 118
    erasing = Operations(probability=1.0, turns=False, flips=False, random_erasing=0.5)
    boxes = [augment_image(Image.new("RGB", (40, 40)), erasing, str(i)).getbbox() for i in range(200)]
    edges = [edge for box in boxes for edge in (box[2] - box[0], box[3] - box[1])]
    assert 3 <= min(edges) <= 5
    assert 18 <= max(edges) <= 20


@pytest.mark.parametrize(
    ("right", "down", "wanted"),
    [
        (0, 0, [[1, 2, 3], [4, 5, 6]]),
        (1, 0, [[1, 1, 2], [4, 4, 5]]),
        (-2, 0, [[3, 3, 3], [6, 6, 6]]),
        (0, 1, [[1, 2, 3], [1, 2, 3]]),
        (-1, -1, [[5, 6, 6], [5, 6, 6]]),
        (9, 9, [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_a_shift_repeats_the_edge_by_hand(right, down, wanted):
    picture = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
    for image in (Image.fromarray(picture), Image.fromarray(np.dstack([picture, picture + 10, picture + 20]))):
        moved = shifted(image, right, down)
        assert (moved.mode, moved.size) == (image.mode, image.size)
        first = np.asarray(moved) if image.mode == "L" else np.asarray(moved)[..., 0]
        assert first.tolist() == wanted


def test_shifts_reach_their_share_both_ways_and_not_beyond():
    dot = np.zeros((41, 21, 3), np.uint8)
    dot[20, 10] = 255
    operations = Operations(probability=1.0, turns=False, flips=False, shift=0.2)
    boxes = [augment_image(Image.fromarray(dot), operations, str(i)).getbbox() for i in range(600)]
    assert {box[0] - 10 for box in boxes} == set(range(-4, 5))  # .2 of 21 is 4.2
    assert {box[1] - 20 for box in boxes} == set(range(-8, 9))  # .2 of 41 is 8.2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shift": 0.6}, "--shift is at least 0 and at most .5. Received: 0.6. See --help."),
        ({"shift": float("nan")}, "--shift is at least 0 and at most .5. Received: nan. See --help."),
        ({"probability": 1.5}, "--probability lies in 0..1. Received: 1.5. See --help."),
        ({"probability": -0.1}, "--probability lies in 0..1. Received: -0.1. See --help."),
        ({"probability": float("nan")}, "--probability lies in 0..1. Received: nan. See --help."),
        ({"rotate": 26}, "--rotate lies in 0..25 degrees. Received: 26. See --help."),
        ({"rotate": -1}, "--rotate lies in 0..25 degrees. Received: -1. See --help."),
        ({"zoom": 0.5}, "--zoom lies in 1..4. Received: 0.5. See --help."),
        ({"zoom": 5.0}, "--zoom lies in 1..4. Received: 5. See --help."),
        ({"shear": 40}, "--shear lies in 0..25 degrees. Received: 40. See --help."),
        ({"brightness": 1.0}, "--brightness is at least 0 and below 1. Received: 1. See --help."),
        ({"contrast": -0.5}, "--contrast is at least 0 and below 1. Received: -0.5. See --help."),
        ({"random_erasing": 0.05}, "--random-erasing is 0 or lies in .1..1. Received: 0.05. See --help."),
        ({"random_erasing": 2.0}, "--random-erasing is 0 or lies in .1..1. Received: 2. See --help."),
    ],
)
def test_what_is_out_of_range_is_refused(values, message):
    assert refused(Operations, **values) == message


@pytest.mark.parametrize("size", [(10, 10), (32, 20), (15, 24)])
def test_shapes_other_than_squares_are_kept_or_turned(size):
    operations = Operations(rotate=25, zoom=4.0, shear=25, brightness=0.9, random_erasing=0.1)
    seen = {augment_image(NOISE.resize(size), operations, str(i)).size for i in range(50)}
    assert seen == {size, size[::-1]}


def test_an_image_too_narrow_for_an_operation_is_named(make_folder, tmp_path):
    src = make_folder({"all": 1, "hem": 1})
    NOISE.resize((4, 40)).save(src / "all/narrow.png")
    assert re.fullmatch(
        r"Images are large enough for the operations\. Received: 'all/narrow\.png', 4 x 40 pixels \(.+\)\. "
        r"Use fewer of them\.",
        refused(augment, src, tmp_path / "out", 30, operations=Operations(probability=1.0, shear=25)),
    )


def test_the_global_generators_are_left_as_they_were(make_folder, tmp_path):
    src = make_folder({"all": 2, "hem": 2})
    random.seed(1)
    np.random.seed(2)
    wanted = (random.random(), np.random.random())
    random.seed(1)
    np.random.seed(2)
    augment(src, tmp_path / "out", 9)
    assert (random.random(), np.random.random()) == wanted


def test_the_global_generators_decide_nothing(make_folder, tmp_path):
    src = make_folder({"all": 2, "hem": 2})
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        augment(src, tmp_path / f"out{seed}", 20, operations=Operations(brightness=0.5, random_erasing=0.5))
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")


# ---------------------------------------------------------------- folders


def test_exactly_count_files_that_are_turns_and_flips_of_their_originals(make_folder, tmp_path):
    src = make_folder({"all": 5, "hem": 2})
    result = augment(src, tmp_path / "out", 23)
    names = sorted(contents(tmp_path / "out"))
    assert names == sorted([*(record.path for record in result.manifest.records), "manifest.csv"])
    assert len(names) == 23 + 1
    assert Counter(name.split("/")[0] for name in names) == {"all": 16, "hem": 7, "manifest.csv": 1}
    uses = Counter(origin(record.path) for record in result.manifest.records)
    assert uses.keys() == {record.path for record in scan(src).records}
    assert max(uses[f"all/{i}.bmp"] for i in range(5)) - min(uses[f"all/{i}.bmp"] for i in range(5)) <= 1
    views = set()
    for record in result.manifest.records:
        eight = [view.tolist() for view in eight_views(decode(src / origin(record.path)))]
        views.add(eight.index(decode(tmp_path / "out" / record.path).tolist()))
    assert len(views) >= 5, "many turns and flips occur"


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(make_folder, tmp_path, capfd):
    src = make_folder({"all": 4, "hem": 3}, size=20)
    operations = Operations(rotate=10, zoom=1.5, shear=5, brightness=0.3, contrast=0.3, random_erasing=0.3)
    for workers in (1, 2, 8):
        augment(src, tmp_path / f"out{workers}", 30, seed=5, operations=operations, workers=workers)
    first = contents(tmp_path / "out1")
    assert len(first) == 31
    assert contents(tmp_path / "out2") == first
    assert contents(tmp_path / "out8") == first
    augment(src, tmp_path / "other", 30, seed=6, operations=operations)
    other = contents(tmp_path / "other")
    same = [name for name in first.keys() & other.keys() if first[name] == other[name] and name != "manifest.csv"]
    assert len(same) < 5
    assert capfd.readouterr() == ("", ""), "Augmentor and its workers print nothing"


def test_a_sample_depends_on_its_original_and_number_alone(make_folder, tmp_path):
    src = make_folder({"all": 2, "hem": 2})
    augment(src, tmp_path / "few", 4)
    augment(src, tmp_path / "many", 40)
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert all(many[name] == data for name, data in few.items() if name != "manifest.csv")


def test_the_manifest_is_right(make_folder, tmp_path):
    src = make_folder({"train/all": 2, "train/hem": 2, "validation/all": 1, "validation/hem": 1, "test/all": 1})
    records = tuple(
        Record(r.path, r.label, f"G{i}", r.split, hashlib.sha256((src / r.path).read_bytes()).hexdigest(), {"dye": "x"})
        for i, r in enumerate(scan(src).records)
    )
    Manifest(src, records).write(src / "manifest.csv")
    result = augment(src, tmp_path / "out", 10)
    by_path = {record.path: record for record in records}
    assert read_manifest(tmp_path / "out/manifest.csv").records == result.manifest.records
    assert scan(tmp_path / "out").records == result.manifest.records
    assert result.manifest.counts() == {
        ("train", "all"): 5,
        ("train", "hem"): 5,
        ("validation", "all"): 1,
        ("validation", "hem"): 1,
        ("test", "all"): 1,
    }
    for record in result.manifest.records:
        data = (tmp_path / "out" / record.path).read_bytes()
        assert record.sha256 == hashlib.sha256(data).hexdigest()
        if record.split == "train":
            old = by_path[origin(record.path)]
            assert (record.label, record.group, record.extra) == (old.label, old.group, {"dye": "x"})
        else:
            assert record == by_path[record.path]
            assert data == (src / record.path).read_bytes()


def test_other_parts_are_carried_over_byte_for_byte_even_if_lossy(make_folder, tmp_path):
    src = make_folder({"train/all": 1, "train/hem": 1})
    for name in ("all/a.jpg", "hem/b.jpg"):
        (src / "validation" / name).parent.mkdir(parents=True)
        NOISE.save(src / "validation" / name)
    result = augment(src, tmp_path / "out", 2)
    for record in result.manifest.part("validation").records:
        data = (src / record.path).read_bytes()
        assert (tmp_path / "out" / record.path).read_bytes() == data
        assert record.sha256 == hashlib.sha256(data).hexdigest()


def test_samples_of_unsplit_images_have_their_original_as_their_group(make_folder, tmp_path):
    src = make_folder({"all": 2, "hem": 1})
    result = augment(src, tmp_path / "out", 6)
    assert {record.group for record in result.manifest.records} == {"all/0.bmp", "all/1.bmp", "hem/0.bmp"}
    assert all(record.group == origin(record.path) for record in result.manifest.records)


def test_images_that_are_not_rgb_are_converted_and_counted(make_folder, tmp_path):
    src = make_folder({"all": 1, "hem": 1})
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    Image.fromarray(deep).save(src / "all/deep.png")
    NOISE.quantize(16).save(src / "all/palette.png")
    NOISE.convert("L").save(src / "hem/grey.tif")
    NOISE.quantize(16).save(src / "hem/still.gif")
    NOISE.convert("CMYK").save(src / "hem/ink.tif")
    clear = NOISE.convert("RGBA")
    clear.putalpha(100)
    clear.save(src / "hem/clear.webp", lossless=True)
    result = augment(src, tmp_path / "out", 16, balance=True)
    modes = Counter()
    for record in result.manifest.records:
        image = read_image(tmp_path / "out" / record.path)
        assert image.mode == "RGB"
        original = src / record.group
        modes[read_image(original).mode] += 1
        eight = [view.tolist() for view in eight_views(decode(original))]
        assert np.asarray(image).tolist() in eight, record.path
    assert modes.keys() == {"RGB", "I;16", "P", "L", "CMYK", "RGBA"}
    assert result.converted == 16 - modes["RGB"]


def test_what_cannot_be_written_without_loss_becomes_png(tmp_path):
    for label in ("all", "hem"):
        (tmp_path / "data" / label).mkdir(parents=True)
        NOISE.save(tmp_path / f"data/{label}/a.jpg", quality=70)
        NOISE.save(tmp_path / f"data/{label}/b.webp", quality=70)
        NOISE.quantize(16).save(tmp_path / f"data/{label}/c.gif")
    result = augment(tmp_path / "data", tmp_path / "out", 6)
    names = {record.path for record in result.manifest.records}
    assert names == {
        f"{label}/{name}"
        for label in ("all", "hem")
        for name in ("a-aug0000.jpg.png", "b-aug0000.webp", "c-aug0000.gif.png")
    }
    for name in names:
        original = tmp_path / "data" / origin(name.removesuffix(".png"))
        eight = [view.tolist() for view in eight_views(decode(original))]
        assert decode(tmp_path / "out" / name).tolist() in eight
        assert Image.open(tmp_path / "out" / name).format == ("WEBP" if "webp" in name else "PNG")


def test_images_of_one_stem_keep_samples_of_their_own(tmp_path):
    names = ["a.jpg", "a.jpg.png", "a.png", "a.bmp", "a-aug0000.png", "a.gif", "a.gif.png"]
    for label in ("all", "hem"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i, name in enumerate(names):
            NOISE.rotate(10 * i).save(tmp_path / "data" / label / name)
    result = augment(tmp_path / "data", tmp_path / "out", 28)
    assert len({record.path for record in result.manifest.records}) == 28
    assert len(contents(tmp_path / "out")) == 29
    assert Counter(Counter(record.group for record in result.manifest.records).values()) == {2: 14}


def test_a_damaged_image_is_one_line_and_leaves_nothing(make_folder, tmp_path):
    src = make_folder({"all": 3, "hem": 3})
    data = (src / "all/1.bmp").read_bytes()
    (src / "all/1.bmp").write_bytes(data[: len(data) // 2])
    for workers in (1, 2):
        message = refused(augment, src, tmp_path / "out", 12, workers=workers)
        assert message.startswith("Images are single pictures of a known format. Received: ")
        assert "all/1.bmp', damaged (" in message
        assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("operations", [Operations(), Operations(rotate=5)], ids=["exact", "any"])
@pytest.mark.parametrize("all_cells", ["all", os.fsdecode(b"al\xff")])
def test_names_with_anything_in_them_are_kept(tmp_path, all_cells, operations):
    names = [
        "with space.png",
        "quo'te\".png",
        "new\nline.png",
        "ünïcode 细胞.png",
        "UPPER.PNG",
        os.fsdecode(b"\xff.png"),
    ]
    for label in (all_cells, "hem"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for name in names:
            NOISE.save(tmp_path / "data" / label / name)
    result = augment(tmp_path / "data", tmp_path / "out", 12, operations=operations)
    read = read_manifest(tmp_path / "out/manifest.csv").records
    assert read == result.manifest.records
    assert {record.path.replace("-aug0000", "") for record in read} == {
        f"{c}/{n}" for c in (all_cells, "hem") for n in names
    }


# ---------------------------------------------------------------- the smaller classes alone


def test_minority_keeps_the_originals_and_adds_samples_of_the_smaller_class(make_folder, tmp_path):
    src = make_folder({"train/all": 7, "train/hem": 3, "validation/all": 2, "validation/hem": 1})
    records = tuple(Record(r.path, r.label, f"G{i}", r.split) for i, r in enumerate(scan(src).records))
    Manifest(src, records).write(src / "manifest.csv")
    result = augment(src, tmp_path / "out", None, minority=True)
    assert result.manifest.counts() == {
        ("train", "all"): 7,
        ("train", "hem"): 7,
        ("validation", "all"): 2,
        ("validation", "hem"): 1,
    }
    assert scan(tmp_path / "out").records == result.manifest.records
    originals = {record.path: record for record in records}
    for record in result.manifest.records:
        data = (tmp_path / "out" / record.path).read_bytes()
        assert record.sha256 == hashlib.sha256(data).hexdigest()
        if record.path in originals:
            assert data == (src / record.path).read_bytes()
            assert record.group == originals[record.path].group
        else:
            old = originals[origin(record.path)]
            assert (record.label, record.group, record.split) == ("hem", old.group, "train")
            eight = [view.tolist() for view in eight_views(decode(src / old.path))]
            assert decode(tmp_path / "out" / record.path).tolist() in eight
    assert {record.path for record in result.manifest.records} >= originals.keys()


def test_minority_gives_the_same_bytes_for_any_number_of_workers_and_goes_on_after_a_stop(make_folder, tmp_path):
    src = make_folder({"all": 9, "hem": 2, "third": 4}, size=20)
    options = {"minority": True, "seed": 3, "operations": Operations(rotate=10, shift=0.2)}
    augment(src, tmp_path / "whole", None, **options)
    augment(src, tmp_path / "other", None, workers=3, **options)
    finished = stopped(src, tmp_path / "out", None, after=9, **options)
    assert len(finished) == 9
    augment(src, tmp_path / "out", None, **options)
    whole = contents(tmp_path / "whole")
    assert len(whole) == 3 * 9 + 1
    assert contents(tmp_path / "other") == contents(tmp_path / "out") == whole


def test_minority_of_unsplit_images_groups_each_original_with_its_samples(make_folder, tmp_path):
    src = make_folder({"all": 3, "hem": 1})
    manifest = augment(src, tmp_path / "out", None, minority=True).manifest
    assert manifest.groups_known
    groups = Counter(record.group for record in manifest.records)
    assert groups == {"all/0.bmp": 1, "all/1.bmp": 1, "all/2.bmp": 1, "hem/0.bmp": 3}


def test_minority_of_an_augmented_folder_keeps_every_name(make_folder, tmp_path):
    names = ["a.jpg", "a-aug0000.jpg.png", "a-aug0001.jpg"]
    src = make_folder({"all": 9, "hem": names}, size=20)
    result = augment(src, tmp_path / "out", None, minority=True)
    paths = [record.path for record in result.manifest.records if record.label == "hem"]
    assert len(set(paths)) == 9
    for name in names:
        assert (tmp_path / "out/hem" / name).read_bytes() == (src / "hem" / name).read_bytes()
    assert {path for path in paths if re.fullmatch(r"hem/a-aug\d+\.jpg\.png", path)} == {
        "hem/a-aug0000.jpg.png",
        "hem/a-aug0002.jpg.png",
        "hem/a-aug0003.jpg.png",
    }


def test_classes_of_one_size_lack_nothing(make_folder, tmp_path):
    src = make_folder({"all": 2, "hem": 2})
    before = contents(src)
    augment(src, tmp_path / "out", None, minority=True)
    assert contents(tmp_path / "out").keys() - {"manifest.csv"} == before.keys()


@pytest.mark.parametrize(
    ("options", "other"), [({"count": 20_000}, "--count 20000"), ({"count": None, "balance": True}, "--balance")]
)
def test_minority_takes_no_count_and_no_balance(make_folder, tmp_path, options, other):
    assert refused(augment, make_folder({"all": 2, "hem": 1}), tmp_path / "out", minority=True, **options) == (
        f"--minority adds what the smaller classes lack, and no more. Received: {other} beside it. Leave one out."
    )
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- going on after a stop


@contextmanager
def stop_after(number):
    """Return a progress bar that interrupts the work after some steps, as Ctrl-C does."""
    done = 0

    def advance(n):
        nonlocal done
        done += n
        if done == number:
            raise KeyboardInterrupt

    yield advance


def stopped(src, dst, count, after, **options):
    """Stop an augmentation after some files; return the file number and time of each that is finished."""
    with pytest.raises(KeyboardInterrupt):
        augment(src, dst, count, progress=lambda total, label: stop_after(after), **options)
    work = dst.with_name(f".{dst.name}.partial")
    assert not dst.exists()
    return stamps(work)


def test_what_was_finished_before_a_stop_is_not_written_again(make_folder, tmp_path):
    src = make_folder({"train/all": 2, "train/hem": 2, "validation/all": 1, "validation/hem": 1})
    augment(src, tmp_path / "whole", 20)
    finished = stopped(src, tmp_path / "out", 20, after=9)
    assert len(finished) == 9
    # A kill may leave a file half written.
    unfinished = min(contents(tmp_path / "whole").keys() - finished.keys() - {"manifest.csv"})
    half = tmp_path / ".out.partial" / unfinished
    half.with_name(f".{half.name}.partial").write_bytes(b"half a file")
    augment(src, tmp_path / "out", 20)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert finished.items() <= stamps(tmp_path / "out").items()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out", "whole"]


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 8},
        {"count": 21},
        {"balance": True},
        {"count": None, "minority": True},
        {"operations": Operations(shift=0.5)},
        {"touched": True},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_parameters_or_images_start_afresh(make_folder, tmp_path, changed):
    src = make_folder({"all": 3, "hem": 2})
    finished = stopped(src, tmp_path / "out", 20, after=9)
    if changed.pop("touched", False):
        NOISE.save(src / "all/0.bmp")
    count = changed.pop("count", 20)
    augment(src, tmp_path / "out", count, **changed)
    augment(src, tmp_path / "whole", count, **changed)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    for name, (_, time) in finished.items():
        if (tmp_path / "out" / name).exists():
            assert (tmp_path / "out" / name).stat().st_mtime_ns > time


def test_an_error_later_on_keeps_no_half_of_it(make_folder, tmp_path):
    src = make_folder({"all": 3, "hem": 3})
    (src / "hem/2.bmp").write_bytes(b"no image")
    with pytest.raises(CustomCNNError):
        augment(src, tmp_path / "out", 12)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_destination_with_something_in_it_is_kept_unless_replaced(make_folder, tmp_path):
    src = make_folder({"all": 1, "hem": 1})
    augment(src, tmp_path / "out", 4)
    before = contents(tmp_path / "out")
    with pytest.raises(CustomCNNError, match=r"is not empty\. Use --replace"):
        augment(src, tmp_path / "out", 6)
    assert contents(tmp_path / "out") == before
    augment(src, tmp_path / "out", 6, replace_dst=True)
    assert len(contents(tmp_path / "out")) == 7


# ---------------------------------------------------------------- turns and flips without Augmentor


@pytest.mark.parametrize("values", [{}, {"probability": 0.3}, {"turns": False}, {"flips": False}, {"probability": 0.0}])
@pytest.mark.parametrize("suffix", [".bmp", ".png", ".tif", ".webp"])
def test_turned_files_are_byte_for_byte_those_of_augmentors_operations(make_folder, tmp_path, suffix, values):
    operations = Operations(**values)
    assert operations.exact
    src = make_folder({"all": 2, "hem": 1}, size=7, suffix=suffix)
    NOISE.resize((9, 5)).save(src / f"hem/wide{suffix}")
    NOISE.resize((5, 9)).save(src / f"hem/tall{suffix}")
    result = augment(src, tmp_path / "out", 60, seed=4, operations=operations)
    for record in result.manifest.records:
        original, copy = origin(record.path), int(re.search(r"-aug(\d+)", record.path)[1])
        image = read_image(src / original)
        wanted = encode(augment_image(to_rgb(image), operations, f"4/{original}/{copy}"), image.format)
        assert (tmp_path / "out" / record.path).read_bytes() == wanted, record.path
    augment(src, tmp_path / "two", 60, seed=4, operations=operations, workers=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "out")


def test_a_seed_gives_the_files_it_always_gave(tmp_path):
    pixels = np.arange(3 * 5 * 5, dtype=np.uint8).reshape(5, 5, 3)
    for i, label in enumerate(["all", "all", "hem"]):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels + i).save(tmp_path / f"data/{label}/{i}.bmp")
    augment(tmp_path / "data", tmp_path / "out", 20)
    found = hashlib.sha256(b"".join(name.encode() + data for name, data in sorted(contents(tmp_path / "out").items())))
    assert found.hexdigest() == "dbdfcaf2ca406ddb74df9f8f6d8450f38b7f93b3efdb236d59d0fe95ceba560e"


def test_bmps_that_are_not_plain_are_decoded(make_folder, tmp_path):
    src = make_folder({"all": 1, "hem": 1})
    NOISE.quantize(16).save(src / "all/palette.bmp")
    NOISE.convert("RGBA").save(src / "all/deep.bmp")
    data = (src / "hem/0.bmp").read_bytes()
    (src / "hem/longer.bmp").write_bytes(data + b"more")
    result = augment(src, tmp_path / "out", 40)
    for record in result.manifest.records:
        views = [view.tolist() for view in eight_views(decode(src / origin(record.path)))]
        assert decode(tmp_path / "out" / record.path).tolist() in views
    assert result.converted > 0


def test_at_one_half_the_eight_views_of_a_square_are_equally_likely():
    """By enumeration: each of the 16 ways in which four operations fire has the same probability."""
    pixels = np.arange(9).reshape(3, 3)
    views = Counter()
    for left, right, mirrored, upside_down in itertools.product((False, True), repeat=4):
        turned = np.rot90(pixels, left - right)[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
        views[turned.tobytes()] += 1
    assert set(views.values()) == {2}
    assert views.keys() == {np.ascontiguousarray(view).tobytes() for view in eight_views(pixels)}
    # The recipe's flip = "both" and quarter_turns = true: the 16 ways are equally likely there too.
    online = Counter()
    for turns, mirrored, upside_down in itertools.product(range(4), (False, True), (False, True)):
        online[np.rot90(pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1], turns).tobytes()] += 1
    assert online == views
