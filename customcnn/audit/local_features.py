"""Local features of an image, and the test whether two images show the same photograph under an affine map."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from customcnn.errors import CustomCNNError

MOST = 600
"""So many features of an image are kept, the strongest."""

SHORTEST, LONGEST = 256, 480
"""An image's longer side is brought between these, in pixels: few features in less, no more use in more."""

CONTRAST = 0.015
"""SIFT's threshold. The usual 0.04 leaves too few features on smooth cells."""

FILL_SPREAD, FILL_EXACT = 10, 0.7
"""A border that was filled in lies within so many levels of one, and this share of it within one level."""

STRANGE = 150_000
"""Descriptors, of squared length 2**18, that are further apart than this (squared) do not show the same thing."""

RATIO = 0.9
"""A match is nearer than this times the distance to the second nearest, both ways."""

TOLERANCE = 3.0
"""An inlier lies within so many pixels of where the affine map puts it."""

LEAST_INLIERS = 4
TURN, SCALE = 0.35, 0.4
"""A feature that follows a proposed turn differs from it by less than this (radians; logarithm of the scale)."""

MOST_ZOOM, MOST_STRETCH = 4.0, 2.0
"""No copy is scaled more than this, or more along one line than along another by more than this."""

LEAST_AREA = 100
"""Pixels (of the half-size picture) that two images must share before their details are compared."""

_MIRRORED_BINS = (np.arange(4)[::-1, None, None] * 32 + np.arange(4)[:, None] * 8 + (8 - np.arange(8)) % 8).ravel()


