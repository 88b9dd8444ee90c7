"""Whole splits in memory, for training."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zipbatch.errors import DataError, UsageError
from zipbatch.shards import Sample, ShardRef
from zipbatch.shards.digest import read_listed

_OTHER = "its bytes are not those that are listed; make it again"


@dataclass(frozen=True)
class LoadedSplit:
    """``images`` uint8 [N, 3, H, W]; ``labels`` and ``original_labels`` int64 [N]; ``poisoned`` bool [N]."""

    images: Tensor
    labels: Tensor
    original_labels: Tensor
    poisoned: Tensor


def load_split(shards: Sequence[ShardRef]) -> LoadedSplit:
    """Decode every image of ``shards``.

    Raises:
        UsageError: no samples.
        DataError: a shard is not the one that is listed, a sample without a label, or images of different sizes.
    """
    pixels: list[Tensor] = []
    labels: list[tuple[int, int, bool]] = []
    shape: tuple[int, ...] | None = None
    with ThreadPoolExecutor(max_workers=4) as pool:
        for shard in shards:
            samples = list(read_listed(shard.path, shard.sha256, otherwise=_OTHER))
            for sample, image in zip(samples, pool.map(Sample.image, samples), strict=True):
                shape = shape or image.shape
                if image.shape != shape:
                    raise DataError(shard.path, f"image is {image.shape[:2]}, the first is {shape[:2]}", key=sample.key)
                label, original = sample.label(), sample.original_label()
                if label is None or original is None:
                    raise DataError(shard.path, "has no label (.cls or .json)", key=sample.key)
                pixels.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
                labels.append((label, original, sample.poisoned()))
    if not pixels:
        raise UsageError("the split has no samples")
    columns = torch.tensor(labels, dtype=torch.int64)
    return LoadedSplit(torch.stack(pixels), columns[:, 0].clone(), columns[:, 1].clone(), columns[:, 2].bool())
