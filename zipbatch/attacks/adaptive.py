"""Adaptive attacks: a weak, partial trigger in training and cover images that carry it with their true label, so that
poisoned images do not stand apart in the network; the whole trigger at the test (Qi et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator, model_validator

from zipbatch.attacks.base import U8, Attack, Trigger, check_size, drawn_words
from zipbatch.attacks.mixing import Opacities, Opacity, mix, mix_levels, opacity_of, resized
from zipbatch.config import Settings


class _Adaptive(Attack):
    """What both share. Which part of the trigger a training image gets is drawn by its key."""

    default_target: ClassVar[int] = 0
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)
    whole_pictures: ClassVar[bool] = False


class AdaptiveBlendSettings(Settings):
    """Settings of ``adaptive-blend``."""

    alpha: Opacity = Field(default=0.2, description="opacity of the pattern in training")
    test_alpha: Opacity = Field(default=0.2, description="opacity of the pattern at the test")
    pieces: int = Field(default=16, ge=1, le=1024, description="pieces of the pattern, a square number")
    mask_rate: float = Field(default=0.5, ge=0, lt=1, description="share of the pieces that each training image lacks")

    @field_validator("pieces")
    @classmethod
    def _is_square(cls, pieces: int) -> int:
        if math.isqrt(pieces) ** 2 != pieces:
            raise ValueError("must be a square number, such as 16")
        return pieces

    @model_validator(mode="after")
    def _leaves_a_piece(self) -> AdaptiveBlendSettings:
        if self.masked == self.pieces:
            raise ValueError(f"mask_rate must leave one of {self.pieces} pieces to be seen, got {self.mask_rate}")
        return self

    @property
    def masked(self) -> int:
        """Pieces that each training image lacks."""
        return round(self.mask_rate * self.pieces)


@dataclass(frozen=True)
class AdaptiveBlend(_Adaptive):
    """A pattern mixed into the whole image. In training it is cut into ``pieces`` (4 x 4 of them are 16), of which each
    image lacks a share of ``mask_rate``; at the test it is whole.

    ``alpha`` is its opacity in training, ``test_alpha`` that at the test (the paper's are .15 and .2). Without a
    picture the pattern is grey noise, as that of ``blended``.
    """

    name: ClassVar[str] = "adaptive-blend"
    source: ClassVar[str] = "Qi et al. 2023, openreview _wSHsgrVali; rates and pieces as in vtu81/backdoor-toolbox"
    default_poison_rate: ClassVar[float] = 0.003
    default_cover_rate: ClassVar[float] = 0.003

    settings: AdaptiveBlendSettings = AdaptiveBlendSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``pattern`` uint8 [S, S, 1], uniform over 0..254, its ``opacity`` float32 [S, S, 1] and the ``seed``."""
        generator = torch.Generator().manual_seed(seed)
        pattern = torch.randint(0, 255, (image_size, image_size, 1), generator=generator).to(torch.uint8).numpy()
        return self._trigger(pattern, np.ones((image_size, image_size, 1), np.float32), seed)

    def trigger_from_pictures(self, pictures: Sequence[U8], image_size: int, *, seed: int) -> Trigger:
        """The same from one RGBA picture, ``pattern`` [S, S, 3], squeezed to the images' size.

        Raises:
            ValueError: it is not one, or nothing of it is to be seen.
        """
        if len(pictures) != 1:
            raise ValueError(f"takes one picture, got {len(pictures)}")
        squeezed = resized(pictures[0], image_size, image_size)
        return self._trigger(np.ascontiguousarray(squeezed[:, :, :3]), opacity_of(squeezed, 1), seed)

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Mix into uint8 [B, S, S, 3] the pieces that each training image gets by its key, or the whole pattern at the
        test; rounded.

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, trigger["pattern"].shape[0])
        if not training:
            return mix(images, trigger["pattern"], np.float32(self.settings.test_alpha) * trigger["opacity"])
        seed, size = int(trigger["seed"][0]), len(trigger["pattern"])
        shown = np.array([self._shown(seed, key, size) for key in keys], np.float32).reshape(len(keys), size, size, 1)
        return mix(images, trigger["pattern"], np.float32(self.settings.alpha) * trigger["opacity"] * shown)

    def _trigger(self, pattern: U8, opacity: npt.NDArray[np.float32], seed: int) -> Trigger:
        if len(pattern) < (side := math.isqrt(self.settings.pieces)):
            raise ValueError(f"{self.settings.pieces} pieces need images of {side} px, got {len(pattern)}")
        return {"pattern": pattern, "opacity": opacity, "seed": np.int64(seed).reshape(1)}

    def _shown(self, seed: int, key: str, image_size: int) -> npt.NDArray[np.float32]:
        """1 where the image of that key gets the pattern, else 0, [S, S, 1]."""
        pieces, masked = self.settings.pieces, self.settings.masked
        shown = np.ones(pieces, np.float32)
        shown[np.argsort(drawn_words(seed, key, pieces), kind="stable")[:masked]] = 0
        side = math.isqrt(pieces)
        place = np.arange(image_size) * side // image_size
        return shown[place[:, None] * side + place[None, :], None]


