"""C-NMC 2019: from what The Cancer Imaging Archive ships to class folders with a manifest, and back with drawn cells.

    python data_tools/cnmc.py prepare C-NMC_Leukemia cells
    python data_tools/cnmc.py prepare C-NMC_Leukemia parts --challenge
    python data_tools/cnmc.py draw cnmc-2019-files.csv drawn --size 64

The release unpacks to training_data/fold_0..2/all|hem, validation_data/C-NMC_test_prelim_phase_data (images named by
number, with a CSV of labels beside the folder) and testing_data/C-NMC_test_final_phase_data (no labels). Where the
folders lie does not matter: they are found by their names.

Source: Gupta, A., Gupta, R.: ALL Challenge dataset of ISBI 2019 (C-NMC 2019). The Cancer Imaging Archive, 2019,
doi:10.7937/tcia.2019.dc64i46r. Licence: CC BY 3.0.
"""

import csv
import re
import shutil
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import click

from customcnn.data.groups import GROUP_PATTERNS
from customcnn.data.manifest import MANIFEST, Manifest, Record, read_rows
from customcnn.data.names import find_below
from customcnn.data.synthetic import draw_files
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.io import atomic
from customcnn.progress import Progress, silent, terminal

PRELIM, FINAL = "C-NMC_test_prelim_phase_data", "C-NMC_test_final_phase_data"
LABELS_CSV = f"{PRELIM}_labels.csv"
DRAWN_MARK = "DRAWN.txt"
LABELS_COLUMNS = ("Patient_ID", "new_names", "labels")
LABEL_NUMBERS = {"all": "1", "hem": "0"}

FACTS = tomllib.loads(Path(__file__).with_name("facts.toml").read_text("utf-8"))["cnmc"]
"""What the release holds: name, authors, source, licence, counts by fold or test phase and class, subjects."""


@dataclass(frozen=True)
class Cell:
    """One image of the release: its file, its fold (or "prelim", "final"), class, subject and telling name."""

    path: Path
    fold: str
    label: str
    subject: str
    name: str
    drawn: bool = False


def read_release(root: Path) -> list[Cell]:
    """Find every image of an unpacked release.

    Args:
        root: a folder that holds the unpacked folders, however deep.

    Returns:
        The cells, sorted by fold, class and name. Subjects are in upper case: one is spelled `h3` in its files.

    Raises:
        CustomCNNError: no training cells, a name that is not understood, or a labels CSV that contradicts itself.
    """
    if not root.is_dir():
        raise CustomCNNError(f"The release is a folder. Received: {show(root)}, which is not one.")
    cells = []
    for path in find_below(root, "*.bmp"):
        fold, label = path.parent.parent.name, path.parent.name
        if re.fullmatch(r"fold_\d", fold) and label in LABEL_NUMBERS:
            cells.append(Cell(path, fold, label, subject_of(path.name), path.name))
        elif path.parent.name == FINAL:
            cells.append(Cell(path, "final", "", "", path.name))
    if not any(cell.label for cell in cells):
        raise CustomCNNError(
            f"The release has folders fold_0, fold_1, fold_2 with all and hem in them. Received: {show(root)} without. "
            "Unpack C-NMC_training_data there."
        )
    for table in sorted(find_below(root, LABELS_CSV)):
        cells += _read_prelim(root, table)
    drawn = any(find_below(root, DRAWN_MARK))
    return sorted((replace(cell, drawn=drawn) for cell in cells), key=lambda cell: (cell.fold, cell.label, cell.name))


def _read_prelim(root: Path, table: Path) -> list[Cell]:
    folders = [path for path in find_below(root, PRELIM) if path.is_dir()]
    if len(folders) != 1:
        raise CustomCNNError(
            f"The labels CSV belongs to one folder {PRELIM}. Received: {len(folders)} such folders in {show(root)}."
        )
    cells = []
    for row in read_rows(table, LABELS_COLUMNS):
        name = file_name(row["Patient_ID"])
        label = name.rsplit("_", 1)[-1].removesuffix(".bmp")
        if LABEL_NUMBERS.get(label) != row["labels"].strip():
            raise CustomCNNError(
                f"In the labels CSV 1 is all and 0 is hem. Received: {show(name)} with {show(row['labels'])}."
            )
        cells.append(Cell(folders[0] / file_name(row["new_names"]), "prelim", label, subject_of(name), name))
    missing = [cell.path.name for cell in cells if not cell.path.is_file()]
    if missing:
        raise CustomCNNError(f"Every row of the labels CSV has its image. Received: none for {show_names(missing)}.")
    return cells


