"""Matplotlib figures from arrays, written as PNG files."""

from customcnn.plots.confusion import plot_confusion

__all__ = ["plot_confusion"]
