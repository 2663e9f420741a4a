"""The run directory: every file name inside it, with its reader and writer."""

import csv
import io
import os
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from customcnn.data.manifest import Manifest, read_manifest, read_rows
from customcnn.errors import CustomCNNError, show
from customcnn.io.atomic import Busy, lock_folder, write_text
from customcnn.io.csv_cells import as_text
from customcnn.recipe.monitor import chosen_by_validation
from customcnn.recipe.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class RunDir:
    """One training and its results: a folder whose files all have their names here."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe, every key written out."""
        return self.path / "recipe.toml"

    @property
    def environment(self) -> Path:
        """Versions, backend, machine and command."""
        return self.path / "environment.json"

    @property
    def manifest(self) -> Path:
        """The images of every part, as they were when the training began."""
        return self.path / "manifest.csv"

    @property
    def history(self) -> Path:
        """One row an epoch, written at its end."""
        return self.path / "history.csv"

    @property
    def best(self) -> Path:
        """The network after the epoch that the recipe's `keep` chose."""
        return self.path / "best.keras"

    @property
    def last(self) -> Path:
        """The network and its optimizer after the last epoch: what --resume goes on from."""
        return self.path / "last.keras"

    @property
    def predictions(self) -> Path:
        """One row an image: path, label, group, predicted, a probability for each class."""
        return self.path / "predictions.csv"

    @property
    def metrics(self) -> Path:
        """The scores with their intervals, and the leakage."""
        return self.path / "metrics.json"

    @property
    def curves(self) -> Path:
        """Loss and accuracy over the epochs."""
        return self.path / "curves.png"

    @property
    def confusion(self) -> Path:
        """The confusion matrix."""
        return self.path / "confusion.png"

    @property
    def report(self) -> Path:
        """The page with everything about the run."""
        return self.path / "report.html"

    @property
    def model_card(self) -> Path:
        """What the network is for, on what it was tried, and where its limits are."""
        return self.path / "model-card.md"

    @property
    def calibration(self) -> Path:
        """What `customcnn calibrate` found: the scores before and after, the temperature, the sets."""
        return self.path / "calibration.json"

    @property
    def calibration_plot(self) -> Path:
        """Its reliability diagrams, before and after."""
        return self.path / "calibration.png"

    @property
    def reliability(self) -> Path:
        """The reliability diagram of the images that were scored."""
        return self.path / "reliability.png"

    @property
    def activations(self) -> Path:
        """The folder of activation maps, one folder an image."""
        return self.path / "activations"

    @property
    def logs(self) -> Path:
        """TensorBoard's logs."""
        return self.path / "logs"

    @property
    def mlflow(self) -> Path:
        """The folder that says which run of MLflow this is, and holds MLflow's files unless a server has them."""
        return self.path / "mlflow"

    def exists(self) -> bool:
        """Tell whether this is a run: a folder with a recipe.toml."""
        return self.recipe.is_file()

    def require_run(self) -> None:
        """Refuse to delete what is no run.

        Raises:
            CustomCNNError: there is something else under this name.
        """
        if not self.exists():
            raise CustomCNNError(
                f"--replace deletes runs only. Received: {show(self.path)}, which is no run (it has no recipe.toml). "
                "Choose another --out."
            )

    def require_begun(self) -> None:
        """Refuse to go on with nothing: a mistyped name would begin a training anew.

        Raises:
            CustomCNNError: the folder is missing or empty.
        """
        if not self.path.is_dir() or not any(self.path.iterdir()):
            raise CustomCNNError(
                f"--resume goes on with a run. Received: {show(self.path)}, where there is none. "
                "Check --out, or leave out --resume to begin one."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep other trainings out of it; where it stays empty, it goes again.

        The lock is the system's: it ends with the process, however that ends.

        Raises:
            Busy: another process writes this run now.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_folder(self.path)
        except (BlockingIOError, FileNotFoundError):  # not found: another process has just given it up
            raise Busy(
                f"A run is written by one process at a time. Received: {show(self.path)}, which another process is "
                "training now. Wait for it, or choose another --out."
            ) from None
        try:
            yield
        finally:
            with suppress(OSError):  # not empty
                for folder in made:
                    folder.rmdir()
            os.close(lock)

    def clear(self) -> None:
        """Delete what a run holds, and leave its folder.

        Raises:
            CustomCNNError: as by `require_run`.
        """
        self.require_run()
        # The recipe goes last: what a kill leaves is still a run.
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != self.recipe:
                entry.unlink()
        self.recipe.unlink()

    def read_recipe(self) -> Recipe:
        """Read recipe.toml."""
        try:
            values = tomllib.loads(self.recipe.read_text("utf-8", "surrogateescape"))
        except (OSError, ValueError) as error:
            raise CustomCNNError(f"A run holds a recipe.toml. Received: {show(self.path)} ({error}).") from None
        return parse_recipe(values, show(self.recipe))

    def chosen_by_validation(self) -> bool:
        """Tell whether the scores on the validation part have chosen the epoch that is kept."""
        return chosen_by_validation(self.read_recipe())

    def read_manifest(self) -> Manifest:
        """Read manifest.csv."""
        return read_manifest(self.manifest)

    def read_history(self) -> list[dict[str, float]]:
        """Read history.csv; an empty list where no epoch has ended."""
        if not self.history.is_file() or not self.history.stat().st_size:
            return []
        rows = read_rows(self.history, ("epoch",))
        try:
            return [{k: int(value) if k == "epoch" else float(value) for k, value in row.items()} for row in rows]
        except ValueError as error:
            raise CustomCNNError(f"A history holds numbers. Received: {show(self.history)} ({error}).") from None

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write history.csv; floats in full, so that equal histories are equal files."""
        write_text(self.history, rows_to_csv(rows))

    def weights(self, which: str = "best") -> Path:
        """Return best.keras or last.keras.

        Raises:
            CustomCNNError: this is no run, or no epoch has ended in it.
        """
        path = self.best if which == "best" else self.last
        if not self.exists():
            raise CustomCNNError(f"A run is a folder made by customcnn train. Received: {show(self.path)}.")
        if not path.is_file():
            raise CustomCNNError(
                f"A run holds a trained network. Received: {show(self.path)} without {path.name}: "
                "no epoch has ended. Go on with customcnn train --resume."
            )
        return path


def rows_to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return CSV text with a header from the first row's keys; empty for no rows. See `as_text` about formulas."""
    text = io.StringIO()
    if rows:
        keys = list(rows[0])
        cells = [[as_text(key) for key in keys], *([as_text(row[key]) for key in keys] for row in rows)]
        # A carriage return is quoted only when everything is.
        returns = any(isinstance(cell, str) and "\r" in cell for line in cells for cell in line)
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
        writer.writerows(cells)
    return text.getvalue()


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, by a hard link where the file system has them, whole or not at all."""
    beside = target.with_name(f".{target.name}.partial")
    beside.unlink(missing_ok=True)
    try:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
