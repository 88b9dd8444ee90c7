"""What other tools are told of a folder of shards: what its card, its Croissant metadata and its indexes share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from zipbatch import atomic

_GLOB = frozenset("*?[]{}")
MOST_NAMED = 200
"""Shards of a split that are named one by one where no pattern stands for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """One shard: the split and name that it has in the folder, its samples, digest and size in bytes."""

    split: str
    name: str
    samples: int
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A folder of shards. Nothing of it depends on where the folder is, or when it was made.

    Attributes:
        kind: what it is, in a few words; the beginning of its name.
        shards: in order.
        listing: name and bytes of the file in it that lists every shard with its digest.
        classes: class names in the order of their labels; None where they are not known.
        image_size: side of the images in pixels, where it is one for all.
        attack: with which it was staged, as the manifest has it; None of data that was not.
        seed: of the staging.
        source_sha256: split of the source -> digest.
        purified: ``version`` and ``purifier`` of shards that were purified.
        zipbatch: version of the tool that made them.
    """

    kind: str
    shards: Sequence[ShardFacts]
    listing: tuple[str, bytes]
    classes: Sequence[str] | None = None
    image_size: int | None = None
    attack: Mapping[str, Any] | None = None
    seed: int | None = None
    source_sha256: Mapping[str, str] = field(default_factory=dict)
    purified: Mapping[str, Any] | None = None
    zipbatch: str = ""

    @property
    def listing_sha256(self) -> str:
        """Digest of the list of shards."""
        return hashlib.sha256(self.listing[1]).hexdigest()

    @cached_property
    def name(self) -> str:
        """``badnets-1a2b3c4d5e6f``: the kind, and the beginning of a digest of all shards."""
        digest = atomic.sha256_json([[shard.split, shard.name, shard.sha256] for shard in self.shards])
        return f"{self.kind}-{digest[:12]}"

    @cached_property
    def splits(self) -> dict[str, tuple[ShardFacts, ...]]:
        """Split -> its shards, both in order."""
        found: dict[str, list[ShardFacts]] = {}
        for shard in self.shards:
            found.setdefault(shard.split, []).append(shard)
        return {split: tuple(shards) for split, shards in found.items()}

    def files(self, split: str) -> str | list[str] | None:
        """A pattern that stands for the shards of a split alone, or their names; None where they are too many, or have
        names that mean something in a pattern.
        """
        names = [shard.name for shard in self.splits[split]]
        for pattern in (f"{split}-*.tar", "*.tar"):
            if [shard.name for shard in self.shards if fnmatchcase(shard.name, pattern)] == names:
                return pattern
        return None if len(names) > MOST_NAMED or any(_GLOB & set(name) for name in names) else names
