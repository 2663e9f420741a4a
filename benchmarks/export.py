"""Every export of one trained run: its size, how far it is from Keras on real images, and images per second."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.predict import repeated
from benchmarks.race import Racer, Result, machine, machine_line, race, ratio, report

BASE = "Keras"
IMAGES = 200
"""So many images are compared, evenly over those that are given."""

PIXELS = "pixels.npy"
WRITTEN = "written.json"
BATCHES = (1, 64)


def variants() -> list[tuple[str, str]]:
    """Return every format in every precision that it has."""
    from customcnn.export import FORMATS

    return [(row.name, precision) for row in FORMATS for precision in row.precisions]


def write_all(run: str, data: str, folder: str) -> None:
    """Write every export, each into a copy of the run, and how it compares with Keras: written.json."""
    from customcnn.backend import devices
    from customcnn.data.manifest import scan
    from customcnn.export import export, get_format
    from customcnn.export.tf_function import in_float32
    from customcnn.export.verify import compare, expected
    from customcnn.runs.run_dir import RunDir
    from customcnn.runs.saved_model import load_model, read_info

    devices.configure("cpu")
    source, images = RunDir(Path(run)), scan(Path(data))
    size = read_info(source.best).input_size
    pixels = read_images(Path(data), size)
    np.save(Path(folder) / PIXELS, pixels)
    truth = expected(in_float32(load_model(source.best)), pixels)
    rows = []
    for name, precision in variants():
        place = copied(source.path, Path(folder) / f"{name}-{precision}")
        try:
            written = export(RunDir(place), format=name, precision=precision, data=images, check=False)
            found = compare(get_format(name), written.path, pixels, truth)
        except Exception as error:
            print(f"no {name} in {precision}: {error}", file=sys.stderr)
            continue
        values = {"format": name, "precision": precision, "bytes": written.size, "path": str(written.path)}
        rows.append({**values, "difference": found.difference, "same": found.same, "images": len(pixels)})
    (Path(folder) / WRITTEN).write_text(json.dumps(rows))


def read_images(data: Path, size: tuple[int, int]) -> np.ndarray:
    """Return images that are not of the training part, or of everything where nothing is split."""
    from customcnn.data.manifest import scan
    from customcnn.data.pack import stream

    images = scan(data)
    part = next((images.part(name) for name in ("test", "validation") if name in images.parts), images)
    places = np.unique(np.linspace(0, len(part.records) - 1, IMAGES).round().astype(int))
    return stream(part, size).images[places]


def copied(run: Path, place: Path) -> Path:
    """Copy what an export is made from."""
    place.mkdir()
    for name in ("recipe.toml", "best.keras"):
        shutil.copy(run / name, place)
    return place


def batch_of(folder: str, images: int) -> np.ndarray:
    """Return so many of the images, uint8 (N, H, W, 3)."""
    return np.load(Path(folder) / PIXELS)[:images]


def by_keras(folder: str, run: str, images: int) -> Callable[[], int]:
    """Keras on TensorFlow, in float32: what every ratio is to."""
    from customcnn.backend import devices
    from customcnn.export.tf_function import in_float32
    from customcnn.runs.saved_model import load_model

    devices.configure("cpu")
    model, data = in_float32(load_model(Path(run) / "best.keras")), batch_of(folder, images)
    return repeated(lambda: model.predict_on_batch(data), images)


def by_predict(folder: str, run: str, images: int) -> Callable[[], int]:
    """What `customcnn predict` computes without an export."""
    from customcnn.inference.classifier import Classifier
    from customcnn.runs.run_dir import RunDir

    classifier, data = Classifier(RunDir(Path(run)), runtime="keras", device="cpu"), batch_of(folder, images)
    return repeated(lambda: classifier.probabilities(data), images)


def by_export(folder: str, path: str, name: str, images: int) -> Callable[[], int]:
    """An export in its own program; what customcnn predict opens, in its batches."""
    import pkgutil

    from customcnn.export import get_format, is_runtime
    from customcnn.inference.runtimes import BATCH, open_file

    data, row = batch_of(folder, images), get_format(name)
    if is_runtime(row):
        network: Any = open_file(Path(path), name).compile(images)
        batches = [data[start : start + BATCH] for start in range(0, images, BATCH)]
    else:
        network, batches = pkgutil.resolve_name(f"{row.module}:opened")(Path(path)), [data]
    return repeated(lambda: list(network(batches)), images)


def racers_of(folder: str, run: str, rows: list[dict[str, Any]], images: int) -> list[Racer]:
    """Return Keras, `customcnn predict` without an export, and every export."""
    found = [Racer(BASE, by_keras, (folder, run, images)), Racer("predict", by_predict, (folder, run, images))]
    return found + [Racer(named(row), by_export, (folder, row["path"], row["format"], images)) for row in rows]


def named(row: dict[str, Any]) -> str:
    """Return the name of a variant."""
    return f"{row['format']}, {row['precision']}"


def table(rows: list[dict[str, Any]], results: dict[int, list[Result]]) -> str:
    """Return a Markdown table of all variants; speeds as ratios to Keras."""
    lines = ["| format | precision | MB | largest difference | same class | batch 1 | batch 64 |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    speeds = {images: {r.name: r for r in found} for images, found in results.items()}
    for row in rows:
        cells = []
        for images in BATCHES:
            own, base = speeds[images][named(row)], speeds[images][BASE]
            cells.append("not run" if own.failed or base.failed else f"{ratio(own, base):.2f} ({own.median:,.0f}/s)")
        same = f"{row['same']} of {row['images']}"
        shown = [row["format"], row["precision"], f"{row['bytes'] / 1e6:.1f}", f"{row['difference']:.1g}", same, *cells]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


@click.command()
@click.option("--run", required=True, type=click.Path(exists=True, file_okay=False), help="A trained run.")
@click.option(
    "--data", required=True, type=click.Path(exists=True, file_okay=False), help="The folder of its training."
)
@click.option("--rounds", default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write everything as JSON.")
def main(run: str, data: str, rounds: int, out: Path | None) -> None:
    """Compare every export of a run with Keras: size, difference, speed at batch 1 and 64."""
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: TensorFlow's threads would stay awake in this one.
        code = f"from benchmarks.export import write_all; write_all({run!r}, {data!r}, {folder!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        rows = json.loads((Path(folder) / WRITTEN).read_text())
        results = {images: race(racers_of(folder, run, rows, images), rounds=rounds) for images in BATCHES}
    for images, found in results.items():
        report(f"Exports, batches of {images}", found, BASE, None)
    print(f"Times Keras in float32 on {machine_line()}\n\n{table(rows, results)}")
    if out is not None:
        speeds = {
            str(images): [{"name": r.name, "rates": r.rates, "failed": r.failed} for r in found]
            for images, found in results.items()
        }
        plain = [{key: value for key, value in row.items() if key != "path"} for row in rows]
        out.write_text(json.dumps({"machine": machine(), "exports": plain, "speeds": speeds}, indent=2) + "\n")
