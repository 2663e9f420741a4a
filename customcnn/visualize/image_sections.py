"""What a network makes of one image: Grad-CAM, occlusion, the check with random weights, activation maps."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from customcnn.explain.gradcam import GradCam, cam_layers, overlay
from customcnn.explain.graph import depths
from customcnn.explain.occlusion import occlusion, signed_overlay
from customcnn.html.page import Section, figure
from customcnn.images.decode import foreground
from customcnn.visualize.activations import STYLES, Activations, map_sections
from customcnn.visualize.grids import write_grid
from customcnn.visualize.layer_names import matching
from customcnn.visualize.sanity import correlation, random_weights

MOST_CLASSES, MOST_LAYERS = 4, 8
PALE = 0.05  # a change of probability that is never coloured in full
CAM = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++"}
CAM_WORDS = (
    "Yellow places speak most for the class of the row, as far as the layer of the column knows; each map has its own "
    "scale. Early layers are sharp and know little of the class, the last one is coarse and knows most."
)
OCCLUSION_WORDS = (
    "A square slides over the image and covers it in the colour of the image's border. Red: without this place the "
    "class of the row is less probable, by what stands over the picture at most. Blue: it is more probable."
)
SANITY_WORDS = (
    "The same map from the network and from the network with random weights. A map that shows what was learned "
    "changes: the rank correlation of the two, on the cell, is far from 1. One that does not change shows the image, "
    "not the network."
)


class ImageViews:
    """Pictures of what one network makes of any number of images.

    Args:
        model: a functional keras classifier of one input (H, W, 3) that takes raw 0..255 RGB.
        classes: the class names.
        what: the kinds that are wanted, see `customcnn.visualize.KINDS`.
        layers: names or patterns; none for all layers, and for Grad-CAM those of `customcnn.explain.graph.depths`.
        shown: the classes to explain; none for all of up to MOST_CLASSES, or the most probable ones.
        style: of the activation maps, see `customcnn.visualize.activations.STYLES`.
    """

    def __init__(
        self,
        model: Any,
        classes: Sequence[str],
        what: Sequence[str],
        layers: Sequence[str] = (),
        shown: Sequence[str] = (),
        style: str = STYLES[0],
    ) -> None:
        self.model, self.classes, self.what = model, list(classes), what
        self.patterns, self.shown, self.style = layers, shown, style

    def sections(self, image: np.ndarray, out: Path, shares: Mapping[str, float]) -> tuple[list[Section], list[Path]]:
        """Write the pictures of one image into a folder; return the page's sections and the files.

        Args:
            image: uint8 (H, W, 3) of the network's input size.
            out: a folder that exists.
            shares: the probability of each class.
        """
        chosen = list(self.shown) or sorted(self.classes, key=lambda name: -shares[name])[:MOST_CLASSES]
        chosen = [name for name in self.classes if name in chosen]
        rows = [f"{name}, {shares[name]:.1%}" for name in chosen]
        numbers = [self.classes.index(name) for name in chosen]
        sections: list[Section] = []
        files: list[Path] = []
        for kind, title in CAM.items():
            if kind in self.what:
                path = self._cams(image, out, kind, chosen, numbers)
                words = f"Where the network sees what speaks for a class: {title} of {', '.join(self._names)}."
                sections.append(Section(title, [CAM_WORDS, figure(path.name, words)]))
                files.append(path)
        if "occlusion" in self.what:
            files.append(self._occlusion(image, out, rows, numbers))
            alt = "How much of each class's probability is lost where a place is covered"
            sections.append(Section("Occlusion", [OCCLUSION_WORDS, figure(files[-1].name, alt)]))
        if "sanity" in self.what:
            files.append(self._sanity(image, out, chosen, numbers))
            alt = "Grad-CAM of the network and of the same network with random weights"
            sections.append(Section("Check: random weights", [SANITY_WORDS, figure(files[-1].name, alt)]))
        if "activations" in self.what:
            more, written = map_sections(self._activations(image), out, self.style)
            sections += more if written else []
            files += written
        return sections, files

    @cached_property
    def _activations(self) -> Activations:
        seen = Activations(self.model, style=self.style)
        return Activations(self.model, matching(self.patterns, seen.names), self.style) if self.patterns else seen

    @cached_property
    def _cam_names(self) -> list[str | None]:
        """The layers that Grad-CAM is made of; None for the last maps."""
        names = cam_layers(self.model)
        if self.patterns:
            found = matching(self.patterns, names)
            if found:
                return list(found[-MOST_LAYERS:])
        if any("/" in name for name in names):  # an ensemble has no depth of its own
            return [None]
        last = GradCam(self.model).layer
        return [*(name for name in depths(self.model) if name != last), last]

    @cached_property
    def _names(self) -> list[str]:
        return [name or "the last maps" for name in self._cam_names]

    @cached_property
    def _explainers(self) -> dict[str, list[GradCam]]:
        return {
            kind: [GradCam(self.model, name, plus_plus=kind == "gradcam++") for name in self._cam_names]
            for kind in CAM
            if kind in self.what
        }

    def _cams(self, image: np.ndarray, out: Path, kind: str, rows: Sequence[str], numbers: Sequence[int]) -> Path:
        large = _enlarged(image)
        grid = [
            [large, *(overlay(large, explain(image, number)) for explain in self._explainers[kind])]
            for number in numbers
        ]
        name = "gradcam.png" if kind == "gradcam" else "gradcam-plus-plus.png"
        return write_grid(out / name, grid, rows, ["image", *self._names])

    def _occlusion(self, image: np.ndarray, out: Path, rows: Sequence[str], numbers: Sequence[int]) -> Path:
        large = _enlarged(image)
        heats = [occlusion(self.model, image, number) for number in numbers]
        # One for all, so that rows compare, and no less than PALE: what hardly matters is not to look as if it did.
        scale = max(PALE, *(float(np.abs(heat).max()) for heat in heats))
        factor = large.shape[0] // image.shape[0]
        grid = [
            [large, signed_overlay(large, heat.repeat(factor, axis=0).repeat(factor, axis=1), scale)] for heat in heats
        ]
        titles = [["", _change(heat)] for heat in heats]
        return write_grid(out / "occlusion.png", grid, rows, ["image", "covered"], titles=titles)

    def _sanity(self, image: np.ndarray, out: Path, rows: Sequence[str], numbers: Sequence[int]) -> Path:
        large = _enlarged(image)
        own = GradCam(self.model)
        trained = [own(image, number) for number in numbers]
        with random_weights(self.model):
            other = GradCam(self.model)
            random = [other(image, number) for number in numbers]
        grid = [[large, overlay(large, one), overlay(large, two)] for one, two in zip(trained, random, strict=True)]
        # The empty background of a cell is empty in both maps, and would make them alike.
        cell = foreground(Image.fromarray(image))
        where = cell if 0.05 < cell.mean() < 0.95 else np.ones_like(cell)
        alike = [correlation(one[where], two[where]) for one, two in zip(trained, random, strict=True)]
        titles = [["", "", f"correlation {value:+.2f}"] for value in alike]
        return write_grid(out / "sanity.png", grid, rows, ["image", "trained", "random weights"], titles=titles)


def _change(heat: np.ndarray) -> str:
    """Return by how much the probability changes at most where a place is covered, down and up."""
    down, up = (round(-float(edge), 3) + 0.0 for edge in (max(heat.max(), 0), min(heat.min(), 0)))
    return f"{down:+.3f} to {up:+.3f}"


def _enlarged(image: np.ndarray, least: int = 200) -> np.ndarray:
    factor = -(-least // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
