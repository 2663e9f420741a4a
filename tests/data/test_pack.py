"""The pack: the pixels of every image, decoded once, and made anew when something changes."""

import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from customcnn.cli import cli
from customcnn.data import pack as module
from customcnn.data.manifest import scan
from customcnn.data.pack import CACHE, find_pack, pack, parse_size, stream
from customcnn.data.pack_places import KEPT, Cleaned, clean
from customcnn.errors import CustomCNNError
from customcnn.images import readers
from customcnn.images.decode import BadImage
from customcnn.training.batches import batches, targets
from tests.support.errors import refused
from tests.support.folders import contents, stamps

RNG = np.random.default_rng(11)
NOISE = Image.fromarray(RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8))


def packs_in(folder):
    return sorted(path for path in (folder / CACHE).glob("*")) if (folder / CACHE).is_dir() else []


def decoded(src, size):
    """Decode and resize with Pillow alone."""
    height, width = size
    return np.array(
        [
            np.asarray(Image.open(src / r.path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
            for r in scan(src).records
        ]
    )


class Reads:
    """Counts how many images are decoded: a pack that is only opened shows no progress at all."""

    def __init__(self):
        self.decoded = 0

    @contextmanager
    def __call__(self, total, label):
        def advance(n):
            self.decoded += n

        yield advance


def count_decoded(src, size):
    reads = Reads()
    packed = pack(scan(src), size, progress=reads)
    return packed, reads.decoded


# ---------------------------------------------------------------- pixels, labels, rows


@pytest.mark.parametrize("size", [(8, 8), (5, 5), (3, 10), (20, 20), (1, 1)])
def test_pixels_are_those_of_pillows_own_resize(make_folder, size):
    src = make_folder({"all": 3, "hem": 2})
    NOISE.save(src / "all/other shape.png")
    packed = pack(scan(src), size)
    assert packed.images.shape == (6, *size, 3)
    assert packed.images.dtype == np.uint8
    np.testing.assert_array_equal(packed.images, decoded(src, size))


def test_an_image_of_the_size_is_kept_pixel_for_pixel(make_folder):
    src = make_folder({"all": 1, "hem": 1})
    packed = pack(scan(src), (8, 8))
    for row, name in enumerate(("all/0.bmp", "hem/0.bmp")):
        np.testing.assert_array_equal(packed.images[row], np.asarray(Image.open(src / name)))


def test_the_images_are_memory_mapped_and_read_only(make_folder):
    packed = pack(scan(make_folder({"all": 2, "hem": 2})), (4, 4))
    assert isinstance(packed.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        packed.images[0] = 0


def test_any_number_of_threads_makes_the_same_pack(make_folder, tmp_path):
    src = make_folder({"all": 20, "hem": 20})
    bytes_of = []
    for workers in (1, 2, 8):
        pack(scan(src), (5, 6), workers=workers)
        (made,) = packs_in(src)
        bytes_of.append(contents(made))
        shutil.rmtree(src / CACHE)
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]
    assert set(bytes_of[0]) == {"images.npy", "pack.json"}


def test_labels_and_rows_by_hand(make_folder):
    src = make_folder({"train/b": 2, "train/a": 1, "validation/a": 1, "validation/b": 1, "test/b": 1})
    packed = pack(scan(src), (4, 4))
    assert [record.path.rsplit("/", 1)[0] for record in packed.manifest.records] == [
        "test/b",
        "train/a",
        "train/b",
        "train/b",
        "validation/a",
        "validation/b",
    ]
    assert packed.labels(["a", "b"]).tolist() == [1, 0, 1, 1, 0, 1]
    assert packed.labels(["b", "c", "a"]).tolist() == [0, 2, 0, 0, 2, 0]
    assert packed.rows("train").tolist() == [1, 2, 3]
    assert packed.rows("validation").tolist() == [4, 5]
    assert packed.rows("test").tolist() == [0]
    assert packed.rows("no such part").tolist() == []
    assert packed.rows().tolist() == [0, 1, 2, 3, 4, 5]
    assert packed.labels(["a", "b"]).dtype == packed.rows().dtype == packed.rows("none").dtype == np.int64


def test_converted_images_are_counted_by_mode(make_folder):
    src = make_folder({"all": 2, "hem": 1})
    deep = np.arange(108, dtype=np.uint16).reshape(12, 9) * 600
    Image.fromarray(deep).save(src / "all/deep.png")
    Image.fromarray(deep).save(src / "hem/deep.tif")
    for name, mode in (("grey.png", "L"), ("ink.jpg", "CMYK"), ("clear.png", "RGBA"), ("palette.gif", "P")):
        NOISE.convert(mode).save(src / "hem" / name)
    first = pack(scan(src), (12, 9))
    again = pack(scan(src), (12, 9))
    assert first.converted == again.converted == {"I;16": 2, "L": 1, "CMYK": 1, "RGBA": 1, "P": 1}
    # 16 bits keep their range: 600 is 2.33 of 255, and the last, 64,200, is 249.8.
    row = [record.path for record in first.manifest.records].index("all/deep.png")
    assert first.images[row, 0, 1].tolist() == [2, 2, 2]
    assert first.images[row, -1, -1].tolist() == [250, 250, 250]


def test_rgb_images_alone_are_not_counted_as_converted(make_folder):
    assert pack(scan(make_folder({"all": 2, "hem": 2})), (4, 4)).converted == {}


# ---------------------------------------------------------------- opened again, made anew


def test_a_pack_is_opened_without_decoding_anything(make_folder):
    src = make_folder({"all": 3, "hem": 3})
    first, number = count_decoded(src, (5, 5))
    assert number == 6
    (made,) = packs_in(src)
    times = stamps(made)
    again, number = count_decoded(src, (5, 5))
    assert number == 0
    assert packs_in(src) == [made]
    assert stamps(made) == times
    np.testing.assert_array_equal(first.images, again.images)


def replaced_file(src):
    NOISE.save(src / "all/0.bmp")


def same_size_other_pixels(src):
    data = bytearray((src / "all/0.bmp").read_bytes())
    data[-1] ^= 255
    (src / "all/0.bmp").write_bytes(bytes(data))


def added_file(src):
    NOISE.save(src / "hem/new.png")


def removed_file(src):
    (src / "hem/0.bmp").unlink()


def moved_file(src):
    (src / "hem/0.bmp").rename(src / "all/moved.bmp")


@pytest.mark.parametrize("change", [replaced_file, same_size_other_pixels, added_file, removed_file, moved_file])
def test_a_pack_is_made_anew_when_a_file_changes(make_folder, change):
    src = make_folder({"all": 3, "hem": 3})
    count_decoded(src, (6, 6))
    change(src)
    packed, number = count_decoded(src, (6, 6))
    assert number == len(scan(src).records)
    np.testing.assert_array_equal(packed.images, decoded(src, (6, 6)))


def exchanged_files(src):
    (src / "all/0.bmp").rename(src / "aside")
    (src / "hem/0.bmp").rename(src / "all/0.bmp")
    (src / "aside").rename(src / "hem/0.bmp")


def written_over(src):
    """As `cp -p` and archives write over a file: the same inode, and its time put back."""
    (src / "all/0.bmp").write_bytes((src / "hem/0.bmp").read_bytes())
    os.utime(src / "all/0.bmp", (0, 0))


@pytest.mark.parametrize("change", [exchanged_files, written_over])
def test_files_of_equal_size_and_time_that_change_places_are_read_anew(make_folder, change):
    src = make_folder({"all": 3, "hem": 3})
    for record in scan(src).records:
        os.utime(src / record.path, (0, 0))
    count_decoded(src, (6, 6))
    change(src)
    packed, number = count_decoded(src, (6, 6))
    assert number == 6
    np.testing.assert_array_equal(packed.images, decoded(src, (6, 6)))


def test_a_pack_of_an_older_way_of_decoding_is_not_used(make_folder, monkeypatch):
    src = make_folder({"all": 2, "hem": 2})
    pack(scan(src), (5, 5))
    monkeypatch.setattr(module, "DECODING", module.DECODING + 1)
    assert count_decoded(src, (5, 5))[1] == 4


# ---------------------------------------------------------------- they do not pile up


def test_a_new_pack_takes_the_place_of_the_one_that_is_out_of_date(make_folder):
    src = make_folder({"all": 3, "hem": 3})
    (src / CACHE / "pack-6x6-0123456789abcdef").mkdir(parents=True)  # as older versions named them
    (src / CACHE / "pack-6x6-0123456789abcdef" / "pack.json").write_text('{"converted": {}}')
    other_size = pack(scan(src), (4, 4)).path
    for _ in range(4):
        os.utime(src / "all/0.bmp")
        made = pack(scan(src), (6, 6)).path
    assert packs_in(src) == sorted([made, other_size])


def test_of_other_images_of_the_folder_a_few_packs_stay(make_folder):
    src = make_folder({"all": 9, "hem": 9})
    paths = []
    for number in range(KEPT + 2):
        (src / f"all/{number}.bmp").unlink()
        paths.append(pack(scan(src), (6, 6)).path)
        os.utime(paths[-1], (number, number))
    assert packs_in(src) == sorted(paths[-KEPT:])
    find_pack(scan(src), (6, 6))
    assert paths[-1].stat().st_mtime > 1e9, "its last use counts, not its age"


def test_a_pack_in_use_stays(make_folder):
    src = make_folder({"all": 3, "hem": 3})
    old = pack(scan(src), (6, 6))
    replaced_file(src)
    new = pack(scan(src), (6, 6))
    assert packs_in(src) == sorted([old.path, new.path])
    assert clean(src) == Cleaned(0, 0, 2)
    del old, new
    size = 2 * len(scan(src).records) * 6 * 6 * 3
    removed = clean(src)
    assert (removed.count, removed.in_use) == (2, 0) and removed.bytes > size
    assert not (src / CACHE).exists()


def test_what_a_kill_left_is_cleaned_too(make_folder, reading):
    src = make_folder({"all": 15, "hem": 20})
    with pytest.raises(Killed):
        pack(scan(src), (5, 5), progress=killed_after)
    assert clean(src).count == 1
    assert not (src / CACHE).exists()
    with pytest.raises(Killed):
        pack(scan(src), (5, 5), progress=killed_after)
    replaced_file(src)
    assert packs_in(src) != [pack(scan(src), (5, 5)).path]
    assert len(packs_in(src)) == 1, "what was begun of images that have changed since is never finished"


def test_the_command_cleans(make_folder):
    src = make_folder({"all": 3, "hem": 2})
    run(src, "--size", "6")
    run(src, "--size", "5")
    size = sum(path.stat().st_size for path in (src / CACHE).rglob("*.*"))
    done = run(src, "--clean")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"Removed 2 caches of images, {size:,} bytes\n"
    assert not (src / CACHE).exists()
    assert json.loads(run(src, "--clean", "--json").stdout) == {"removed": 0, "bytes": 0, "in_use": 0}
    for words in (["--clean", "--size", "6"], ["--clean", "--upload"], []):
        assert run(src, *words).exit_code == 2


def test_each_size_has_a_pack_of_its_own(make_folder):
    src = make_folder({"all": 1, "hem": 1})
    for size in ((4, 5), (5, 4), (4, 4)):
        packed, number = count_decoded(src, size)
        assert (packed.images.shape[1:3], number) == (size, 2)
    assert [count_decoded(src, size)[1] for size in ((4, 5), (5, 4), (4, 4))] == [0, 0, 0]


def other_parts(record, number):
    return replace(record, split=("train", "validation")[number % 2])


def other_groups(record, number):
    return replace(record, group=f"subject {number % 3}")


def other_labels(record, number):
    return replace(record, label=("blast", "normal")[number % 2])


def further_columns(record, number):
    return replace(record, sha256="0" * 64, extra={"fold": f"fold_{number % 3}"})


@pytest.mark.parametrize("change", [other_parts, other_groups, other_labels, further_columns])
def test_what_a_manifest_says_of_its_images_makes_no_new_pack(make_folder, change):
    src = make_folder({"all": 3, "hem": 3})
    first, _ = count_decoded(src, (5, 5))
    manifest = scan(src)
    changed = replace(manifest, records=tuple(change(record, i) for i, record in enumerate(manifest.records)))
    for found in (pack(changed, (5, 5)), find_pack(changed, (5, 5))):
        assert found.manifest is changed, "labels and rows are those of the manifest that was given"
        np.testing.assert_array_equal(found.images, first.images)
    assert len(packs_in(src)) == 1


def test_folds_share_one_pack_and_each_has_its_own_rows(make_folder):
    src = make_folder({"all": 3, "hem": 3})
    manifest = scan(src)
    for fold in range(3):
        records = [
            replace(record, split="validation" if i % 3 == fold else "train")
            for i, record in enumerate(manifest.records)
        ]
        packed = pack(replace(manifest, records=tuple(records)), (4, 4))
        assert packed.rows("validation").tolist() == [fold, fold + 3]
        assert len(packed.rows("train")) == 4
    assert len(packs_in(src)) == 1


def test_some_of_the_images_are_another_pack(make_folder):
    src = make_folder({"train/all": 2, "train/hem": 2, "test/all": 1, "test/hem": 1})
    whole, part = pack(scan(src), (4, 4)), pack(scan(src).part("train"), (4, 4))
    np.testing.assert_array_equal(part.images, whole.images[whole.rows("train")])
    assert len(packs_in(src)) == 2


def test_the_pack_is_not_taken_for_a_class(make_folder):
    src = make_folder({"all": 2, "hem": 1})
    before = scan(src).records
    pack(scan(src), (4, 4))
    assert (src / CACHE).is_dir()
    assert scan(src).records == before


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("workers", [1, 3])
def test_a_damaged_image_is_one_line_and_leaves_no_pack(make_folder, workers):
    src = make_folder({"all": 4, "hem": 4})
    data = (src / "hem/2.bmp").read_bytes()
    (src / "hem/2.bmp").write_bytes(data[:100])
    assert "hem/2.bmp', damaged (" in refused(pack, scan(src), (4, 4), workers=workers)
    assert sorted(path.name for path in src.iterdir()) == ["all", "hem"]


def test_a_missing_image_is_named(make_folder):
    src = make_folder({"all": 2, "hem": 2})
    manifest = scan(src)
    (src / "all/1.bmp").unlink()
    with pytest.raises(CustomCNNError, match=r"Received: 'all/1\.bmp' \(No such file"):
        pack(manifest, (4, 4))
    assert packs_in(src) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(tiny_disk, make_folder, monkeypatch):
    src = make_folder({"all": 20, "hem": 20})
    expected = decoded(src, (20, 20))
    monkeypatch.setattr(module, "home_for", lambda root: tiny_disk / "packs")
    with pytest.raises(OSError, match="No space left"):
        pack(scan(src), (30, 30), workers=2)  # 108,000 bytes
    assert list(tiny_disk.iterdir()) == []
    np.testing.assert_array_equal(pack(scan(src), (20, 20), workers=2).images, expected)


def test_a_disk_that_takes_a_part_of_a_write_gets_the_rest(make_folder, monkeypatch):
    src = make_folder({"all": 3, "hem": 3})
    monkeypatch.setattr(os, "pwrite", lambda file, data, at, whole=os.pwrite: whole(file, data[:7], at))
    np.testing.assert_array_equal(pack(scan(src), (5, 5)).images, decoded(src, (5, 5)))


# ---------------------------------------------------------------- killed and resumed


class Killed(KeyboardInterrupt):
    """Leaves the partial folder as a kill does."""


@pytest.fixture
def reading(monkeypatch):
    """Notes the names of the files that are decoded; checkpoints come after every 8 images."""
    names = []

    def read(path, whole=readers.read_image):
        names.append(f"{path.parent.name}/{path.name}")
        return whole(path)

    monkeypatch.setattr(readers, "read_image", read)
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "CHECKPOINT", 8)
    return names


@contextmanager
def killed_after(total, label, images=22):
    done = 0

    def advance(n):
        nonlocal done
        done += n
        if done >= images:
            raise Killed

    yield advance


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_pack_goes_on_after_its_last_checkpoint(make_folder, reading, workers):
    src = make_folder({"all": 15, "hem": 20})
    NOISE.convert("L").save(src / "all/grey.png")
    paths = [record.path for record in scan(src).records]
    pack(scan(src), (5, 6))
    (made,) = packs_in(src)
    whole = contents(made)
    shutil.rmtree(src / CACHE)
    with pytest.raises(Killed):
        pack(scan(src), (5, 6), workers=workers, progress=killed_after)
    assert find_pack(scan(src), (5, 6)) is None
    reading.clear()
    packed, shown = count_decoded(src, (5, 6))
    assert sorted(reading) == paths[16:], "what the two checkpoints hold is not decoded again"
    assert shown == len(paths), "the bar begins where the killed one stopped"
    assert contents(made) == whole
    assert packs_in(src) == [made]
    assert packed.converted == {"L": 1}


def test_a_pack_killed_after_its_last_image_decodes_nothing(make_folder, reading, monkeypatch):
    src = make_folder({"all": 5, "hem": 5})

    def stop(staging):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module.atomic.Staging, "_publish", stop)
        patch.setattr(module.atomic.Staging, "_give_up", lambda staging, remove: os.close(staging.lock))
        pack(scan(src), (5, 5))
    reading.clear()
    np.testing.assert_array_equal(pack(scan(src), (5, 5)).images, decoded(src, (5, 5)))
    assert reading == []


