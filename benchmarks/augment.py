"""Turned and flipped images: on the disk against Augmentor's threads, in memory against the gather alone."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from benchmarks.race import Racer, race, report

T = TypeVar("T")

AUGMENTOR = "Augmentor, threads"
GATHER = "gather alone"
ORIGINALS, SAMPLES = 8_480, 20_000
"""As in the report: each training image is used 2.36 times."""

PACKED_SIZE = 150
BATCH = 32
BATCHES = 40


def draw(folder: Path, originals: int) -> None:
    """Draw the originals, 450 x 450, as BMP into `folder/bmp`, and write the same pixels as PNG into `folder/png`."""
    from customcnn.data.synthetic import draw_samples
    from customcnn.images.decode import encode, read_image
    from customcnn.io.parallel import parallel

    bmp = draw_samples(folder / "bmp", subjects=originals // 20, cells=10, workers=2)

    def write(path: Path) -> None:
        target = folder / "png" / path.relative_to(bmp).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encode(read_image(path), "PNG"))

    list(parallel(write, sorted(bmp.rglob("*.bmp")), 2))


def augmentor(src: Path, out: Path, count: int) -> Callable[[], int]:
    """Augmentor's own way: read, change and save in its threads; what it prints goes nowhere."""
    import Augmentor

    pipeline = _silently(lambda: Augmentor.Pipeline(str(src), str(out)))
    pipeline.rotate90(0.5)
    pipeline.rotate270(0.5)
    pipeline.flip_left_right(0.5)
    pipeline.flip_top_bottom(0.5)

    def work() -> int:
        _silently(lambda: pipeline.sample(count, multi_threaded=True))
        written = [path for path in out.rglob("*") if path.is_file()]
        for path in written:  # a round that is not the first would otherwise write into a larger folder
            path.unlink()
        return len(written)

    return work


def _silently(function: Callable[[], T]) -> T:
    out, error = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        try:
            return function()
        finally:
            sys.stdout, sys.stderr = out, error


def own_folder(src: Path, out: Path, count: int) -> Callable[[], int]:
    """`customcnn augment` with two workers: the same operations, and hashes, a manifest and a seed beside."""
    from customcnn.data.augment import augment_folder
    from customcnn.data.manifest import scan

    manifest = scan(src)

    def work() -> int:
        result = augment_folder(manifest, out, count, workers=2)
        shutil.rmtree(out)
        return len(result.manifest.records)

    return work


def gather(path: Path, turned: bool) -> Callable[[], int]:
    """Shuffled batches from a memory map, as a training reads them; with or without turns and flips on the way."""
    from customcnn.augmentation import make_transform
    from customcnn.augmentation.settings import Augmentation

    images = np.load(path, mmap_mode="r")
    transform = make_transform(Augmentation(flip="both", quarter_turns=True))
    epoch = 0

    def work() -> int:
        nonlocal epoch
        epoch += 1
        order = np.random.default_rng((1, epoch)).permutation(len(images))
        for batch in range(BATCHES):
            found = images[np.sort(order[batch * BATCH : (batch + 1) * BATCH])]
            if turned:
                found = transform(found, (1, epoch, batch))
        return BATCHES * BATCH

    return work


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--originals", default=300, show_default=True, help="How many images of 450 x 450 are drawn.")
@click.option("--out", type=click.Path(path_type=Path), help="Write three JSONs too: NAME-bmp, NAME-png, NAME-online.")
def main(rounds: int, originals: int, out: Path | None) -> None:
    """Turned and flipped images: on the disk, and in memory. The files go to TMPDIR, so that decides which disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, originals)
        found = len(list(folder.glob("png/*/*.png")))
        count = round(found * SAMPLES / ORIGINALS)
        for kind in ("bmp", "png"):
            racers = [
                Racer(AUGMENTOR, augmentor, (folder / kind, folder / f"{kind}-augmentor", count)),
                Racer("customcnn augment", own_folder, (folder / kind, folder / f"{kind}-own", count)),
            ]
            results = race(racers, rounds=rounds)
            title = f"{count} samples of {found} {kind.upper()} images of 450 x 450"
            report(title, results, AUGMENTOR, _beside(out, kind), originals=found, samples=count)
        packed = folder / "packed.npy"
        shape = (2 * BATCHES * BATCH, PACKED_SIZE, PACKED_SIZE, 3)
        np.save(packed, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        racers = [Racer(GATHER, gather, (packed, False)), Racer("gather, turned and flipped", gather, (packed, True))]
        title = f"Batches of {BATCH} of {PACKED_SIZE} x {PACKED_SIZE} from a memory map"
        report(title, race(racers, rounds=rounds), GATHER, _beside(out, "online"), batch=BATCH, size=PACKED_SIZE)


def _beside(out: Path | None, name: str) -> Path | None:
    return None if out is None else out.with_name(f"{out.stem}-{name}{out.suffix}")
