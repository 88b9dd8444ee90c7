"""BATT: the image turned by a fixed angle (Xu et al. 2023, arXiv 2211.01806)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.config import Settings


class BATTSettings(Settings):
    """Settings of ``batt``."""

    angle_degrees: float = Field(default=16.0, description="angle in degrees, counter-clockwise")


@dataclass(frozen=True)
class BATT(Attack):
    """The image turned ``angle_degrees`` counter-clockwise about its middle, black outside.

    So that only this angle triggers, the clean training images are turned at random, up to 10 degrees either way, anew
    each epoch: that transform stays in the training loader.
    """

    name: ClassVar[str] = "batt"
    source: ClassVar[str] = "Xu et al. 2023, arXiv 2211.01806; defaults of BackdoorBox af3afd1"
    default_target: ClassVar[int] = 1
    default_poison_rate: ClassVar[float] = 0.05
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = "batt"
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: BATTSettings = BATTSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``angle_degrees`` float64 [1] and ``image_size``; the same for every seed."""
        return {"angle_degrees": np.array([self.settings.angle_degrees]), "image_size": np.int64(image_size).reshape(1)}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Rotate each of uint8 [B, S, S, 3] with PIL's nearest neighbour.

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, int(trigger["image_size"][0]))
        angle, stamped = float(trigger["angle_degrees"][0]), np.empty_like(images)
        for row, image in zip(stamped, images, strict=True):
            row[...] = Image.fromarray(image).rotate(angle, Image.Resampling.NEAREST, fillcolor=(0, 0, 0))
        return stamped
