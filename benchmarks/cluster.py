"""Augmenting and packing by workers of one machine, by a Ray cluster, and from and to a server that speaks S3."""

import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks.race import Racer, Result, race, report

ALONE = "1 worker"
SIZE = 150
"""Of the packs."""

DRAWN_SIZE = 450
BUCKET = "bench"

WAYS = {
    "this machine": {"1 worker": 1, "2 workers": 2},
    "Ray": {"Ray, 1": 1, "Ray, 2": 2},
    "this machine, S3": {"S3, 2 workers": 2},
    "Ray, S3": {"S3, Ray, 2": 2},
}
"""Lines of the plot: racers, and how many workers each has."""

KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def ray_of(processors: int) -> Iterator[object]:
    """Start Ray on this machine with so many processors, and give the cluster."""
    from customcnn.cluster import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    import ray

    ray.init(
        address="local", num_cpus=processors, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL"
    )
    try:
        yield Cluster("ray")
    finally:
        ray.shutdown()


def workers_of(kind: str, count: int) -> object:
    """Return so many workers of this machine or of a Ray cluster, which stays until the process ends."""
    if kind == "ray":
        cluster = ray_of(count)
        workers = cluster.__enter__()
        _kept.append(cluster)  # or it would be closed at once
        return workers
    return count


_kept: list[object] = []


def augmenting(src: str, dst: str, count: int, kind: str, workers: int) -> Callable[[], int]:
    """`customcnn augment` with the report's turns and flips, and a change of brightness that needs processes."""
    from customcnn.data.augment import augment_folder
    from customcnn.data.augmentor import Operations
    from customcnn.data.manifest import scan
    from customcnn.io.remote_path import Address, parse_folder

    found = workers_of(kind, workers)
    manifest = scan(src)

    def work() -> int:
        target = parse_folder(f"{dst}/{uuid.uuid4().hex}")
        augment_folder(manifest, target, count, operations=Operations(brightness=0.2), workers=found)
        if isinstance(target, Address):
            return count  # in the server's memory until its end
        shutil.rmtree(target)
        return count

    return work


def packing(src: str, kind: str, workers: int) -> Callable[[], int]:
    """`customcnn pack` from nothing."""
    from customcnn.data.manifest import scan
    from customcnn.data.pack import pack

    found = workers_of(kind, workers)
    manifest = scan(src)

    def work() -> int:
        packed = pack(manifest, (SIZE, SIZE), workers=found)
        assert packed.path is not None
        shutil.rmtree(packed.path)
        return len(packed.images)

    return work


def _copies(folder: Path, number: int) -> list[str]:
    """Return so many folders with the same images as links: each racer has its packs to itself."""
    made = []
    for i in range(number):
        (folder / str(i)).mkdir(parents=True)
        for entry in sorted((folder.parent / "cells").iterdir()):
            if entry.is_dir():
                (folder / str(i) / entry.name).symlink_to(entry)
        made.append(str(folder / str(i)))
    return made


@contextmanager
def s3_server(cells: Path) -> Iterator[str]:
    """Start moto's S3 server on loopback with the images in it; give their address. It is Python, and slow."""
    from moto.server import ThreadedMotoServer

    from customcnn.io.remote_path import Address, _filesystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    _filesystem("s3", os.getpid()).mkdir(f"s3://{BUCKET}")
    for path in sorted(cells.rglob("*.bmp")):
        (Address("s3", f"{BUCKET}/cells") / path.relative_to(cells).as_posix()).put(path.read_bytes())
    try:
        yield f"s3://{BUCKET}"
    finally:
        server.stop()


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--images", default=200, show_default=True, help="How many cells of 450 x 450 are drawn.")
@click.option("--count", default=400, show_default=True, help="How many augmented images are made of them.")
@click.option("--out", type=click.Path(path_type=Path), help="Write two JSONs too: NAME-augment, NAME-pack.")
@click.option("--plot", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw it as PNG.")
def main(rounds: int, images: int, count: int, out: Path | None, picture: Path | None) -> None:
    """Augmenting and packing by 1 and 2 workers, by Ray with 1 and 2 processors, and from S3. Files go to TMPDIR."""
    from customcnn.data.synthetic import draw_samples

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = draw_samples(folder / "cells", subjects=max(1, images // 20), cells=10, size=DRAWN_SIZE)
        (cells / "manifest.csv").unlink()
        with s3_server(cells) as bucket:
            ways = [("1 worker", "own", 1), ("2 workers", "own", 2), ("Ray, 1", "ray", 1), ("Ray, 2", "ray", 2)]
            racers = [
                Racer(title, augmenting, (str(cells), str(folder), count, kind, workers))
                for title, kind, workers in ways
            ]
            from_s3 = [("S3, 2 workers", "own", 2), ("S3, Ray, 2", "ray", 2)]
            racers += [
                Racer(title, augmenting, (f"{bucket}/cells", bucket, count, kind, workers))
                for title, kind, workers in from_s3
            ]
            made = race(racers, rounds=rounds)
            report(f"augment to {count}", made, ALONE, _beside(out, "augment"), count=count)
            sources = _copies(folder / "linked", len(ways))
            racers = [
                Racer(title, packing, (src, kind, workers))
                for src, (title, kind, workers) in zip(sources, ways, strict=True)
            ]
            racers += [Racer(title, packing, (f"{bucket}/cells", kind, workers)) for title, kind, workers in from_s3]
            packed = race(racers, rounds=rounds)
            report(f"pack of {images}", packed, ALONE, _beside(out, "pack"), images=images)
    if picture is not None:
        plot({"augment": made, "pack": packed}, picture)


def plot(found: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Draw images a second over the number of workers, of every way; bars from the slowest round to the fastest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, results) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        rates = {result.name: result for result in results if not result.failed}
        for label, names in WAYS.items():
            own = {workers: rates[name] for name, workers in names.items() if name in rates}
            middle = [result.median for result in own.values()]
            below = [result.median - min(result.rates) for result in own.values()]
            above = [max(result.rates) - result.median for result in own.values()]
            axes.errorbar([*own], middle, (below, above), marker="o", capsize=3, label=label)
        axes.set(title=title, xlabel="workers", ylabel="images/s", xticks=(1, 2), ylim=(0, None))
        axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _beside(out: Path | None, name: str) -> Path | None:
    return None if out is None else out.with_name(f"{out.stem}-{name}{out.suffix}")
