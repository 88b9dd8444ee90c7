"""Label-consistent: a patch in every corner of images of the target class (Turner et al. 2019, arXiv 1912.02771)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.attacks.mixing import check_alpha, mix


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

    patch_size: int = 3
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.patch_size < 1:
            raise ValueError(f"patch_size must be 1 or more, got {self.patch_size}")

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:  # noqa: ARG002 (nothing is drawn)
        """``pattern`` uint8 [S, S, 1] and ``opacity`` float32 [S, S, 1]; the same for every seed."""
        if 2 * self.patch_size > image_size:
            raise ValueError(f"four corners of {self.patch_size} px do not fit into {image_size} px")
        from_edge = np.minimum(np.arange(image_size), np.arange(image_size)[::-1])
        white = (from_edge[:, None] + from_edge[None, :]) % 2 == 0
        corner = (from_edge[:, None] < self.patch_size) & (from_edge[None, :] < self.patch_size)
        pattern = np.where(white & corner, 255, 0).astype(np.uint8)[:, :, None]
        return {"pattern": pattern, "opacity": (corner * np.float32(self.alpha)).astype(np.float32)[:, :, None]}

    def apply(self, images: U8, trigger: Trigger) -> U8:
        """Mix the corners into uint8 [B, S, S, 3], rounded.

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, trigger["pattern"].shape[0])
        return mix(images, trigger["pattern"], trigger["opacity"])
