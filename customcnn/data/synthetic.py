"""The embedded data: drawn cells that look like those of C-NMC 2019, each from a subject with a stain of its own.

They are drawn, not photographed: a score on them shows how a method behaves and says nothing about leukemia.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from customcnn.data.manifest import MANIFEST, Manifest, Record
from customcnn.errors import CustomCNNError, show_names
from customcnn.images.decode import encode
from customcnn.io import atomic
from customcnn.io.parallel import parallel, worker_count
from customcnn.progress import Progress, silent

LABELS = ("all", "hem")
CELLS_PER_IMAGE = 3
MIN_SIZE, MAX_SIZE = 32, 4096

# Lengths below are in pixels of a picture of 450 x 450, the size of C-NMC's; other sizes scale them.
FULL = 450
RADIUS = 99.0
MAX_RADIUS = 140.0
MAX_OFFSET = 16.0
JOIN = 12.0  # over which the corners between nucleus and cell are rounded
HALF_BOX = MAX_RADIUS + 4
"""Half the side of the square that is drawn: with MAX_OFFSET it stays inside the middle 400 x 400."""

# How blast-like a cell is: its class's mean is this far from 0, a subject's own mean has this standard deviation about
# its class's, a cell this one about its subject's. The classes overlap on purpose. The numbers were found by trial: a
# small network that learns eight subjects of each class at 64 x 64 is right about 19 of 20 other cells of theirs and
# about 3 of 4 cells of new subjects, for it has learnt the stains.
CLASS_SHIFT = 1.5
SUBJECT_SHIFT = 0.8
CELL_SHIFT = 0.7

# Absorbances (natural logarithm) of a well stained cell in red, green and blue.
CHROMATIN = np.array([0.82, 1.36, 0.54], np.float32)
CYTOPLASM = np.array([0.44, 0.47, 0.19], np.float32)

_GRID = 128  # side of the grid on which texture is made, whatever the picture's size
_ANGLES = 1024  # steps of an outline's table


@dataclass(frozen=True)
class Stain:
    """One subject's look.

    Attributes:
        chromatin: absorbance of the nucleus in red, green and blue (natural logarithm).
        cytoplasm: absorbance of the cytoplasm, likewise.
        light: brightness of the lamp in red, green and blue; 1 is white.
        scale: size of the subject's cells; 1 is the usual one.
        shift: how much more (or less) blast-like than its class's mean the subject is.
    """

    chromatin: tuple[float, float, float]
    cytoplasm: tuple[float, float, float]
    light: tuple[float, float, float]
    scale: float
    shift: float

    @classmethod
    def of(cls, seed: int, label: str, subject: str) -> "Stain":
        """Return the look of a subject: the same for the same seed, label and subject (`h3` is `H3`), always.

        It is drawn in the same way for both classes, so the colour of a new subject tells nothing about its class.
        """
        rng = _rng("stain", seed, label, subject.upper())
        # The sine keeps -1..1 and makes its ends likelier: subjects of one middling look would be hard to tell apart.
        hue, tint, warmth, density, pale, brightness, scale = np.sin(np.pi / 2 * rng.uniform(-1, 1, 7))
        shift = rng.normal()
        turn = np.array([0.34 * hue, 0.0, -0.30 * hue])
        other = np.array([0.28 * tint, 0.0, -0.24 * tint])
        lamp = (0.86 + 0.16 * brightness) * np.array([1 + 0.06 * warmth, 1.0, 1 - 0.06 * warmth])
        return cls(
            chromatin=_triple(CHROMATIN * (1 + turn) * np.exp(0.40 * density)),
            cytoplasm=_triple(CYTOPLASM * (1 + 0.5 * turn + other) * np.exp(0.30 * pale)),
            light=_triple(lamp),
            scale=float(np.exp(0.18 * scale)),
            shift=float(SUBJECT_SHIFT * shift),
        )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _rng(*key: object) -> np.random.Generator:
    # Hashed, so that a cell's draws depend on what it is alone: never on the worker or on the cells before it.
    return np.random.default_rng(list(hashlib.sha256(repr(key).encode("utf-8", "surrogateescape")).digest()))


def draw_cell(label: str, rng: np.random.Generator, stain: Stain, size: int = FULL) -> np.ndarray:
    """Draw one cell on black, about 200 pixels of 450 wide and near the centre, inside the middle 400 x 400.

    A blast (`all`) tends to fine chromatin, a large round nucleus and little cytoplasm; a normal cell (`hem`) to
    clumped chromatin, a smaller, indented nucleus and more cytoplasm. All of these follow one number per cell, whose
    distributions in the two classes overlap: no network can be right about every cell.

    Args:
        label: "all" or "hem".
        rng: what makes this cell differ from others. A cell of another size from the same state looks the same.
        stain: the subject's look.
        size: height and width in pixels.

    Returns:
        uint8 (size, size, 3), RGB; the background is exactly 0.

    Raises:
        ValueError: another label, or a size outside MIN_SIZE..MAX_SIZE.

    Reference:
        Gupta and Gupta, "ALL Challenge dataset of ISBI 2019 (C-NMC 2019)", The Cancer Imaging Archive.
    """
    if label not in LABELS or not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"expected a label of {LABELS} and a size of {MIN_SIZE}..{MAX_SIZE}, got {label!r}, {size!r}")
    unit = size / FULL
    # One number for how blast-like the cell is, 0..1; each feature follows it with some freedom of its own.
    likeness = (CLASS_SHIFT if label == "all" else -CLASS_SHIFT) + stain.shift + rng.normal(0, CELL_SHIFT)
    blast = float(np.clip(0.5 + 0.2 * likeness, 0, 1))
    shape = _Shape.of(blast, stain.scale, rng)
    half = int(np.ceil(HALF_BOX * unit)) + 1
    centre = size / 2 + rng.uniform(-MAX_OFFSET, MAX_OFFSET, 2) / np.sqrt(2) * unit
    corner = centre.astype(int) - half
    # Pixel centres relative to the cell's centre, in the units of a 450 x 450 picture.
    y, x = ((np.arange(2 * half) + 0.5 + corner[axis] - centre[axis]).astype(np.float32) / unit for axis in (0, 1))
    in_nucleus = shape.nucleus.depth(y, x)
    inside = _join(shape.cell.depth(y, x), in_nucleus + np.float32(shape.margin))
    soft = max(1.8, 1.0 / unit)
    cell = _ramp(inside / soft + 0.5)
    nucleus = _ramp(in_nucleus / (1.4 * soft) + 0.5)
    texture = _Texture.of(blast, rng, 2 * half)
    # Cells of one subject differ a little in light and stain.
    light = (np.array(stain.light) * rng.normal(1, 0.01, 3) * rng.normal(1, 0.02)).astype(np.float32)
    chromatin = np.array(stain.chromatin, np.float32) * np.float32(rng.normal(1, 0.04))
    cytoplasm = np.array(stain.cytoplasm, np.float32) * np.float32(rng.normal(1, 0.08))
    dense = texture.chromatin(in_nucleus, y, x) * nucleus
    pale = texture.cytoplasm(inside, in_nucleus) * (1 - 0.8 * nucleus)
    absorbed = dense[..., None] * chromatin + pale[..., None] * cytoplasm
    colour = 255 * light * np.exp(-absorbed) * texture.shade(y, x)[..., None]
    picture = np.zeros((size, size, 3), np.uint8)
    top, left = corner
    picture[top : top + 2 * half, left : left + 2 * half] = (colour * cell[..., None]).clip(0, 255) + 0.5
    return picture


def _ramp(values: np.ndarray) -> np.ndarray:
    """Return 0 below 0, 1 above 1 and a smooth step between them."""
    t = values.clip(0, 1)
    return t * t * (3 - 2 * t)


def _join(a: np.ndarray, b: np.ndarray, width: float = JOIN) -> np.ndarray:
    """Return the depth inside the union of two shapes, its corners rounded over `width`; never above it by much."""
    near = (1 - np.abs(a - b) / np.float32(width)).clip(0)
    return np.maximum(a, b) + near * near * np.float32(width / 4)


@dataclass(frozen=True)
class _Outline:
    """A closed line about a centre, by its radius at every angle: lobes and indents, but no overhang."""

    centre: tuple[float, float]
    radius: np.ndarray

    def depth(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return about how far inside the line each point of the raster (y rows, x columns) lies; negative outside."""
        dy, dx = (y - np.float32(self.centre[0]))[:, None], (x - np.float32(self.centre[1]))[None, :]
        place = ((np.arctan2(dy, dx) * np.float32(_ANGLES / (2 * np.pi))).astype(np.int32)) % _ANGLES
        # Along a slanting line the way to it is shorter than the way out from the centre.
        slope = np.gradient(np.concatenate([self.radius[-1:], self.radius, self.radius[:1]]))[1:-1]
        slant = 1 / np.sqrt(1 + (slope * _ANGLES / (2 * np.pi) / self.radius) ** 2)
        return (self.radius.astype(np.float32)[place] - np.sqrt(dy * dy + dx * dx)) * slant.astype(np.float32)[place]


