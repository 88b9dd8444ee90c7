"""The attacks as BackdoorBench (SCLBD/BackdoorBench f02e353, arXiv 2206.12654) stages them: target 0, its own draw of
the poisoned indices, levels cut instead of rounded.

Its seed is 0. The files that it publishes also depend on what it had drawn before; WaNet's warp is one of those, and
its published arithmetic in normalised float32 can move a level by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field

from zipbatch.attacks.badnets import BadNets, BadNetsSettings
from zipbatch.attacks.base import U8, Draw, Trigger
from zipbatch.attacks.blended import Blended
from zipbatch.attacks.bpp import BPP
from zipbatch.attacks.ctrl import CTRL
from zipbatch.attacks.ftrojan import FTrojan
from zipbatch.attacks.lf import LF
from zipbatch.attacks.patch import A_PICTURE
from zipbatch.attacks.refool import Refool, RefoolSettings
from zipbatch.attacks.sig import SIG
from zipbatch.attacks.wanet import WaNet

VARIANT = "backdoorbench"
_MASK_SIZE = 32  # pixels of the mask that is stretched to other sizes


class _AsBenchmarked:
    """What all of them share."""

    default_target: ClassVar[int] = 0
    draw: ClassVar[Draw] = "choice"
    variant: ClassVar[str | None] = VARIANT


class WhiteCornerSettings(BadNetsSettings):
    """Settings of ``badnets``, where the corner is white."""

    patch_size: int = Field(
        default=3, ge=1, le=_MASK_SIZE, description=f"side of the corner in pixels of images of {_MASK_SIZE} px"
    )


@dataclass(frozen=True)
class WhiteCorner(_AsBenchmarked, BadNets):
    """A white square flush with the lower right corner: rows and columns 29 to 31 of 32.

    Other sizes have the 32 px mask stretched bilinearly: at 256 px the square covers 28 x 28 pixels, 20 x 20 of them
    white, and fades towards its inner edges; everything under it is replaced.
    """

    source: ClassVar[str] = "Gu et al. 2017, arXiv 1708.06733; as in BackdoorBench f02e353"
    default_poison_rate: ClassVar[float] = 0.10
    margin: ClassVar[int] = 0

    settings: WhiteCornerSettings = WhiteCornerSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``patch`` uint8 [k, k, 3]; the same for every seed."""
        mask = np.zeros((_MASK_SIZE, _MASK_SIZE), np.uint8)
        mask[-self.settings.patch_size :, -self.settings.patch_size :] = 255
        stretched = np.asarray(Image.fromarray(mask).resize((image_size, image_size), Image.Resampling.BILINEAR))
        covered = int((stretched[-1] > 0).sum())
        patch = stretched[image_size - covered :, image_size - covered :, None].repeat(3, axis=2)
        return {"patch": np.ascontiguousarray(patch), "image_size": np.int64(image_size).reshape(1)}


class BlendedPicture(_AsBenchmarked, Blended):
    """A picture of the user's mixed into the whole image at opacity ``alpha``; BackdoorBench takes one of Hello Kitty,
    which does not ship with zipbatch.
    """

    source: ClassVar[str] = "Chen et al. 2017, arXiv 1712.05526; as in BackdoorBench f02e353"
    default_poison_rate: ClassVar[float] = 0.10
    needs: ClassVar[str | None] = A_PICTURE

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """There is none without a picture.

        Raises:
            ValueError: always; ``trigger_from`` takes the picture.
        """
        raise ValueError(f"its trigger is made of {self.needs}")

    def trigger_from(self, picture: U8, image_size: int) -> Trigger:
        """``pattern`` uint8 [S, S, 3]: the picture squeezed to the images' size, bilinear with antialiasing."""
        if picture[:, :, 3].min() < 255:
            raise ValueError("image has transparent pixels; flatten it onto a background first")
        size, opaque = (image_size, image_size), np.ascontiguousarray(picture[:, :, :3])
        return {"pattern": np.array(Image.fromarray(opaque).resize(size, Image.Resampling.BILINEAR))}


class CutWaNet(_AsBenchmarked, WaNet):
    """The static warp of WaNet, levels cut; without the noise images that BackdoorBench's training adds."""

    source: ClassVar[str] = "Nguyen & Tran 2021, arXiv 2102.10369; as in BackdoorBench f02e353"

    @staticmethod
    def to_levels(values: torch.Tensor) -> torch.Tensor:
        """Cut to whole levels; a thousandth up, so that a pixel that is where it was keeps its level."""
        return (values + 1e-3).floor()


class CutBPP(_AsBenchmarked, BPP):
    """Levels cut when they are saved: the 8 of the default are 0, 36, 72, 109, 145, 182, 218 and 255."""

    @staticmethod
    def to_levels(values: npt.NDArray[np.float64]) -> U8:
        """Cut to whole levels; a billionth up, so that a whole number that division missed stays itself."""
        return np.floor(values + 1e-9).astype(np.uint8)


class BenchmarkedSIG(_AsBenchmarked, SIG):
    """SIG's wave with BackdoorBench's draw."""


class BenchmarkedFTrojan(_AsBenchmarked, FTrojan):
    """FTrojan's frequencies with BackdoorBench's draw."""


class BenchmarkedCTRL(_AsBenchmarked, CTRL):
    """CTRL's frequencies with BackdoorBench's draw."""


class BenchmarkedLF(_AsBenchmarked, LF):
    """LF's array with BackdoorBench's draw."""


@dataclass(frozen=True)
class StrongRefool(_AsBenchmarked, Refool):
    """Refool with BackdoorBench's draw and its one opacity, of the image .4, so that the reflection prevails.
    Levels are rounded as by ``Refool``.
    """

    source: ClassVar[str] = "Liu et al. 2020, arXiv 2007.02343; opacity as in BackdoorBench f02e353"

    settings: RefoolSettings = RefoolSettings(alpha=0.4)


BENCHMARKED = (
    WhiteCorner(),
    BlendedPicture(),
    CutWaNet(),
    BenchmarkedSIG(),
    BenchmarkedFTrojan(),
    BenchmarkedCTRL(),
    CutBPP(),
    BenchmarkedLF(),
    StrongRefool(),
)
