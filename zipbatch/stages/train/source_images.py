"""Whole splits of a source in memory, for networks that take noise away: those to learn from, and those held out."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from zipbatch.config import DenoiserConfig
from zipbatch.datasets import SourceImage
from zipbatch.datasets.source import Source
from zipbatch.errors import UsageError
from zipbatch.memory import check_fits, in_batches

log = logging.getLogger(__name__)
HELD_OUT_SPLITS = ("test", "val")
"""Splits that are never trained on; the first there is measures what was learned."""
_CHUNK, _CHUNK_BYTES = 256, 64 * 1024**2


@dataclass(frozen=True)
class Images:
    """Training and held-out images, uint8 [N, 3, S, S], and the split that the latter are from."""

    train: Tensor
    held_out: Tensor
    split: str

    @property
    def side(self) -> int:
        """Pixels of a side."""
        return int(self.train.shape[-1])


def training_digest(source: Source) -> str:
    """What the split ``train`` of a source is known by.

    Raises:
        UsageError: it has none.
    """
    if "train" not in source.splits:
        raise UsageError(f"{source.place}: has no split train to learn from; it has: {', '.join(source.splits)}")
    return source.survey("train").sha256


def learned_from(source: Source, sha256: str) -> object:
    """What a network learns from, for its identity: a source's digest, and how images are brought to which size."""
    if source.size is None:
        return sha256
    cropped = {} if source.resize == "stretch" else {"resize": source.resize}
    return {"source": sha256, "image_size": source.size, **cropped}


def load_images(source: Source, held_out: int, sha256: str) -> Images:
    """The images of split ``train``, and the first of ``test`` or ``val``, which are never trained on; without either,
    the last of ``train``, which are then left out of training.

    Raises:
        UsageError: too few images, or images that are not square or differ in size.
        DataError: an image cannot be decoded.
    """
    train = _decode_all(source, "train", None, sha256)
    for split in HELD_OUT_SPLITS:
        if split in source.splits:
            return Images(train, _decode_all(source, split, held_out), split)
    if len(train) <= held_out:
        raise UsageError(
            f"{source.place}: {len(train)} images are too few to hold {held_out} out; hold out fewer (‹held_out›, or "
            "held_out in a preset)"
        )
    return Images(train[:-held_out], train[-held_out:], "train")


def held_out_of(source: Source, config: DenoiserConfig, split: str | None) -> int | None:
    """How many images at the end of a split are not trained on: None for all, as of those that are never trained on.

    Args:
        source: with all its splits.
        config: of the training.
        split: that is asked about; None for the first that is not trained on, or else what is left of ``train``.

    Raises:
        UsageError: no split train, or one that is trained on whole.
    """
    if "train" not in source.splits:
        raise UsageError(
            f"{source.place}: has no split train to train a prior on, only {', '.join(source.splits)}; "
            "name what it is to learn from train-… (a folder <split>/<class>/: train/), or take a prior that is there"
        )
    apart = [name for name in HELD_OUT_SPLITS if name in source.splits]
    if split == "train" and apart:
        raise UsageError(f"{source.place}: the prior is trained on split train; take {apart[0]} or leave the split out")
    return None if apart else config.held_out


def _decode_all(source: Source, split: str, limit: int | None, sha256: str | None = None) -> Tensor:
    found: list[Tensor] = []
    side, taken, stamped = 0, 0, 0
    with ThreadPoolExecutor(max_workers=4) as pool:
        encoded = islice(source.images(split, sha256=sha256), limit)
        for chunk in in_batches(encoded, count=_CHUNK, size=_CHUNK_BYTES, of=lambda image: 8 * len(image.data)):
            for pixels in pool.map(SourceImage.pixels, chunk):
                side = side or pixels.shape[0]
                if pixels.shape != (side, side, 3):
                    raise UsageError(
                        f"{source.place}: images of split {split} must be square and of one size; ‹image_size› "
                        "resizes them"
                    )
                found.append(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))
                taken += pixels.nbytes
                check_fits(2 * taken, f"{source.place}: split {split}")
            stamped += sum(image.stamped for image in chunk)
    if not found:
        raise UsageError(f"{source.place}: split {split} is empty")
    if stamped:
        log.warning(
            "%s: %d of %d images of split %s carry a trigger, and the network learns to paint it: take a clean source",
            *(source.place, stamped, len(found), split),
        )
    return torch.stack(found)
