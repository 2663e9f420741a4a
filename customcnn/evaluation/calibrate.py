"""Mend what a trained network says of its own certainty: a temperature, sets of classes, and what is no cell at all."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from customcnn.backend import devices
from customcnn.data.leakage import DRAWN, notes
from customcnn.data.manifest import Manifest
from customcnn.data.pack import Packed
from customcnn.errors import CustomCNNError
from customcnn.evaluation.evaluate import choose_part, decoded, label_numbers, leakage_of, predict_rows, require_known
from customcnn.inference.classifier import BATCH
from customcnn.io import atomic
from customcnn.metrics.bootstrap import numbered
from customcnn.metrics.calibration import apply_temperature, calibration, fit_temperature, log_probabilities
from customcnn.metrics.conformal import Conformal, fit_sets, least_units
from customcnn.metrics.out_of_distribution import LEAST, Novelty, fit_novelty, require_share
from customcnn.metrics.validation import check_classes
from customcnn.plots.reliability import plot_reliability
from customcnn.progress import Progress, silent
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model, read_classifier, save_model
from customcnn.runs.temperature import EDGE, with_temperature, without_temperature


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` found.

    Attributes:
        temperature: above 1 the probabilities were too sure of themselves.
        before, after: dicts of `customcnn.metrics.calibration.calibration`.
        accuracy: before and after, 0..1.
        sets: how sets of classes are made.
        sizes: share of these images whose set has none, one, or more classes.
        covered: share of these images whose set holds the true class.
        covered_groups: the mean of that share over the groups, which is what a coverage for new groups is about; None
            where groups are not known.
        novelty: what is usual; None where there were too few images.
        part: the name of the part that was used.
        notes: the sentences that belong beside the figures.
    """

    temperature: float
    before: dict[str, Any]
    after: dict[str, Any]
    accuracy: tuple[float, float]
    sets: Conformal
    sizes: tuple[float, float, float]
    covered: float
    covered_groups: float | None
    novelty: Novelty | None
    part: str
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the statistics of the images, ready for JSON."""
        usual = self.novelty and {"limit": self.novelty.limit, "share": self.novelty.share}
        own = {"sets": self.sets.as_dict(), "novelty": usual}
        return {**vars(self), **own, "accuracy": list(self.accuracy), "sizes": list(self.sizes)}


def calibrate(
    run: RunDir,
    data: Manifest,
    *,
    part: str | None = None,
    coverage: float = 0.9,
    method: str = "lac",
    novelty: float = 0.99,
    positive: str | None = None,
    resamples: int = 2000,
    device: str = "auto",
    no_pack: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> Calibrated:
    """Calibrate a run's best network on labelled images that it was not trained on.

    best.keras gets three more layers (see `customcnn.runs.temperature`) and the sets and the limit of novelty beside
    them, whole or not at all; those of an earlier calibration are replaced. last.keras stays as it is. Writes
    calibration.json and calibration.png into the run.

    Args:
        run: a trained run.
        data: labelled images, from `scan`.
        part: of a split folder, never "train"; None for validation where the folder is split, else everything.
        coverage: the probability with which a set of classes is to hold the true one, see
            `customcnn.metrics.conformal`.
        method: "lac" or "aps".
        novelty: the share of images like these that is to look familiar, see `customcnn.metrics.out_of_distribution`.
        positive: of two classes the one that `positive_class` in calibration.json is about; None for the network's own.
        resamples: of the bootstrap behind the intervals.
        device: "auto", "cpu" or "gpu".
        no_pack: decode the images batch by batch, see `customcnn.data.pack.stream`.
        workers: threads for decoding; None for one a core.
        progress: draws the bars, see `customcnn.progress`.
        say: receives the note about converted images.

    Raises:
        CustomCNNError: no trained network, the training part, no such part, a class that the network does not know, a
            positive class that is none of two, or a share outside 0..1.
    """
    path = run.weights("best")
    info = read_classifier(path)
    _require_sense(part, coverage, novelty, resamples)
    positive = check_classes(info.classes, positive or info.positive or None)[1]
    scored, name = choose_part(data, part or ("validation" if data.parts else None))
    require_known(run, info, scored)
    leakage = leakage_of(run, data, scored, name)
    beside = notes(scored, leakage)
    if info.drawn and DRAWN not in beside:
        beside.append(DRAWN)
    used = devices.configure(device)
    packed = decoded(data, scored, info.input_size, no_pack=no_pack, workers=workers, progress=progress, say=say)
    rows = packed.rows(name if data.parts else None)
    labels = label_numbers(info, scored)
    groups = [record.group for record in scored.records] if scored.groups_known else None

    model = without_temperature(load_model(path))
    devices.prepare(model, used)
    raw = predict_rows(model, packed.images, rows, progress=progress)
    # As the layers of the temperature will see them.
    kept = raw.clip(EDGE, 1 - EDGE) if model.outputs[0].shape[-1] == 1 else raw
    temperature = fit_temperature(log_probabilities(kept), labels)
    mended = apply_temperature(kept, temperature)
    sets = fit_sets(labels, mended, coverage, method, groups)
    usual = None
    if len(rows) >= LEAST:
        with progress(len(rows), "statistics") as advance:
            usual = fit_novelty(_one_by_one(packed, rows, advance), novelty, groups)
    before, after = (
        calibration(labels, p, info.classes, groups=groups, positive=positive, resamples=resamples)
        for p in (raw, mended)
    )
    inside = sets.sets(mended)
    many, held = inside.sum(axis=1), inside[np.arange(len(labels)), labels]
    found = Calibrated(
        temperature=temperature,
        before=before,
        after=after,
        accuracy=(_accuracy(raw, labels), _accuracy(mended, labels)),
        sets=sets,
        sizes=(float((many == 0).mean()), float((many == 1).mean()), float((many > 1).mean())),
        covered=float(held.mean()),
        covered_groups=None if groups is None else _mean_of_groups(held, groups),
        novelty=usual,
        part=name,
        notes=beside,
    )
    _write(run, info, found)
    return found


def _require_sense(part: str | None, coverage: float, novelty: float, resamples: int) -> None:
    """Refuse options before anything is computed."""
    if part == "train":
        raise CustomCNNError(
            "A network is calibrated on images that it was not trained on. Received: --part train. "
            "Use --part validation."
        )
    if resamples < 1:
        raise CustomCNNError(f"Intervals need a resample at least. Received: --resamples {resamples}. Give 1 or more.")
    least_units(coverage)
    require_share(novelty)


def _one_by_one(packed: Packed, rows: np.ndarray, advance: Callable[[int], object]) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BATCH):
        some = packed.images[rows[start : start + BATCH]]
        yield from some
        advance(len(some))


def _accuracy(shares: np.ndarray, labels: np.ndarray) -> float:
    return float((shares.argmax(axis=1) == labels).mean())


def _mean_of_groups(held: np.ndarray, groups: Sequence[str]) -> float:
    units = numbered(groups, len(held))
    return float((np.bincount(units, held) / np.bincount(units)).mean())


def _write(run: RunDir, info: ModelInfo, found: Calibrated) -> None:
    path = run.weights("best")
    stored = {
        "temperature": found.temperature,
        "part": found.part,
        "images": found.before["images"],
        "groups": found.before["groups"],
        "sets": found.sets.as_dict(),
        **({"novelty": found.novelty.as_dict()} if found.novelty else {}),
    }
    # As it was saved, in its own precision and with the outputs that only a training has.
    mended = with_temperature(load_model(path, whole=True), found.temperature)
    save_model(mended, replace(info, calibration=stored), path)
    atomic.write_text(run.calibration, json.dumps(found.as_dict(), indent=2) + "\n")
    title = f"{info.model}, calibrated on {'all' if found.part == 'given' else f'the {found.part} part'}"
    plot_reliability(
        {"before": found.before, "after": found.after}, run.calibration_plot, title=title, notes=found.notes
    )