@dataclass(frozen=True, slots=True)
class Features:
    """What is kept of an image.

    Attributes:
        points: float32 (N, 4): x, y, diameter in pixels of the working size, and angle in degrees; strongest first.
        descriptors: uint8 (N, 128): RootSIFT times 512.
        detail: int8 (H, W): the details of the picture at half the working size, of even local contrast; 0 where the
            picture was filled in.
        inside: bool (H, W): where it was not.
    """

    points: np.ndarray
    descriptors: np.ndarray
    detail: np.ndarray
    inside: np.ndarray

    def mirrored(self) -> "Features":
        """Return the features of the mirror image, without looking at it again."""
        width = 2 * self.detail.shape[1]
        points = self.points.copy()
        points[:, 0] = width - 1 - points[:, 0]
        points[:, 3] = 180 - points[:, 3]
        return Features(
            points,
            mirror_descriptors(self.descriptors),
            self.detail[:, ::-1],
            self.inside[:, ::-1],
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """How one image lies on another.

    Attributes:
        affine: float64 (2, 3): maps x, y of the first image to the second (to its mirror image if that was given).
        inliers: features that follow it.
        correlation: of the details of both where they overlap, -1..1.
        overlap: share of the smaller of both pictures, on the second's scale, that lies on the other.
    """

    affine: np.ndarray
    inliers: int
    correlation: float
    overlap: float


def load_cv2():
    """Return OpenCV with one thread: its threads would be too many beside the workers'.

    Raises:
        CustomCNNError: it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise CustomCNNError(
            "Copies are found by local features. Received: no OpenCV. Install it: pip install 'customcnn[deep]'."
        ) from None
    cv2.setNumThreads(1)
    return cv2


def mirror_descriptors(descriptors: np.ndarray) -> np.ndarray:
    """Return the descriptors (N, 128) of the same features in the mirror image.

    SIFT's 4 x 4 x 8 bins are taken in a frame turned to the feature's angle. A mirror turns the frame's rows around
    and the sense of its eight directions.
    """
    return descriptors[:, _MIRRORED_BINS]


def extract(image: Image.Image) -> Features:
    """Find the features of an image.

    Args:
        image: of mode RGB or L.

    Returns:
        At most MOST features, none of them on a border that was filled in with one colour.
    """
    cv2 = load_cv2()
    grey = _working_size(image)
    inside = ~_filled(grey)
    sift = cv2.SIFT_create(nfeatures=2 * MOST, contrastThreshold=CONTRAST, edgeThreshold=12)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    points = np.array([(*k.pt, k.size, k.angle, k.response) for k in keypoints], np.float32).reshape(-1, 5)
    descriptors = np.zeros((0, 128), np.float32) if descriptors is None else descriptors
    # The edge of a filled border is no part of the photograph: features on it would match those of any other.
    core = cv2.erode(inside.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=1)
    x, y = (points[:, axis].round().astype(int).clip(0, size - 1) for axis, size in enumerate(grey.shape[::-1]))
    kept = np.flatnonzero(core[y, x])
    strongest = kept[np.lexsort((points[kept, 3], points[kept, 1], points[kept, 0], -points[kept, 4]))][:MOST]
    detail, inside = _details(grey, inside)
    return Features(points[strongest, :4], _root(descriptors[strongest]), detail, inside)


def _working_size(image: Image.Image) -> np.ndarray:
    """Return the image as uint8 (H, W), of even height and width."""
    grey = image.convert("L")
    scale = np.clip(max(grey.size), SHORTEST, LONGEST) / max(grey.size)
    width, height = (max(2, 2 * round(scale * side / 2)) for side in grey.size)
    if (width, height) != grey.size:
        grey = grey.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(grey)


def _filled(grey: np.ndarray) -> np.ndarray:
    """Mark the regions (H, W) of one level that reach the border: what a turn leaves empty, or a black background."""
    cv2 = load_cv2()
    ring = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    levels = np.bincount(ring, minlength=256)
    filled = np.zeros(grey.shape, bool)
    for level in np.argsort(-levels, kind="stable")[:3].tolist():
        away = np.abs(grey.astype(np.int16) - level)
        _, regions = cv2.connectedComponents((away <= FILL_SPREAD).astype(np.uint8), connectivity=4)
        touching = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
        near = np.bincount(regions.ravel())
        exact = np.bincount(regions[away <= 1], minlength=len(near))
        # Glass is never of exactly one level, however smooth.
        touching = touching[(touching > 0) & (exact[touching] > FILL_EXACT * near[touching])]
        filled |= np.isin(regions, touching)
    return filled


def _root(descriptors: np.ndarray) -> np.ndarray:
    """Return RootSIFT in whole numbers: sums of products of them are exact in float32, in whatever order."""
    total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return (np.sqrt(descriptors / total) * 512 + 0.5).clip(0, 255).astype(np.uint8)


def _details(grey: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture's details (H / 2, W / 2), -127..127, of about the same contrast everywhere, and where."""
    cv2 = load_cv2()
    half = (grey.shape[1] // 2, grey.shape[0] // 2)
    small = cv2.resize(grey, half, interpolation=cv2.INTER_AREA).astype(np.float32)
    # Nothing may leak in from outside: filled borders have edges that would correlate.
    where = (cv2.resize(inside.astype(np.float32), half, interpolation=cv2.INTER_AREA) == 1).astype(np.float32)
    where = cv2.erode(where, np.ones((3, 3), np.uint8), borderValue=1)

    def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
        weight = cv2.GaussianBlur(where, (0, 0), sigma)
        return cv2.GaussianBlur(values * where, (0, 0), sigma) / np.maximum(weight, 1e-6)

    band = blurred(small, 0.8) - blurred(small, 3)
    even = band / (np.sqrt(blurred(band * band, 5)) + 2)
    return ((40 * even * where).round().clip(-127, 127)).astype(np.int8), where > 0


def fit(one: Features, other: Features) -> Fit | None:
    """Find the affine map that most of the matching features follow; None where fewer than LEAST_INLIERS follow one.

    Every match proposes a map by its own place, turn and scale, so none is left to chance. The best few proposals are
    refined by least squares on the matches that follow them.
    """
    first, second = _matches(one.descriptors, other.descriptors)
    if len(first) < LEAST_INLIERS:
        return None
    source, target = (
        one.points[first].astype(np.float64),
        other.points[second].astype(np.float64),
    )
    best, most = None, LEAST_INLIERS - 1
    for followers in _proposals(source, target):
        affine, inliers = _refined(source, target, followers)
        if affine is not None and inliers > most:
            best, most = affine, inliers
    if best is None:
        return None
    correlation, overlap = _correlate(one, other, best)
    return Fit(best, most, correlation, overlap)


def _matches(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the descriptors that are nearest to each other, and clearly nearer than to the second."""
    nothing = np.zeros(0, np.intp)
    if min(len(one), len(other)) < 2:
        return nothing, nothing
    a, b = one.astype(np.float32), other.astype(np.float32)
    distance = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    rows = np.arange(len(a))
    there, back = distance.argmin(axis=1), distance.argmin(axis=0)
    nearest = distance[rows, there]
    distance[rows, there] = np.inf
    second = distance.min(axis=1)
    mutual = back[there] == rows
    # The second nearest of the other one's: of mutual matches alone, whose nearest has just been struck out.
    second = np.minimum(second, distance.min(axis=0)[there])
    good = np.flatnonzero(mutual & (nearest < RATIO**2 * second) & (nearest < STRANGE))
    return good, there[good]


def _proposals(source: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """Return which matches (M,) follow the turn, scale and shift of one of them, for the five with most followers."""
    scale = target[:, 2] / source[:, 2]
    turn = np.deg2rad(target[:, 3] - source[:, 3])
    z, w = source[:, 0] + 1j * source[:, 1], target[:, 0] + 1j * target[:, 1]
    step = z - z[:, None]
    proposed = (scale * np.exp(1j * turn))[:, None] * step + w[:, None]
    # Further from the proposing match its own small errors, and a shear, take a follower further away.
    near = np.abs(proposed - w) < 2 * TOLERANCE + 0.15 * scale[:, None] * np.abs(step)
    near &= np.abs((turn - turn[:, None] + np.pi) % (2 * np.pi) - np.pi) < TURN
    near &= np.abs(np.log(scale / scale[:, None])) < SCALE
    return [near[best] for best in np.argsort(-near.sum(axis=1), kind="stable")[:5]]


def _refined(source: np.ndarray, target: np.ndarray, followers: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Return the affine map (2, 3) through the followers, and how many features agree with it."""
    places = np.column_stack([source[:, :2], np.ones(len(source))])
    turn = np.exp(1j * np.deg2rad(target[:, 3] - source[:, 3]))
    affine = None
    for tolerance in (3 * TOLERANCE, 2 * TOLERANCE, TOLERANCE, TOLERANCE):
        if followers.sum() < LEAST_INLIERS:
            return None, 0
        affine = np.linalg.lstsq(places[followers], target[followers, :2], rcond=None)[0].T
        away = np.hypot(*(places @ affine.T - target[:, :2]).T)
        turned = np.abs(np.angle(turn / turn[followers].mean())) < 1.5 * TURN
        followers = (away < tolerance) & turned
    if affine is None or not _is_plausible(affine):
        return None, 0
    return affine, _distinct(target[followers, :2])


def _is_plausible(affine: np.ndarray) -> bool:
    most, least = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(least > 1 / MOST_ZOOM and most < min(MOST_ZOOM, MOST_STRETCH * least))


def _distinct(places: np.ndarray) -> int:
    """Count places that differ: one spot may have several features, of several angles and scales."""
    return len(np.unique(places.round().astype(int), axis=0))


def _correlate(one: Features, other: Features, affine: np.ndarray) -> tuple[float, float]:
    """Lay the first picture's details on the second's; return their correlation, and the overlap of both."""
    cv2 = load_cv2()
    half = affine.copy()
    half[:, 2] = (affine[:, 2] + affine[:, :2].sum(axis=1) * 0.5 - 0.5) / 2  # centres of pixels twice as large
    height, width = other.detail.shape
    laid = cv2.warpAffine(one.detail.astype(np.float32), half, (width, height), flags=cv2.INTER_LINEAR)
    where = cv2.warpAffine(one.inside.astype(np.uint8), half, (width, height), flags=cv2.INTER_NEAREST) > 0
    both = where & other.inside
    area = int(both.sum())
    if area < LEAST_AREA:
        return 0.0, 0.0
    a, b = laid[both].astype(np.float64), other.detail[both].astype(np.float64)
    length = np.sqrt((a * a).sum() * (b * b).sum())
    smaller = min(abs(np.linalg.det(affine[:, :2])) * one.inside.sum(), other.inside.sum())
    return float((a * b).sum() / length) if length else 0.0, float(min(1.0, area / smaller))


# ---------------------------------------------------------------- many images' features in one file


@dataclass(frozen=True, slots=True)
class Piece:
    """Where the features of an image lie in a file, how many they are, and the size of its details."""

    offset: int
    features: int
    height: int
    width: int


def pack(found: Features) -> tuple[bytes, tuple[int, int, int]]:
    """Return the features as bytes, and what a `Piece` tells of them beside their offset."""
    parts = (found.points, found.descriptors, found.detail, found.inside)
    height, width = found.detail.shape
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts), (
        len(found.points),
        height,
        width,
    )


def read(file: Path, piece: Piece) -> Features:
    """Read what was packed."""
    count, shape = piece.features, (piece.height, piece.width)
    area = piece.height * piece.width
    data = np.fromfile(file, np.uint8, count * 144 + 2 * area, offset=piece.offset)
    points, descriptors, detail, inside = np.split(data, np.cumsum([count * 16, count * 128, area]))
    return Features(
        points.view(np.float32).reshape(count, 4),
        descriptors.reshape(count, 128),
        detail.view(np.int8).reshape(shape),
        inside.view(bool).reshape(shape),
    )


def read_descriptors(file: Path, piece: Piece, most: int) -> np.ndarray:
    """Read the descriptors, uint8 (N, 128), of the `most` strongest features alone."""
    count = min(most, piece.features)
    return np.fromfile(file, np.uint8, count * 128, offset=piece.offset + piece.features * 16).reshape(count, 128)
