"""A run and images in, pictures and a page out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customcnn.backend import devices
from customcnn.data.leakage import run_notes
from customcnn.data.manifest import Manifest
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.evaluation.evaluate import choose_part, require_known
from customcnn.html.page import Html, Section, escape, figure, group, page
from customcnn.images.decode import decode
from customcnn.images.readers import reader
from customcnn.inference.classifier import probabilities
from customcnn.inference.inputs import expand
from customcnn.io.atomic import Staging, write_text
from customcnn.io.parallel import parallel
from customcnn.progress import Progress, silent
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model, read_classifier
from customcnn.visualize.activations import STYLES, input_sections
from customcnn.visualize.embedding import Separation, require_umap
from customcnn.visualize.grids import INDEX, file_name
from customcnn.visualize.image_sections import ImageViews
from customcnn.visualize.layer_names import require_layers
from customcnn.visualize.network_sections import (
    Pictures,
    diagram_section,
    exciting_section,
    features_section,
    filters_section,
)

KINDS = (
    "activations", "filters", "gradcam", "gradcam++", "occlusion", "sanity", "exciting", "features", "diagram"
)  # fmt: skip
QUICK = ("activations", "filters", "gradcam", "diagram")
"""What is shown unless something is named."""

ON_DATA = ("exciting", "features")
"""What is shown besides where DATA is given."""

OF_IMAGES = ("activations", "gradcam", "gradcam++", "occlusion", "sanity")
SEPARATION = "features.json"


@dataclass(frozen=True)
class Wanted:
    """What to show.

    Attributes:
        what: of KINDS; none for QUICK, and with `data` also ON_DATA.
        layers: names of layers or patterns such as "conv*"; none for a choice of layers.
        classes: names of those to explain; none for up to four, the most probable ones.
        data: labelled images for ON_DATA, from `customcnn.data.manifest.scan`, perhaps with groups.
        part: of `data`; None for test where there is one, else validation, else everything.
        limit: how many images of `data` are looked at, drawn evenly.
        seed: of that draw, of t-SNE and of UMAP.
        umap: whether the features are also shown by UMAP, which must be installed and takes longer.
        style: of the activation maps, of STYLES: "range", each from its lowest to its highest value; or "figure-21",
            every layer with maps as the report's figure draws it.
    """

    what: Sequence[str] = ()
    layers: Sequence[str] = ()
    classes: Sequence[str] = ()
    data: Manifest | None = None
    part: str | None = None
    limit: int = 600
    seed: int = 0
    umap: bool = False
    style: str = STYLES[0]

    @property
    def kinds(self) -> list[str]:
        """The kinds to show, in the order of KINDS."""
        chosen = self.what or (*QUICK, *(ON_DATA if self.data else ()))
        return [kind for kind in KINDS if kind in chosen]


@dataclass
class _Work:
    """What the steps of `visualize_run` hand on."""

    model: Any
    info: ModelInfo
    kinds: list[str]
    wanted: Wanted
    notes: list[str]
    separation: Separation | None = None


def visualize_run(
    run: RunDir,
    images: Sequence[Path],
    *,
    weights: str = "best",
    out: Path | None = None,
    replace: bool = False,
    device: str = "auto",
    wanted: Wanted | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Show what a trained network makes of images: one page, and one for each image where there are several.

    Args:
        run: a trained run.
        images: files, or folders of them; with `wanted.data` there may be none.
        weights: "best" or "last".
        out: the folder to make; None for `activations` in the run, which is written over.
        replace: write over an `out` that is not empty.
        device: "auto", "cpu" or "gpu".
        wanted: what to show; None for what is quick.
        workers: threads for decoding DATA; None for one a core.
        progress: draws the bar, see `customcnn.progress`.

    Returns:
        The page to open. Beside it, where features are shown, `features.json` has their numbers.

    Raises:
        CustomCNNError: no trained network, a file that is not an image, an `out` that is not empty, no such layer or
            class, or a kind that needs DATA or images which are not given.
    """
    wanted = wanted or Wanted()
    path = run.weights(weights)
    info = read_classifier(path)
    paths = expand(images) if images or wanted.data is None else []
    kinds = _require(wanted, info, paths)
    pictures = _chosen_data(run, info, wanted)
    devices.configure(device)
    model = load_model(path)
    require_layers(model, wanted.layers, kinds, wanted.what, wanted.style)
    work = _Work(model, info, kinds, wanted, run_notes(run.read_manifest()))
    with Staging(out or run.activations, replace=replace or out is None) as folder:
        shown = _look_at_network(work, folder, run, pictures, paths, workers, progress)
        about = {"network": f"{info.model}, {weights} weights", "epochs": info.epoch}
        sections = _look_at_images(work, folder, paths, about, shown, progress)
        title = f"{paths[0].name} in {info.model}" if len(paths) == 1 else f"Inside {info.model}"
        write_text(folder / INDEX, page(title, sections, work.notes))
        if work.separation:
            write_text(folder / SEPARATION, json.dumps(work.separation.as_dict(), indent=2) + "\n")
    return (out or run.activations) / INDEX


