"""Features in two dimensions, and in numbers: does the network tell classes apart, or groups?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from customcnn.errors import CustomCNNError, show
from customcnn.images.numba_loader import load_numba

BATCH = 32
NEAREST = 5
METHODS = ("pca", "t-sne", "umap")
LEAST = 10
"""Fewer images make no picture."""

PIXELS = 16
"""Edge of the image whose pixels are compared with the network's features."""

CLEAR = 0.1
"""An agreement this far above chance, as a share of what chance leaves, counts as one."""


def feature_model(model: Any) -> list[Any]:
    """Return the networks from the image to what stands before the last dense layer: one, or one a member.

    Args:
        model: a functional keras classifier; for an ensemble its members' networks are returned.

    Raises:
        CustomCNNError: no dense layer.
    """
    import keras

    inside = [layer for layer in model.layers if isinstance(layer, keras.Model) and len(layer.output.shape) == 2]
    if inside:
        return [part for member in inside for part in feature_model(member)]
    last = next((layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense)), None)
    if last is None:
        raise CustomCNNError(
            f"Features are what stands before the last dense layer. Received: {show(model.name)}, which has none. "
            "Choose another network."
        )
    return [keras.Model(model.inputs[0], last.input)]


def features(model: Any, images: np.ndarray, *, advance: Callable[[int], object] = lambda n: None) -> np.ndarray:
    """Return what the network's last dense layer decides from.

    Args:
        model: a functional keras classifier of one input (H, W, 3) that takes raw 0..255 RGB.
        images: uint8 (N, H, W, 3) of its input size.
        advance: is told how many images are done.

    Returns:
        float32 (N, D); for an ensemble the features of its members side by side, each of mean square 1.
    """
    parts = feature_model(model)
    found: list[np.ndarray] = []
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        used = len(batch)
        if used < BATCH < len(images):
            # A batch of another size would be compiled anew.
            batch = np.concatenate([batch, batch[:1].repeat(BATCH - used, axis=0)])
        rows = [_flat(part.predict_on_batch(_fitted(batch, part.inputs[0].shape[1:3])))[:used] for part in parts]
        found.append(np.concatenate(rows, axis=1))
        advance(used)
    result = np.concatenate(found)
    if len(parts) > 1:
        widths = np.cumsum([part.output.shape[1] for part in parts])[:-1]
        scaled = [some / max(float(np.sqrt((some**2).mean())), 1e-12) for some in np.split(result, widths, axis=1)]
        result = np.concatenate(scaled, axis=1)
    return result


