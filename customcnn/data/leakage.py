"""What two parts of a split have in common that they should not: the reason to distrust a score."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from customcnn.data.groups import group_key
from customcnn.data.manifest import Manifest, Record

DRAWN = "Drawn cells, not patients: this score says nothing about leukemia."


@dataclass(frozen=True)
class Leakage:
    """What the images of one part share with the training images.

    Attributes:
        part: the name of the part that is scored.
        images: how many images it has.
        groups_known: whether every image on both sides has a group.
        shared_groups: groups with images on both sides.
        images_in_shared_groups: images of the part that belong to such a group.
        identical_files: images of the part whose bytes stand in the training part too.
    """

    part: str
    images: int
    groups_known: bool
    shared_groups: int
    images_in_shared_groups: int
    identical_files: int

    @property
    def warning(self) -> str | None:
        """The warning that every score on this part carries, one line; None if nothing is shared."""
        found = []
        if self.shared_groups:
            found.append(
                f"{self.images_in_shared_groups:,} of {self.images:,} {self.part} images belong to "
                f"{self.shared_groups:,} group{'s' * (self.shared_groups != 1)} that the network was trained on"
            )
        if self.identical_files:
            found.append(f"{self.identical_files:,} of {self.images:,} are files that it was trained on, byte for byte")
        if not found:
            return None
        return f"Inflated by leakage: {'; '.join(found)}. Split by group for a score that holds for new ones."

    def as_dict(self) -> dict[str, object]:
        """Return the figures and the warning, ready for JSON."""
        return {**asdict(self), "warning": self.warning}


def find_leakage(train: Iterable[Record], other: Iterable[Record], part: str) -> Leakage:
    """Compare the groups and the file hashes of two parts.

    Args:
        train: the records that a network was trained on.
        other: the records it is scored on.
        part: the name of the scored part, for the warning.
    """
    train, other = list(train), list(other)
    known = all(record.group for record in train) and all(record.group for record in other)
    # Two tables may spell one subject differently.
    shared = {group_key(r.group) for r in train if r.group} & {group_key(r.group) for r in other if r.group}
    hashes = {record.sha256 for record in train if record.sha256}
    return Leakage(
        part=part,
        images=len(other),
        groups_known=known,
        shared_groups=len(shared),
        images_in_shared_groups=sum(group_key(record.group) in shared for record in other),
        identical_files=sum(record.sha256 in hashes for record in other),
    )


def run_notes(trained: Manifest) -> list[str]:
    """Return the sentences that belong beside everything from a run, given the images it was trained on."""
    validation = trained.part("validation").records
    return notes(trained, find_leakage(trained.part("train").records, validation, "validation"))


def notes(data: Manifest, leakage: Leakage) -> list[str]:
    """Return the sentences that stand beside every score on this data: its leakage, and whether it is drawn."""
    return [*([leakage.warning] if leakage.warning else []), *([DRAWN] if data.drawn else [])]
