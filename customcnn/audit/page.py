"""An audit as one page: the pictures of every finding side by side."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from PIL import Image

from customcnn.audit.findings import Audit, Unlike
from customcnn.audit.quality import KINDS
from customcnn.audit.text import NOT_DEEP, disagreement, how, of, sentence, verdict
from customcnn.audit.union_find import linked
from customcnn.data.manifest import Manifest, Record
from customcnn.errors import show
from customcnn.html.page import Html, Section, beside, data_uri, escape, facts, figure, page, table
from customcnn.images.decode import read_image, to_rgb

MOST = 12
"""So many findings of each kind are shown, unless told otherwise."""

IN_A_ROW = 5
"""So many pictures of one finding are shown."""

WIDTH = 144  # CSS pixels of the longer side; the pictures have no more pixels than that


def page_of(found: Audit, manifest: Manifest, most: int = MOST) -> str:
    """Return an audit as a self-contained HTML page. Only the images that it shows are read.

    Args:
        found: by `audit`.
        manifest: the audited one.
        most: how many findings of each kind are shown; the rest is counted.
    """
    show_them = _Pictures(manifest, most)
    warnings = [sentence(share).capitalize() for share in found.shares]
    if found.leaks:
        warnings.insert(0, verdict(found))
    sections = [
        Section("What was looked at", list(_summary(found))),
        *show_them.conflicts(found),
        *show_them.duplicates(found),
        *show_them.copies(found),
        *show_them.unlike(found),
    ]
    return page(f"Audit of {manifest.root.resolve().name}", sections, warnings)


def _summary(found: Audit) -> Iterator[str]:
    labels = sorted({label for by_class in found.images.values() for label in by_class})
    rows = [[part, *(by_class.get(label, 0) for label in labels)] for part, by_class in found.images.items()]
    yield table(["images", *labels], rows)
    across = " across parts" if found.split else ""
    values: dict[str, object] = {
        "label conflicts among duplicates": len(found.label_conflicts),
        f"identical files{across}": len(found.identical),
        f"near-duplicates{across}": len(found.near_duplicates),
    }
    if found.split and found.groups_known:
        values["groups in more than one part"] = len(found.shared_groups)
    if found.near_within is not None:
        values["near-duplicates within parts"] = len(found.near_within)
    if found.groups is not None:
        sizes = found.groups
        values["images of a group"] = (
            f"{sizes.smallest:,} to {sizes.largest:,}, median {sizes.median:g}, in {sizes.count:,} groups"
        )
        values["groups with images of several classes"] = len(sizes.several_labels)
        values["duplicates in different groups"] = len(found.torn)
    else:
        values["groups"] = "not known"
    if found.deep is not None:
        values["pictures, copies turned by any angle counted once"] = found.deep.originals
        if found.split:
            values["pictures with copies in more than one part"] = len(found.deep.across)
    values["images unlike the rest"] = len(found.quality.unlike)
    if found.changed:
        values["images changed since the manifest was written"] = len(found.changed)
    yield facts({name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()})
    yield verdict(found)
    if found.deep is None:
        yield NOT_DEEP
    elif found.groups is not None:
        yield from disagreement(found, found.deep)


class _Pictures:
    """Makes the sections with pictures, a few of each kind."""

    def __init__(self, manifest: Manifest, most: int) -> None:
        self.root = manifest.root
        self.records: Mapping[str, Record] = {record.path: record for record in manifest.records}
        self.most = most

    def conflicts(self, found: Audit) -> Iterator[Section]:
        sets = [(conflict.paths, of(conflict)) for conflict in found.label_conflicts]
        yield from self._sets(
            "Duplicates with different labels", "One of the labels is wrong, or both are.", sets, "label"
        )
        sets = [(conflict.paths, of(conflict)) for conflict in found.torn]
        text = "They show one picture. Split by group, they may come into different parts."
        yield from self._sets("Duplicates in different groups", text, sets, "group")

    def duplicates(self, found: Audit) -> Iterator[Section]:
        where = " across parts" if found.split else ""
        yield from self._sets(f"Identical files{where}", "", [(paths, "") for paths in found.identical])
        yield from self._sets(
            f"Near-duplicates{where}",
            "Turned by quarter turns, flipped, rescaled or saved again.",
            [(paths, "") for paths in linked((pair.first, pair.second) for pair in found.near_duplicates)],
        )
        inside = [(pair.first, pair.second) for pair in found.near_within or ()]
        yield from self._sets("Near-duplicates within parts", "", [(paths, "") for paths in linked(inside)])

    def copies(self, found: Audit) -> Iterator[Section]:
        if found.deep is None:
            return
        text = "Turned by any angle, scaled or shifted: the same things lie in the same places."
        across = [(paths, "") for paths in found.deep.across]
        yield from self._sets("Copies across parts", text, across)
        known = {tuple(paths) for paths in found.deep.across}
        others = [(paths, "") for paths in found.deep.copies if tuple(paths) not in known]
        # Large sets first: they weigh most in a split.
        others.sort(key=lambda item: -len(item[0]))
        yield from self._sets("Copies within parts" if found.split else "Copies", text, others)
        overlapping = [(pair, "") for pair in found.deep.overlapping]
        text = "They show some of the same, too little to be copies of one picture."
        yield from self._sets("Overlapping pictures", text, overlapping)

    def unlike(self, found: Audit) -> Iterator[Section]:
        if not found.quality.unlike:
            return
        blocks: list[str] = ["Compared with the median and the usual spread of all images. Not every one is bad."]
        if found.quality.usual:
            blocks += ["Usual ones:", beside(*(self._figure(path) for path in found.quality.usual))]
        yield Section("Images unlike the rest", blocks)
        for kind in KINDS:
            those = [image for image in found.quality.unlike if image.kinds[0] == kind]
            if those:
                yield Section(kind.capitalize(), [*self._unlike(those)], level=3)

    def _unlike(self, images: Sequence[Unlike]) -> Iterator[str]:
        yield beside(*(self._figure(image.path, how(image)) for image in images[: self.most]))
        yield from _rest(len(images) - self.most, "image")

    def _sets(
        self, heading: str, text: str, sets: Sequence[tuple[Sequence[str], str]], differ: str = "split"
    ) -> Iterator[Section]:
        """Yield a section of sets of images; of each set those come first that differ in this attribute."""
        if not sets:
            return
        blocks: list[str] = [f"{len(sets):,} sets. {text}".strip() if len(sets) > 1 else f"One set. {text}".strip()]
        for paths, words in islice(sets, self.most):
            if words:
                blocks.append(words)
            first = {getattr(self.records[path], differ): path for path in reversed(paths)}.values()
            shown = sorted(paths, key=lambda path: path not in first)[: max(IN_A_ROW, min(len(first), self.most))]
            blocks.append(beside(*(self._figure(path) for path in sorted(shown, key=paths.index))))
            blocks += _rest(len(paths) - len(shown), "image")
        blocks += _rest(len(sets) - self.most, "set")
        yield Section(heading, blocks)

    def _figure(self, path: str, words: str = "") -> Html:
        record = self.records[path]
        about = [record.path, f"class {record.label}", f"group {record.group}" if record.group else "", words]
        caption = Html("<br>".join(escape(line) for line in about if line))
        image = to_rgb(read_image(self.root / path))
        width = WIDTH if image.width >= image.height else max(1, round(WIDTH * image.width / image.height))
        picture = figure(_small(image), show(path), caption, width=width)
        # As wide as the picture: long names would push the pictures apart.
        return Html(f'<div style="width:{WIDTH}px">{picture}</div>')


def _small(image: Image.Image) -> str:
    """Return the image as an address that holds it, at most WIDTH pixels a side, as JPEG: photographs stay small."""
    image = image.copy()
    image.thumbnail((WIDTH, WIDTH))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return data_uri(data.getvalue(), "jpeg")


def _rest(count: int, what: str) -> Iterable[str]:
    return [f"{count:,} more {what}{'s' * (count > 1)} not shown."] if count > 0 else []
