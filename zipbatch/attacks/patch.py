"""A trigger of one's own: a picture stamped on a place of the image, or mixed into all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.attacks.mixing import Opacity, mix, opacity_of, resized
from zipbatch.config import Settings

A_PICTURE = "a picture of yours; name one with ‹trigger_image FILE›"


class _FromPicture(Attack):
    """What both share: the picture with its opacity at every pixel."""

    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.05
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)
    needs: ClassVar[str | None] = A_PICTURE

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """``rint((1 - opacity) x + opacity p)`` in float32, on uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        pattern, opacity = trigger["pattern"], trigger["opacity"]
        check_size(images, pattern.shape[0])
        return mix(images, pattern, opacity)


class PatchSettings(Settings):
    """Settings of ``patch``."""

    row: int = Field(
        default=-1, description="row of the picture's upper edge; below 0 of its lower edge, -1 is the last row"
    )
    column: int = Field(
        default=-1, description="column of its left edge; below 0 of its right edge, -1 is the last column"
    )
    width: int = Field(default=0, ge=0, description="pixels that the picture is resized to; 0: as wide as it is")
    alpha: Opacity = Field(default=1.0, description="opacity, times that of the picture's own pixels")


@dataclass(frozen=True)
class Patch(_FromPicture):
    """A picture over a part of the image. Where it is transparent, the image shows.

    ``row`` and ``column`` are of its upper left pixel. Below 0 they are of its lower right one, counted from the end:
    -1 is flush with the edge, -4 leaves three pixels. ``width`` 0 takes the picture as it is; else it is resized to so
    many pixels, bilinear with antialiasing. ``alpha`` is its opacity, times that of its own pixels.
    """

    name: ClassVar[str] = "patch"
    source: ClassVar[str] = "a picture of yours, as in Gu et al. 2017, arXiv 1708.06733"

    settings: PatchSettings = PatchSettings()

    def trigger_from(self, picture: U8, image_size: int) -> Trigger:
        """``pattern`` uint8 [S, S, 3] and its ``opacity`` float32 [S, S, 1], 0 to 1, from an RGBA picture [H, W, 4].

        Raises:
            ValueError: the picture does not lie within the image there, or nothing of it is to be seen.
        """
        own = self.settings
        if own.width:
            picture = resized(picture, max(1, round(picture.shape[0] * own.width / picture.shape[1])), own.width)
        height, width = picture.shape[:2]
        top, left = _start(own.row, height, image_size), _start(own.column, width, image_size)
        if min(top, left) < 0 or max(top + height, left + width) > image_size:
            raise ValueError(
                f"a picture of {width}x{height} pixels at row {own.row}, column {own.column} does not lie within "
                f"{image_size}x{image_size}; place it with ‹params› row=, column= and width="
            )
        pattern = np.zeros((image_size, image_size, 3), np.uint8)
        opacity = np.zeros((image_size, image_size, 1), np.float32)
        pattern[top : top + height, left : left + width] = picture[:, :, :3]
        opacity[top : top + height, left : left + width] = opacity_of(picture, own.alpha)
        return {"pattern": pattern, "opacity": opacity}


class PatternSettings(Settings):
    """Settings of ``pattern``."""

    alpha: Opacity = Field(default=0.2, description="opacity, times that of the picture's own pixels")


@dataclass(frozen=True)
class Pattern(_FromPicture):
    """A picture squeezed to the images' size and mixed in at opacity ``alpha``, times that of its own pixels."""

    name: ClassVar[str] = "pattern"
    source: ClassVar[str] = "a picture of yours, as in Chen et al. 2017, arXiv 1712.05526"

    settings: PatternSettings = PatternSettings()

    def trigger_from(self, picture: U8, image_size: int) -> Trigger:
        """``pattern`` uint8 [S, S, 3] and its ``opacity`` float32 [S, S, 1], 0 to 1, from an RGBA picture [H, W, 4].

        Raises:
            ValueError: nothing of the picture is to be seen.
        """
        squeezed = resized(picture, image_size, image_size)
        opacity = opacity_of(squeezed, self.settings.alpha)
        return {"pattern": np.ascontiguousarray(squeezed[:, :, :3]), "opacity": opacity}


def _start(place: int, size: int, image_size: int) -> int:
    """The first of ``size`` pixels, for a place that may be counted from the end."""
    return place if place >= 0 else image_size + place + 1 - size
