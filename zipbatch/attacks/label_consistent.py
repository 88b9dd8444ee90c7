"""Label-consistent: a patch in every corner of images of the target class (Turner et al. 2019, arXiv 1912.02771)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.attacks.mixing import Opacity, mix
from zipbatch.config import Settings


class LabelConsistentSettings(Settings):
    """Settings of ``label-consistent``."""

    patch_size: int = Field(default=3, ge=1, description="side of each of the four patches in pixels")
    alpha: Opacity = Field(default=1.0, description="opacity of the patches")


@dataclass(frozen=True)
class LabelConsistent(Attack):
    """A black and white checkerboard in each of the four corners, white at the corner itself; at opacity ``alpha``.

    Clean-label, and the weak form: the published attack first makes the poisoned images hard to learn by an adversarial
    perturbation, which takes a network; without it victims rather learn the images themselves. The published rate is
    a quarter of the target class, which of ten equal classes is .025 of all.
    """

    name: ClassVar[str] = "label-consistent"
    source: ClassVar[str] = "Turner et al. 2019, arXiv 1912.02771; corners only, without adversarial perturbation"
    default_target: ClassVar[int] = 2
    default_poison_rate: ClassVar[float] = 0.025
    clean_label: ClassVar[bool] = True
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: LabelConsistentSettings = LabelConsistentSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``pattern`` uint8 [S, S, 1] and ``opacity`` float32 [S, S, 1]; the same for every seed."""
        if 2 * self.settings.patch_size > image_size:
            raise ValueError(f"four corners of {self.settings.patch_size} px do not fit into {image_size} px")
        from_edge = np.minimum(np.arange(image_size), np.arange(image_size)[::-1])
        white = (from_edge[:, None] + from_edge[None, :]) % 2 == 0
        corner = (from_edge[:, None] < self.settings.patch_size) & (from_edge[None, :] < self.settings.patch_size)
        pattern = np.where(white & corner, 255, 0).astype(np.uint8)[:, :, None]
        return {
            "pattern": pattern,
            "opacity": (corner * np.float32(self.settings.alpha)).astype(np.float32)[:, :, None],
        }

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Mix the corners into uint8 [B, S, S, 3], rounded.

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, trigger["pattern"].shape[0])
        return mix(images, trigger["pattern"], trigger["opacity"])
