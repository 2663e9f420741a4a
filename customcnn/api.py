"""From Python and notebooks: train on a folder of images with one call, and load what was trained."""

import contextlib
import dataclasses
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.data.manifest import Manifest, require_classes, scan, with_group_pattern, with_known_groups
from customcnn.data.split import WAYS, check_files, shares, split_by_group, split_by_image
from customcnn.errors import CustomCNNError, show
from customcnn.inference import classifier
from customcnn.progress import FORMAT, Advance, Progress, silent, terminal
from customcnn.recipe.monitor import kept_words
from customcnn.recipe.recipe import Recipe, load_recipe, parse_recipe, read_recipe
from customcnn.runs.run_dir import RunDir
from customcnn.training.train import TrainResult, train

if TYPE_CHECKING:
    from customcnn.evaluation.evaluate import Evaluation

OPTION = re.compile(r"(?<!\S)--([a-z][a-z-]*)")
FLAGS = ("replace", "resume", "skip_bad", "tta")
"""Arguments of this module that an option of the command line without a value stands for."""

MODEL = "small"
"""What `fit` trains where no network is named: the quickest one."""

PACKAGE = str(Path(__file__).parent)

UNKNOWN_GROUPS = (
    "No group labels given, so leakage cannot be checked: where several images show one subject or one photograph, the "
    "score is inflated. Give group_pattern, or a manifest.csv with groups."
)


class LeakageWarning(UserWarning):
    """The validation score is inflated by leakage, or it cannot be known whether it is."""


