"""How the cost grows: what is counted here is work, not time, so that a busy machine changes nothing."""

import json
import math
import os

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import scale
from customcnn.audit import duplicates as module
from customcnn.audit.duplicates import _candidates, _Look, near_across
from customcnn.data.augment import augment_folder
from customcnn.data.manifest import Manifest, Record, scan, with_group_pattern
from customcnn.data.split import Shares, split_by_group, split_by_image


@pytest.fixture
def compared(monkeypatch) -> list[int]:
    """Return a list that gets how many pairs are compared, piece by piece."""
    sizes: list[int] = []
    joined = module._joined

    def counting(*args):
        for rows, places in joined(*args):
            sizes.append(len(rows))
            yield rows, places

    monkeypatch.setattr(module, "_joined", counting)
    return sizes


def images_of(hashes, thumbnails, **how):
    """Return records and looks of images, every second one for validation; thumbnails may be one for all."""
    many = len(hashes)
    thumbnails = np.broadcast_to(thumbnails, (many, 32, 32))
    records = tuple(Record(f"{i:06}.png", "all", split=("train", "validation")[i % 2]) for i in range(many))
    return records, [_Look(hashes[i], thumbnails[i], str(i), **how) for i in range(many)]


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 32, 32), dtype=np.uint8)


# ---------------------------------------------------------------- near-duplicates


def test_blank_images_are_compared_with_none(compared):
    records, looks = images_of(np.zeros((4000, 8), np.uint64), np.zeros((32, 32), np.uint8), flat=True)
    assert near_across(records, looks) == []
    assert sum(compared) == 0


def test_copies_of_the_same_bytes_are_compared_once(compared):
    records, looks = images_of(np.full((4000, 8), 5, np.uint64), noise(0))
    looks = [_Look(look.hashes, look.thumbnail, "the same") for look in looks]
    assert _candidates(records, looks) == set()
    assert sum(compared) < 200, "a comparison in each table, in each direction"


def test_an_image_is_compared_with_few_others_however_many_there_are(compared):
    each = []
    for many in (4_000, 32_000):
        compared.clear()
        hashes = np.random.default_rng(1).integers(0, 2**64, (many, 8), dtype=np.uint64)
        assert _candidates(*images_of(hashes, noise(0))) == set()
        each.append(sum(compared) / many)
    assert max(each) < 100
    assert max(compared) <= module.AT_ONCE


def test_images_whose_hashes_are_all_alike_are_searched_by_their_details(compared):
    # 48 bits are the same in all: by hashes alone each would be compared with all others.
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**16, (3000, 8), dtype=np.uint64)
    thumbnails = noise(3, 3000)
    hashes[7], thumbnails[7] = hashes[2], np.roll(thumbnails[2], 0)
    thumbnails[7, 0, 0] ^= 1
    records, looks = images_of(hashes, thumbnails)
    found = near_across(records, looks)
    assert [(pair.first, pair.second) for pair in found] == [("000002.png", "000007.png")]
    assert sum(compared) < module.AFFORDED * 9 * 3000, "each has eight hashes of turns, and one of its own"


def test_sketches_find_turned_and_changed_pictures(monkeypatch):
    monkeypatch.setattr(module, "AFFORDED", -1)
    rng = np.random.default_rng(4)
    first = noise(5, 200)
    second = np.stack([module.eight_views(picture)[i % 8] for i, picture in enumerate(first)]).astype(np.int16)
    second = (second + rng.integers(-12, 13, second.shape)).clip(0, 255).astype(np.uint8)
    thumbnails = np.stack([first, second], axis=1).reshape(400, 32, 32)
    records, looks = images_of(np.zeros((400, 8), np.uint64), thumbnails)
    found = [(pair.first, pair.second) for pair in near_across(records, looks)]
    assert found == [(f"{2 * i:06}.png", f"{2 * i + 1:06}.png") for i in range(200)]


# ---------------------------------------------------------------- records


