"""From class folders to packed arrays: manifest, split, crop, off-line augmentation, synthetic cells, downloads."""