def in_python(message: str) -> str:
    """Return a message in Python's words: `resume=True` where it names the option --resume of the command line."""

    def argument(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        return f"{name}=True" if name in FLAGS else name

    # What begins with the program's name is a command to give to a shell.
    parts = re.split(r"(?<=[.;]) ", message)
    return " ".join(part if "customcnn " in part else OPTION.sub(argument, part) for part in parts)


@contextlib.contextmanager
def _errors_in_python() -> Iterator[None]:
    try:
        yield
    except CustomCNNError as error:
        error.args = (in_python(str(error)), *error.args[1:])
        raise


class Classifier(classifier.Classifier):
    """A trained network as `fit` and `load` return it: it also scores itself, and its errors speak of arguments."""

    predict = _errors_in_python()(classifier.Classifier.predict)
    explain = _errors_in_python()(classifier.Classifier.explain)

    @_errors_in_python()
    def evaluate(
        self,
        folder: str | Path | None = None,
        *,
        part: str | None = None,
        out: str | Path | None = None,
        tta: bool = False,
        group_pattern: str | None = None,
        resamples: int = 2000,
        workers: int | None = None,
    ) -> "Evaluation":
        """Score the network on labelled images, as `customcnn evaluate` does, whose files it writes. Keras computes it.

        Warnings, such as those of leakage, come through `warnings`, and stand in the `notes` of what is returned.

        Args:
            folder: class folders of images, split or not; None for the images of the training, where they still are.
            part: "train", "validation" or "test"; None for test where there is one, else validation, else everything.
            out: where to write predictions.csv, metrics.json and the figures; None for the run directory.
            tta: take the mean over the rotations and mirror images of each image: eight times the work.
            group_pattern: see `fit`.
            resamples: of the bootstrap behind the intervals.
            workers: threads for decoding; None for one a core.

        Returns:
            Its `metrics` are the contents of metrics.json; it shows itself as text.

        Raises:
            CustomCNNError: as `customcnn.evaluation.evaluate.evaluate` does, or the images are no longer there.
        """
        from customcnn.evaluation.evaluate import evaluate

        data = _of_training(self.run) if folder is None else _scanned(folder, group_pattern)
        found = evaluate(
            self.run,
            data,
            part=part,
            weights="best" if self.path == self.run.best else "last",
            out=None if out is None else Path(out),
            resamples=resamples,
            tta=tta,
            device=self.device,
            workers=workers,
            say=warn,
        )
        for note in found.notes:
            warn(f"Warning: {note}")
        return found


def _scanned(folder: Path | str, group_pattern: str | None) -> Manifest:
    data = scan(Path(folder))
    return with_known_groups(data) if group_pattern is None else with_group_pattern(data, group_pattern)


def _of_training(run: RunDir) -> Manifest:
    """Return the images of a run, split as they were for its training."""
    try:
        root = Path(json.loads(run.environment.read_text())["data"])
        data = dataclasses.replace(run.read_manifest(), root=root)
        gone = (record.path for record in data.records if not (root / record.path).is_file())
        missing = next((f"{show(path)} is missing" for path in gone), "")
    except (OSError, ValueError, KeyError, CustomCNNError):  # an ensemble has no folder, a copied run may have no file
        root, missing = run.path, "no manifest.csv or no environment.json"
    if missing:
        raise CustomCNNError(
            "A network is scored on labelled images. Received: no folder, and those of the training are no longer in "
            f"{show(root)} ({missing}). Give a folder of class folders."
        )
    return data


@_errors_in_python()
def load(run: str | Path | RunDir, *, weights: str = "best", runtime: str = "auto", device: str = "auto") -> Classifier:
    """Load a trained network, ready to predict and to explain. Notes, as about converted images, come as warnings.

    Args:
        run: its run directory.
        weights: "best" or "last".
        runtime: what computes predictions, see `Classifier`.
        device: "auto", "cpu" or "gpu".

    Raises:
        CustomCNNError: no trained network.
    """
    found = run if isinstance(run, RunDir) else RunDir(Path(run))
    return Classifier(found, weights=weights, runtime=runtime, device=device, say=warn)


@_errors_in_python()
def fit(
    folder: str | Path,
    *,
    model: str | None = None,
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    ratio: float = 0.8,
    by: str | None = None,
    group_pattern: str | None = None,
    resume: bool = False,
    replace: bool = False,
    workers: int | None = None,
    verbose: bool = True,
    **settings: object,
) -> Classifier:
    """Train a network on a folder of class folders, and return it: the one of the best epoch.

    A folder that is not split is split here, without a copy: 8 of 10 images train and the others validate, whole groups
    together where groups are known. Warnings about the score (a `LeakageWarning` where it is inflated, or may be) come
    through `warnings` before the training, and stand in the `notes` of what is returned.

    Args:
        folder: class folders of images, or train and validation folders of class folders.
        model: a name from `customcnn models`; None for the recipe's, or else "small".
        recipe: a recipe in TOML; None for the network's own habits.
        out: the run directory; None for runs/<model>.
        seed: of the split, the weights, the order of the images and dropout; None for the recipe's.
        ratio: share of the images to train on.
        by: "group" or "image"; None for group where groups are known: from a manifest.csv, `group_pattern`, or names
            like those of C-NMC.
        group_pattern: a regular expression with one capturing group, the group in an image's path, or "cnmc".
        resume: go on with the run that is there.
        replace: delete the run that is there.
        workers: threads for decoding; None for one a core.
        verbose: print a line an epoch, and draw bars.
        settings: keys of the recipe: `epochs=5`, `input_size=64`, `augmentation={"flip": "both"}`.

    Raises:
        CustomCNNError: as `customcnn.data.manifest.scan`, `customcnn.data.split.split_by_group` and
            `customcnn.training.train.train` do.
    """
    chosen = _recipe(recipe, model, settings if seed is None else {**settings, "seed": seed})
    run = RunDir(Path("runs") / chosen.model if out is None else Path(out))
    progress = bars() if verbose else silent
    if resume:
        run.require_begun()
    data = _scanned(folder, group_pattern)
    found: list[str] = []
    if not data.parts:
        data = _split(data, ratio, by, chosen.seed, workers, progress)
    if not data.groups_known:
        found.append(UNKNOWN_GROUPS)
        warn(f"Warning: {UNKNOWN_GROUPS}")
    say = Say(verbose)
    result = train(data, run, chosen, resume=resume, replace_run=replace, workers=workers, progress=progress, say=say)
    say(_told(result, chosen))
    trained = Classifier(run, device=chosen.device, say=warn)
    trained.notes = [*trained.notes, *found]
    return trained


def _recipe(path: str | Path | None, model: str | None, settings: dict[str, object]) -> Recipe:
    file = None if path is None else Path(path)
    named = model or (read_recipe(file).get("model") if file else None) or MODEL
    return parse_recipe(settings, "customcnn.fit", load_recipe(file, {"model": named}))


def _split(
    data: Manifest, ratio: float, by: str | None, seed: int, workers: int | None, progress: Progress
) -> Manifest:
    way = by or ("group" if data.groups_known else "image")
    if way not in WAYS or (way == "group" and not data.groups_known):
        known = "known" if data.groups_known else "unknown"
        raise CustomCNNError(
            f"A split is by group, where groups are known, or by image. Received: {show(way)}, groups {known}. "
            "Give group_pattern, or by='image'."
        )
    # The hashes tell which images are the same file.
    data, _ = check_files(data, workers=workers, progress=progress)
    require_classes(data)
    labels, parts = [record.label for record in data.records], shares(ratio)
    if way == "group":
        chosen = split_by_group(labels, [record.group for record in data.records], parts, seed)
    else:
        chosen = split_by_image(labels, parts, seed)
    placed = (dataclasses.replace(record, split=part) for record, part in zip(data.records, chosen, strict=True))
    return dataclasses.replace(data, records=tuple(placed))


def _told(result: TrainResult, recipe: Recipe) -> str:
    scores = {key: value for key, value in result.best.items() if key not in ("epoch", "learning_rate")}
    told = ", ".join(f"{key} {value:.4f}" for key, value in scores.items())
    return f"{kept_words(recipe, result.history)}: {told}\nRun: {result.run.path}"


class Say:
    """What a user should know: warnings through `warnings`, other lines printed.

    Args:
        verbose: print them.
    """

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose

    def __call__(self, line: str) -> None:
        if line.startswith("Warning: "):
            warn(line)
        elif self.verbose:
            print(line, flush=True)


def warn(line: str) -> None:
    """Pass a line on through `warnings`, as if it came from the caller outside this package."""
    message = in_python(line.removeprefix("Warning: ").removeprefix("Note: "))
    leaks = line.startswith("Warning: ") and "leakage" in message.lower()
    warnings.warn(message, LeakageWarning if leaks else UserWarning, stacklevel=_caller())


def _caller() -> int:
    """Return the stacklevel, for a call of `warnings.warn` in the function that asks, of who called this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith((PACKAGE, contextlib.__file__)):
        frame, level = frame.f_back, level + 1
    return level


def bars() -> Progress:
    """Return what draws progress here: widgets or text in a notebook, a terminal's bar elsewhere."""
    return _notebook if _in_notebook() else terminal


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell: object = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextlib.contextmanager
def _notebook(total: int, label: str) -> Iterator[Advance]:
    with _tqdm()(total=total, desc=label, unit=" images", leave=False, bar_format=FORMAT) as bar:
        yield bar.update


def _tqdm() -> Any:
    # What tqdm chooses by itself warns where ipywidgets is missing; `terminal` draws on terminals only.
    try:
        import ipywidgets  # noqa: F401
        from tqdm.notebook import tqdm as with_widgets
    except ImportError:
        from tqdm import tqdm

        return tqdm
    return with_widgets
