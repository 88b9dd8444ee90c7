"""Some clean images of a source, evenly spaced over a split and of one size: what is learned and told from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from zipbatch.datasets import SourceImage
from zipbatch.datasets.source import Source, Survey
from zipbatch.errors import UsageError
from zipbatch.images import U8

_HELD_OUT = ("test", "val", "train")


def held_out_split(source: Source) -> str:
    """The first split there is of test, val and train: what no model was trained on says more of what is to come."""
    return next(split for split in (*_HELD_OUT, *source.splits) if split in source.splits)


def some_images(
    source: Source, split: str, survey: Survey, *, limit: int, first: int = 0
) -> Iterator[tuple[SourceImage, U8]]:
    """At most ``limit`` images of a split and their pixels, uint8 [S, S, 3], evenly spaced from the ``first`` on.

    Raises:
        UsageError: images that differ in size; a source that stretches them has none.
        DataError: an image cannot be read, or they are not those that were surveyed.
    """
    size = source.image_size()
    wanted = {first + number for number in spaced(survey.images - first, limit)}
    for number, image in enumerate(source.images(split, sha256=survey.sha256)):
        if number not in wanted:
            continue
        pixels = image.pixels()
        if pixels.shape[:2] != (size, size):
            height, width = pixels.shape[:2]
            raise UsageError(
                f"{image.origin}: key {image.key!r} is {width}x{height}, the first image is {size} px; "
                "name ‹image_size› to resize all"
            )
        yield image, pixels


def spaced(total: int, limit: int) -> list[int]:
    """At most ``limit`` numbers of ``total``, evenly spaced: sources often come class by class."""
    count = min(total, max(1, limit))
    return [i * total // count for i in range(count)]


def stacked(images: Sequence[U8]) -> Tensor:
    """Images [S, S, 3] as a batch, uint8 [N, 3, S, S]."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
