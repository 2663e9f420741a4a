"""Blood Cell Images: from what Kaggle ships to class folders with a manifest of parts and original photographs.

    python data_tools/blood_cells.py prepare archive blood-cells
    python data_tools/blood_cells.py prepare archive parts --own-test
    python data_tools/blood_cells.py prepare archive parts --own-test --by group --groups originals.csv

The release unpacks to dataset2-master/dataset2-master/images/TRAIN and TEST with a folder for each of four classes
(TEST_SIMPLE is not read), and to dataset-master/dataset-master/JPEGImages with the originals BloodImage_*.jpg. Where
the folders lie does not matter: they are found by their names. A folder of class folders is taken as it is.

The copies in TRAIN and TEST are called `_<number>_<number>.jpeg`. The first number is not the photograph that a copy
was made from: it counts positions in a shuffled batch, and mixes several photographs. So no group is read from a name;
groups come from a CSV, made by comparing pictures, or are not known.

Source: Blood Cell Images, paultimothymooney on Kaggle, from the BCCD photographs of cosmicad and akshaylambda.
Licence: MIT.
"""

import shutil
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import click

from customcnn.data.groups import unify
from customcnn.data.manifest import MANIFEST, Manifest, Record, read_rows, require_classes, scan
from customcnn.data.names import find_below
from customcnn.data.split import leakages, shares, split_by_group, split_by_name
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.io import atomic
from customcnn.progress import Progress, silent, terminal

FACTS = tomllib.loads(Path(__file__).with_name("facts.toml").read_text("utf-8"))["blood-cells"]
"""What the release holds: name, authors, source, licence, classes, counts by part and class."""

ORIGINALS = "BloodImage_*.jp*g"
SHARE = 5
"""One in so many training images of a class validates, rounded down: the study's 499, 496, 495 and 499 of 9,957."""


@dataclass(frozen=True)
class Cell:
    """One image of the release: its file, its part ("TRAIN", "TEST", "" in a plain folder), class and photograph."""

    path: Path
    part: str
    label: str
    group: str = ""


@dataclass(frozen=True)
class Release:
    """What a folder holds of the release: the images to learn from, and how many originals lie beside them."""

    cells: tuple[Cell, ...]
    originals: int


def read_release(root: Path) -> Release:
    """Find every image of an unpacked release, or of a plain folder of class folders.

    Args:
        root: a folder that holds the folders TRAIN and TEST, however deep, or class folders.

    Returns:
        The images, sorted by part and path.

    Raises:
        CustomCNNError: no training images, two folders of one name, another class, or files that do not belong.
    """
    if not root.is_dir():
        raise CustomCNNError(f"The release is a folder. Received: {show(root)}, which is not one.")
    folders = {part: sorted(path for path in find_below(root, part) if path.is_dir()) for part in ("TRAIN", "TEST")}
    for part, found in folders.items():
        if len(found) > 1:
            raise CustomCNNError(f"The release has one folder {part}. Received: {show_names(found)}. Give one of them.")
    if folders["TEST"] and not folders["TRAIN"]:
        raise CustomCNNError(
            f"The release has a folder TRAIN beside TEST. Received: {show(root)} without. Unpack all of it there."
        )
    cells: list[Cell] = []
    for part, found in folders.items():
        for folder in found:
            cells += _class_folders(folder, part)
    cells = cells or _class_folders(root, "")
    return Release(tuple(cells), sum(path.is_file() for path in find_below(root, ORIGINALS)))


def _class_folders(folder: Path, part: str) -> list[Cell]:
    manifest = scan(folder)
    if manifest.parts:
        raise CustomCNNError(
            f"What is prepared is not split yet. Received: {show(folder)}, which has {show_names(manifest.parts)}. "
            "Give the folder that it was made from."
        )
    unknown = [label for label in manifest.classes if label not in FACTS["classes"]]
    if unknown:
        raise CustomCNNError(f"The classes are {show_names(FACTS['classes'])}. Received: {show_names(unknown)}.")
    return [Cell(folder / record.path, part, record.label, record.group) for record in manifest.records]


def with_groups(release: Release, table: Path) -> tuple[Release, list[str]]:
    """Give the images the photographs that they were made from.

    Args:
        release: from `read_release`.
        table: a CSV with the columns path and group; a path is `TRAIN/<class>/<file>`, `TEST/<class>/<file>`, or
            `<class>/<file>`, which stands for an image of TRAIN or of a plain folder.

    Returns:
        The release, and the paths of images without a row: their group is not known.

    Raises:
        CustomCNNError: an image has two groups, or none has one.
    """
    groups: dict[str, str] = {}
    rows = read_rows(table, ("path", "group"))
    for row, group in zip(rows, unify(row["group"] for row in rows), strict=True):
        path = row["path"].replace("\\", "/")
        path = path if path.startswith(("TRAIN/", "TEST/")) else f"TRAIN/{path}"
        if groups.setdefault(path, group) != group:
            raise CustomCNNError(
                f"An image has one group. Received: {show(table)}, which gives {show(path)} two of them."
            )
    cells = tuple(replace(cell, group=groups.get(_name(cell), "")) for cell in release.cells)
    if not any(cell.group for cell in cells):
        raise CustomCNNError(f"A groups file lists images of the release. Received: {show(table)}, which lists none.")
    return replace(release, cells=cells), [_name(cell) for cell in cells if not cell.group]


def _name(cell: Cell) -> str:
    return f"{cell.part or 'TRAIN'}/{cell.label}/{cell.path.name}"


