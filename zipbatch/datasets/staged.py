"""Datasets of shards: what they consist of, what a staged one says of itself, and how that is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from zipbatch import atomic
from zipbatch.datasets.base import CLASSES, read_classes
from zipbatch.datasets.companions import is_companion, is_signed_file, write_companions
from zipbatch.datasets.facts import Facts, ShardFacts
from zipbatch.shards.sample import Sample
from zipbatch.shards.writer import ShardWriter
from zipbatch.storage import StoragePath

MANIFEST = "manifest.json"
SHARD_LIST = "shards.jsonl"
TRIGGER, TRIGGER_PICTURE = "trigger.npz", "trigger.png"
_BESIDE = frozenset({MANIFEST, SHARD_LIST, CLASSES, TRIGGER, TRIGGER_PICTURE})
TargetMode = Literal["all-to-one", "all-to-all"]
ALL_TO_ONE: TargetMode = "all-to-one"
ALL_TO_ALL: TargetMode = "all-to-all"
CLEAN_SPLIT, POISONED_SPLIT = "test", "test_poisoned"
TRAIN_SPLITS = ("train", "val")
KNOWN_SPLITS = (*TRAIN_SPLITS, CLEAN_SPLIT, POISONED_SPLIT)


def is_reserved(name: str) -> bool:
    """Whether a file beside the shards of a staged folder is called so: no shard is."""
    return name in _BESIDE or is_companion(name) or is_signed_file(name)


class StagedAttack(BaseModel):
    """The attack of a staged dataset, with every parameter.

    None where data that others poisoned does not say: its target (also where there are several), rate or trigger.
    ``cover_rate`` and ``cover_train_samples`` are of training images that carry the trigger with their true label, and
    ``source_classes`` the ones that alone are poisoned and stamped for the test; each is left out where it is None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    source: str
    params: dict[str, Any]
    profile: str = "standard"
    version: int = Field(default=1, ge=1)
    target: int | None = Field(ge=0)
    target_mode: TargetMode = ALL_TO_ONE
    clean_label: bool = False
    poison_rate: float | None = Field(ge=0, le=1)
    poisoned_train_samples: int | None
    trigger_sha256: str | None
    train_transform: str | None = None
    cover_rate: float | None = Field(default=None, ge=0, le=1)
    cover_train_samples: int | None = Field(default=None, ge=0)
    source_classes: tuple[int, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_newer(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As manifests had it before there was any cover, where there is none."""
        newer = ("cover_rate", "cover_train_samples", "source_classes")
        return {name: value for name, value in serialize(self).items() if value is not None or name not in newer}


class SplitCounts(BaseModel):
    """How large one split is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    shards: int = Field(ge=0)
    samples: int = Field(ge=0)


class StagedManifest(BaseModel):
    """``manifest.json`` of a staged dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: Literal[1] = 1
    classes: list[str]
    image_size: int = Field(gt=0)
    splits: dict[str, SplitCounts]
    attack: StagedAttack
    seed: int | None
    source_sha256: dict[str, str]
    options: dict[str, Any]
    zipbatch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRef:
    """One shard of a dataset. ``sha256`` and ``samples`` are known only where a manifest says them."""

    split: str
    name: str
    path: StoragePath
    sha256: str | None = None
    samples: int | None = None


@dataclass(frozen=True, kw_only=True)
class ShardDataset:
    """Shards in order. ``manifest`` is None for bare tars."""

    name: str
    shards: tuple[ShardRef, ...]
    manifest: StagedManifest | None = None
    root: StoragePath | None = None

    def split(self, name: str) -> tuple[ShardRef, ...]:
        """The shards of one split, in order; empty when there is none."""
        return tuple(shard for shard in self.shards if shard.split == name)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of appearance."""
        return tuple(dict.fromkeys(shard.split for shard in self.shards))

    @property
    def classes(self) -> list[str] | None:
        """Class names from the manifest or ``classes.txt``, None when neither is there."""
        if self.manifest is not None:
            return self.manifest.classes
        if self.root is not None and (file := self.root / CLASSES).is_file():
            return read_classes(file)
        return None


def write_split(
    folder: Path, split: str, samples: Iterable[Sample | None], samples_per_shard: int, *, first: int = 0
) -> Iterator[tuple[int, ShardRef]]:
    """Write samples into ``<split>-NNNNNN.tar`` of a staged folder, numbered from ``first``.

    None stands for a sample of the source that the split lacks: it takes its place in a shard and in the numbers, so
    that shard N holds samples of the same N in another split of that source. A shard of such alone is not written.

    Yields:
        Size in bytes and reference of each shard, as it is finished.
    """
    stream = iter(samples)
    number = first
    while chunk := list(islice(stream, samples_per_shard)):
        name = f"{split}-{number:06d}.tar"
        number += 1
        if not any(chunk):
            continue
        with ShardWriter(folder) as writer:
            for sample in filter(None, chunk):
                writer.write(sample)
            info = writer.finish()
            writer.publish(folder / name)
        yield info.size, ShardRef(split=split, name=name, path=folder / name, sha256=info.sha256, samples=info.samples)


def write_manifest(folder: Path, manifest: StagedManifest, shards: Sequence[ShardRef], sizes: Sequence[int]) -> None:
    """Write ``shards.jsonl``, ``classes.txt``, what other tools read, last ``manifest.json`` into a staged folder."""
    rows = [
        {"split": s.split, "shard": s.name, "samples": s.samples, "sha256": s.sha256, "bytes": size}
        for s, size in zip(shards, sizes, strict=True)
    ]
    listing = b"".join(atomic.canonical_json(row) + b"\n" for row in rows)
    atomic.write_bytes(folder / SHARD_LIST, listing)
    atomic.write_bytes(folder / CLASSES, ("\n".join(manifest.classes) + "\n").encode())
    write_companions(folder, _facts(manifest, shards, sizes, listing))
    atomic.write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def _facts(manifest: StagedManifest, shards: Sequence[ShardRef], sizes: Sequence[int], listing: bytes) -> Facts:
    found = [
        ShardFacts(split=shard.split, name=shard.name, samples=shard.samples or 0, sha256=shard.sha256 or "", size=size)
        for shard, size in zip(shards, sizes, strict=True)
    ]
    return Facts(
        kind=manifest.attack.name,
        shards=found,
        listing=(SHARD_LIST, listing),
        classes=manifest.classes,
        image_size=manifest.image_size,
        attack=manifest.attack.model_dump(mode="json"),
        seed=manifest.seed,
        source_sha256=manifest.source_sha256,
        purified=manifest.options.get("purified"),
        zipbatch=manifest.zipbatch,
    )
