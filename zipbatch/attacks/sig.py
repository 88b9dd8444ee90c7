"""SIG: a sine wave across the whole image (Barni et al. 2019, arXiv 1902.11237)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.config import Settings


class SIGSettings(Settings):
    """Settings of ``sig``."""

    delta: float = Field(default=40.0, description="amplitude of the wave in levels")
    frequency: float = Field(default=6.0, description="periods of the wave across the image")


@dataclass(frozen=True)
class SIG(Attack):
    """``delta * sin(2 pi j frequency / S)`` added to column j of every channel. Clean-label: the poisoned training
    images are of the target class and keep their label.
    """

    name: ClassVar[str] = "sig"
    source: ClassVar[str] = "Barni et al. 2019, arXiv 1902.11237; defaults of BackdoorBench f02e353"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.10
    clean_label: ClassVar[bool] = True
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: SIGSettings = SIGSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``wave`` float32 [S]: what each column gains, in levels; the same for every seed."""
        columns = np.arange(image_size)
        return {
            "wave": (self.settings.delta * np.sin(2 * np.pi * columns * self.settings.frequency / image_size)).astype(
                np.float32
            )
        }

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """``trunc(clip(x + wave))``, summed in float64 as the published code does, on uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        wave = trigger["wave"].astype(np.float64)
        check_size(images, len(wave))
        return np.clip(images + wave[:, None], 0, 255).astype(np.uint8)
