"""The images that excite a filter most, with the part of each that the filter saw."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from customcnn.explain.gradcam import overlay
from customcnn.explain.graph import Box, Step, place_map, receptive_field, steps
from customcnn.html.page import Html, figure
from customcnn.visualize.activations import Activations
from customcnn.visualize.grids import file_name, write_grid

BATCH = 32
FILTERS, IMAGES = 4, 5
FRAME = (255, 214, 10)
SMALLEST = 224  # pixels of an enlarged image


@dataclass(frozen=True)
class Peak:
    """Where one image excites a filter most.

    Attributes:
        image: its number.
        value: what the filter gives there.
        row, column: of that place in the layer's maps.
        box: the part of the image that the value depends on (see `receptive_field`), as far as it is inside.
    """

    image: int
    value: float
    row: int
    column: int
    box: Box


@dataclass(frozen=True)
class Excited:
    """The images that excite one filter most, the strongest first."""

    layer: str
    filter: int
    peaks: tuple[Peak, ...]


def exciting(
    model: Any,
    images: np.ndarray,
    layers: Sequence[str],
    *,
    filters: int | Sequence[int] = FILTERS,
    count: int = IMAGES,
    advance: Callable[[int], object] = lambda n: None,
) -> dict[str, list[Excited]]:
    """Find the images that excite filters most: those with the largest value anywhere in the filter's map.

    Args:
        model: a functional keras model of one input (H, W, 3) that takes raw 0..255 RGB.
        images: uint8 (N, H, W, 3) of the model's input size.
        layers: names as those of `activation_maps`.
        filters: their numbers; or how many: those whose largest values differ most between images, for the size of
            their layer.
        count: how many images for each filter.
        advance: is told how many images are done.

    Returns:
        By layer, in graph order. A filter that gives every image the same value is left out.

    Raises:
        ValueError: no image, or no such layer or filter.
    """
    seen = Activations(model, layers)
    if not len(images) or set(seen.names) != set(layers):
        raise ValueError(f"Images and layers with maps are needed. Received: {len(images)} images, {list(layers)}.")
    highest, places = _peaks(seen, images, advance)
    found = steps(model)
    number = {step.name: place for place, step in enumerate(found)}
    result: dict[str, list[Excited]] = {}
    for name in seen.names:
        values = highest[name]
        rows = []
        for chosen in _chosen(values, filters):
            order = np.argsort(-values[:, chosen], kind="stable")[:count]
            peaks = []
            for image in order:
                row, column = (int(place) for place in places[name][image, chosen])
                box = receptive_field(found, number[name], row, column)
                peaks.append(Peak(int(image), float(values[image, chosen]), row, column, box))
            rows.append(Excited(name, int(chosen), tuple(peaks)))
        result[name] = rows
    return result


def _peaks(
    seen: Activations, images: np.ndarray, advance: Callable[[int], object]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return by layer the largest value of each image and filter, (N, C), and its row and column, (N, C, 2)."""
    values: dict[str, list[np.ndarray]] = {name: [] for name in seen.names}
    places: dict[str, list[np.ndarray]] = {name: [] for name in seen.names}
    for batch in _batches(images):
        for name, maps in seen.batch(batch).items():
            count, _, width, channels = maps.shape
            flat = np.nan_to_num(maps.astype(np.float32), nan=-np.inf).reshape(count, -1, channels)
            best = flat.argmax(axis=1)
            values[name].append(np.take_along_axis(flat, best[:, None], axis=1)[:, 0])
            places[name].append(np.stack(np.divmod(best, width), axis=-1))
        advance(len(batch))
    joined = [{name: np.concatenate(parts) for name, parts in some.items()} for some in (values, places)]
    return joined[0], joined[1]


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(images), BATCH):
        yield images[first : first + BATCH]


