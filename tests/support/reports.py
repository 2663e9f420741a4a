"""Runs to report on: half of their images are painted wrong, so that there are mistakes to show."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from customcnn.data.manifest import read_rows, scan
from customcnn.evaluation.evaluate import evaluate
from customcnn.metrics.calibration import calibration
from customcnn.metrics.clinical import clinical
from customcnn.runs.run_dir import RunDir
from customcnn.training.train import train
from tests.support.colors import SIZE, recipe

HOSTILE = "<script>alert(1)<"
LONG = "a_class_name_without_a_single_place_at_which_it_could_be_broken_into_lines"
CLASSES = ("a | b & `c`", HOSTILE, LONG, "plain")


def half_wrong(root: Path, labels: tuple[str, ...], each: int) -> None:
    """Write a part whose pictures have, by turns, the colour of their class and that of the next."""
    rng = np.random.default_rng(3)
    for place, label in enumerate(labels):
        (root / label).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 100, (SIZE, SIZE + 9, 3), dtype=np.uint8)
            pixels[..., (place + number % 2) % len(labels) % 3] += 120
            Image.fromarray(pixels).save(root / label / f"g{number % 3}_{number}.png")


def rows_of(run: RunDir) -> list[dict[str, str]]:
    return read_rows(run.predictions, ("path", "label"))


def read_more(run: RunDir, groups: list[str], **more) -> dict:
    """Add clinical results and calibration to metrics.json, as a full evaluation has them."""
    metrics = json.loads(run.metrics.read_text())
    classes, rows = metrics["classes"], rows_of(run)
    labels = np.array([classes.index(row["label"]) for row in rows])
    shares = np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows])
    known = {"groups": groups, "positive": metrics["positive"], "resamples": 50}
    strata = {"site": ["north", "south"] * (len(rows) // 2)}
    metrics["clinical"] = clinical(labels, shares, classes, strata=strata, **known, **more)
    metrics["calibration"] = calibration(labels, shares, classes, **known) | {"temperature": 1.25}
    run.metrics.write_text(json.dumps(metrics))
    return metrics


def hostile_run(home: Path) -> RunDir:
    """Return a run of four classes whose names must be escaped and broken, with everything that a run can hold."""
    for part in ("train", "validation", "test"):
        half_wrong(home / "data" / part, CLASSES, 6)
    run, manifest = RunDir(home / "run"), scan(home / "data")
    train(manifest, run, recipe(monitor="loss", epochs=2))
    evaluate(run, manifest, resamples=50)
    read_more(run, groups=[Path(row["path"]).name[:2] + row["label"] for row in rows_of(run)])
    return run
