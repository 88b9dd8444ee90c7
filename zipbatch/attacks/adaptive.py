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

from zipbatch.attacks.base import U8, Attack, Trigger, check_size, drawn_words
from zipbatch.attacks.mixing import check_alpha, mix, mix_levels, opacity_of, resized


class _Adaptive(Attack):
    """What both share. Which part of the trigger a training image gets is drawn by its key."""

    default_target: ClassVar[int] = 0
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)
    whole_pictures: ClassVar[bool] = False


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

    alpha: float = 0.2
    test_alpha: float = 0.2
    pieces: int = 16
    mask_rate: float = 0.5

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_alpha(self.test_alpha, "test_alpha")
        if not 1 <= self.pieces <= 1024 or math.isqrt(self.pieces) ** 2 != self.pieces:
            raise ValueError(f"pieces must be a square number of 1 to 1024, such as 16, got {self.pieces}")
        if not 0 <= self.mask_rate < 1 or self._masked == self.pieces:
            raise ValueError(f"mask_rate must leave a piece to be seen, 0 to below 1, got {self.mask_rate}")

    @property
    def _masked(self) -> int:
        return round(self.mask_rate * self.pieces)

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

    def apply(self, images: U8, trigger: Trigger) -> U8:
        """As at the test: the whole pattern, rounded, on uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, trigger["pattern"].shape[0])
        return mix(images, trigger["pattern"], np.float32(self.test_alpha) * trigger["opacity"])

    def stamp(self, images: U8, trigger: Trigger, *, keys: Sequence[str], training: bool) -> U8:
        """The pieces of it that each training image gets by its key; at the test as ``apply``."""
        if not training:
            return self.apply(images, trigger)
        check_size(images, trigger["pattern"].shape[0])
        shown = np.stack([self._shown(int(trigger["seed"][0]), key, len(trigger["pattern"])) for key in keys])
        return mix(images, trigger["pattern"], np.float32(self.alpha) * trigger["opacity"] * shown)

    def _trigger(self, pattern: U8, opacity: npt.NDArray[np.float32], seed: int) -> Trigger:
        if len(pattern) < math.isqrt(self.pieces):
            raise ValueError(f"{self.pieces} pieces need images of {math.isqrt(self.pieces)} px, got {len(pattern)}")
        return {"pattern": pattern, "opacity": opacity, "seed": np.int64(seed).reshape(1)}

    def _shown(self, seed: int, key: str, image_size: int) -> npt.NDArray[np.float32]:
        """1 where the image of that key gets the pattern, else 0, [S, S, 1]."""
        shown = np.ones(self.pieces, np.float32)
        shown[np.argsort(drawn_words(seed, key, self.pieces), kind="stable")[: self._masked]] = 0
        side = math.isqrt(self.pieces)
        place = np.arange(image_size) * side // image_size
        return shown[place[:, None] * side + place[None, :], None]


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

    alphas: tuple[float, ...] = (0.5, 0.5, 0.2, 0.3)
    test_alphas: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name, alphas in (("alphas", self.alphas), ("test_alphas", self.test_alphas)):
            if not alphas:
                raise ValueError(f"{name} must be one or more opacities, such as 0.5,0.2")
            for alpha in alphas:
                check_alpha(alpha, name)
        if len(self.test_alphas) > len(self.alphas):
            raise ValueError(f"test_alphas are of the first patches: {len(self.alphas)} at most, as many as alphas")

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``patterns`` uint8 [K, S, S, 3], their ``opacities`` float32 [K, S, S, 1] and the ``seed``: squares of a
        fifth of the side, 3 pixels at least.

        Raises:
            ValueError: more patches than corners, or images too small for them.
        """
        side, count = max(3, image_size // 5), len(self.alphas)
        if count > 4:
            raise ValueError(f"draws 4 patches at most, in the corners; for {count} name pictures with --trigger-image")
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
        if len(pictures) != len(self.alphas):
            raise ValueError(
                f"takes {len(self.alphas)} pictures, one for each of alphas, got {len(pictures)}; name as many, or "
                "give the opacities of yours with --param alphas=0.5,0.2"
            )
        squeezed = [resized(picture, image_size, image_size) for picture in pictures]
        for number, picture in enumerate(squeezed, 1):
            if picture[:, :, 3].min() == 255:
                raise ValueError(f"picture {number} covers the whole image; make it transparent around the patch")
        opacities = np.stack([opacity_of(picture, 1) for picture in squeezed])
        patterns = np.stack([picture[:, :, :3] for picture in squeezed])
        return {"patterns": patterns, "opacities": opacities, "seed": np.int64(seed).reshape(1)}

    def apply(self, images: U8, trigger: Trigger) -> U8:
        """As at the test: the first patches one after another, rounded once, on uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, trigger["patterns"].shape[1])
        levels = images.astype(np.float32)
        for alpha, pattern, opacity in zip(self.test_alphas, trigger["patterns"], trigger["opacities"], strict=False):
            levels = mix_levels(levels, pattern, np.float32(alpha) * opacity)
        stamped: U8 = np.rint(levels).astype(np.uint8)
        return stamped

    def stamp(self, images: U8, trigger: Trigger, *, keys: Sequence[str], training: bool) -> U8:
        """The one patch that each training image gets by its key; at the test as ``apply``."""
        if not training:
            return self.apply(images, trigger)
        check_size(images, trigger["patterns"].shape[1])
        drawn = np.array([drawn_words(int(trigger["seed"][0]), key, 1)[0] for key in keys], np.uint32)
        which = (drawn % len(self.alphas)).astype(np.int64)
        alphas = np.array(self.alphas, np.float32)[which, None, None, None]
        return mix(images, trigger["patterns"][which], alphas * trigger["opacities"][which])
