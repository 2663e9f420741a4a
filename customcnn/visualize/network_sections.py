"""What does not hang on one image: the architecture, the filters, the images that excite them, the features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customcnn.explain.graph import depths
from customcnn.html.page import Html, Section, figure, table
from customcnn.plots.embedding import plot_embeddings
from customcnn.runs.temperature import without_temperature
from customcnn.visualize.activations import Activations
from customcnn.visualize.diagram import draw_diagram
from customcnn.visualize.embedding import Separation, embed, features, pixel_features, separation
from customcnn.visualize.filters import kernels, write_filters
from customcnn.visualize.grids import file_name
from customcnn.visualize.layer_names import matching
from customcnn.visualize.top_activations import exciting, write_exciting

FIRST_FILTERS = 2
MOST_LAYERS = 8
EXCITING_WORDS = (
    "For some filters of a layer, those whose largest values differ most between images, the images with the largest "
    "values. What these have in common may be what the filter looks for. A filter may also look for several things."
)
FEATURES_WORDS = (
    "What the last dense layer decides from, for every image, in two dimensions. Near points are alike to the "
    "network. PCA keeps distances as well as two directions can; t-SNE and UMAP keep who is near whom, and the size of "
    "a cluster or the way between two says nothing there. Where groups are known, they colour the same points once "
    "more."
)


@dataclass(frozen=True)
class Pictures:
    """Images of DATA, or those that were given.

    Attributes:
        images: uint8 (N, H, W, 3), at the network's input size.
        names: of their files.
        labels: their classes; None where they are not known.
        groups: their groups; None where they are not known.
        trained: how many of the groups are in the training part of the run.
    """

    images: np.ndarray
    names: list[str]
    labels: list[str] | None = None
    groups: list[str] | None = None
    trained: int = 0


def diagram_section(model: Any, out: Path) -> tuple[Section, list[Path]]:
    """Write the architecture as `architecture.png`; of an ensemble also that of each member."""
    import keras

    # The layers of a calibration are no part of the architecture.
    model = without_temperature(model)
    members = [layer for layer in model.layers if isinstance(layer, keras.Model) and len(layer.output.shape) == 2]
    files = [draw_diagram(model, out / "architecture.png")]
    files += [draw_diagram(member, out / f"architecture-{file_name(member.name)}.png") for member in members]
    words = (
        "Layers from top to bottom. Beside a stage stands its shape, height × width × channels, where it changes; a "
    )
    words += "bracket with a number repeats; /2 halves height and width."
    blocks: list[str] = [words, *(figure(path.name, f"The architecture of {model.name}") for path in files)]
    return Section("Architecture", blocks), files


def filters_section(model: Any, out: Path, patterns: Sequence[str]) -> tuple[Section, list[Path]]:
    """Write the filters of the first convolutions, or of those that the patterns name."""
    found = kernels(model)
    if patterns:
        chosen = [kernel for kernel in found if kernel.name in matching(patterns, [kernel.name])][:MOST_LAYERS]
    else:
        chosen = [kernel for kernel in found if kernel.colored] or found[:1]
        behind = found[found.index(chosen[-1]) + 1 :]
        chosen = [*chosen, *behind][: max(FIRST_FILTERS, len(chosen))]
    blocks, files = [], []
    for kernel in chosen:
        shown, path = write_filters(kernel, out)
        blocks += [Html(f"<h3>{file_name(kernel.name)}</h3>"), shown]
        files.append(path)
    return Section("Filters", blocks or ["None of the chosen layers is a convolution."]), files


def exciting_section(
    model: Any, out: Path, patterns: Sequence[str], pictures: Pictures, advance: Callable[[int], object]
) -> tuple[Section, list[Path]]:
    """Write the images that excite filters most, for three depths or the layers that the patterns name."""
    names = Activations(model).names
    chosen = matching(patterns, names)[:MOST_LAYERS] if patterns else _three(model, names)
    blocks: list[str] = [EXCITING_WORDS]
    files: list[Path] = []
    if chosen:
        for found in exciting(model, pictures.images, chosen, advance=advance).values():
            if found:
                shown, path = write_exciting(model, pictures.images, found, out, pictures.names)
                blocks.append(shown)
                files.append(path)
    if not files:
        blocks.append("No filter of these layers tells these images apart.")
    return Section("Images that excite filters", blocks), files


def _three(model: Any, names: Sequence[str]) -> list[str]:
    """Return layers with filters: the first, one in the middle and the last."""
    from customcnn.visualize.activations import activation_layers

    filtered = {layer.name for layer in activation_layers(model) if "Conv" in type(layer).__name__}
    known = [name for name in names if name.split("/")[-1].split(":")[0] in filtered]
    deep = [name for name in depths(model) if name in known]
    chosen = {*known[:1], *known[len(known) // 2 :][:1], *(deep[-1:] or known[-1:])}
    return [name for name in known if name in chosen]


def features_section(
    model: Any,
    out: Path,
    pictures: Pictures,
    seed: int,
    advance: Callable[[int], object],
    *,
    umap: bool = False,
    notes: Sequence[str] = (),
) -> tuple[Section, list[Path], Separation]:
    """Write the features in two dimensions as `features.png`, and say in numbers and words what they tell apart."""
    labels = pictures.labels or ["?"] * len(pictures.images)
    values = features(model, pictures.images, advance=advance)
    methods = ["pca", "t-sne", *(["umap"] if umap else [])]
    places = {method: embed(values, method, seed) for method in methods}
    path = out / "features.png"
    plot_embeddings(path, places, labels, pictures.groups, notes=notes)
    found = separation(values, labels, pictures.groups)
    pixels = separation(pixel_features(pictures.images), labels, pictures.groups)
    words = found.verdict()
    if pictures.groups is None:
        words = "No group labels given: give --groups or --group-pattern to see whether the network knows the subjects."
    else:
        words += f" Of these {found.groups} groups {pictures.trained} are in the training part of the run."
    alt = "The features of the images in two dimensions, by class and by group"
    blocks = [FEATURES_WORDS, figure(path.name, alt), words, _table(found, pixels)]
    return Section("Features", blocks), [path], found


def _table(found: Separation, pixels: Separation) -> Html:
    rows = [
        _row("network", found),
        _row("pixels of 16×16 copies", pixels),
    ]
    header = [
        "features",
        "silhouette by class",
        "silhouette by group, inside a class",
        "nearest neighbours of its class (chance)",
        "of its group, inside a class (chance)",
    ]
    caption = (
        "Silhouettes lie between -1 and 1, 0 is no clusters. Up to five nearest neighbours count; for the class those "
        "from other groups, where groups are known. The pixels show what is told apart without any network."
    )
    return table(header, rows, caption)


def _row(name: str, found: Separation) -> list[object]:
    return [
        name,
        _number(found.silhouette_class),
        _number(found.silhouette_group),
        _pair(found.class_agreement, found.class_chance),
        _pair(found.group_agreement, found.group_chance),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _pair(value: float | None, chance: float | None) -> str:
    return "–" if value is None or chance is None else f"{value:.1%} ({chance:.1%})"
