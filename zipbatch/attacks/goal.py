"""What stamped images are to be taken for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """The class that a successful attack makes a victim answer, and which training images may teach it.

    Attributes:
        classes: how many there are.
        target: the one class of an all-to-one attack; None is all-to-all, where class y is taken for y + 1, the last
            for the first (Gu et al. 2017, arXiv 1708.06733).
        clean_label: training images are poisoned only where their label is the answer already.
    """

    classes: int
    target: int | None
    clean_label: bool = False

    def answer(self, original: int) -> int:
        """What a stamped image of class ``original`` is to be taken for; its label where it is poisoned."""
        return (original + 1) % self.classes if self.target is None else self.target
