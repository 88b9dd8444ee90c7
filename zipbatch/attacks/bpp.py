"""BppAttack: fewer levels a channel (Wang et al. 2022, arXiv 2205.13383)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.config import Settings


class BPPSettings(Settings):
    """Settings of ``bpp``."""

    levels: int = Field(default=8, ge=2, le=255, description="levels that are left of a channel's 256")


@dataclass(frozen=True)
class BPP(Attack):
    """Static quantisation to ``levels`` levels a channel, without dithering and without the negative samples that the
    published training adds in its batches.
    """

    name: ClassVar[str] = "bpp"
    source: ClassVar[str] = "Wang et al. 2022, arXiv 2205.13383: nearest levels; else as BackdoorBench f02e353"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.10
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: BPPSettings = BPPSettings()

    @staticmethod
    def to_levels(values: npt.NDArray[np.float64]) -> U8:
        """Whole levels of values in 0..255."""
        return np.rint(values).astype(np.uint8)

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``table`` uint8 [256]: what each level becomes, ``round(x / 255 * (n - 1)) / (n - 1) * 255`` to the nearest
        level, as the paper has it; the same for every seed.
        """
        top = self.settings.levels - 1
        table = self.to_levels(np.rint(np.arange(256) / 255 * top) / top * 255)
        return {"table": table, "image_size": np.int64(image_size).reshape(1)}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Look each level of uint8 [B, S, S, 3] up.

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, int(trigger["image_size"][0]))
        stamped: U8 = trigger["table"][images]
        return stamped