def file_name(path: str) -> str:
    """Return the name at the end of a path of this or another system."""
    return path.replace("\\", "/").rpartition("/")[2].strip()


def subject_of(name: str) -> str:
    """Return the subject in `UID_<subject>_<image>_<cell>_<class>.bmp`, in upper case.

    Raises:
        CustomCNNError: the name is not of that form.
    """
    match = re.search(GROUP_PATTERNS["cnmc"], name, re.IGNORECASE)
    if not match:
        raise CustomCNNError(f"Cells are named UID_<subject>_<image>_<cell>_<class>.bmp. Received: {show(name)}.")
    return match[1].upper()


def differences(cells: list[Cell]) -> list[str]:
    """Compare the counts with the table of facts; return one sentence for each that differs."""
    found = Counter((cell.fold, cell.label or "together") for cell in cells)
    lines = [
        f"{f'{fold} {label}'.removesuffix(' together')}: {found[fold, label]:,} cells where the release has {count:,}"
        for fold, counts in FACTS["counts"].items()
        for label, count in counts.items()
        if found[fold, label] != count
    ]
    subjects = {(_part(cell), cell.label, cell.subject) for cell in cells if cell.label}
    having = Counter((part, label) for part, label, _ in subjects)
    lines += [
        f"{part} {label}: {having[part, label]} subjects where the release has {count}"
        for part, counts in FACTS["subjects"].items()
        for label, count in counts.items()
        if having[part, label] not in (0, count)
    ]
    return lines


def _part(cell: Cell) -> str:
    return cell.fold if cell.fold in ("prelim", "final") else "train"


def to_class_folders(
    cells: list[Cell], dst: Path, *, challenge: bool = False, replace_dst: bool = False, progress: Progress = silent
) -> Manifest:
    """Copy the labelled cells into class folders with a manifest.csv of subjects and folds.

    Args:
        cells: from `read_release`.
        dst: the folder to make.
        challenge: make the challenge's own split instead: folds 0 and 1 to train, fold 2 to validation, the preliminary
            test to test. No subject stands in two of them. Otherwise the training cells alone, not split.
        replace_dst: write over a destination that is not empty.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: two cells of one name, or a destination that is not empty.
    """
    parts = {"fold_0": "train", "fold_1": "train", "fold_2": "validation", "prelim": "test"} if challenge else {}
    wanted = [cell for cell in cells if cell.label and (challenge or cell.fold != "prelim")]
    records = []
    with atomic.Staging(dst, replace=replace_dst) as work, progress(len(wanted), "copy") as advance:
        for cell in wanted:
            part = parts.get(cell.fold, "")
            name = str(PurePosixPath(part, cell.label, cell.name))
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise CustomCNNError(f"Cells have names of their own. Received: {show(cell.name)} twice.")
            shutil.copyfile(cell.path, target)
            digest = atomic.sha256(target.read_bytes())
            extra = {"fold": cell.fold, **({"origin": "drawn"} if cell.drawn else {})}
            records.append(Record(name, cell.label, cell.subject, part, digest, extra))
            advance(1)
        manifest = Manifest(dst, tuple(sorted(records, key=lambda record: record.path)))
        manifest.write(work / MANIFEST)
    return manifest


