"""Find what makes a score worth less: what the parts of a split share, copies, wrong labels, images unlike the rest."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial

from customcnn.audit.classes import differing_shares, disagreeing, groups_of, images_by_part, shared_groups
from customcnn.audit.copies import Copies, judge
from customcnn.audit.duplicates import (
    CORRELATION,
    DISTANCE,
    all_looks,
    identical_files,
    near_across,
    near_inside,
    near_links,
)
from customcnn.audit.findings import Audit, Conflict, Deep, Groups, Pair, Quality, Share, Unlike
from customcnn.audit.page import page_of
from customcnn.audit.quality import unlike_the_rest
from customcnn.audit.source import open_data
from customcnn.audit.text import report
from customcnn.data.manifest import Manifest, Record
from customcnn.io.parallel import Workers
from customcnn.progress import Progress, silent

__all__ = [
    "CORRELATION",
    "DISTANCE",
    "Audit",
    "Conflict",
    "Copies",
    "Deep",
    "Groups",
    "Pair",
    "Quality",
    "Share",
    "Unlike",
    "audit",
    "open_data",
    "page_of",
    "report",
]


def audit(
    manifest: Manifest,
    *,
    within: bool = False,
    copies: Copies | None = None,
    workers: Workers = None,
    progress: Progress = silent,
) -> Audit:
    """Compare the parts of a split, or all images of data that is not split.

    Every image is decoded once. The perceptual hash (pHash, 64 bits) of an image is looked up
    among the hashes of all eight turns and flips of the others, through tables of some of the bits, so that not every
    pair is compared. Candidates are confirmed by correlating the details of 32 x 32 thumbnails, which wait in a
    temporary file, 1 KB an image. Copies turned by other angles, cropped or shifted are not found this way. Of large
    sets of images whose hashes are much alike, those are candidates whose details are alike as well, judged by
    sketches: fewer than one in a hundred of the pairs that correlate by .97 is missed then, and one in ten thousand of
    those by .985.

    Args:
        manifest: from `open_data` or `scan`, with groups if they are known.
        within: look for near-duplicates inside each part, too. Of data that is not split they are always looked for.
        copies: from `copies.find_copies`, to compare with parts, labels and groups.
        workers: processes; None for one a core; or a `customcnn.io.parallel.Pool`, which decodes the images.
        progress: see `customcnn.progress`.

    Raises:
        CustomCNNError: an image cannot be decoded.
    """
    records = manifest.records
    split = len(manifest.parts) > 1
    with tempfile.TemporaryFile() as file:
        looks, measures = all_looks(manifest, file, workers, progress)
        quality = unlike_the_rest(records, measures)
        del measures  # what comes next needs the memory
        near = near_across(records, looks) if split else near_links(records, looks, range(len(records)))
        # Copies have their picture wherever they lie, and what the hashes find belongs to it as well.
        inside = near_inside(records, looks) if split and (within or copies) else None
        same = [[records[i] for i in places] for places in identical_files(looks)]
        changed = [r.path for r, look in zip(records, looks, strict=True) if r.sha256 and r.sha256 != look.sha256]
    shared = shared_groups(records) if split else {}
    in_shared = Counter(record.split for record in records if record.group in shared)
    identical = [[record.path for record in of_one] for of_one in same]
    if copies:
        copies = copies.joined((pair.first, pair.second) for pair in [*near, *(inside or [])])
    originals = copies.originals if copies else []
    conflicts = partial(disagreeing, records, identical, [*near, *(inside or [])], originals)
    images = images_by_part(manifest)
    return Audit(
        images=images,
        split=split,
        groups_known=manifest.groups_known,
        shared_groups=shared,
        images_in_shared_groups={part: in_shared[part] for part in manifest.parts} if split else {},
        identical=[
            paths
            for paths, of_one in zip(identical, same, strict=True)
            if not split or len({record.split for record in of_one}) > 1
        ],
        near_duplicates=near,
        repeated=_repeated(manifest.parts, same) if split else {},
        near_within=inside if within else None,
        label_conflicts=conflicts(lambda record: record.label),
        torn=conflicts(lambda record: record.group),
        shares=differing_shares(images) if split else [],
        groups=groups_of(records),
        quality=quality,
        changed=changed,
        deep=judge(records, copies, split=split) if copies else None,
    )


def _repeated(parts: Sequence[str], same: Sequence[Sequence[Record]]) -> dict[str, int]:
    """Return by part how many files have the bytes of an earlier one of that part."""
    repeated = dict.fromkeys(parts, 0)
    for of_one in same:
        for part, count in Counter(record.split for record in of_one).items():
            repeated[part] = repeated.get(part, 0) + count - 1
    return repeated
