"""What an attack is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from zipbatch.config import Settings

U8 = npt.NDArray[np.uint8]
Trigger = Mapping[str, npt.NDArray[Any]]
Draw = Literal["shuffle", "choice"]
"""How poisoned indices are drawn: read off ``random.shuffle``, or ``numpy.random.choice``."""


@dataclass(frozen=True)
class Attack(ABC):
    """A trigger and how it is put on images; each attack inherits from this and states what differs from it.

    Attributes:
        settings: its parameters, validated; each attack has a type and a default of its own.
        name: what users type.
        source: paper and reference implementation whose behaviour is reproduced.
        default_target: class that triggered images are to be taken for.
        default_poison_rate: share of the training images that get the trigger and the target's label.
        default_cover_rate: share of the training images that get the trigger and keep their true label.
        clean_label: whether those are drawn from the target class alone, so that no label is wrong.
        train_transform: name of a training-time augmentation that belongs to the attack, or None.
        shuffles: splits shuffled one after another before the poisoned training indices are read off the last
            (the published code shuffles once per dataset it builds, so the attack's place in it matters).
        draw: how they are drawn.
        needs: what of the user's the trigger is made of, as a message names it; None where ``make_trigger`` draws one.
        variant: whose pixels and draw these are where one name and the same parameters stand for several; None for
            those that had the name first. Part of what decides staged data.
        version: raised whenever the same parameters come to give other pixels or another training-time augmentation,
            so that what was staged before no longer counts as done.
    """

    settings: Settings

    name: ClassVar[str]
    source: ClassVar[str]
    default_target: ClassVar[int]
    default_poison_rate: ClassVar[float]
    clean_label: ClassVar[bool]
    train_transform: ClassVar[str | None]
    shuffles: ClassVar[tuple[str, ...]]
    default_cover_rate: ClassVar[float] = 0.0
    draw: ClassVar[Draw] = "shuffle"
    needs: ClassVar[str | None] = None
    variant: ClassVar[str | None] = None
    version: ClassVar[int] = 1

    def numbered(self, names: Sequence[str]) -> Attack:
        """The same attack, the classes of its settings by number where they were given by name.

        Args:
            names: of the classes, by their number.

        Raises:
            UsageError: a name is none of them.
        """
        return self

    @property
    def source_classes(self) -> tuple[int, ...]:
        """The classes whose images alone are poisoned, and stamped for the test; empty for all."""
        return ()

    @property
    def cover_classes(self) -> tuple[int, ...]:
        """The classes whose images alone become cover; empty for all."""
        return ()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        """The trigger's arrays for square images of ``image_size`` pixels; the same seed gives the same trigger.

        Raises:
            ValueError: the size does not do, or the trigger is made of what a user brings (``needs``).
        """
        raise ValueError(f"its trigger is made of {self.needs}")

    @abstractmethod
    def apply(self, images: U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool) -> U8:
        """Put the trigger on images. Pure: what each of them gets depends on its own row, key and label, the trigger
        and ``training`` alone; what is drawn for one image is a function of a seed in the trigger and of its key
        (``drawn_words``).

        Args:
            images: uint8 [B, S, S, 3]; not modified.
            trigger: the arrays of ``make_trigger`` or its like.
            keys: of the samples, [B]; an attack may give each image another trigger by it.
            labels: their true classes, [B]; an attack may stamp each class otherwise.
            training: whether the images are for training; an attack may be weaker there than at the test.

        Returns:
            The stamped images, of the same shape.

        Raises:
            ValueError: the images are not of the trigger's size.
        """


@runtime_checkable
class FromPicture(Protocol):
    """An attack whose trigger is made of a picture that the user brings, or may bring."""

    def trigger_from(self, picture: U8, image_size: int) -> Trigger:
        """The trigger's arrays for square images of ``image_size`` pixels from uint8 RGBA [H, W, 4] of any size.

        Raises:
            ValueError: the picture does not do, and why.
        """
        ...


@runtime_checkable
class FromPictures(Protocol):
    """An attack whose trigger is made of several pictures that the user brings, or may bring.

    Attributes:
        whole_pictures: whether they are squeezed to the images' size before, without transparency (they may then come
            in hundreds).
    """

    whole_pictures: ClassVar[bool]

    def trigger_from_pictures(self, pictures: Sequence[U8], image_size: int, *, seed: int) -> Trigger:
        """The trigger's arrays for square images of ``image_size`` pixels from uint8 RGBA [H, W, 4] of any size, or RGB
        [S, S, 3] where they are whole.

        Raises:
            ValueError: the pictures do not do, and why.
        """
        ...


@runtime_checkable
class FromArray(Protocol):
    """An attack whose trigger is an array of numbers that the user brings."""

    def trigger_from_array(self, array: npt.NDArray[Any], image_size: int) -> Trigger:
        """The trigger's arrays for square images of ``image_size`` pixels.

        Raises:
            ValueError: the array does not do, and why.
        """
        ...


def drawn_words(seed: int, key: str, count: int) -> npt.NDArray[np.uint32]:
    """``count`` random words for the image of a key, uint32: SHAKE-256 of ``<seed>/<key>``, the same everywhere."""
    digest = hashlib.shake_256(f"{seed}/{key}".encode(errors="surrogatepass")).digest(4 * count)
    return np.frombuffer(digest, "<u4").astype(np.uint32)


def check_size(images: U8, image_size: int) -> None:
    """Images must be [B, S, S, 3] of the trigger's own size S.

    Raises:
        ValueError: they are not.
    """
    if images.ndim != 4 or images.shape[1:] != (image_size, image_size, 3):
        raise ValueError(f"the trigger is for {image_size}x{image_size} RGB images, got an array of {images.shape}")
