"""Whole splits in memory, for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zipbatch.datasets import ShardRef
from zipbatch.errors import DataError, UsageError
from zipbatch.images import U8, resize
from zipbatch.memory import check_fits, in_batches
from zipbatch.shards import Sample
from zipbatch.shards.digest import read_listed
from zipbatch.stages.resizing import ResizedRequest

AS_THEY_ARE = ResizedRequest()
_OTHER = "its bytes are not those that are listed; make it again"
_CHUNK, _CHUNK_BYTES = 256, 64 * 1024**2


@dataclass(frozen=True, kw_only=True)
class LoadedSplit:
    """``images`` uint8 [N, 3, H, W]; ``labels`` and ``original_labels`` int64 [N]; ``stamped`` bool [N]."""

    images: Tensor
    labels: Tensor
    original_labels: Tensor
    stamped: Tensor


def load_split(shards: Sequence[ShardRef], resized: ResizedRequest = AS_THEY_ARE) -> LoadedSplit:
    """Decode every image of ``shards``, and bring it to the size that is asked for.

    Raises:
        UsageError: no samples.
        DataError: a shard is not the one that is listed, a sample without a label, or images of different sizes.
    """
    pixels: list[Tensor] = []
    labels: list[tuple[int, int, bool]] = []
    shape: tuple[int, ...] | None = None
    taken = 0
    for sample, shard, image in _decoded(shards, resized):
        shape = shape or image.shape
        if image.shape != shape:
            raise DataError(shard.path, _other_size(image, shape), key=sample.key)
        label, original = sample.label(), sample.original_label()
        if label is None or original is None:
            raise DataError(shard.path, "has no label (.cls or .json)", key=sample.key)
        pixels.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
        labels.append((label, original, sample.stamped()))
        taken += image.nbytes
        check_fits(2 * taken, f"{shard.path.parent}: split {shard.split}")
    if not pixels:
        raise UsageError("the split has no samples")
    columns = torch.tensor(labels, dtype=torch.int64)
    return LoadedSplit(
        images=torch.stack(pixels),
        labels=columns[:, 0].clone(),
        original_labels=columns[:, 1].clone(),
        stamped=columns[:, 2].bool(),
    )


def _other_size(image: U8, shape: Sequence[int]) -> str:
    (height, width), (first_height, first_width) = image.shape[:2], shape[:2]
    return f"image is {width}x{height}, the first is {first_width}x{first_height}; ‹image_size› brings all to one size"


def _decoded(shards: Sequence[ShardRef], resized: ResizedRequest) -> Iterator[tuple[Sample, ShardRef, U8]]:
    size, policy = resized.image_size, resized.resize

    def pixels(sample: Sample) -> U8:
        return sample.image() if size is None else resize(sample.image(), size, policy=policy)

    with ThreadPoolExecutor(max_workers=4) as pool:
        for shard in shards:
            samples = read_listed(shard.path, shard.sha256, otherwise=_OTHER)
            for chunk in in_batches(samples, count=_CHUNK, size=_CHUNK_BYTES, of=lambda sample: 8 * sample.size):
                for sample, image in zip(chunk, pool.map(pixels, chunk), strict=True):
                    yield sample, shard, image