def _flat(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(len(values), -1)


def _fitted(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if images.shape[1:3] == tuple(size):
        return images
    height, width = size
    resized = [Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in resized])


def pixel_features(images: np.ndarray) -> np.ndarray:
    """Return the pixels of small copies of uint8 images (N, H, W, 3), float32 (N, PIXELS * PIXELS * 3)."""
    return _flat(_fitted(images, (PIXELS, PIXELS)))


def embed(values: np.ndarray, method: str, seed: int = 0) -> np.ndarray:
    """Return two numbers for each row that keep what is near near.

    Args:
        values: float (N, D), at least LEAST rows.
        method: "pca", the two directions of largest variance; "t-sne", scikit-learn's, begun with them; "umap", where
            umap-learn is installed.
        seed: of t-SNE and UMAP.

    Returns:
        float64 (N, 2). For PCA the same values give the same signs.

    Raises:
        CustomCNNError: too few rows, values that are not finite, an unknown method, or no UMAP.

    References: van der Maaten and Hinton (2008), Visualizing Data using t-SNE; McInnes, Healy and Melville (2018),
    UMAP, arXiv:1802.03426.
    """
    if len(values) < LEAST or not np.isfinite(values).all():
        state = "values that are not finite" if len(values) >= LEAST else f"{len(values)}"
        raise CustomCNNError(f"A map of features needs {LEAST} images or more. Received: {state}. Give more of DATA.")
    from sklearn.decomposition import PCA

    if np.ptp(values, axis=0).max() == 0:
        return np.zeros((len(values), 2))
    # t-SNE and UMAP are meant for some tens of dimensions.
    reduced = PCA(min(50, *values.shape), random_state=seed).fit_transform(values.astype(np.float64))
    if reduced.shape[1] < 2:
        reduced = np.pad(reduced, ((0, 0), (0, 2 - reduced.shape[1])))
    if method == "pca":
        return reduced[:, :2]
    if method == "t-sne":
        return _tsne(reduced, seed)
    if method != "umap":
        raise CustomCNNError(f"A method is one of {', '.join(METHODS)}. Received: {show(method)}.")
    require_umap()
    return _umap(reduced, seed)


def require_umap() -> None:
    """Refuse to go on without umap-learn.

    Raises:
        CustomCNNError: it is not installed.
    """
    if find_spec("umap") is None:
        raise CustomCNNError("UMAP needs umap-learn. Received: no such package. Install it: pip install umap-learn.")


def _tsne(values: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    method = TSNE(perplexity=min(30.0, (len(values) - 1) / 3), init="pca", random_state=seed)
    # Its threads wait for each other at every one of a thousand steps: ten times slower where cores are busy.
    with threadpool_limits(1):
        return np.asarray(method.fit_transform(values), np.float64)


def _umap(values: np.ndarray, seed: int) -> np.ndarray:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it explains that a seed costs it its threads
        load_numba()
        import umap

        neighbours = min(15, len(values) - 1)
        return np.asarray(umap.UMAP(n_neighbors=neighbours, random_state=seed).fit_transform(values), np.float64)


@dataclass(frozen=True)
class Separation:
    """How well features tell classes and groups apart; None where it is undefined.

    Attributes:
        images, groups: how many; groups is 0 where they are not known.
        silhouette_class: mean silhouette of the images by class, -1..1.
        silhouette_group: the same by group inside each class, mean over the images of classes with two groups or more.
        class_agreement: share of an image's nearest neighbours that have its class, mean over the images, 0..1; where
            groups are known, of its neighbours from other groups, so that knowing the group does not help.
        class_chance: the same share of all of those, not only the nearest: what a network without a clue would have.
        group_agreement: share of an image's nearest neighbours inside its class that are of its group, 0..1.
        group_chance: the same share of all of those.
    """

    images: int
    groups: int
    silhouette_class: float | None
    silhouette_group: float | None
    class_agreement: float | None
    class_chance: float | None
    group_agreement: float | None
    group_chance: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        return asdict(self)

    @property
    def class_excess(self) -> float | None:
        """The class agreement above chance, as a share of what chance leaves: 0 is chance, 1 is perfect."""
        return _excess(self.class_agreement, self.class_chance)

    @property
    def group_excess(self) -> float | None:
        """The group agreement above chance, as a share of what chance leaves."""
        return _excess(self.group_agreement, self.group_chance)

    def verdict(self) -> str:
        """Return what the numbers say, in words."""
        if self.group_excess is None:
            return "Whether the network knows groups cannot be said: it takes a class with two known groups of images."
        if self.group_agreement is None or self.group_chance is None:
            return ""
        first = (
            f"Among images of one class, {self.group_agreement:.0%} of an image's nearest neighbours are of its own "
            f"group; chance alone gives {self.group_chance:.0%}."
        )
        if self.class_agreement is not None and self.class_chance is not None:
            first += (
                f" Among images of other groups, {self.class_agreement:.0%} of its nearest neighbours have its class; "
                f"chance gives {self.class_chance:.0%}."
            )
        if self.group_excess < CLEAR:
            return f"{first} The groups are hardly to be seen."
        if self.class_excess is None or self.class_excess < self.group_excess:
            return (
                f"{first} The network tells groups apart better than classes: images of a known group may get their "
                "class by it, and a score on known groups says little about new ones."
            )
        return f"{first} The network tells classes apart better than groups, but the groups are to be seen."


def _excess(agreement: float | None, chance: float | None) -> float | None:
    return None if agreement is None or chance is None or chance >= 1 else (agreement - chance) / (1 - chance)


def separation(values: np.ndarray, labels: Sequence[str], groups: Sequence[str] | None = None) -> Separation:
    """Measure how well features tell classes and groups apart, by Euclidean distance.

    An image's nearest neighbours are at most NEAREST, and no more than its group has other images: so both agreements
    can reach 1.

    Args:
        values: float (N, D).
        labels: the N class names.
        groups: the N group names; None where they are not known.

    Reference: Rousseeuw (1987), Silhouettes, doi:10.1016/0377-0427(87)90125-7.
    """
    from sklearn.metrics import pairwise_distances

    classes = _numbered(labels)
    members = None if groups is None else _numbered(groups)
    distances = pairwise_distances(values.astype(np.float64))
    np.fill_diagonal(distances, 0)
    everyone = np.ones((len(values), len(values)), bool)
    np.fill_diagonal(everyone, False)
    silhouette_group: float | None = None
    by_group: tuple[float | None, float | None] = (None, None)
    among = everyone
    if members is not None:
        among = members[:, None] != members
        inside = everyone & (classes[:, None] == classes)
        by_group = _agreement(distances, members, inside)
        silhouette_group = _silhouette_inside(distances, classes, members)
    by_class = _agreement(distances, classes, among)
    return Separation(
        len(values),
        0 if members is None else len(np.unique(members)),
        _silhouette(distances, classes),
        silhouette_group,
        *by_class,
        *by_group,
    )


def _numbered(names: Sequence[str]) -> np.ndarray:
    places = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([places[name] for name in names])


def _silhouette(distances: np.ndarray, labels: np.ndarray) -> float | None:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(distances, labels, metric="precomputed"))


def _silhouette_inside(distances: np.ndarray, classes: np.ndarray, groups: np.ndarray) -> float | None:
    """Return the mean silhouette by group inside the classes, each class counting as many times as it has images."""
    sums, count = 0.0, 0
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        value = _silhouette(distances[np.ix_(rows, rows)], groups[rows])
        if value is not None:
            sums, count = sums + value * len(rows), count + len(rows)
    return sums / count if count else None


def _agreement(distances: np.ndarray, labels: np.ndarray, among: np.ndarray) -> tuple[float | None, float | None]:
    """Return how many of the nearest neighbours share an image's label, and how many of all, means over the images.

    Args:
        distances: (N, N).
        labels: (N,) int.
        among: bool (N, N): whom each image may have as a neighbour. Images all of whose neighbours share their label,
            or none of whose do, say nothing and are left out.
    """
    shares, chances = [], []
    for row, (near, allowed) in enumerate(zip(distances, among, strict=True)):
        others = np.flatnonzero(allowed)
        same = labels[others] == labels[row]
        if not 0 < same.sum() < len(others):
            continue
        nearest = others[np.argsort(near[others], kind="stable")[: min(NEAREST, int(same.sum()))]]
        shares.append(float((labels[nearest] == labels[row]).mean()))
        chances.append(float(same.mean()))
    return (float(np.mean(shares)), float(np.mean(chances))) if shares else (None, None)