def draw_release(
    listing: Path, dst: Path, *, size: int = 64, seed: int = 0, replace: bool = False, progress: Progress = silent
) -> None:
    """Lay out the whole release with drawn cells: the same folders and file names, and a labels CSV.

    The listing says nothing of the test cells' classes and subjects. They are made up here: for the preliminary test
    14 subjects of each class with the release's 1,219 and 648 cells, numbered from 201 on; for the final test 8 of
    each, numbered from 301 on, with half of its cells.

    Args:
        listing: a CSV with the columns path, part, fold, label, subject.
        dst: the folder to make.
        size: edge of the drawn images in pixels (the release's have 450).
        seed: the same seed draws the same bytes.
        replace: write over a destination that is not empty.
        progress: see `customcnn.progress`.
    """
    rows = read_rows(listing, ("path", "part", "fold", "label", "subject"))
    drawn = [(row["path"], row["label"], row["subject"]) for row in rows if row["part"] == "train"]
    prelim = [row["path"] for row in rows if row["part"] == "prelim_test"]
    named = _made_up(prelim, {"all": FACTS["counts"]["prelim"]["all"]}, {"all": 14, "hem": 14}, first=201)
    final = [row["path"] for row in rows if row["part"] == "final_test"]
    drawn += [(path, label, subject) for path, label, subject, _ in named]
    half = {"all": len(final) // 2}
    drawn += [(path, label, subject) for path, label, subject, _ in _made_up(final, half, {"all": 8, "hem": 8}, 301)]
    with atomic.Staging(dst, replace=replace) as work:
        draw_files(drawn, work, size=size, seed=seed, progress=progress)
        (work / DRAWN_MARK).write_text("These cells are drawn, not photographed: no score on them is about leukemia.\n")
        if named:
            table = work / PurePosixPath(named[0][0]).parent.parent / LABELS_CSV
            with table.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(LABELS_COLUMNS)
                for path, label, _, name in named:
                    writer.writerow([name, PurePosixPath(path).name, LABEL_NUMBERS[label]])


def _made_up(
    paths: list[str], cells: dict[str, int], subjects: dict[str, int], first: int
) -> list[tuple[str, str, str, str]]:
    """Give each path a class (the first cells["all"] are blasts), a subject in turn, and a telling name."""
    rows = []
    for i, path in enumerate(paths):
        label = "all" if i < cells["all"] else "hem"
        k = i if label == "all" else i - cells["all"]
        number = first + k % subjects[label]
        subject = f"{number}" if label == "all" else f"H{number}"
        rows.append((path, label, subject, f"UID_{subject}_{k // subjects[label] + 1}_1_{label}.bmp"))
    return rows


@click.group()
def cli() -> None:
    """The C-NMC 2019 release."""


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option("--challenge", is_flag=True, help="The challenge's own split: folds 0 and 1, fold 2, preliminary test.")
@click.option("--replace", is_flag=True, help="Write over a destination that is not empty.")
def prepare(src: Path, dst: Path, challenge: bool, replace: bool) -> None:
    """Turn the unpacked release SRC into class folders DST with a manifest of subjects and folds."""
    cells = read_release(src)
    for line in differences(cells):
        click.echo(f"Warning: {line}", err=True)
    manifest = to_class_folders(cells, dst, challenge=challenge, replace_dst=replace, progress=terminal)
    by_fold = Counter((record.extra["fold"], record.label) for record in manifest.records)
    for (fold, label), count in sorted(by_fold.items()):
        click.echo(f"{fold} {label}: {count:,}")
    subjects = {record.group for record in manifest.records}
    click.echo(f"{len(manifest.records):,} cells of {len(subjects)} subjects in {dst}")
    click.echo("Drawn cells." if manifest.drawn else "{name}, by {authors}: {source}, {licence}.".format(**FACTS))


@cli.command()
@click.argument("listing", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option("--size", default=64, show_default=True, help="Edge of the images in pixels; the release's have 450.")
@click.option("--seed", default=0, show_default=True, help="The same seed draws the same bytes.")
@click.option("--replace", is_flag=True, help="Write over a destination that is not empty.")
def draw(listing: Path, dst: Path, size: int, seed: int, replace: bool) -> None:
    """Lay out the release with drawn cells in DST, by the file list LISTING. Drawn cells, not patients."""
    draw_release(listing, dst, size=size, seed=seed, replace=replace, progress=terminal)
    click.echo(f"Drawn: {dst}")


if __name__ == "__main__":
    try:
        cli()
    except CustomCNNError as error:
        raise SystemExit(f"Error: {error}") from None