def test_a_killed_pack_of_files_that_changed_begins_anew(make_folder, reading):
    src = make_folder({"all": 15, "hem": 20})
    with pytest.raises(Killed):
        pack(scan(src), (5, 5), progress=killed_after)
    replaced_file(src)
    reading.clear()
    np.testing.assert_array_equal(pack(scan(src), (5, 5)).images, decoded(src, (5, 5)))
    assert len(reading) == 35


def test_what_another_pillow_began_is_begun_anew(make_folder, reading, monkeypatch):
    src = make_folder({"all": 15, "hem": 20})
    with pytest.raises(Killed):
        pack(scan(src), (5, 5), progress=killed_after)
    monkeypatch.setattr(module.PIL, "__version__", "0.0")
    reading.clear()
    pack(scan(src), (5, 5))
    assert len(reading) == 35


# ---------------------------------------------------------------- streamed


@pytest.fixture
def both(make_folder):
    """The same images packed and streamed."""
    src = make_folder({"all": 20, "hem": 15})
    NOISE.convert("P").save(src / "all/other kind.png")
    return pack(scan(src), (6, 5)), stream(scan(src), (6, 5), workers=3)


INDEXES = [
    np.array([0, 3, 3, 35]),
    np.array([], np.int64),
    np.arange(36)[::-1],
    np.arange(36) % 3 == 0,
    slice(5, 12),
    slice(None),
    slice(40, 50),
    7,
    -1,
    np.int64(2),
]


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_streamed_pixels_are_the_packed_ones(both, index):
    packed, streamed = both
    found = streamed.images[index]
    assert (found.shape, found.dtype) == (packed.images[index].shape, np.uint8)
    np.testing.assert_array_equal(found, packed.images[index])


