"""A trigger that is a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from zipbatch.attacks.base import U8, Attack, Trigger, check_size
from zipbatch.config import Settings


class FunctionSettings(Settings):
    """What a user's function is known by."""

    function: str = Field(description="FILE.py:FUNCTION")
    sha256: str = Field(description="digest of the file")


@dataclass(frozen=True)
class FunctionAttack(Attack):
    """A function that is given images uint8 [B, S, S, 3] and returns them stamped, of the same shape and type; ``call``
    is the function itself.
    """

    name: ClassVar[str] = "function"
    source: ClassVar[str] = "a function of yours"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.05
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: FunctionSettings
    call: Callable[[U8], Any] = field(repr=False, compare=False)

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """``image_size`` alone: the function itself is not stored."""
        return {"image_size": np.int64(image_size).reshape(1)}

    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """What the function makes of a copy of uint8 [B, S, S, 3].

        Raises:
            ValueError: the images are not of the trigger's size, or it returns anything but such images.
        """
        check_size(images, int(trigger["image_size"][0]))
        stamped = self.call(images.copy())
        if not isinstance(stamped, np.ndarray) or stamped.dtype != np.uint8 or stamped.shape != images.shape:
            what = (
                f"{stamped.dtype} {stamped.shape}" if isinstance(stamped, np.ndarray) else f"a {type(stamped).__name__}"
            )
            raise ValueError(f"must return a uint8 array of {images.shape} as it was given, got {what}")
        return stamped
