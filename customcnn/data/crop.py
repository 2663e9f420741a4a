"""Crop every image of a folder: about its centre with the same pixels, or about its nucleus with an even background."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import PIL
from PIL import Image

from customcnn.data.manifest import MANIFEST, Manifest, Record, bad_files, fingerprint
from customcnn.errors import CustomCNNError, listed, show, show_names
from customcnn.images.decode import (
    DECODING,
    REDUCED,
    BadImage,
    center_box,
    encode,
    foreground,
    kind,
    lossless_format,
    read_image,
    to_rgb,
)
from customcnn.images.nucleus import cut_out
from customcnn.io import atomic
from customcnn.io.parallel import Workers, as_seen, is_pool, on_files
from customcnn.io.remote_path import Address, Folder
from customcnn.progress import Progress, silent

MAX_CUT = 0.05
"""The share of the foreground that a crop may take: debris at the edge, but no part of a cell that is worth telling.

Of the 73 cells of C-NMC that the tests have, cropped to 400 pixels, one loses .010 and the others nothing.
"""


@dataclass(frozen=True)
class CropResult:
    """What `crop_folder` made.

    Attributes:
        manifest: of the destination.
        skipped: (path, reason) of what was left out.
        reformatted: how many JPEGs became PNG.
        cut: (path, share) of the images that this call has taken foreground from: the share of it, 0..1.
    """

    manifest: Manifest
    skipped: list[tuple[str, str]]
    reformatted: int
    cut: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class _Task:
    record: Record
    taken: bool  # an image of the name that this one would have as a PNG
    there: str = ""  # the file that a killed call has made of it


@dataclass(frozen=True, slots=True)
class _Outcome:
    record: Record
    bad: str = ""
    too_small: str = ""
    cut: float = 0.0  # the share of the foreground that lies outside the square
    taken: bool = False


def crop_folder(
    manifest: Manifest,
    dst: Folder,
    size: int = 400,
    *,
    about: str = "centre",
    check: bool = True,
    max_cut: float = MAX_CUT,
    replace_dst: bool = False,
    skip_bad: bool = False,
    workers: Workers = None,
    progress: Progress = silent,
) -> CropResult:
    """Crop every image to a centred square, losslessly, into a folder of the same layout with a manifest.csv.

    BMP, PNG, TIFF, PPM, GIF and WebP keep their format and mode. A JPEG cannot be cut and saved again without loss: it
    is written as PNG, with `.png` added to its name.

    Args:
        manifest: the source, from `scan`.
        dst: the folder to make, a path or an address.
        size: edge of the square in pixels.
        about: "centre" keeps the pixels as they are; "nucleus" takes the square about the largest stained nucleus,
            which may pass the edges, makes the background evenly white (see `customcnn.images.nucleus`), and writes
            PNG.
        check: about the centre, refuse where much foreground, judged on the image's own background, lies outside the
            square.
        max_cut: the largest share of an image's foreground, 0..1, that may; where some does, the result tells.
        replace_dst: write over a destination that is not empty.
        skip_bad: leave out files that cannot be decoded, and what `scan` left out, instead of failing.
        workers: threads; None for one a core; or a `customcnn.io.parallel.Pool`. On a pool, and at an address, a killed
            call goes on where it stopped.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: an image is smaller than the square, would lose more foreground, or cannot be
            decoded; five are named, and how many more there are.
    """
    if about not in ("centre", "nucleus"):
        raise CustomCNNError(f"A crop is about the centre or the nucleus. Received: {about!r}. Name one of them.")
    if size < 1:
        raise CustomCNNError(f"A crop has at least one pixel. Received: --size {size}. Give --size 1 or more.")
    if not 0 <= max_cut <= 1:
        raise CustomCNNError(f"A share lies between 0 and 1. Received: --max-cut {max_cut:g}. Example: --max-cut .1.")
    atomic.refuse_overlap(manifest.root, dst)
    far = is_pool(workers) or isinstance(dst, Address)
    resume = _resume(manifest, size, about, max_cut if check else None) if far else None
    stage = atomic.staging(dst, replace=replace_dst, resume=resume, shared=far)
    root = as_seen(manifest.root, workers)
    with stage as work:
        for folder in {PurePosixPath(record.path).parent for record in manifest.records}:
            (work / folder).mkdir(parents=True, exist_ok=True)
        outcomes: list[_Outcome] = []
        crop = partial(_crop_file, max_cut=max_cut if check else None) if about == "centre" else _cut_out_file
        task = partial(_unless_there, crop, root, work, size)
        tasks = _tasks(manifest.records, stage.kept())

        def reads(task: _Task) -> Folder:
            return work / task.there if task.there else root / task.record.path

        with progress(len(manifest.records), "crop") as advance:
            for outcome in on_files(task, tasks, workers, reads=reads, writes=work):
                outcomes.append(outcome)
                advance(1)
        bad = [*manifest.skipped, *((outcome.record.path, outcome.bad) for outcome in outcomes if outcome.bad)]
        if bad and not skip_bad:
            raise bad_files(bad)
        _refuse(outcomes, size, max_cut)
        done = [outcome.record for outcome in outcomes if not outcome.bad]
        if not done:
            raise CustomCNNError("A crop needs at least one image that can be used. Received: none.")
        result = Manifest(dst, tuple(sorted(done, key=lambda record: record.path)))
        result.write(work / MANIFEST)
    reformatted = len({record.path for record in done} - {record.path for record in manifest.records})
    return CropResult(result, bad, reformatted, [(o.record.path, o.cut) for o in outcomes if o.cut])


def _refuse(outcomes: list[_Outcome], size: int, max_cut: float) -> None:
    small = [outcome for outcome in outcomes if outcome.too_small]
    if small:
        named = listed([f"{show(outcome.record.path)} ({outcome.too_small})" for outcome in small])
        raise CustomCNNError(
            f"A crop lies inside the image. Received: --size {size} for {named}. Give a smaller --size."
        )
    if cut := [(outcome.record.path, outcome.cut) for outcome in outcomes if outcome.cut > max_cut]:
        raise CustomCNNError(
            f"A crop cuts away at most {100 * max_cut:g} % of an image's foreground. Received: --size {size}, which "
            f"cuts more from {cut_text(cut)}. Give a larger --size or --max-cut, or --no-check to cut any of it."
        )
    taken = [outcome.record.path for outcome in outcomes if outcome.taken]
    if taken:
        raise CustomCNNError(
            "A crop that becomes a PNG has .png added to its name. "
            f"Received: {show_names(taken)}, beside images that have that name already. Rename one of each two."
        )


def cut_text(cut: Sequence[tuple[str, float]]) -> str:
    """Return the images that lose foreground, those that lose most first, each with the share of it."""
    return listed([f"{show(path)} ({100 * share:.2g} %)" for path, share in sorted(cut, key=lambda one: -one[1])])


def _resume(manifest: Manifest, size: int, about: str, max_cut: float | None) -> dict[str, object]:
    # Another Pillow may decode to other pixels.
    settings = {"size": size, "about": about, "max_cut": max_cut, "pillow": PIL.__version__, "decoding": DECODING}
    return {"command": "crop", "source": fingerprint(manifest, "st_ctime_ns"), **settings}


def _tasks(records: Sequence[Record], there: frozenset[str]) -> Iterator[_Task]:
    names = {record.path for record in records}
    for record in records:
        png = f"{record.path}.png"
        made = record.path if record.path in there else png if png in there and png not in names else ""
        yield _Task(record, png in names, made)


def _unless_there(
    crop: Callable[[Folder, Folder, int, _Task], _Outcome], root: Folder, work: Folder, size: int, task: _Task
) -> _Outcome:
    if not task.there:
        return crop(root, work, size, task)
    return _Outcome(replace(task.record, path=task.there, sha256=atomic.sha256((work / task.there).read_bytes())))


def _cut_out_file(root: Folder, work: Folder, size: int, task: _Task) -> _Outcome:
    record = task.record
    try:
        image = read_image(root / record.path)
    except BadImage as error:
        return _Outcome(record, bad=error.reason)
    path = record.path if record.path.lower().endswith(".png") else f"{record.path}.png"
    if path != record.path and task.taken:
        return _Outcome(record, taken=True)
    data = encode(Image.fromarray(cut_out(np.asarray(to_rgb(image)), size)), "PNG")
    atomic.write_bytes(work / path, data)
    return _Outcome(replace(record, path=path, sha256=atomic.sha256(data)))


def _crop_file(root: Folder, work: Folder, size: int, task: _Task, *, max_cut: float | None) -> _Outcome:
    record = task.record
    try:
        image = read_image(root / record.path)
    except BadImage as error:
        return _Outcome(record, bad=error.reason)
    if REDUCED in image.info:
        return _Outcome(record, bad=f"{kind(image)}, which cannot be cropped without loss")
    if min(image.size) < size:
        return _Outcome(record, too_small=f"{image.width} x {image.height}")
    box = center_box(image.width, image.height, size)
    cut = 0.0 if max_cut is None else _share_outside(foreground(image), box)
    if max_cut is not None and cut > max_cut:
        return _Outcome(record, cut=cut)
    format = lossless_format(image)
    path = record.path if format == image.format else f"{record.path}.png"
    if path != record.path and task.taken:
        return _Outcome(record, taken=True)
    cropped = image.crop(box)
    if format == "PNG" and image.mode == "CMYK":  # a JPEG may be CMYK, a PNG may not
        cropped = to_rgb(cropped)
    data = encode(cropped, format)
    atomic.write_bytes(work / path, data)
    return _Outcome(replace(record, path=path, sha256=atomic.sha256(data)), cut=cut)


def _share_outside(marked: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """Return the share of the marked pixels, bool (H, W), that lies outside a box; 0 where none is marked."""
    left, upper, right, lower = box
    total = np.count_nonzero(marked)
    return 1 - np.count_nonzero(marked[upper:lower, left:right]) / total if total else 0.0
