"""WaNet: a small smooth warp of the whole image (Nguyen & Tran 2021, arXiv 2102.10369)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch.nn import functional as F

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.config import Settings


class WaNetSettings(Settings):
    """Settings of ``wanet``."""

    grid_size: int = Field(default=4, ge=2, le=4096, description="control points a side of the warp; the paper's k")
    strength: float = Field(
        default=0.5, description="mean displacement of the control points in half pixels; the paper's s"
    )


@dataclass(frozen=True)
class WaNet(Attack):
    """Static warp without noise mode.

    ``grid_size`` is the paper's k: control points a side (the ZIP reference code sets 256, which at 256 px is no
    smooth warp but independent jitter of each pixel). ``strength`` is the paper's s, in pixels of mean displacement
    on a side of 2 / S.
    """

    name: ClassVar[str] = "wanet"
    source: ClassVar[str] = "Nguyen & Tran 2021, arXiv 2102.10369; rounding as in sycny/ZIP 3778253"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.10
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: WaNetSettings = WaNetSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``grid`` float32 [S, S, 2]: where each output pixel is sampled, (x, y) in [-1, 1], corners aligned."""
        generator = torch.Generator().manual_seed(seed)
        control = torch.rand(1, 2, self.settings.grid_size, self.settings.grid_size, generator=generator) * 2 - 1
        control = control / control.abs().mean()
        flow = F.interpolate(control, size=image_size, mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
        axis = torch.linspace(-1, 1, image_size)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        identity = torch.stack((columns, rows), dim=2)
        grid = (identity + self.settings.strength * flow / image_size).clamp(-1, 1)
        return {"grid": grid.contiguous().numpy()}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Warp uint8 [B, S, S, 3]: bilinear, zeros outside, corners aligned, rounded half to even.

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        grid = torch.from_numpy(trigger["grid"])
        check_size(images, grid.shape[0])
        unit = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) / 255
        warped = F.grid_sample(
            unit, grid.expand(len(images), -1, -1, -1), mode="bilinear", padding_mode="zeros", align_corners=True
        )
        levels = self.to_levels((warped * 255).clamp(0, 255)).to(torch.uint8)
        return levels.permute(0, 2, 3, 1).contiguous().numpy()

    @staticmethod
    def to_levels(values: torch.Tensor) -> torch.Tensor:
        """Whole levels of float values in 0..255."""
        return values.round()
