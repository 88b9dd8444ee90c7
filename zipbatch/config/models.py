"""What a prior makes of clean images."""

from __future__ import annotations

import bisect
import math
from typing import ClassVar

from pydantic import Field, model_validator

from zipbatch.config.settings import Settings


class Calibration(Settings):
    """What a prior makes of clean images: the residuals of its estimates, and how far up their scores go.

    ``levels`` are the mean absolute residuals at ``residual_steps``, in model units. Of the clean pixels, the share
    ``shares[i]`` has a score of ``scores[i]`` or more; shares go down, scores up.
    """

    SHARES: ClassVar[tuple[float, ...]] = (0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
    LEAST_PIXELS: ClassVar[int] = 10
    """Clean pixels that a score must be held against."""
    LEAST: ClassVar[float] = 1e-4

    image_size: int = Field(ge=1)
    residual_steps: tuple[int, ...] = Field(min_length=1, max_length=32)
    levels: tuple[float, ...] = Field(max_length=32)
    shares: tuple[float, ...] = Field(min_length=2, max_length=100)
    scores: tuple[float, ...] = Field(max_length=100)

    @model_validator(mode="after")
    def _fits(self) -> Calibration:
        if len(self.levels) != len(self.residual_steps) or len(self.scores) != len(self.shares):
            raise ValueError("levels go with residual_steps, scores with shares, one for one")
        if min(self.levels) < self.LEAST or min(self.scores) < self.LEAST:
            raise ValueError(f"levels and scores must be above 0, {self.LEAST:g} or more")
        if not 0 < min(self.shares) <= max(self.shares) < 1:
            raise ValueError("shares must be between 0 and 1")
        if list(self.shares) != sorted(self.shares, reverse=True) or list(self.scores) != sorted(self.scores):
            raise ValueError("shares must go down, scores up")
        return self

    def score(self, share: float) -> float:
        """The score that ``share`` of the clean pixels reach, by a line through the logarithms of the shares beside it.

        Raises:
            ValueError: a share outside of those that were measured.
        """
        if not self.shares[-1] <= share <= self.shares[0]:
            raise ValueError(
                f"of clean pixels, shares of {self.shares[-1]:g} to {self.shares[0]:g} were measured, not {share:g}; "
                "calibrate with more images, or take another share"
            )
        right = max(1, bisect.bisect_left(self.shares, -share, key=lambda one: -one))
        (high, low), (near, far) = self.shares[right - 1 : right + 1], self.scores[right - 1 : right + 1]
        if high == low:
            return far
        return round(near + (far - near) * math.log(high / share) / math.log(high / low), 4)
