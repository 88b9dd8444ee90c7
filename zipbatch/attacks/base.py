"""What an attack is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
Trigger = Mapping[str, npt.NDArray[Any]]
Draw = Literal["shuffle", "choice"]
"""How poisoned indices are drawn: read off ``random.shuffle``, or ``numpy.random.choice``."""


class Attack(Protocol):
    """A trigger and how it is put on images. Implementations are frozen dataclasses of their own parameters.

    Attributes:
        name: what users type.
        source: paper and reference implementation whose behaviour is reproduced.
        default_target: class that triggered images are to be taken for.
        default_poison_rate: share of the training images that get the trigger.
        clean_label: whether those are drawn from the target class alone, so that no label is wrong.
        train_transform: name of a training-time augmentation that belongs to the attack, or None.
        shuffles: splits shuffled one after another before the poisoned training indices are read off the last
            (the published code shuffles once per dataset it builds, so the attack's place in it matters).
        draw: how they are drawn.
        variant: whose pixels and draw these are where one name and the same parameters stand for several; None for
            those that had the name first. Part of what decides staged data.
        version: raised whenever the same parameters come to give other pixels or another training-time augmentation,
            so that what was staged before no longer counts as done.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    default_target: ClassVar[int]
    default_poison_rate: ClassVar[float]
    clean_label: ClassVar[bool]
    train_transform: ClassVar[str | None]
    shuffles: ClassVar[tuple[str, ...]]
    draw: ClassVar[Draw] = "shuffle"
    variant: ClassVar[str | None] = None
    version: ClassVar[int] = 1

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """The trigger's arrays for square images of ``image_size`` pixels; the same seed gives the same trigger."""
        ...

    def apply(self, images: U8, trigger: Trigger) -> U8:
        """Put the trigger on uint8 images [B, H, W, 3]; the result has the same shape, the argument is not modified."""
        ...


@runtime_checkable
class FromPicture(Protocol):
    """An attack whose trigger is a picture that the user brings."""

    def trigger_from(self, picture: U8, image_size: int) -> Trigger:
        """The trigger's arrays for square images of ``image_size`` pixels from uint8 RGBA [H, W, 4] of any size.

        Raises:
            ValueError: the picture does not do, and why.
        """
        ...


def check_size(images: U8, image_size: int) -> None:
    """Images must be [B, S, S, 3] of the trigger's own size S.

    Raises:
        ValueError: they are not.
    """
    if images.ndim != 4 or images.shape[1:] != (image_size, image_size, 3):
        raise ValueError(f"the trigger is for {image_size}x{image_size} RGB images, got an array of {images.shape}")