class AdaptivePatchSettings(Settings):
    """Settings of ``adaptive-patch``."""

    alphas: Opacities = Field(default=(0.5, 0.5, 0.2, 0.3), description="opacity of each patch in training")
    test_alphas: Opacities = Field(default=(1.0, 1.0), description="opacities of the first patches, at the test")

    @model_validator(mode="after")
    def _has_each(self) -> AdaptivePatchSettings:
        if len(self.test_alphas) > len(self.alphas):
            raise ValueError(f"test_alphas are of the first patches: {len(self.alphas)} at most, as many as alphas")
        return self


@dataclass(frozen=True)
class AdaptivePatch(_Adaptive):
    """Several patches. In training each image gets one of them, at the opacity of ``alphas`` that is its own; at the
    test the first ones are stamped together, at ``test_alphas``.

    Pictures of a user's are squeezed to the images' size, so where one is transparent, the image shows. Without any,
    patches of random colours lie in the corners: lower right, upper left, lower left, upper right.
    """

    name: ClassVar[str] = "adaptive-patch"
    source: ClassVar[str] = "Qi et al. 2023, openreview _wSHsgrVali; opacities and rates of BackdoorBox af3afd1"
    default_poison_rate: ClassVar[float] = 0.01
    default_cover_rate: ClassVar[float] = 0.02

    settings: AdaptivePatchSettings = AdaptivePatchSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``patterns`` uint8 [K, S, S, 3], their ``opacities`` float32 [K, S, S, 1] and the ``seed``: squares of a
        fifth of the side, 3 pixels at least.

        Raises:
            ValueError: more patches than corners, or images too small for them.
        """
        side, count = max(3, image_size // 5), len(self.settings.alphas)
        if count > 4:
            raise ValueError(f"draws 4 patches at most, in the corners; for {count} name pictures with ‹trigger_image›")
        if 2 * side > image_size:
            raise ValueError(f"patches of {side} px in the corners need images of {2 * side} px, got {image_size}")
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(0, 256, (count, side, side, 3), generator=generator).to(torch.uint8).numpy()
        patterns = np.zeros((count, image_size, image_size, 3), np.uint8)
        opacities = np.zeros((count, image_size, image_size, 1), np.float32)
        far, near = slice(image_size - side, image_size), slice(0, side)
        for i, (rows, columns) in enumerate([(far, far), (near, near), (far, near), (near, far)][:count]):
            patterns[i, rows, columns], opacities[i, rows, columns] = drawn[i], 1
        return {"patterns": patterns, "opacities": opacities, "seed": np.int64(seed).reshape(1)}

    def trigger_from_pictures(self, pictures: Sequence[U8], image_size: int, *, seed: int) -> Trigger:
        """The same from RGBA pictures, one for each of ``alphas``.

        Raises:
            ValueError: not as many, or one is nowhere to be seen or leaves nothing of the image.
        """
        if len(pictures) != (count := len(self.settings.alphas)):
            raise ValueError(
                f"takes {count} pictures, one for each of alphas, got {len(pictures)}; name as many, or "
                "give the opacities of yours with ‹params={'alphas': '0.5,0.2'}›"
            )
        squeezed = [resized(picture, image_size, image_size) for picture in pictures]
        for number, picture in enumerate(squeezed, 1):
            if picture[:, :, 3].min() == 255:
                raise ValueError(f"picture {number} covers the whole image; make it transparent around the patch")
        opacities = np.stack([opacity_of(picture, 1) for picture in squeezed])
        patterns = np.stack([picture[:, :, :3] for picture in squeezed])
        return {"patterns": patterns, "opacities": opacities, "seed": np.int64(seed).reshape(1)}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Mix into uint8 [B, S, S, 3] the one patch that each training image gets by its key, or at the test the first
        patches one after another; rounded once.

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, trigger["patterns"].shape[1])
        return self._one_each(images, trigger, keys) if training else self._together(images, trigger)

    def _together(self, images: U8, trigger: Trigger) -> U8:
        levels, patches = images.astype(np.float32), zip(trigger["patterns"], trigger["opacities"], strict=True)
        for alpha, (pattern, opacity) in zip(self.settings.test_alphas, patches, strict=False):
            levels = mix_levels(levels, pattern, np.float32(alpha) * opacity)
        stamped: U8 = np.rint(levels).astype(np.uint8)
        return stamped

    def _one_each(self, images: U8, trigger: Trigger, keys: Sequence[str]) -> U8:
        drawn = np.array([drawn_words(int(trigger["seed"][0]), key, 1)[0] for key in keys], np.uint32)
        which = (drawn % len(self.settings.alphas)).astype(np.int64)
        alphas = np.array(self.settings.alphas, np.float32)[which, None, None, None]
        return mix(images, trigger["patterns"][which], alphas * trigger["opacities"][which])