def test_what_records_share_is_in_the_memory_once(tmp_path):
    records = tuple(Record(f"train/all/UID_{i % 3}_1_{i}_all.png", "all", split="train") for i in range(30))
    for record in records:
        (tmp_path / record.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / record.path).write_bytes(b"")
    with_group_pattern(Manifest(tmp_path, records), "cnmc").write(tmp_path / "manifest.csv")
    read = scan(tmp_path).records
    for name, different in (("label", 1), ("split", 1), ("extra", 1), ("group", 3)):
        assert len({id(getattr(record, name)) for record in read}) == different, name


def test_the_parts_are_not_looked_for_again_with_every_record(make_folder, tmp_path, monkeypatch):
    data = scan(make_folder({"train/all": 30, "train/hem": 30, "validation/all": 5, "validation/hem": 5}))
    asked = []
    parts = Manifest.parts.fget
    monkeypatch.setattr(Manifest, "parts", property(lambda self: asked.append(1) or parts(self)))
    assert len(augment_folder(data, tmp_path / "made", 4, workers=1).manifest.records) == 14
    assert len(asked) < 10


def test_labels_are_gone_through_once_however_many_classes_there_are():
    class Counted(list):
        rounds = 0

        def __iter__(self):
            Counted.rounds += 1
            return super().__iter__()

    labels = Counted(f"class {i % 40}" for i in range(400))
    assert len(split_by_image(labels, Shares(0.8, 0.2), 0)) == 400
    assert Counted.rounds == 1


def test_long_group_names_do_not_matter():
    labels, groups = ["all", "hem"] * 40, [f"{i // 4}{'x' * 3000 * (i < 4)}" for i in range(80)]
    short = split_by_group(labels, [f"{i // 4}" for i in range(80)], Shares(0.8, 0.2), 0)
    assert len(split_by_group(labels, groups, Shares(0.8, 0.2), 0)) == len(short)


# ---------------------------------------------------------------- the benchmark itself


def test_the_files_all_differ_and_one_in_a_hundred_is_turned(tmp_path):
    scale.draw(tmp_path, 200)
    records = with_group_pattern(scan(tmp_path), "cnmc").records
    assert len({(tmp_path / record.path).read_bytes() for record in records}) == len(records) == 200
    pictures = {int(r.path.split("_")[2]): np.asarray(Image.open(tmp_path / r.path)) for r in records}
    np.testing.assert_array_equal(pictures[100], np.rot90(pictures[99]))
    assert len({record.group for record in records}) == 10


def test_memory_counts_what_is_allocated_but_no_map_of_a_file(tmp_path):
    (tmp_path / "map").write_bytes(bytes(2**25))
    before = scale.anonymous(os.getpid())
    mapped = np.memmap(tmp_path / "map", np.uint8, "r")
    assert mapped.sum() == 0
    assert scale.anonymous(os.getpid()) - before < 2**24
    held = np.ones(2**25, np.uint8)
    assert scale.anonymous(os.getpid()) - before > 2**24
    assert held.all()


def test_exponent_and_bytes_by_hand():
    costs = [scale.Cost("a", 10, cpu=1, peak=100), scale.Cost("a", 1000, cpu=100, peak=5050)]
    assert scale.exponent(costs) == pytest.approx(1)
    assert scale.bytes_a_file(costs) == pytest.approx(5)
    assert math.isnan(scale.exponent(costs[:1]))
    assert "| a | 100,000 | 100,000 | 1.00 | 0 | 0 | 5 |" in scale.table(costs)


def test_the_command_measures_and_draws(tmp_path):
    options = ["--sizes", "100,200", "--commands", "scan,crop", "--folder", str(tmp_path / "work")]
    files = ["--out", str(tmp_path / "o.json"), "--plot", str(tmp_path / "o.png")]
    result = CliRunner().invoke(scale.main, [*options, *files])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "o.json").read_text())["results"]
    assert [(cost["command"], cost["files"], cost["failed"]) for cost in found] == [
        (command, size, "") for size in (100, 200) for command in ("scan", "crop")
    ]
    assert all(cost["peak"] > 0 for cost in found)
    assert Image.open(tmp_path / "o.png").width > 100
    assert list((tmp_path / "work").iterdir()) == [], "what was made is deleted"
