"""Samples of a shard in batches for the network, and purified batches as samples again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from zipbatch import images
from zipbatch.shards import Sample
from zipbatch.stages.purify.masks import MASK, encoded
from zipbatch.stages.purify.reading import Readable
from zipbatch.store import SlotRun


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Consecutive samples of one size.

    Attributes:
        samples: without their images.
        pixels: uint8 [N, 3, H, W].
        images_per_row: images to a row of the network's batch.
        out: the heights and widths that they come out with.
        size: bytes that all of it takes.
    """

    samples: list[Sample]
    pixels: torch.Tensor
    images_per_row: int
    out: list[tuple[int, int]]
    size: int


@dataclass(frozen=True)
class Purified:
    """What became of a batch: pixels uint8 [N, 3, H, W], and masks by key, bool [H, W], where they are kept."""

    pixels: torch.Tensor
    masks: Mapping[str, torch.Tensor]


def batches(samples: Iterable[Readable], *, rows: int, max_bytes: int) -> Iterator[Batch]:
    """Whole rows of images of one size, in order.

    Args:
        samples: what was read.
        rows: the most rows of a batch.
        max_bytes: a batch that takes so much is as large as it gets, once its last row is whole.
    """
    held: list[Readable] = []
    size = 0
    for one in samples:
        whole = len(held) % one.images_per_row == 0
        full = held and (len(held) == rows * one.images_per_row or (size >= max_bytes and whole))
        if held and (full or one.image.shape != held[0].image.shape):
            batch, held, size = _batch(held), [], 0
            yield batch
        held.append(one)
        size += one.size
    if held:
        yield _batch(held)


def _batch(held: list[Readable]) -> Batch:
    pixels = torch.from_numpy(np.stack([one.image.transpose(2, 0, 1) for one in held]))
    samples, out = [one.sample for one in held], [one.out for one in held]
    return Batch(
        samples=samples,
        pixels=pixels,
        images_per_row=held[0].images_per_row,
        out=out,
        size=sum(one.size for one in held),
    )


def note_slots(batch: Batch, runs: list[SlotRun]) -> None:
    """Lengthen the last run by a batch, or begin the next: only a whole number of canvases is followed by its like."""
    samples, (height, width) = len(batch.samples), batch.pixels.shape[-2:]
    if runs and (runs[-1].height, runs[-1].width) == (height, width):
        samples += runs.pop().samples
    runs.append(SlotRun(samples=samples, width=width, height=height, slots=batch.images_per_row))


def results(batch: Batch, purified: Purified) -> Iterator[Sample]:
    """The samples of a finished batch, their image replaced by the purified one as PNG, all else untouched."""
    pixels = purified.pixels.permute(0, 2, 3, 1).numpy()
    for sample, image, (height, width) in zip(batch.samples, pixels, batch.out, strict=True):
        done = sample.with_image(images.stretch(np.ascontiguousarray(image), height, width))
        mask = purified.masks.get(sample.key)
        yield done if mask is None else done.with_member(MASK, encoded(mask, height, width))
