"""Several trained networks as one: the weighted mean of their probabilities, saved as a run like any other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from customcnn.backend import devices
from customcnn.data.manifest import PARTS, Manifest, Record
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.io.atomic import Staging, write_text
from customcnn.metrics.validation import default_positive
from customcnn.recipe.recipe import Recipe
from customcnn.runs.run_dir import RunDir, rows_to_csv
from customcnn.runs.saved_model import ModelInfo, load_model, read_classifier, save_model

if TYPE_CHECKING:
    import keras

NAME = "ensemble"
MEMBERS = "members.csv"
WRITTEN_KEYS = ("model", "input_size", "positive", "monitor")
"""Of a recipe, what can be said of an ensemble: the other keys are those of a training, and stand with its members."""


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Attributes:
        run: its run.
        file: the network inside the run.
        info: what that file carries.
        weight: its share in the mean, 0..1; those of all members sum to 1.
    """

    run: RunDir
    file: Path
    info: ModelInfo
    weight: float = 0.0

    @property
    def accuracy(self) -> float | None:
        """Its validation accuracy, 0..1, after the epoch of `file`; None where none is recorded."""
        row = self.info.history[self.info.epoch - 1] if 0 < self.info.epoch <= len(self.info.history) else {}
        return row.get("val_accuracy")

    def row(self) -> dict[str, object]:
        """Return its row of members.csv."""
        accuracy = "" if self.accuracy is None else self.accuracy
        return {
            "run": self.run.path,
            "model": self.info.model,
            "epoch": self.info.epoch,
            "val_accuracy": accuracy,
            "weight": self.weight,
        }


def ensemble(
    runs: Sequence[RunDir],
    out: RunDir,
    *,
    weigh: str = "validation",
    weights: str = "best",
    replace_run: bool = False,
) -> list[Member]:
    """Combine trained networks into one that gives the weighted mean of their probabilities (soft vote).

    With weigh "validation" the weight of a member is its validation accuracy after the epoch that it is taken from,
    divided by the sum of these over all members. Writes best.keras, members.csv, recipe.toml, manifest.csv (see
    `union`) and environment.json.

    Args:
        runs: two trained runs or more, of the same classes. Where their positive classes differ, the ensemble has the
            default one of these classes.
        out: the run to make.
        weigh: "validation" or "equal".
        weights: "best" or "last", of every member.
        replace_run: delete the run that is there, once the new one is whole.

    Returns:
        The members with their weights, in the order given.

    Raises:
        CustomCNNError: fewer than two runs, or one twice; no trained classifier; other classes; no validation accuracy
            to weigh by; or something in the way.

    Reference:
        Kittler, Hatef, Duin and Matas, On Combining Classifiers, IEEE TPAMI 20(3), 1998 (its sum rule). The report
        "ALL detection with a 14-convolution network, compared with four classical networks" (2019) proposes an
        ensemble as future work.
    """
    _require_place(runs, out, replace_run)
    members = weighed([_read_member(run, weights) for run in runs], weigh)
    first = members[0].info
    for member in members:
        _require_same_task(member, members[0])
    named = {member.info.positive for member in members}
    positive = first.positive if len(named) == 1 else default_positive(first.classes)  # it changes no probability
    trained = union([run.read_manifest() for run in runs])
    chosen = weigh == "validation" or (weights == "best" and any(run.chosen_by_validation() for run in runs))
    size = max((member.info.input_size for member in members), key=lambda size: size[0] * size[1])
    recipe = Recipe(NAME, size, positive=positive, monitor="val_accuracy" if chosen else "loss")

    devices.configure()
    model = soft_vote([load_model(member.file) for member in members], [member.weight for member in members], size)
    drawn = any(member.info.drawn for member in members)
    info = ModelInfo(NAME, first.classes, size, positive, drawn, sides=_sides(members))
    with out.locked(), Staging(out.path, replace=replace_run) as work:
        run = RunDir(work)
        save_model(model, info, run.best)
        trained.write(run.manifest)
        write_text(work / MEMBERS, rows_to_csv([member.row() for member in members]))
        write_text(run.environment, json.dumps(devices.environment(), indent=2) + "\n")
        write_text(run.recipe, _recipe_text(recipe))
    return members


def _sides(members: Sequence[Member]) -> tuple[int, int] | None:
    """Return the range of sides that every member has seen; None where one does not know its own."""
    known = [member.info.sides for member in members if member.info.sides]
    return (min(low for low, _ in known), max(high for _, high in known)) if len(known) == len(members) else None


