"""What stamped images are to be taken for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The class that a successful attack makes a victim answer, and which training images may teach it.

    Attributes:
        classes: how many there are.
        target: the one class of an all-to-one attack; None is all-to-all, where class y is taken for y + 1, the last
            for the first (Gu et al. 2017, arXiv 1708.06733).
        clean_label: training images are poisoned only where their label is the answer already.
        sources: the classes whose images alone the attack is after; empty for all.
    """

    classes: int
    target: int | None
    clean_label: bool = False
    sources: tuple[int, ...] = ()

    def answer(self, original: int) -> int:
        """What a stamped image of class ``original`` is to be taken for; its label where it is poisoned. Its own class
        where the attack is not after it.
        """
        if not self.is_after(original):
            return original
        return (original + 1) % self.classes if self.target is None else self.target

    def is_after(self, original: int) -> bool:
        """Whether stamped images of class ``original`` are to be taken for anything else: these alone are tested on."""
        return not self.sources or original in self.sources

    def may_poison(self, original: int) -> bool:
        """Whether training images of class ``original`` may be poisoned."""
        return self.is_after(original) and (not self.clean_label or original == self.target)

    def may_cover(self, original: int) -> bool:
        """Whether images of class ``original`` can carry the trigger with their true label without teaching it."""
        return not self.clean_label or original != self.target
