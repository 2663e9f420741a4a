"""What an audit finds, as plain values ready for JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Pair:
    """Two images that show the same picture, perhaps turned or flipped."""

    first: str
    second: str
    distance: int
    correlation: float
    same_label: bool


@dataclass(frozen=True)
class Conflict:
    """Images that are one picture, but differ in what should then be equal.

    Attributes:
        kind: how they are known to be one: "identical", "near-duplicate" or "copy" (by `copies`).
        paths: the images.
        values: the labels (or the groups) that they have, each once, sorted.
    """

    kind: str
    paths: list[str]
    values: list[str]


@dataclass(frozen=True)
class Share:
    """A class whose share in one part is not what it is in the others."""

    part: str
    label: str
    share: float
    elsewhere: float


@dataclass(frozen=True)
class Groups:
    """How many images the groups have.

    Attributes:
        count: groups; images without one are left out.
        smallest: images in the smallest group.
        median: images in the middle one.
        largest: images in the largest.
        several_labels: the groups whose images have more than one label.
    """

    count: int
    smallest: int
    median: float
    largest: int
    several_labels: list[str]


@dataclass(frozen=True)
class Unlike:
    """An image unlike the rest.

    Attributes:
        path: the image.
        kinds: in which way ("out of focus", "dark", ...), the furthest first.
        score: how many usual spreads it lies from the median in the first of them; None for a blank one.
    """

    path: str
    kinds: list[str]
    score: float | None


@dataclass(frozen=True)
class Quality:
    """The images unlike the rest.

    Attributes:
        enough: whether there are enough images to say what is usual; else only blank ones are named.
        unlike: the images, the furthest first.
        usual: some that are most like all others, to compare with.
    """

    enough: bool
    unlike: list[Unlike]
    usual: list[str]


@dataclass(frozen=True)
class Deep:
    """What the search for copies turned by any angle, scaled and shifted found.

    Attributes:
        groups: the name of its picture for every path.
        originals: how many different pictures there are.
        copies: sets of two and more images of one picture.
        across: those of them that stand in more than one part.
        overlapping: pairs of different pictures that show some of the same, perhaps by a corner; of a split, those of
            different parts.
        mixed_groups: groups that hold several pictures, each with how many; empty where no groups are known.
    """

    groups: dict[str, str]
    originals: int
    copies: list[list[str]]
    across: list[list[str]]
    overlapping: list[list[str]]
    mixed_groups: dict[str, int]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        images: by part and class; of data that is not split, by class under "data".
        split: whether there are parts to compare.
        groups_known: whether every image has a group.
        shared_groups: the groups that stand in more than one part, each with its parts.
        images_in_shared_groups: images in such groups, by part.
        identical: sets of files with the same bytes that stand in more than one part; if not split, all such sets.
        near_duplicates: pairs across parts found by perceptual hash and confirmed on thumbnails; if not split, as many
            pairs as link those that belong together.
        repeated: by part, files whose bytes stand in that part already.
        near_within: pairs that link the near-duplicates inside each part; None if they were not looked for.
        label_conflicts: duplicates with different labels, identical files first.
        torn: duplicates with different groups.
        shares: classes whose shares differ between parts.
        groups: how many images they have; None where none is known.
        quality: images unlike the rest.
        changed: images whose bytes are not those that the manifest lists.
        deep: copies turned by any angle; None if they were not looked for.
    """

    images: dict[str, dict[str, int]]
    split: bool
    groups_known: bool
    shared_groups: dict[str, list[str]]
    images_in_shared_groups: dict[str, int]
    identical: list[list[str]]
    near_duplicates: list[Pair]
    repeated: dict[str, int]
    near_within: list[Pair] | None
    label_conflicts: list[Conflict]
    torn: list[Conflict]
    shares: list[Share]
    groups: Groups | None
    quality: Quality
    changed: list[str] = field(default_factory=list)
    deep: Deep | None = None

    @property
    def leaks(self) -> bool:
        """Whether parts share anything; of data that is not split, whether parts made by its groups would."""
        if not self.split:
            return bool(self.torn)
        copies = self.deep is not None and self.deep.across
        return bool(self.shared_groups or self.identical or self.near_duplicates or copies)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {"leaks": self.leaks, **asdict(self)}
