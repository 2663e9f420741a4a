"""What can be audited: a folder of images, split or not, a manifest, or a run."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

from customcnn.data.manifest import Manifest, Record, read_manifest, scan
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.io.remote_path import Address, Folder, parse_folder
from customcnn.runs.run_dir import RunDir


def open_data(path: Folder | str, *, skip_bad: bool = False) -> Manifest:
    """Return the manifest of a folder, of a CSV written by `Manifest.write`, or of a run.

    A run holds no images: they lie in the folder or at the address that it was trained on, as its environment.json
    says.

    Args:
        path: a folder of class folders, split or not, also an address; a .csv file; or a run.
        skip_bad: leave out what does not belong instead of failing.

    Raises:
        CustomCNNError: as by `scan`; or images of the manifest or of the run are not there.
    """
    path = parse_folder(path)
    if isinstance(path, Address):
        return scan(path, skip_bad=skip_bad)
    if path.suffix.lower() == ".csv" and path.is_file():
        return _present(read_manifest(path), path, skip_bad)
    run = RunDir(path)
    if run.exists():
        return _images_of(run)
    return scan(path, skip_bad=skip_bad)


def _present(manifest: Manifest, path: Path, skip_bad: bool) -> Manifest:
    if not manifest.records:
        raise CustomCNNError(f"A manifest lists images. Received: {show(path)}, which lists none.")
    missing = [record.path for record in manifest.records if not (manifest.root / record.path).is_file()]
    if not missing:
        return manifest
    if not skip_bad or len(missing) == len(manifest.records):
        raise CustomCNNError(
            f"The images of a manifest lie beside it, under the paths that it lists. Received: {show(path)}, where "
            f"{len(missing):,} of {len(manifest.records):,} are missing: {show_names(missing)}. "
            "Put it back into its folder, or use --skip-bad."
        )
    gone = set(missing)
    return replace(
        manifest,
        records=tuple(record for record in manifest.records if record.path not in gone),
        skipped=tuple((name, "listed in manifest.csv, but missing") for name in missing),
    )


def _images_of(run: RunDir) -> Manifest:
    if not run.manifest.is_file():
        raise CustomCNNError(
            f"The run's manifest.csv lists its images. Received: {show(run.path)} without one. Audit its data instead."
        )
    manifest = run.read_manifest()
    tried = [*dict.fromkeys(_recorded(run))]
    for root in tried:
        if manifest.records and _has_all(root, manifest.records):
            return replace(manifest, root=root)
    where = f"and the images are not in {show_names(tried)}" if tried else "and the folder it records is not there"
    raise CustomCNNError(
        f"A run lists its images, but does not hold them. Received: {show(run.path)}, {where}. "
        "Name the folder of the images instead of the run."
    )


def _has_all(root: Folder, records: Iterable[Record]) -> bool:
    if isinstance(root, Address):
        there = root.files()  # one list: to ask for each file would take much longer
        return all(record.path in there for record in records)
    return all((root / record.path).is_file() for record in records)


def _recorded(run: RunDir) -> Iterator[Folder]:
    """Yield what a run's files name: an address; folders: absolute, or from here or from a folder above the run."""
    environment, metrics = (_values(path) for path in (run.environment, run.metrics))
    data = [environment.get("data"), metrics.get("data")]
    yield from (place for place in map(parse_folder, filter(_is_name, data)) if isinstance(place, Address))
    command = environment.get("command")
    words = command[1:] if isinstance(command, list) else []
    bases = [Path(), *run.path.resolve().parents]
    for name in filter(_is_name, [*data, *words]):
        for base in bases:
            folder = base / name
            with suppress(OSError):
                if folder.is_dir() and folder.resolve() != run.path.resolve():
                    yield folder


def _is_name(word: object) -> TypeGuard[str]:
    return isinstance(word, str) and bool(word) and not word.startswith("-")


def _values(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text("utf-8", "surrogateescape"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
