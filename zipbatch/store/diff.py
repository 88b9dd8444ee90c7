"""What differs between two versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zipbatch.store.rows import VersionRow
from zipbatch.store.versions import Version


@dataclass(frozen=True, kw_only=True)
class VersionDiff:
    """Two versions beside each other. Shards are named ``split/shard``.

    Attributes:
        a: ``dataset@version``.
        b: the other one.
        settings: dotted name of what the purifiers do not share -> (value of a, value of b); None where it lacks it.
        counts: split -> (shards and samples of a, of b), None for one that lacks the split.
        only_a: shards that b lacks, in order.
        only_b: shards that a lacks, in order.
        inputs: shards of both that were made from other bytes.
        outputs: shards of both that became other bytes.
        same: how many shards of both became the same bytes.
    """

    a: str
    b: str
    settings: dict[str, tuple[Any, Any]]
    counts: dict[str, tuple[dict[str, int] | None, dict[str, int] | None]]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    same: int


def diff_versions(a: Version, b: Version) -> VersionDiff:
    """Hold two versions against each other, of one dataset or of two."""
    left, right = _by_name(a), _by_name(b)
    both = [(name, row, right[name]) for name, row in left.items() if name in right]
    splits = dict.fromkeys((*a.header.counts, *b.header.counts))
    return VersionDiff(
        a=a.reference,
        b=b.reference,
        settings=_settings(_flat(a.header.purifier), _flat(b.header.purifier)),
        counts={split: (a.header.counts.get(split), b.header.counts.get(split)) for split in splits},
        only_a=tuple(name for name in left if name not in right),
        only_b=tuple(name for name in right if name not in left),
        inputs=tuple(name for name, one, other in both if one.input != other.input),
        outputs=tuple(name for name, one, other in both if one.output != other.output),
        same=sum(one.output == other.output for _, one, other in both),
    )


def _by_name(version: Version) -> dict[str, VersionRow]:
    return {f"{row.split}/{row.shard}": row for row in version.rows}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"settings": {"steps": 20}}`` -> ``{"settings.steps": 20}``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys((*a, *b))
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}