def soft_vote(models: Sequence["keras.Model"], weights: Sequence[float], input_size: tuple[int, int]) -> "keras.Model":
    """Build the network whose output is the weighted mean of the members' probabilities.

    A member of another input size sees the image resized, by a bilinear filter that averages when it shrinks. A member
    with one sigmoid output counts with two columns: 1 - p, p; one with a sigmoid for each class, with their shares.

    Args:
        models: networks of this package with equal classes; they become parts of the new one, not copied.
        weights: one for each; they sum to 1.
        input_size: height and width in pixels.

    Returns:
        The functional model "ensemble": (batch, height, width, 3), RGB 0..255, to float32 (batch, classes). Member n
        is the layer `member<n>_<name>`.
    """
    import keras

    image = keras.Input((*input_size, 3), dtype="float32", name="image")
    parts = []
    for number, (model, weight) in enumerate(zip(models, weights, strict=True), start=1):
        height, width = model.inputs[0].shape[1:3]
        x = image
        if (height, width) != tuple(input_size):
            x = keras.layers.Resizing(
                height,
                width,
                interpolation="bilinear",
                antialias=True,
                data_format="channels_last",
                dtype="float32",
                name=f"member{number}_resize",
            )(image)
        # The same layers under a name of their own: two members may have the same one.
        shares = keras.Model(model.inputs[0], model.outputs[0], name=f"member{number}_{model.name}")(x)
        if shares.shape[-1] == 1:
            shares = keras.ops.concatenate([1 - shares, shares], axis=-1)
        elif getattr(model.layers[-1], "activation", None) is keras.activations.sigmoid:
            total = keras.ops.sum(shares, axis=-1, keepdims=True)
            shares = shares / keras.ops.maximum(total, keras.config.epsilon())
        parts.append(shares * weight)
    # Keras lists the layers behind the last summand first; so they come in the order of the members.
    return keras.Model(image, keras.layers.Add(dtype="float32", name="predictions")(parts[::-1]), name=NAME)


def weighed(members: Sequence[Member], weigh: str) -> list[Member]:
    """Return the members with weights that sum to 1: by validation accuracy, or all equal.

    Raises:
        CustomCNNError: a member without a validation accuracy, or none above 0.
    """
    if weigh == "equal":
        return [replace(member, weight=1 / len(members)) for member in members]
    unknown = [member.run.path for member in members if member.accuracy is None]
    if unknown:
        raise CustomCNNError(
            f"Members are weighed by their validation accuracy. Received: {show_names(unknown)} without one. "
            "Use --weigh equal."
        )
    accuracies = [member.accuracy or 0.0 for member in members]
    total = sum(accuracies)
    if not total:
        raise CustomCNNError(
            "Members are weighed by their validation accuracy. Received: 0 for every one. Use --weigh equal."
        )
    return [replace(member, weight=value / total) for member, value in zip(members, accuracies, strict=True)]


def union(manifests: Sequence[Manifest]) -> Manifest:
    """Return what the members of an ensemble know, as one manifest.

    An image is `train` where any member was trained on it, else `validation` where any chose its best epoch by it, else
    `test`. So an ensemble of the folds of a cross-validation counts all its images as training images. Images are the
    same where their hashes are; where no member has a hash, where their paths are. Two different images of one path
    are told apart by `member<n>/` before the second.
    """
    hashes = {r.path: r.sha256 for manifest in manifests for r in manifest.records if r.sha256}

    def identity(record: Record) -> str:
        return record.sha256 or hashes.get(record.path) or record.path

    parts: dict[str, str] = {}
    for record in (record for manifest in manifests for record in manifest.records):
        known = parts.get(identity(record), record.split)
        parts[identity(record)] = min(known, record.split, key=PARTS.index)

    found: dict[str, Record] = {}
    for number, manifest in enumerate(manifests, start=1):
        for record in manifest.records:
            path, before = record.path, found.get(record.path)
            if before and identity(before) != identity(record):
                path, before = f"member{number}/{path}", None
            group = before.group or record.group if before else record.group
            found[path] = replace(before or record, path=path, group=group, split=parts[identity(record)])
    return Manifest(manifests[0].root, tuple(found[path] for path in sorted(found)))


def _require_place(runs: Sequence[RunDir], out: RunDir, replace_run: bool) -> None:
    """Refuse members that are no ensemble, and an output that is in the way or would delete a member."""
    places = [run.path.resolve() for run in runs]
    if len(set(places)) < max(2, len(places)):
        raise CustomCNNError(
            f"An ensemble has two members or more, each once. Received: {show_names(run.path for run in runs)}. "
            "Name different runs."
        )
    place = out.path.resolve()
    inside = [run.path for run, member in zip(runs, places, strict=True) if place in (member, *member.parents)]
    if inside:
        raise CustomCNNError(
            f"An ensemble is written beside its members. Received: {show(out.path)}, which holds {show_names(inside)}. "
            "Choose another --out."
        )
    if out.path.is_dir() and any(out.path.iterdir()):
        if not replace_run:
            raise CustomCNNError(f"Run {show(out.path)} exists. Use --replace to delete it.")
        out.require_run()


def _read_member(run: RunDir, weights: str) -> Member:
    file = run.weights(weights)
    return Member(run, file, read_classifier(file))


def _require_same_task(member: Member, first: Member) -> None:
    one, other = first.info.classes, member.info.classes
    if one != other:
        raise CustomCNNError(
            f"The members of an ensemble have the same classes. Received: {show_names(one)} in "
            f"{show(first.run.path)} and {show_names(other)} in {show(member.run.path)}. Leave one of them out."
        )


def _recipe_text(recipe: Recipe) -> str:
    lines = [line for line in recipe.to_toml().splitlines() if line.split(" ")[0] in WRITTEN_KEYS]
    return "\n".join([f"# An ensemble: how its members were trained stands in their runs, see {MEMBERS}.", *lines, ""])