def _wobble(rng: np.random.Generator, amount: float) -> np.ndarray:
    """Return factors (angles,) about 1 of a smooth irregular line; `amount` is their standard deviation."""
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    order = np.arange(2, 7)[:, None]
    size = rng.normal(0, 1, (5, 1)) / order**1.3
    waves = (size * np.cos(order * angle + rng.uniform(0, 2 * np.pi, (5, 1)))).sum(axis=0)
    return 1 + amount * waves / 0.4


@dataclass(frozen=True)
class _Shape:
    """The outlines of the nucleus and of the cell, and the least width of cytoplasm about the nucleus."""

    nucleus: _Outline
    cell: _Outline
    margin: float

    @classmethod
    def of(cls, blast: float, scale: float, rng: np.random.Generator) -> "_Shape":
        """Draw the shape of a cell that is `blast` (0..1) like a blast."""
        normal = 1 - blast
        size = RADIUS * scale * np.exp(rng.normal(0, 0.05)) * (0.95 + 0.10 * blast)
        share = float(np.clip(0.02 + 0.40 * normal + rng.normal(0, 0.05), 0.01, 0.5))  # of the area that is cytoplasm
        nucleus = size * np.sqrt(1 - share) * _wobble(rng, 0.02 + 0.03 * normal)
        depth = max(0.0, 0.28 * normal - 0.06 + rng.normal(0, 0.06))
        width, towards, lean = rng.uniform(0.3, 0.6), rng.uniform(0, 2 * np.pi), rng.normal(0, 0.5)
        angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
        nucleus *= 1 - depth * np.exp(-(((angle - towards + np.pi) % (2 * np.pi) - np.pi) ** 2) / (2 * width**2))
        # The nucleus lies aside of the middle, away from its indent more or less: the cytoplasm is a crescent.
        aside = size * (1 - np.sqrt(1 - share)) * rng.uniform(0.3, 1.1)
        centre = (-aside * np.sin(towards + lean), -aside * np.cos(towards + lean))
        cell = size * _wobble(rng, 0.03)
        margin = rng.uniform(-4, 2) + 8 * share
        fit = min(1.0, (MAX_RADIUS - max(margin, 0) - JOIN / 4) / max(cell.max(), nucleus.max() + aside))
        return cls(_Outline((fit * centre[0], fit * centre[1]), fit * nucleus), _Outline((0, 0), fit * cell), margin)