def _require(wanted: Wanted, info: ModelInfo, paths: Sequence[Path]) -> list[str]:
    """Return the kinds to show, or refuse what cannot be."""
    unknown = [kind for kind in wanted.what if kind not in KINDS]
    if unknown:
        raise CustomCNNError(f"--what is one of {', '.join(KINDS)}. Received: {show_names(unknown)}. Choose one.")
    strangers = [name for name in wanted.classes if name not in info.classes]
    if strangers:
        raise CustomCNNError(
            f"--class names a class of the network. Received: {show_names(strangers)}; it knows "
            f"{show_names(info.classes)}. Name one of them."
        )
    if wanted.style not in STYLES:
        raise CustomCNNError(f"--style is one of {', '.join(STYLES)}. Received: {show(wanted.style)}. Choose one.")
    if wanted.style != STYLES[0] and "activations" not in wanted.kinds:
        raise CustomCNNError(
            f"--style is of activation maps. Received: {wanted.style} without them. Add --what activations."
        )
    if wanted.limit < 1:
        raise CustomCNNError(f"--limit is at least 1. Received: {wanted.limit}. Give more.")
    if "features" in wanted.what and wanted.data is None:
        raise CustomCNNError(
            "Features are shown of many labelled images. Received: --what features without --data. Give --data DATA."
        )
    if wanted.umap:
        require_umap()
    needing = [kind for kind in wanted.what if kind in OF_IMAGES]
    if needing and not paths:
        raise CustomCNNError(f"--what {needing[0]} shows images. Received: none. Name an image behind the run.")
    return [kind for kind in wanted.kinds if paths or kind not in OF_IMAGES]


def _chosen_data(run: RunDir, info: ModelInfo, wanted: Wanted) -> Manifest | None:
    """Return the images of DATA that are looked at."""
    if wanted.data is None:
        return None
    data, _ = choose_part(wanted.data, wanted.part)
    require_known(run, info, data)
    if len(data.records) <= wanted.limit:
        return data
    rng = np.random.default_rng(wanted.seed)
    rows = np.sort(rng.choice(len(data.records), wanted.limit, replace=False))
    return Manifest(data.root, tuple(data.records[row] for row in rows))


def _pictures(
    data: Manifest | None,
    paths: Sequence[Path],
    run: RunDir,
    info: ModelInfo,
    workers: int | None,
    progress: Progress,
) -> Pictures:
    """Decode the images of DATA, or those that were given."""
    sources = [data.root / record.path for record in data.records] if data else list(paths)
    read = reader(len(sources))
    images: list[np.ndarray] = []
    with progress(len(sources), "decode") as advance:
        for image, _ in parallel(lambda source: read(source, info.input_size), sources, workers):
            images.append(image)
            advance(1)
    names = [source.name for source in sources]
    if data is None:
        return Pictures(np.stack(images), names)
    groups = [record.group for record in data.records] if data.groups_known else None
    trained = {record.group for record in run.read_manifest().part("train").records if record.group}
    labels = [record.label for record in data.records]
    return Pictures(np.stack(images), names, labels, groups, len(trained & set(groups or ())))


