"""Which class a sample is of, as far as its shard says so in a way that can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zipbatch.datasets.base import UNLABELLED
from zipbatch.errors import DataError
from zipbatch.shards.sample import Sample


class Label(NamedTuple):
    """``given`` is what training would see, ``original`` the true class, both ``UNLABELLED`` where nobody knows;
    ``unusable`` says why a label that is there does not count.
    """

    given: int
    original: int
    unusable: str | None = None


@dataclass(frozen=True)
class Unlabelled:
    """How many images have no label that can be used, and why the first does not count, where there is one at all."""

    count: int = 0
    first: str | None = None

    def __add__(self, other: Unlabelled) -> Unlabelled:
        return Unlabelled(self.count + other.count, self.first or other.first)


@dataclass(frozen=True)
class Labelling:
    """How the labels of a dataset are read.

    Attributes:
        classes: their names, by which a label may also be given.
        promised: a label that is missing or cannot be used is an error, as in a staged dataset; where it is not, such
            an image counts as unlabelled.
    """

    classes: tuple[str, ...] = ()
    promised: bool = False

    def of(self, sample: Sample) -> Label:
        """The label of a sample.

        Raises:
            DataError: it is promised, and cannot be used.
        """
        try:
            original, given = sample.original_label(self.classes), sample.label(self.classes)
        except DataError as error:
            if self.promised:
                raise
            return Label(UNLABELLED, UNLABELLED, str(error))
        return Label(UNLABELLED if given is None else given, UNLABELLED if original is None else original)

    def unlabelled(self, labels: Sequence[Label]) -> Unlabelled:
        """Those without a label among these."""
        missing = [label for label in labels if label.original == UNLABELLED]
        return Unlabelled(len(missing), next((label.unusable for label in missing if label.unusable), None))
