"""Train small convolutional networks on folders of cell images, and say what their scores are worth."""

__version__ = "0.1.0"
