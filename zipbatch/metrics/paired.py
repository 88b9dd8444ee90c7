"""Two defences on the very same images: which of them got more right, and by how much more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_EXACT = 10_000
"""Images that differ, up to which the binomial sum is taken term by term."""


@dataclass(frozen=True)
class Paired:
    """Of ``n`` images, those that something holds for ``only_here``, and those that it holds for ``only_there``."""

    only_here: int = 0
    only_there: int = 0
    n: int = 0

    def __add__(self, other: Paired) -> Paired:
        return Paired(self.only_here + other.only_here, self.only_there + other.only_there, self.n + other.n)

    @property
    def p(self) -> float | None:
        """Two-sided p-value of McNemar's test (McNemar 1947): exact, above 10,000 images that differ with the corrected
        chi-square; None without images.
        """
        if not self.n:
            return None
        differ, fewer = self.only_here + self.only_there, min(self.only_here, self.only_there)
        if differ > _EXACT:
            chi = max(0, abs(self.only_here - self.only_there) - 1) / math.sqrt(differ)
            return math.erfc(chi / math.sqrt(2))
        if differ == 0:
            return 1.0
        logs = [
            math.lgamma(differ + 1) - math.lgamma(i + 1) - math.lgamma(differ - i + 1) - differ * math.log(2)
            for i in range(fewer + 1)
        ]
        return min(1.0, 2 * math.fsum(math.exp(log) for log in logs))


def paired(here: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_]) -> Paired:
    """Count of arrays [N] of the same images.

    Raises:
        ValueError: the arrays differ in length.
    """
    if here.shape != there.shape:
        raise ValueError(f"answers here and there differ in number: {len(here)} and {len(there)}")
    return Paired(int((here & ~there).sum()), int((there & ~here).sum()), len(here))
