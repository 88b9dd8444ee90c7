"""Blended injection: a noise picture mixed into the whole image (Chen et al. 2017, arXiv 1712.05526)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.attacks.mixing import Opacity
from zipbatch.config import Settings


class BlendedSettings(Settings):
    """Settings of ``blended``."""

    alpha: Opacity = Field(default=0.2, description="opacity of the pattern")


@dataclass(frozen=True)
class Blended(Attack):
    """Full-frame grey noise at opacity ``alpha``."""

    name: ClassVar[str] = "blended"
    source: ClassVar[str] = "Chen et al. 2017, arXiv 1712.05526; pattern as in sycny/ZIP 3778253"
    default_target: ClassVar[int] = 1
    default_poison_rate: ClassVar[float] = 0.05
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: BlendedSettings = BlendedSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``pattern`` uint8 [S, S, 1], uniform over 0..254."""
        generator = torch.Generator().manual_seed(seed)
        pattern = torch.randint(0, 255, (image_size, image_size), generator=generator).to(torch.uint8)
        return {"pattern": pattern.numpy()[:, :, None]}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """``trunc((1 - alpha) x + alpha p)`` in float32, on uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        pattern = trigger["pattern"]
        check_size(images, pattern.shape[0])
        alpha = np.float32(self.settings.alpha)
        mixed = (1 - alpha) * images.astype(np.float32) + alpha * pattern.astype(np.float32)
        return np.trunc(mixed).astype(np.uint8)
