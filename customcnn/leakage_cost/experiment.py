"""Train on both splits of every seed, score every network twice, and write what the leak costs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.data.leakage import DRAWN
from customcnn.data.manifest import Manifest, read_rows
from customcnn.errors import CustomCNNError
from customcnn.evaluation.evaluate import evaluate
from customcnn.io.atomic import write_text
from customcnn.leakage_cost.jackknife import METHOD, group_confusions, summarize
from customcnn.leakage_cost.paired_splits import WAYS, Arms, check_data, make_arms
from customcnn.progress import Progress, silent
from customcnn.recipe.monitor import chosen_by_validation
from customcnn.recipe.recipe import Recipe, flat
from customcnn.runs.run_dir import RunDir, rows_to_csv
from customcnn.runs.series import Series, forget_networks, hash_images, pack_once, spoken_once
from customcnn.training.classification import input_size
from customcnn.training.train import train

if TYPE_CHECKING:
    from customcnn.cluster.remote_trainings import Spread

SCORES = ("accuracy", "balanced_accuracy")
CELLS = ("own", "test")
"""What a network is scored on: its own validation part, and the groups held out from both networks."""
LEVEL = 0.95
SEEDS = 2**32

FREE = frozenset({"seeds", "recipe.epochs", "recipe.device", "recipe.tensorboard", "recipe.mlflow"})
"""Settings that may change when an experiment is resumed: more seeds, and what a run may change."""


@dataclass(frozen=True)
class Price:
    """What a leak costs.

    Attributes:
        path: the folder of the experiment.
        found: the contents of leakage.json.
        notes: the sentences that belong beside every score.
    """

    path: Path
    found: dict[str, Any]
    notes: list[str]


def price_leak(
    data: Manifest,
    out: Path,
    recipe: Recipe,
    *,
    seeds: int = 5,
    test: float = 0.2,
    ratio: float = 0.8,
    seed: int = 120,
    weights: str = "best",
    resamples: int = 2000,
    resume: bool = False,
    replace_old: bool = False,
    workers: int | None = None,
    spread: "Spread | None" = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> Price:
    """Train a recipe on a split by image and on one by group, for several seeds, and score all on the same new groups.

    For each seed whole groups are held out; what is left is split by group, and by image with the same counts (see
    `make_arms`). Each network is scored on its own validation part, which is what a report would print, and on the
    groups that neither has seen, which is what new subjects get. Own score less test score is the inflation of a way
    to split; the inflation by image less that by group is the price of the leak: choosing the best epoch on the
    validation part flatters both, and only a leak flatters one alone.

    Every network is a run, `out/seed-120/by-image` and so on. Writes leakage.json, leakage.csv and price.png into
    `out`. The images are packed once for all runs, and none is copied.

    Args:
        data: from `scan`, not split, with the group of every image.
        out: the folder to make.
        recipe: of every training. The network of the first seed has the recipe's own seed, the next one that plus 1.
        seeds: how many, two at least.
        test: the share of the groups held out.
        ratio: the share of the rest that trains.
        seed: of the splits of the first seed; the next ones follow it.
        weights: "best" (of the epoch with the best score on the own validation part, in both ways) or "last".
        resamples: of the bootstrap behind the intervals of single runs.
        resume: go on with the experiment that is there: finished runs are kept.
        replace_old: delete the experiment that is there.
        workers: threads for decoding; None for one a core.
        spread: the cluster whose nodes train the networks, several at a time; None for one after the other, here.
        progress: draws the bars, see `customcnn.progress`.
        say: receives one line of text for each thing a user should know.

    Raises:
        CustomCNNError: as by `make_arms`, `train` and `evaluate`; fewer than two seeds; or something is in the way.
    """
    if seeds < 2:
        raise CustomCNNError(
            f"An interval over seeds needs two of them at least. Received: --seeds {seeds}. Give 2 or more."
        )
    check_data(data, test, ratio)
    settings = {
        "data": str(data.root),
        "test": test,
        "ratio": ratio,
        "seed": seed,
        "seeds": seeds,
        "weights": weights,
        "images": hash_images(data),
        "recipe": flat(recipe),
    }
    speak = spoken_once(say)
    if data.drawn:
        say(f"Warning: {DRAWN}")
    with series(out).opened(data, settings, resume=resume, replace=replace_old, free=FREE):
        arms = [make_arms(data, test=test, ratio=ratio, seed=seed + i) for i in range(seeds)]
        networks = [
            Network(both.seed, number, by, both.by[by], replace(recipe, seed=(recipe.seed + number) % SEEDS))
            for number, both in enumerate(arms)
            for by in WAYS
        ]
        left = [network for network in networks if not _finished(network.run(out), network.recipe, network.images)]
        one = partial(_train_network, out, weights, resamples, workers)
        if spread is not None and left:
            _spread(left, seeds, one, spread, out, speak)
        else:
            for network in left:
                speak(f"{network.title(seeds)}: {told(network.images)}.")
                one(network, progress, speak)
                forget_networks()
        if not left:
            say(f"Nothing to do: {len(networks)} networks are trained and scored.")
        return _collect(out, data, arms, recipe, settings)


@dataclass(frozen=True)
class Network:
    """One of the networks: the seed of its splits and its number from 0, the way of its split, images, recipe."""

    seed: int
    number: int
    by: str
    images: Manifest
    recipe: Recipe

    def run(self, out: Path) -> RunDir:
        """Return its run."""
        return RunDir(_folder(out, self.seed, self.by))

    def title(self, seeds: int) -> str:
        """Return what it is, in words."""
        return f"Seed {self.seed} ({self.number + 1} of {seeds}), by {self.by}"


def _spread(
    networks: Sequence[Network],
    seeds: int,
    one: Callable[..., None],
    spread: "Spread",
    out: Path,
    say: Callable[[str], object],
) -> None:
    """Train and score the networks on the nodes of a cluster; the first that fails ends all."""
    with spread.crew(out, say) as crew:
        for network in networks:
            key = f"seed-{network.seed}-by-{network.by}"
            crew.train(key, network.title(seeds), told(network.images), one, network)
        crew.finish()


def _train_network(
    out: Path,
    weights: str,
    resamples: int,
    workers: int | None,
    network: Network,
    progress: Progress,
    say: Callable[[str], object],
    *,
    shared: bool = False,
) -> None:
    """Train a network, or go on with it, and score it on both parts.

    Args:
        out, weights, resamples, workers, progress, say: as of `price_leak`.
        network: what is trained.
        shared: whether other processes may pack the same images now.
    """
    run, images, recipe = network.run(out), network.images, network.recipe
    _mark_open(run)
    if shared:
        pack_once(images, input_size(recipe), workers, progress)
    train(images, run, recipe, resume=True, workers=workers, progress=progress, say=say)
    _score(run, images, recipe, weights, resamples, workers, progress, say)


def series(out: Path) -> Series:
    """Return the folder of an experiment, which may not be there yet."""
    return Series(out, "leakage experiment", "experiment.json")


def _folder(out: Path, seed: int, by: str) -> Path:
    return out / f"seed-{seed}" / f"by-{by}"


def _tested(run: RunDir) -> RunDir:
    """Return where the scores on the test groups are kept, inside the run."""
    return RunDir(run.path / "test")


def told(images: Manifest) -> str:
    """Return the sizes of the parts in words."""
    sizes = {part: _size(images, part) for part in images.parts}
    return (
        f"{sizes['train']['images']:,} images of {sizes['train']['groups']:,} groups train, "
        f"{sizes['validation']['images']:,} of {sizes['validation']['groups']:,} validate, "
        f"{sizes['test']['images']:,} of {sizes['test']['groups']:,} others test"
    )


def _size(images: Manifest, part: str) -> dict[str, int]:
    records = images.part(part).records
    return {"images": len(records), "groups": len({record.group for record in records})}


def _sizes(images: Manifest) -> dict[str, int]:
    return {f"{part}_{what}": n for part in images.parts for what, n in _size(images, part).items()}


def _finished(run: RunDir, recipe: Recipe, images: Manifest) -> bool:
    """Tell whether a run was trained by this recipe on these images, and scored on both parts."""
    scored = ((run, "validation"), (_tested(run), "test"))
    marks = [path for at, _ in scored for path in (at.metrics, at.reliability, at.predictions)]
    if not run.exists() or not all(path.is_file() for path in marks):
        return False
    old, new = flat(run.read_recipe()), flat(recipe)
    if any(old[key] != new[key] for key in new if key not in ("device", "tensorboard", "mlflow")):
        return False
    return all(
        [row["path"] for row in read_rows(at.predictions, ("path",))] == [r.path for r in images.part(part).records]
        for at, part in scored
    )


def _mark_open(run: RunDir) -> None:
    """Remove what marks a finished run: scores from before more epochs."""
    for at in (run, _tested(run)):
        for path in (at.metrics, at.reliability):
            path.unlink(missing_ok=True)


def _score(
    run: RunDir,
    images: Manifest,
    recipe: Recipe,
    weights: str,
    resamples: int,
    workers: int | None,
    progress: Progress,
    say: Callable[[str], object],
) -> None:
    for part, out in (("validation", None), ("test", _tested(run).path)):
        evaluate(
            run,
            images,
            part=part,
            weights=weights,
            out=out,
            resamples=resamples,
            device=recipe.device,
            workers=workers,
            progress=progress,
            say=say,
        )


def _collect(out: Path, data: Manifest, arms: Sequence[Arms], recipe: Recipe, settings: Mapping[str, Any]) -> Price:
    """Read what the runs have predicted, and write the figures, the table and the picture."""
    groups = {name: i for i, name in enumerate(sorted({record.group for record in data.records}))}
    classes = data.classes
    counts = np.zeros((len(arms), len(WAYS), len(CELLS), len(groups), len(classes), len(classes)), dtype=np.int64)
    runs: list[dict[str, Any]] = []
    drawn = data.drawn
    for number, both in enumerate(arms):
        for way, by in enumerate(WAYS):
            run = RunDir(_folder(out, both.seed, by))
            metrics = json.loads(run.metrics.read_text("utf-8"))
            drawn = drawn or metrics["drawn"]
            for cell, at in enumerate((run, _tested(run))):
                rows = read_rows(at.predictions, ("label", "group", "predicted"))
                counts[number, way, cell] = group_confusions(rows, classes, groups)
            runs.append(
                {
                    "seed": both.seed,
                    "network_seed": (recipe.seed + number) % SEEDS,
                    "split": by,
                    **{
                        f"{part}_{what}": n
                        for part in both.by[by].parts
                        for what, n in _size(both.by[by], part).items()
                    },
                    "shared_groups": metrics["leakage"]["shared_groups"],
                    "epoch": metrics["epoch"],
                }
            )
    notes = [DRAWN] if drawn else []
    found: dict[str, Any] = {
        **{key: settings[key] for key in ("data", "test", "ratio", "seed", "seeds", "weights")},
        "images": len(data.records),
        "groups": len(groups),
        "classes": classes,
        "model": recipe.model,
        "epochs": recipe.epochs,
        "chosen_on_validation": settings["weights"] == "best" and chosen_by_validation(recipe),
        "drawn": drawn,
        "notes": notes,
        "interval": {"level": LEVEL, "method": METHOD},
        **{score: summarize(counts, score, LEVEL) for score in SCORES},
        "runs": runs,
    }
    _write(out, found)
    return Price(out, found, notes)


def table_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return leakage.csv: a row for each run, with its scores."""
    rows = []
    for i, run in enumerate(found["runs"]):
        row = dict(run)
        for score in SCORES:
            for cell in (*CELLS, "inflation"):
                row[f"{cell}_{score}"] = found[score][f"{run['split']}.{cell}"]["seeds"][i // len(WAYS)]
        rows.append(row)
    return rows


def _write(out: Path, found: Mapping[str, Any]) -> None:
    from customcnn.plots.leakage_cost import plot_price

    write_text(out / "leakage.csv", rows_to_csv(table_rows(found)))
    title = f"{found['model']} on {Path(found['data']).resolve().name}: what the leak costs"
    plot_price(found["accuracy"], out / "price.png", title=title, notes=found["notes"])
    write_text(out / "leakage.json", json.dumps(found, indent=2) + "\n")
