"""Decoding a folder once against Keras's readers, and reading shuffled batches from the memory map."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.race import Racer, race, report

KERAS = "image_dataset_from_directory"
TF_DATA = "tf.data, shuffle and batch"

SIZE = 150
BATCH = 64
"""Of Keras's readers, which decode batch by batch."""

DRAWN_SIZE = 320
DRAWN_QUALITY = 90

ROWS = 4_096
ROW_BATCH = 32
"""Of the second race: what a training reads at a time."""


def draw(folder: Path, images: int) -> Path:
    """Draw cells and save them as JPEG in class folders; return the folder."""
    from customcnn.data.synthetic import draw_samples
    from customcnn.images.decode import read_image

    drawn = draw_samples(folder / "drawn", subjects=max(2, images // 20), cells=10, size=DRAWN_SIZE)
    for path in sorted(drawn.rglob("*.bmp")):
        target = folder / "drawn-cells" / path.relative_to(drawn).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        read_image(path).save(target, quality=DRAWN_QUALITY)
    shutil.rmtree(drawn)
    return folder / "drawn-cells"


def link(data: Path, folder: Path) -> Path:
    """Return a folder that holds the class folders as links: a pack is then not written into the data."""
    folder.mkdir()
    for entry in sorted(data.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry.resolve())
    return folder


def own_pack(data: Path, workers: int | None) -> Callable[[], int]:
    """`customcnn.data.pack.pack` from nothing: decoded, averaged, and written to the disk."""
    from customcnn.data.manifest import scan
    from customcnn.data.pack import CACHE, pack

    def work() -> int:
        shutil.rmtree(data / CACHE, ignore_errors=True)
        return len(pack(scan(data), (SIZE, SIZE), workers=workers).images)

    return work


def own_stream(data: Path) -> Callable[[], int]:
    """`customcnn.data.pack.stream`: the same pixels batch by batch, nothing written."""
    from customcnn.data.manifest import scan
    from customcnn.data.pack import stream

    def work() -> int:
        images = stream(scan(data), (SIZE, SIZE)).images
        return sum(len(images[start : start + BATCH]) for start in range(0, len(images), BATCH))

    return work


def keras_reader(data: Path, interpolation: str) -> Callable[[], int]:
    """Keras's own reader, once over all images; "bilinear", its default, takes four pixels and does not average."""
    import keras

    def work() -> int:
        dataset = keras.utils.image_dataset_from_directory(
            data,
            image_size=(SIZE, SIZE),
            batch_size=BATCH,
            shuffle=False,
            interpolation=interpolation,
            verbose=False,
        )
        return sum(len(labels) for _, labels in dataset)

    return work


def generator(data: Path) -> Callable[[], int]:
    """The notebooks' way, with the filter that customcnn uses."""
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    def work() -> int:
        flow = ImageDataGenerator().flow_from_directory(
            data, target_size=(SIZE, SIZE), batch_size=BATCH, shuffle=False, interpolation="bilinear"
        )
        return sum(len(flow[number][1]) for number in range(len(flow)))

    return work


def gather(path: Path) -> Callable[[], int]:
    """Shuffled batches from the memory map by NumPy alone: sorted rows."""
    images = np.load(path, mmap_mode="r")
    rng = np.random.default_rng(0)

    def work() -> int:
        order = rng.permutation(len(images))
        batches = [order[start : start + ROW_BATCH] for start in range(0, len(order), ROW_BATCH)]
        return sum(len(images[np.sort(rows)]) for rows in batches)

    return work


def feed(path: Path) -> Callable[[], int]:
    """The same as a training reads them: through `customcnn.training.batches`, with their targets."""
    from customcnn.training.batches import batches, targets

    images = np.load(path, mmap_mode="r")
    wanted = targets(np.zeros(len(images), np.int64), 2, 1)
    dataset = batches(images, wanted, np.arange(len(images)), ROW_BATCH, 0)

    def work() -> int:
        found = sum(len(dataset[number][0]) for number in range(len(dataset)))
        dataset.on_epoch_end()
        return found

    return work


def tf_data(path: Path) -> Callable[[], int]:
    """The whole array in the memory, cut, shuffled and batched by tf.data."""
    import tensorflow as tf

    images = np.load(path)
    labels = np.zeros((len(images), 1), np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    dataset = dataset.shuffle(len(images)).batch(ROW_BATCH).prefetch(tf.data.AUTOTUNE)

    def work() -> int:
        return sum(len(wanted) for _, wanted in dataset)

    return work


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder of class folders."
)
@click.option("--images", default=1_000, show_default=True, help="How many cells are drawn where --data is not given.")
@click.option("--out", type=click.Path(path_type=Path), help="Write JSONs too: NAME-decode, NAME-rows64, NAME-rows150.")
def main(rounds: int, data: Path | None, images: int, out: Path | None) -> None:
    """Decoding once, and reading shuffled batches. The pack goes to TMPDIR, so that decides which disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = data or draw(folder, images)
        # Two, for ImageDataGenerator would take the folder of the packs for a class.
        linked, own = link(data, folder / "linked"), link(data, folder / "own")
        racers = [
            Racer(KERAS, keras_reader, (linked, "bilinear"), {"TF_CPP_MIN_LOG_LEVEL": "3"}),
            Racer(f"{KERAS}, area", keras_reader, (linked, "area"), {"TF_CPP_MIN_LOG_LEVEL": "3"}),
            Racer("ImageDataGenerator", generator, (linked,), {"TF_CPP_MIN_LOG_LEVEL": "3"}),
            Racer("customcnn pack", own_pack, (own, None)),
            Racer("customcnn pack, 1 thread", own_pack, (own, 1)),
            Racer("customcnn stream", own_stream, (own,)),
        ]
        title = f"{data.name} as {SIZE} x {SIZE}"
        report(title, race(racers, rounds=rounds), KERAS, _beside(out, "decode"), size=SIZE, batch=BATCH)
        for size in (64, SIZE):
            _race_rows(folder / f"{size}.npy", size, rounds, _beside(out, f"rows{size}"))


def _race_rows(path: Path, size: int, rounds: int, out: Path | None) -> None:
    np.save(path, np.random.default_rng(0).integers(0, 256, (ROWS, size, size, 3), dtype=np.uint8))
    racers = [
        Racer(TF_DATA, tf_data, (path,), {"TF_CPP_MIN_LOG_LEVEL": "3"}),
        Racer("map, sorted rows", gather, (path,)),
        Racer("map, customcnn feed", feed, (path,), {"TF_CPP_MIN_LOG_LEVEL": "3"}),
    ]
    title = f"Shuffled batches of {ROW_BATCH} of {ROWS:,} images of {size} x {size}"
    report(title, race(racers, rounds=rounds), TF_DATA, out, size=size, batch=ROW_BATCH, rows=ROWS)


def _beside(out: Path | None, name: str) -> Path | None:
    return None if out is None else out.with_name(f"{out.stem}-{name}{out.suffix}")
