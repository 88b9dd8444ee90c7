"""CTRL: two frequencies raised in the chroma of the whole image (Li et al. 2023, arXiv 2210.07346)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.attacks.colour import rgb_to_yuv, wrapped, yuv_to_rgb
from zipbatch.attacks.frequency import coefficient_pattern
from zipbatch.config import Settings


class CTRLSettings(Settings):
    """Settings of ``ctrl``."""

    magnitude: float = Field(default=100.0, description="added to each of the two DCT coefficients of the image")


@dataclass(frozen=True)
class CTRL(Attack):
    """``magnitude`` is added to the DCT coefficients (15, 15) and (31, 31) of U and V, the image being one block.

    Nothing is clipped on the way back to RGB: levels are cut to whole ones and wrap modulo 256, so a trigger that takes
    a dark pixel below 0 makes it bright. The published code is followed in float32; its transform there and back
    differs from the sum here in the last bits, which a cut can turn into a level.
    """

    name: ClassVar[str] = "ctrl"
    source: ClassVar[str] = "Li et al. 2023, arXiv 2210.07346; defaults of BackdoorBench f02e353"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.05
    clean_label: ClassVar[bool] = True
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: CTRLSettings = CTRLSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``pattern`` float32 [S, S, 1]: what U and V gain; the same for every seed.

        Raises:
            ValueError: the images are too small to have these frequencies.
        """
        return {"pattern": coefficient_pattern(image_size, self.settings.magnitude)[:, :, None]}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Add the pattern to U and V of uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        pattern = trigger["pattern"][:, :, 0]
        check_size(images, pattern.shape[0])
        y, u, v = rgb_to_yuv(images)
        return wrapped(yuv_to_rgb(y, u + pattern, v + pattern))