def differences(release: Release) -> list[str]:
    """Compare the counts with the table of facts; return one sentence for each that differs."""
    found = Counter((cell.part or "TRAIN", cell.label) for cell in release.cells)
    for part in ("TRAIN", "TEST"):
        found[part, "together"] = sum(found[part, label] for label in FACTS["classes"])
    found["originals", "together"] = release.originals
    lines = []
    for part, counts in FACTS["counts"].items():
        if not found[part, "together"]:
            lines.append(f"{part}: none, where the release has {sum(counts.values()):,}")
            continue
        lines += [
            f"{f'{part} {label}'.removesuffix(' together')}: {found[part, label]:,} images where the release has {n:,}"
            for label, n in counts.items()
            if found[part, label] != n
        ]
    return lines


def to_class_folders(
    release: Release,
    dst: Path,
    *,
    own_test: bool = False,
    by: str = "image",
    seed: int = 42,
    replace_dst: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Copy the images into class folders with a manifest.csv of photographs and of the release's own parts.

    Args:
        release: from `read_release`.
        dst: the folder to make.
        own_test: make the four-class study's split instead: TEST to test, one in five of TRAIN to validation, the rest
            to train. Otherwise the images of TRAIN alone, not split.
        by: how `own_test` takes the validation images: "image" as the study did, by Keras's `validation_split` (of each
            class the first fifth of the sorted names), or "group".
        seed: of a draw by group.
        replace_dst: write over a destination that is not empty.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: a part, a class or a group is missing, or the destination is not empty.
    """
    learn = [cell for cell in release.cells if cell.part != "TEST"]
    test = [cell for cell in release.cells if cell.part == "TEST"]
    if own_test and not test:
        raise CustomCNNError("--own-test needs the release's TEST. Received: a folder without it. Use customcnn split.")
    chosen = _parts(learn, by, seed) if own_test else [""] * len(learn)
    placed = [*zip(learn, chosen, strict=True), *((cell, "test") for cell in test if own_test)]
    records = []
    with atomic.Staging(dst, replace=replace_dst) as work, progress(len(placed), "copy") as advance:
        for cell, part in placed:
            name = str(PurePosixPath(part, cell.label, cell.path.name))
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cell.path, target)
            extra = {"part": cell.part} if cell.part else {}
            records.append(Record(name, cell.label, cell.group, part, atomic.sha256(target.read_bytes()), extra))
            advance(1)
        manifest = Manifest(dst, tuple(sorted(records, key=lambda record: record.path)))
        require_classes(manifest)
        manifest.write(work / MANIFEST)
    return manifest


def _parts(cells: list[Cell], by: str, seed: int) -> list[str]:
    labels = [cell.label for cell in cells]
    if by == "image":
        return split_by_name(labels, 1 / SHARE)
    unknown = sum(not cell.group for cell in cells)
    if unknown:
        raise CustomCNNError(
            f"A split by group needs the group of every image. Received: none for {unknown:,} of {len(cells):,}. "
            "Use --groups FILE.csv, and --grouped-only if it does not list all."
        )
    return split_by_group(labels, [cell.group for cell in cells], shares(1 - 1 / SHARE), seed)


@click.group()
def cli() -> None:
    """The Blood Cell Images."""


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option(
    "--own-test",
    is_flag=True,
    help="The study's split: TEST to test, the first fifth of each TRAIN class to validation.",
)
@click.option(
    "--by", type=click.Choice(["image", "group"]), default="image", show_default=True, help="How --own-test validates."
)
@click.option("--seed", default=42, show_default=True, help="Of --own-test --by group.")
@click.option("--groups", type=click.Path(path_type=Path), metavar="FILE.csv", help="Columns path and group.")
@click.option("--grouped-only", is_flag=True, help="Leave out images that --groups does not list.")
@click.option("--replace", is_flag=True, help="Write over a destination that is not empty.")
def prepare(
    src: Path, dst: Path, own_test: bool, by: str, seed: int, groups: Path | None, grouped_only: bool, replace: bool
) -> None:
    """Turn the unpacked release SRC, or a folder of class folders, into class folders DST with a manifest."""
    atomic.refuse_overlap(src, dst)
    release = read_release(src)
    for line in differences(release):
        click.echo(f"Warning: {line}", err=True)
    if groups:
        release, unknown = with_groups(release, groups)
        if unknown:
            click.echo(f"Warning: groups: none for {len(unknown):,} of {len(release.cells):,} images", err=True)
    release = _grouped(release) if grouped_only else release
    manifest = to_class_folders(
        release, dst, own_test=own_test, by=by, seed=seed, replace_dst=replace, progress=terminal
    )
    for (part, label), count in sorted(manifest.counts().items()):
        click.echo(f"{part or 'images'} {label}: {count:,}")
    known = {record.group for record in manifest.records if record.group}
    click.echo(f"{len(manifest.records):,} images of {len(known) or 'unknown'} photographs in {dst}")
    click.echo("{name}, by {authors}: {source}, {licence}.".format(**FACTS))
    for leakage in leakages(manifest) if manifest.parts else []:
        if leakage.warning:
            click.echo(f"Warning: {leakage.warning}", err=True)
    if not manifest.groups_known:
        click.echo(
            "Note: not all photographs are known, and no file name tells them: leakage cannot be judged.", err=True
        )


def _grouped(release: Release) -> Release:
    cells = tuple(cell for cell in release.cells if cell.group)
    if not cells:
        raise CustomCNNError(
            "--grouped-only keeps images with a group. Received: none with one. Give --groups FILE.csv."
        )
    return replace(release, cells=cells)


if __name__ == "__main__":
    try:
        cli()
    except CustomCNNError as error:
        raise SystemExit(f"Error: {error}") from None