def _chosen(values: np.ndarray, filters: int | Sequence[int]) -> Sequence[int]:
    spread = values.std(axis=0)
    usable = np.isfinite(spread) & (spread > 1e-6 * max(float(np.abs(values).max(initial=0)), 1e-12))
    if not isinstance(filters, int):
        unknown = [number for number in filters if not 0 <= number < values.shape[1]]
        if unknown:
            raise ValueError(f"A layer has the filters 0..{values.shape[1] - 1}. Received: {unknown}.")
        return [number for number in filters if usable[number]]
    if len(values) == 1:  # one image has no spread
        spread, usable = values[0], np.isfinite(values[0]) & (values[0] > values[0].min())
    order = np.argsort(-np.where(usable, spread, -np.inf), kind="stable")
    return sorted(int(number) for number in order[:filters] if usable[number])


def write_exciting(
    model: Any, images: np.ndarray, excited: Sequence[Excited], out: Path, names: Sequence[str]
) -> tuple[Html, Path]:
    """Write the images that excite the filters of one layer as `exciting-<layer>.png`; return its figure and path.

    Two rows for each filter: the images, each with a frame about what the filter saw, and that part alone. Where it
    saw the whole image, its map is laid over the image instead.

    Args:
        model: as for `exciting`.
        images: uint8 (N, H, W, 3), those that were given to `exciting`.
        excited: its result for the layer, not empty.
        out: the folder.
        names: of the N images.
    """
    layer = excited[0].layer
    seen = Activations(model, [layer])
    found = steps(model)
    place = next(number for number, step in enumerate(found) if step.name == layer)
    rows: list[list[np.ndarray | None]] = []
    titles: list[list[str]] = []
    labels: list[str] = []
    whole = False
    for one in excited:
        above, below, lines = [], [], []
        for peak in one.peaks:
            image = images[peak.image]
            covers = _covers(peak.box, image)
            whole = whole or covers
            heat = seen(image)[layer][..., one.filter] if covers else None
            above.append(_framed(image, peak.box))
            below.append(_mapped(image, heat, found, place) if heat is not None else _cut(image, peak.box))
            lines.append(f"{names[peak.image]}\n{peak.value:.3g}")
        empty: list[np.ndarray | None] = [None] * (max(len(other.peaks) for other in excited) - len(above))
        rows += [[*above, *empty], [*below, *empty]]
        titles += [[*lines, *[""] * len(empty)], [""] * (len(lines) + len(empty))]
        labels += [f"filter {one.filter}", ""]
    path = out / f"exciting-{file_name(layer)}.png"
    write_grid(path, rows, labels, [""] * len(rows[0]), titles=titles)
    words = f"Layer {layer}: for each filter the images with its largest values, over them the file and the value"
    words += (
        "; below, the image under the filter's map, for the filter's view reaches over the whole image."
        if whole
        else "; the frame, and below it the same part alone, is all that the value depends on."
    )
    return figure(path.name, f"The images that excite filters of layer {layer} most", words), path


def _covers(box: Box, image: np.ndarray) -> bool:
    top, left, bottom, right = box
    return (bottom - top) * (right - left) > 0.7 * image.shape[0] * image.shape[1]


def _enlarged(image: np.ndarray) -> np.ndarray:
    factor = -(-SMALLEST // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _framed(image: np.ndarray, box: Box) -> np.ndarray:
    if _covers(box, image):
        return _enlarged(image)
    large = _enlarged(image)
    factor = large.shape[0] / image.shape[0]
    top, left, bottom, right = (round(side * factor) for side in box)
    picture = Image.fromarray(large)
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=FRAME, width=max(2, SMALLEST // 80))
    return np.asarray(picture)


def _cut(image: np.ndarray, box: Box) -> np.ndarray:
    top, left, bottom, right = box
    return _enlarged(image[top:bottom, left:right])


def _mapped(image: np.ndarray, heat: np.ndarray, found: Sequence[Step], place: int) -> np.ndarray:
    heat = heat.astype(np.float32)
    low, high = float(heat.min()), float(heat.max())
    shares = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    return overlay(_enlarged(image), place_map(found, place, shares, image.shape[:2]))