def test_streamed_images_look_like_the_map_and_write_nothing(make_folder):
    src = make_folder({"all": 3, "hem": 2})
    streamed = stream(scan(src), (4, 7), workers=2)
    images = streamed.images
    assert (images.shape, images.dtype, images.ndim, len(images)) == ((5, 4, 7, 3), np.uint8, 4, 5)
    assert streamed.labels(["all", "hem"]).tolist() == [0, 0, 0, 1, 1]
    assert len(list(images)) == 5
    with pytest.raises(IndexError):
        images[5]
    assert packs_in(src) == []


def test_a_training_is_fed_the_same_from_either(both):
    fed = []
    for source in both:
        wanted = targets(source.labels(["all", "hem"]), 2, 1)
        dataset = batches(source.images, wanted, source.rows(), 8, 3)
        fed.append([dataset[number] for number in range(len(dataset))])
    assert len(fed[0]) == 5
    for one, other in zip(*fed, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_a_streamed_image_that_is_damaged_is_named_when_it_is_asked_for(make_folder):
    src = make_folder({"all": 4, "hem": 4})
    (src / "hem/2.bmp").write_bytes(b"BM")
    images = stream(scan(src), (4, 4), workers=2).images
    assert len(images[:6]) == 6
    with pytest.raises(BadImage, match=r"hem/2\.bmp"):
        images[4:]


def test_streaming_needs_a_worker(make_folder):
    with pytest.raises(CustomCNNError, match="at least one worker"):
        stream(scan(make_folder({"all": 1, "hem": 1})), (4, 4), workers=0)


def test_real_photographs_packed_and_streamed(shared_data, tmp_path):
    for folder in (shared_data / "blood-cells").iterdir():
        (tmp_path / "cells" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:20]:
            (tmp_path / "cells" / folder.name / path.name).symlink_to(path)
    packed = pack(scan(tmp_path / "cells"), (150, 150))
    assert len(packed.images) == 80
    np.testing.assert_array_equal(packed.images, decoded(tmp_path / "cells", (150, 150)))
    np.testing.assert_array_equal(stream(scan(tmp_path / "cells"), (150, 150)).images[:], packed.images)


# ---------------------------------------------------------------- read-only folders


@contextmanager
def read_only(folder):
    """Make a folder read-only: by its mode, or for root, whom no mode stops, by a mount."""
    if os.geteuid():
        mode = stat.S_IMODE(folder.stat().st_mode)
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(mode)
        return
    mount = ["mount", "--bind", folder, folder]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a read-only folder needs a user other than root, or the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Give the test a temporary folder of its own, where packs of read-only folders go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_pack_of_a_read_only_folder_lies_in_the_temporary_folder(make_folder, temporary):
    src = make_folder({"all": 3, "hem": 2})
    expected = decoded(src, (5, 5))
    with read_only(src):
        packed, number = count_decoded(src, (5, 5))
        again, second = count_decoded(src, (5, 5))
    assert (number, second) == (5, 0)
    np.testing.assert_array_equal(packed.images, expected)
    np.testing.assert_array_equal(again.images, expected)
    assert packs_in(src) == []
    assert len(list(temporary.rglob("images.npy"))) == 1


def test_a_pack_inside_a_folder_that_became_read_only_is_used(make_folder, temporary):
    src = make_folder({"all": 3, "hem": 2})
    count_decoded(src, (5, 5))
    with read_only(src):
        assert count_decoded(src, (5, 5))[1] == 0
    assert list(temporary.iterdir()) == []


def test_read_only_folders_that_look_alike_are_not_mixed_up(make_folder, temporary):
    # As unpacked from archives that carry no times: the names, sizes and times of two data sets may be the same.
    folders = [make_folder({"all": 2, "hem": 2}, name) for name in ("one", "two")]
    for folder in folders:
        for record in scan(folder).records:
            os.utime(folder / record.path, (0, 0))
    for folder in folders:
        expected = decoded(folder, (8, 8))
        with read_only(folder):
            np.testing.assert_array_equal(pack(scan(folder), (8, 8)).images, expected)


def test_the_temporary_packs_are_each_users_own(make_folder, temporary):
    src = make_folder({"all": 1, "hem": 1})
    with read_only(src):
        pack(scan(src), (4, 4))
    (home,) = temporary.iterdir()
    assert str(os.getuid()) in home.name, "another user has another folder"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@pytest.mark.parametrize("make_theirs", ["another owner", "writable for others", "a link"])
def test_temporary_packs_of_others_are_not_read(make_folder, temporary, make_theirs):
    src = make_folder({"all": 2, "hem": 2})
    with read_only(src):
        pack(scan(src), (5, 5))
        (home,) = temporary.iterdir()
        (planted,) = home.rglob("images.npy")
        np.load(planted, mmap_mode="r+")[:] = 255
        if make_theirs == "another owner":
            if os.geteuid():
                pytest.skip("only root gives files away")
            os.chown(home, 12345, 12345)
        elif make_theirs == "writable for others":
            home.chmod(0o777)
        else:
            home.rename(temporary / "elsewhere")
            home.symlink_to(temporary / "elsewhere")
        packed, number = count_decoded(src, (5, 5))
        assert number == 4
        np.testing.assert_array_equal(packed.images, decoded(src, (5, 5)))
        assert count_decoded(src, (5, 5))[1] == 0, "the own one is found again"


def test_temporary_packs_that_nobody_has_used_for_a_month_go(make_folder, temporary):
    folders = [make_folder({"all": 2, "hem": 2}, name) for name in ("one", "two")]
    with read_only(folders[0]), read_only(folders[1]):
        old = pack(scan(folders[0]), (5, 5)).path
        month_ago = time.time() - 31 * 24 * 3600
        os.utime(old, (month_ago, month_ago))
        pack(scan(folders[1]), (5, 5))
        assert not old.exists()
        assert len(list(temporary.rglob("images.npy"))) == 1
        assert clean(folders[1]).count == 1


# ---------------------------------------------------------------- the command


def run(*words):
    return CliRunner().invoke(cli, ["pack", *map(str, words)])


def test_the_command_makes_the_pack_that_a_training_opens(make_folder):
    src = make_folder({"all": 3, "hem": 2})
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(src / "all/grey.png")
    done = run(src, "--size", "6x5")
    assert done.exit_code == 0, done.output
    found = find_pack(scan(src), (6, 5))
    assert found.path == packs_in(src)[0]
    assert done.stdout == f"Pack: {found.path}\n6 images of 6 x 5 pixels, 540 bytes\n"
    assert done.stderr == "Note: converted to 8-bit RGB: 1 of mode L.\n"
    again = run(src, "--size", "6x5", "--json")
    expected = {"pack": str(found.path), "uploaded": None, "images": 6, "size": [6, 5], "bytes": 540}
    assert json.loads(again.stdout) == expected


@pytest.mark.parametrize("size", ["0", "5x", "-3", "5x0", "5x5x5", "big", ""])
def test_a_size_that_is_none(make_folder, size):
    assert refused(parse_size, size) == (
        f"--size is a number of pixels, or height x width. Received: {size!r}. Example: --size 120x160."
    )


def test_sizes():
    assert parse_size("64") == (64, 64) and parse_size("120x160") == (120, 160)
