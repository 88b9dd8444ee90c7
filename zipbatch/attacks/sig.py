"""SIG: a sine wave across the whole image (Barni et al. 2019, arXiv 1902.11237)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zipbatch.attacks.base import U8, Attack, Trigger, check_size


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

    delta: float = 40.0
    frequency: float = 6.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.delta) and math.isfinite(self.frequency)):
            raise ValueError(f"delta and frequency must be finite, got {self.delta} and {self.frequency}")

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:  # noqa: ARG002 (nothing is drawn)
        """``wave`` float32 [S]: what each column gains, in levels; the same for every seed."""
        columns = np.arange(image_size)
        return {"wave": (self.delta * np.sin(2 * np.pi * columns * self.frequency / image_size)).astype(np.float32)}

    def apply(self, images: U8, trigger: Trigger) -> U8:
        """``trunc(clip(x + wave))``, summed in float64 as the published code does, on uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        wave = trigger["wave"].astype(np.float64)
        check_size(images, len(wave))
        return np.clip(images + wave[:, None], 0, 255).astype(np.uint8)