@dataclass(frozen=True)
class _Texture:
    """Noise fields of the drawn square, each of mean 0 and standard deviation 1, and how strongly they show."""

    fine: np.ndarray
    clumps: np.ndarray
    slow: np.ndarray
    contrast: float
    nucleoli: tuple[tuple[float, float, float, float], ...]  # y, x, radius, paleness
    slope: tuple[float, float]  # of the light, down and to the right, in a quarter of the picture

    @classmethod
    def of(cls, blast: float, rng: np.random.Generator, side: int) -> "_Texture":
        """Draw the texture of a cell that is `blast` (0..1) like a blast, for a square of `side` pixels."""
        normal = 1 - blast
        period = (13 + 17 * normal) * np.exp(rng.normal(0, 0.10))
        white = np.fft.rfft2(rng.normal(size=(_GRID, _GRID)))
        fine, clumps, slow = (_band(white, p, side) for p in (8.0, period, 90.0))
        contrast = float(np.clip(0.10 + 0.24 * normal + rng.normal(0, 0.03), 0.06, 0.40))
        tilt = rng.normal(0, 0.04, 2)
        nucleoli = []
        for _ in range(3):
            angle, away, radius = rng.uniform(0, 2 * np.pi), rng.uniform(10, 48), rng.uniform(7, 13)
            if rng.random() < 0.1 + 0.4 * blast:
                nucleoli.append((away * np.sin(angle), away * np.cos(angle), radius, rng.uniform(0.15, 0.3)))
        return cls(fine, clumps, slow, contrast, tuple(nucleoli), (float(tilt[0]), float(tilt[1])))

    def chromatin(self, depth: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the density of chromatin, about 1, given the depth inside the nucleus."""
        body = 1 + self.contrast * np.tanh(1.2 * self.clumps) + 0.07 * self.fine + 0.06 * self.slow
        for row, column, radius, paleness in self.nucleoli:
            distance = np.sqrt((y[:, None] - np.float32(row)) ** 2 + (x[None, :] - np.float32(column)) ** 2)
            spot = np.float32(paleness) * 2 * _ramp((np.float32(radius) - distance + 2 * self.slow) / 6)
            body -= spot * (body - 0.5)
        return body + 0.12 * np.exp(-((depth - 2.5) ** 2) / 18)  # the membrane

    def cytoplasm(self, depth: np.ndarray, outside_nucleus: np.ndarray) -> np.ndarray:
        """Return the density of cytoplasm: denser at the cell's edge, paler beside the nucleus."""
        edge = 0.22 * np.exp(-(depth.clip(0) ** 2) / 50)
        beside = 0.18 * np.exp(-(outside_nucleus**2) / 72)
        return 1 + edge - beside + 0.10 * self.fine + 0.10 * self.slow

    def shade(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the light's slow change across the square, about 1."""
        down, right = (np.float32(4 * slope / FULL) for slope in self.slope)
        return 1 + down * y[:, None] + right * x[None, :]


def _band(white: np.ndarray, period: float, side: int) -> np.ndarray:
    """Return noise (side, side) of one period (in pixels of a 450 x 450 picture), from the spectrum of white noise."""
    wanted = 2 * HALF_BOX / period
    frequency = np.hypot(np.fft.fftfreq(_GRID)[:, None], np.fft.rfftfreq(_GRID)[None, :]) * _GRID
    frequency[0, 0] = 1e-9  # its logarithm is taken; the mean is removed below anyway
    # Symmetric in the logarithm and wide: a narrow band would look like a labyrinth.
    field = np.fft.irfft2(white * np.exp(-(np.log(frequency / wanted) ** 2) / (2 * 0.5**2)) / frequency)
    field = (field - field.mean()) / field.std()
    return np.asarray(Image.fromarray(field.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))


def draw_samples(
    dst: Path,
    *,
    subjects: int = 8,
    cells: int = 30,
    size: int = FULL,
    seed: int = 0,
    first_subject: int = 1,
    workers: int | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> Path:
    """Draw cells of both classes into `dst/all` and `dst/hem`, with a manifest.csv that names the subjects.

    Args:
        dst: the folder to make.
        subjects: how many of each class.
        cells: how many of each subject.
        size: edge of the images in pixels.
        seed: the same seed draws the same bytes; others draw other cells of other looks.
        first_subject: number of the first subject: 9 draws none of those that 1 and 8 subjects draw.
        workers: processes; None for one a core.
        replace: write over a destination that is not empty.
        progress: see `customcnn.progress`.

    Returns:
        `dst`.

    Raises:
        CustomCNNError: a number below its least, a size outside 32..4096, or a destination that is not empty.
    """
    least = (("--subjects", subjects, 1), ("--cells", cells, 1), ("--first-subject", first_subject, 0))
    for name, value, minimum in least:
        if value < minimum:
            raise CustomCNNError(f"{name} is at least {minimum}. Received: {value}. Give more.")
    _check_size(size)
    worker_count(workers)
    names = []
    for label in LABELS:
        for number in range(first_subject, first_subject + subjects):
            subject = f"{'H' if label == 'hem' else ''}{number}"
            for cell in range(cells):
                image, place = cell // CELLS_PER_IMAGE + 1, cell % CELLS_PER_IMAGE + 1
                names.append((f"{label}/UID_{subject}_{image}_{place}_{label}.bmp", label, subject))
    with atomic.Staging(dst, replace=replace) as work:
        hashes = draw_files(names, work, size=size, seed=seed, workers=workers, progress=progress)
        records = [
            Record(path, label, subject, "", digest, {"origin": "drawn"})
            for (path, label, subject), digest in zip(names, hashes, strict=True)
        ]
        Manifest(dst, tuple(sorted(records, key=lambda record: record.path))).write(work / MANIFEST)
    return dst


def draw_files(
    names: Sequence[tuple[str, str, str]],
    dst: Path,
    *,
    size: int = FULL,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Draw one cell for each name, into an existing folder.

    Args:
        names: (path relative to `dst`, label, subject) of each cell; its bytes depend on these, the seed and the size.
        dst: the folder; folders inside it are made.
        size: edge of the images in pixels.
        seed: the same seed draws the same bytes.
        workers: processes; None for one a core.
        progress: see `customcnn.progress`.

    Returns:
        The SHA-256 of each file, in the order of the names.

    Raises:
        CustomCNNError: a size outside 32..4096, a label that is neither all nor hem, or a path that stands twice, is
            not below `dst` or does not end in .bmp.
    """
    _check_size(size)
    paths = [PurePosixPath(path) for path, _, _ in names]
    astray = [str(path) for path in paths if path.suffix.lower() != ".bmp" or path.is_absolute() or ".." in path.parts]
    if astray:
        raise CustomCNNError(f"A drawn cell is a .bmp file below the destination. Received: {show_names(astray)}.")
    twice = [str(path) for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise CustomCNNError(f"A drawn cell has a path of its own. Received: {show_names(twice)} more than once.")
    unknown = sorted({label for _, label, _ in names} - set(LABELS))
    if unknown:
        raise CustomCNNError(f"Drawn cells are {show_names(LABELS)}. Received: {show_names(unknown)}.")
    for folder in {path.parent for path in paths}:
        (dst / folder).mkdir(parents=True, exist_ok=True)
    hashes = []
    with progress(len(names), "draw") as advance:
        for digest in parallel(partial(_draw_file, dst, size, seed), names, workers, processes=True):
            hashes.append(digest)
            advance(1)
    return hashes


def _check_size(size: int) -> None:
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise CustomCNNError(
            f"--size lies in {MIN_SIZE}..{MAX_SIZE} pixels. Received: {size}. The real ones have {FULL}."
        )


def _draw_file(dst: Path, size: int, seed: int, name: tuple[str, str, str]) -> str:
    path, label, subject = name
    # The name's last part alone: the same cell looks the same in whatever folder it lies.
    rng = _rng("cell", seed, label, subject.upper(), PurePosixPath(path).name)
    data = encode(Image.fromarray(draw_cell(label, rng, Stain.of(seed, label, subject), size)), "BMP")
    atomic.write_bytes(dst / path, data)
    return atomic.sha256(data)
