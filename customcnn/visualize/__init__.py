"""Inside a network: its architecture, its filters, what it makes of an image, and where it looks."""

from customcnn.plots.tiles import tile_maps
from customcnn.visualize.activations import activation_layers, activation_maps, write_activations
from customcnn.visualize.diagram import draw_diagram
from customcnn.visualize.embedding import embed, features, separation
from customcnn.visualize.filters import filter_picture, kernels
from customcnn.visualize.run import KINDS, QUICK, Wanted, unique_names, visualize_run

__all__ = [
    "KINDS",
    "QUICK",
    "Wanted",
    "activation_layers",
    "activation_maps",
    "draw_diagram",
    "embed",
    "features",
    "filter_picture",
    "kernels",
    "separation",
    "tile_maps",
    "unique_names",
    "visualize_run",
    "write_activations",
]
