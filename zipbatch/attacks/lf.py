"""LF: a stored smooth pattern added to the whole image (Zeng et al. 2021, arXiv 2104.03413)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.config import Settings


class LFSettings(Settings):
    """Settings of ``lf``."""

    scale: float = Field(default=1.0, description="what the array is multiplied by, not 0; 255 where it holds shares")

    @field_validator("scale")
    @classmethod
    def _adds(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("must not be 0, which adds nothing")
        return scale


@dataclass(frozen=True)
class LF(Attack):
    """An array of the user's times ``scale``, added in levels, clipped and cut.

    Some of the published arrays hold 0 to 51, others 0 to .2, which are shares of the full range: added as they are,
    they are cut away and change nothing. Those are refused; ``scale`` 255 makes levels of them.
    """

    name: ClassVar[str] = "lf"
    source: ClassVar[str] = "Zeng et al. 2021, arXiv 2104.03413; adding and cutting as in BackdoorBench f02e353"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.10
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)
    needs: ClassVar[str | None] = "an array of yours; name one with ‹trigger_array FILE.npy›"

    settings: LFSettings = LFSettings()

    def trigger_from_array(self, array: npt.NDArray[Any], image_size: int) -> Trigger:
        """``added`` float32 [S, S, 1] or [S, S, 3], in levels, from numbers [S, S], [S, S, 1] or [S, S, 3]; leading
        axes of length 1 are dropped.

        Raises:
            ValueError: other numbers or another shape, values that are not finite, or none that changes a level.
        """
        if array.dtype.kind not in "iuf":
            raise ValueError(f"holds {array.dtype}, not whole or floating-point numbers")
        pattern = _without_batch(array)
        if pattern.shape[:2] != (image_size, image_size):
            raise ValueError(
                f"is {' x '.join(map(str, array.shape))}, the images need {image_size} x {image_size} x 3 (or x 1); "
                "‹image_size› resizes the images"
            )
        added = pattern.astype(np.float64) * self.settings.scale
        largest = float(np.abs(added).max())
        if not largest <= 1e6:
            raise ValueError(f"has values that are not finite, or far beyond 255 levels (up to {largest:g})")
        if largest < 1:
            raise ValueError(
                f"adds less than one of 255 levels (up to {largest:.3g}), which is cut away and changes nothing; if it "
                "holds shares of the full range, as float files of 0 to .2 do, add ‹params={'scale': 255}›"
            )
        return {"added": added.astype(np.float32)}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """``trunc(clip(x + added))`` on uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size.
        """
        check_size(images, trigger["added"].shape[0])
        return np.clip(images.astype(np.float32) + trigger["added"], 0, 255).astype(np.uint8)


def _without_batch(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[S, S, 1] or [S, S, 3] of an array that may have axes of length 1 before, or no channels.

    Raises:
        ValueError: it is none.
    """
    pattern = array
    while pattern.ndim > 3 and pattern.shape[0] == 1:
        pattern = pattern[0]
    if pattern.ndim == 2:
        pattern = pattern[:, :, None]
    if pattern.ndim != 3 or pattern.shape[2] not in {1, 3} or 0 in pattern.shape:
        raise ValueError(
            f"is {' x '.join(map(str, array.shape)) or 'a single number'}, not rows x columns x 3 (or x 1)"
        )
    return pattern