def _look_at_network(
    work: _Work,
    folder: Path,
    run: RunDir,
    data: Manifest | None,
    paths: Sequence[Path],
    workers: int | None,
    progress: Progress,
) -> list[Section]:
    """Write what does not hang on one image, and return its sections."""
    sections: list[Section] = []
    if "diagram" in work.kinds:
        sections.append(diagram_section(work.model, folder)[0])
    if "filters" in work.kinds:
        sections.append(filters_section(work.model, folder, work.wanted.layers)[0])
    if not set(ON_DATA) & set(work.kinds):
        return sections
    pictures = _pictures(data, paths, run, work.info, workers, progress)
    with progress(len(pictures.images) * len(set(ON_DATA) & set(work.kinds)), "look") as advance:
        if "features" in work.kinds:
            section, _, work.separation = features_section(
                work.model, folder, pictures, work.wanted.seed, advance, umap=work.wanted.umap, notes=work.notes
            )
            sections.append(section)
        if "exciting" in work.kinds:
            sections.append(exciting_section(work.model, folder, work.wanted.layers, pictures, advance)[0])
    return sections


def _look_at_images(
    work: _Work,
    folder: Path,
    paths: Sequence[Path],
    about: dict[str, object],
    shown: list[Section],
    progress: Progress,
) -> list[Section]:
    """Write what the network makes of images, a page each where there are several; return the index's sections."""
    wanted = work.wanted
    views = ImageViews(work.model, work.info.classes, work.kinds, wanted.layers, wanted.classes, wanted.style)
    tops: list[tuple[str, Path, str]] = []
    with progress(len(paths), "visualize") as advance:
        for source, name in zip(paths, unique_names(paths), strict=True):
            inside = folder if len(paths) == 1 else folder / name
            inside.mkdir(exist_ok=True)
            first, sections, label = _look_at_image(work, views, source, inside, about)
            advance(1)
            if len(paths) == 1:
                # What is long comes last.
                place = next((n for n, s in enumerate(sections) if s.heading == "Activation maps"), len(sections))
                return [*first, *sections[:place], *shown, *sections[place:]]
            title = f"{source.name} in {work.info.model}"
            write_text(inside / INDEX, page(title, [*first, *sections], work.notes))
            tops.append((name, source, label))
    return [*([_gallery(folder, tops)] if tops else []), *shown]


def _look_at_image(
    work: _Work, views: ImageViews, source: Path, folder: Path, about: dict[str, object]
) -> tuple[list[Section], list[Section], str]:
    """Write the pictures of one image; return its sections, and what the network says in a few words."""
    original = decode(source)
    image = decode(source, work.info.input_size)
    shares = dict(zip(work.info.classes, map(float, probabilities(work.model, image[None])[0]), strict=True))
    first, _ = input_sections(image, folder, original, shares, {"file": source, **about})
    sections, _ = views.sections(image, folder, shares)
    label = max(shares, key=lambda name: shares[name])
    return first, sections, f"{label}, {shares[label]:.1%}"


def _gallery(folder: Path, tops: Sequence[tuple[str, Path, str]]) -> Section:
    """Return the section that shows every image with a link to its page."""
    cards = []
    for name, source, label in tops:
        picture = "gradcam.png" if (folder / name / "gradcam.png").is_file() else "00_input.png"
        link = Html(f'<a href="{name}/{INDEX}">{escape(source.name)}</a><small>{escape(label)}</small>')
        cards.append(Html(f'<div class="card">{figure(f"{name}/{picture}", f"{source.name}: {label}", link)}</div>'))
    return Section("Images", [group("gallery", *cards)])


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a folder name for each file: its stem in plain letters, numbered where two would be equal."""
    names: list[str] = []
    for path in paths:
        stem = file_name(path.stem).lstrip(".") or "image"
        count, name = 1, stem
        while name in names:
            count += 1
            name = f"{stem}-{count}"
        names.append(name)
    return names
