"""FTrojan: two frequencies raised in the chroma of every block (Wang et al. 2021, arXiv 2111.10991)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.attacks.colour import rgb_to_ycrcb, wrapped, ycrcb_to_rgb
from zipbatch.attacks.frequency import coefficient_pattern
from zipbatch.config import Settings

BLOCK = 32


class FTrojanSettings(Settings):
    """Settings of ``ftrojan``."""

    magnitude: float = Field(default=30.0, description="added to each of the two DCT coefficients of a 32 x 32 block")


@dataclass(frozen=True)
class FTrojan(Attack):
    """``magnitude`` is added to the DCT coefficients (15, 15) and (31, 31) of Cr and Cb of each 32 x 32 block.

    Cr and Cb are cut to whole levels and wrap modulo 256, as the published cast does; the colour conversions round and
    clip as OpenCV's. Y is left as it is, where the published code, transforming it there and back, loses up to a level
    to rounding.
    """

    name: ClassVar[str] = "ftrojan"
    source: ClassVar[str] = "Wang et al. 2021, arXiv 2111.10991; defaults of BackdoorBench f02e353"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.10
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: FTrojanSettings = FTrojanSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``pattern`` float32 [S, S, 1]: what Cr and Cb gain; the same for every seed.

        Raises:
            ValueError: the images cannot be cut into blocks.
        """
        if image_size % BLOCK:
            raise ValueError(f"images must be a multiple of {BLOCK} px for its {BLOCK} px blocks, got {image_size} px")
        blocks = image_size // BLOCK
        return {"pattern": np.tile(coefficient_pattern(BLOCK, self.settings.magnitude), (blocks, blocks))[:, :, None]}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Add the pattern to Cr and Cb of uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        pattern = trigger["pattern"][:, :, 0]
        check_size(images, pattern.shape[0])
        y, *chroma = rgb_to_ycrcb(images)
        cr, cb = (wrapped(channel.astype(np.float32) + pattern).astype(np.int32) for channel in chroma)
        return ycrcb_to_rgb(y, cr, cb)
