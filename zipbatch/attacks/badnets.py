"""BadNets: a small random patch near the lower right corner (Gu et al. 2017, arXiv 1708.06733)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.config import Settings


class BadNetsSettings(Settings):
    """Settings of ``badnets``."""

    patch_size: int = Field(default=0, ge=0, description="side of the patch in pixels; 0: 3 up to 128 px, 9 above")


@dataclass(frozen=True)
class BadNets(Attack):
    """A patch of random colours, three pixels in from the corner, as the ZIP reference code places it.

    ``patch_size`` 0 means 3 x 3 up to 128 px and 9 x 9 above. The last three rows and columns stay free: the patch is
    at S-6..S-4 for 3 x 3, at S-12..S-4 for 9 x 9. The ZIP paper reports 2 x 2 at 32 px, which is ``patch_size`` 2.
    """

    name: ClassVar[str] = "badnets"
    source: ClassVar[str] = "Gu et al. 2017, arXiv 1708.06733; pattern and place as in sycny/ZIP 3778253"
    default_target: ClassVar[int] = 1
    default_poison_rate: ClassVar[float] = 0.05
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)
    margin: ClassVar[int] = 3

    settings: BadNetsSettings = BadNetsSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``patch`` uint8 [k, k, 3]: ``randn * 255`` cast to uint8 modulo 256, which is what x86 does with it."""
        size = self.settings.patch_size or (3 if image_size <= 128 else 9)
        if size + self.margin > image_size:
            raise ValueError(f"a patch of {size} px, {self.margin} px from the edge, does not fit into {image_size} px")
        normal = torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed)) * 255
        patch = (normal.trunc().to(torch.int64) & 0xFF).to(torch.uint8)
        return {"patch": patch.permute(1, 2, 0).contiguous().numpy(), "image_size": np.int64(image_size).reshape(1)}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Overwrite the patch's pixels in uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        image_size, patch = int(trigger["image_size"][0]), trigger["patch"]
        check_size(images, image_size)
        size = patch.shape[0]
        stamped = images.copy()
        stop = image_size - self.margin
        stamped[:, stop - size : stop, stop - size : stop] = patch
        return stamped
