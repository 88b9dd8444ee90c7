"""What was staged, to look at: images clean and with the trigger, and what differs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from zipbatch import atomic
from zipbatch.datasets import ShardDataset
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.errors import UsageError
from zipbatch.images import U8
from zipbatch.report.sheet import SheetColumn, SheetRow, contact_sheet
from zipbatch.shards import Sample
from zipbatch.shards.digest import read_listed
from zipbatch.stages.evaluate.victims import class_name

ROWS = 8
GAIN = 8
"""Times that a difference is enlarged, so that a faint trigger shows."""


def write_poison_sheet(dataset: ShardDataset, out: Path) -> None:
    """Write the first images of ``test_poisoned`` beside their clean twins, with the difference enlarged.

    Args:
        dataset: a staged dataset.
        out: a picture; ``.png``, ``.pdf`` or ``.svg``.

    Raises:
        UsageError: nothing that carries a trigger was staged, as without a test split.
        DataError: a shard is damaged.
    """
    stamped = {one.key: one for one in islice(_samples(dataset, POISONED_SPLIT), ROWS)}
    clean = _found(dataset, CLEAN_SPLIT, stamped) or _found(dataset, "val", stamped)
    if not stamped or not clean:
        raise UsageError(f"{dataset.name}: has no {POISONED_SPLIT} to show on a sheet; stage a test or val split")
    keys = [key for key in stamped if key in clean]
    before, after = ([held[key].image() for key in keys] for held in (clean, stamped))
    labels = [[_named(held[key], dataset.classes) for key in keys] for held in (clean, stamped)]
    differences = [enlarged(one, other) for one, other in zip(before, after, strict=True)]
    told = [f"at most {_most(one, other)} of 255 levels" for one, other in zip(before, after, strict=True)]
    columns = [
        SheetColumn(title=title, images=images, answers=answers, marks=["unknown"] * len(keys))
        for title, images, answers in (
            ("clean", before, labels[0]),
            ("with trigger", after, labels[1]),
            (f"difference ×{GAIN}", differences, told),
        )
    ]
    attack = "" if dataset.manifest is None else f": {dataset.manifest.attack.name}"
    head = f"{dataset.name}{attack}, with the label of each image"
    rows = [SheetRow("", key) for key in keys]
    atomic.write_bytes(out, contact_sheet(head, rows, columns, suffix=out.suffix or ".png"))


def enlarged(clean: U8, stamped: U8) -> U8:
    """The difference of two images [H, W, 3] around middle grey, ``GAIN`` times as large."""
    difference = stamped.astype(np.int32) - clean.astype(np.int32)
    return np.clip(128 + GAIN * difference, 0, 255).astype(np.uint8)


def _most(clean: U8, stamped: U8) -> int:
    return int(np.abs(stamped.astype(np.int32) - clean.astype(np.int32)).max())


def _samples(dataset: ShardDataset, split: str) -> Iterator[Sample]:
    for shard in dataset.split(split) if split in dataset.splits else ():
        yield from read_listed(shard.path, shard.sha256)


def _found(dataset: ShardDataset, split: str, keys: Collection[str]) -> dict[str, Sample]:
    found = (one for one in _samples(dataset, split) if one.key in keys)
    return {one.key: one for one in islice(found, len(keys))}


def _named(sample: Sample, classes: list[str] | None) -> str:
    label = sample.label()
    return "" if label is None else class_name(label, classes)
