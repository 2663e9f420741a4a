"""Small pictures of cells for the tests of the audit."""

import numpy as np
from PIL import Image

from customcnn.data.manifest import Manifest, Record, scan


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(image))
    image.save(path, **options)


def cell(seed, size=96):
    """A purple blob of irregular outline and blotchy texture on black."""
    rng = np.random.default_rng(seed)
    angle = np.arctan2(*np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j])
    radius = np.hypot(*np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j])
    edge = 0.6 + sum(rng.normal(0, 0.05) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(1, 6))
    blotches = Image.fromarray(rng.normal(0, 1, (12, 12)).astype(np.float32)).resize((size, size))
    light = (0.6 + 0.15 * np.asarray(blotches)).clip(0, 1) * (radius < edge)
    return (light[..., None] * [170, 60, 190]).astype(np.uint8)


def with_groups(src, group):
    """Write a manifest.csv that gives every image the group that `group(path)` names."""
    records = tuple(Record(r.path, r.label, group(r.path), r.split, r.sha256, r.extra) for r in scan(src).records)
    Manifest(src, records).write(src / "manifest.csv")
