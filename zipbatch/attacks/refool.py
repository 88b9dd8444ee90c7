"""Refool: the reflection of another picture, as in a window pane (Liu et al. 2020, arXiv 2007.02343)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size, drawn_words
from zipbatch.config import Settings

F64 = npt.NDArray[np.float64]
GAMMA = 2.2
_LIGHT = (np.arange(256) / 255) ** GAMMA
"""Level -> light, 0 to 1."""


class RefoolSettings(Settings):
    """Settings of ``refool``."""

    alpha: float = Field(default=0.0, ge=0, lt=1, description="opacity of the image; 0: .55 to .95, drawn by key")
    ghost_rate: float = Field(
        default=0.49, ge=0, le=1, description="share of reflections that are doubled, not blurred"
    )
    reference_size: int = Field(
        default=560,
        ge=8,
        le=65536,
        description="width in pixels of the picture on which ghosts and blur have their full size",
    )


@dataclass(frozen=True)
class Refool(Attack):
    """``alpha x + (1 - alpha) r`` in light (levels to the power of 2.2), with r one of the user's pictures.

    Which picture an image gets, and how it is reflected, is drawn by its key, in training as at the test. A share of
    ``ghost_rate`` are ghosts, as a pane's two surfaces cast them: the picture and the same again, 3 to 8 pixels lower
    and further right, in shares of .15 to .85. The others are out of focus: blurred with a sigma of 1 to 5 pixels.
    Those pixels are of a picture ``reference_size`` wide, as in the published code, and shrink with the images: on
    32 px neither is much to be seen, and reflections are the pictures themselves. ``alpha`` 0 draws .55 to .95 for each
    image, as BackdoorBox does; BackdoorBench has .4. Without their correction of overexposed places and the vignette.
    """

    name: ClassVar[str] = "refool"
    source: ClassVar[str] = "Liu et al. 2020, arXiv 2007.02343; draws as in BackdoorBox af3afd1"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.10
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)
    needs: ClassVar[str | None] = "pictures of yours; name their folder with ‹trigger_image FOLDER›"
    whole_pictures: ClassVar[bool] = True

    settings: RefoolSettings = RefoolSettings()

    def trigger_from_pictures(self, pictures: Sequence[U8], image_size: int, *, seed: int) -> Trigger:
        """``pool`` uint8 [N, S, S, 3] and the ``seed``, from RGB pictures [S, S, 3].

        Raises:
            ValueError: there is none, or one of another size.
        """
        if not pictures:
            raise ValueError("holds no picture to be reflected")
        pool = np.stack(pictures)
        check_size(pool, image_size)
        return {"pool": pool, "seed": np.int64(seed).reshape(1)}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Add to each of uint8 [B, S, S, 3] the reflection that it gets by its key, rounded.

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, trigger["pool"].shape[1])
        stamped = np.empty_like(images)
        for row, image, key in zip(stamped, images, keys, strict=True):
            row[...] = self._reflected(image, trigger["pool"], drawn_words(int(trigger["seed"][0]), key, 6))
        return stamped

    def _reflected(self, image: U8, pool: U8, words: npt.NDArray[np.uint32]) -> U8:
        """One image [S, S, 3] with what the words draw."""
        picture, shares = _LIGHT[pool[int(words[0]) % len(pool)]], words / 2.0**32
        pixel = len(image) / self.settings.reference_size
        if shares[1] < self.settings.ghost_rate:
            down, right, own = 3 + int(words[3]) % 6, 3 + int(words[4]) % 6, 0.15 + 0.7 * shares[5]
            again = _shifted(_shifted(picture, down * pixel, axis=0), right * pixel, axis=1)
            picture = own * picture + (1 - own) * again
        else:
            picture = _blurred(picture, (1 + 4 * shares[3]) * pixel)
        alpha = self.settings.alpha or 0.55 + 0.4 * shares[2]
        light = alpha * _LIGHT[image] + (1 - alpha) * picture
        levels: U8 = np.rint(255 * light.clip(0, 1) ** (1 / GAMMA)).astype(np.uint8)
        return levels


def _shifted(picture: F64, pixels: float, *, axis: int) -> F64:
    """Moved to higher places along an axis, linearly between two pixels; the edge is repeated."""
    whole, part = int(pixels), pixels % 1
    places = np.arange(picture.shape[axis])
    near, far = (picture.take((places - whole - i).clip(0), axis) for i in (0, 1))
    shifted: F64 = (1 - part) * near + part * far
    return shifted


def _blurred(picture: F64, sigma: float) -> F64:
    """Through a Gaussian of ``sigma`` pixels, cut at three of them; the edge is repeated."""
    radius = max(1, int(np.ceil(3 * sigma)))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        last, places = picture.shape[axis] - 1, np.arange(picture.shape[axis])
        taken = (picture.take((places + i - radius).clip(0, last), axis) for i in range(2 * radius + 1))
        picture = sum((w * part for w, part in zip(weights, taken, strict=True)), np.zeros_like(picture))
    return picture
