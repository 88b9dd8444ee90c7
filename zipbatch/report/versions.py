"""Versions of the store, for people: as a table, and one with all that it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from zipbatch.report.columns import NOTHING, PLAIN, Column, Look, pairs_text, table_text
from zipbatch.report.units import age_text, plain_text, size_text

if TYPE_CHECKING:
    from zipbatch.store import VersionHeader, VersionRow

LISTED = 50
"""Shards that are listed unless all are asked for."""


def versions_table(
    found: Mapping[str, tuple[Sequence[VersionHeader], Mapping[str, str]]],
    *,
    settings: Callable[[VersionHeader], str] = lambda header: str(header.purifier["method"]),
    sizes: Mapping[str, int] | None = None,
    now_s: float = 0.0,
    look: Look = PLAIN,
) -> str:
    """Datasets with their versions, oldest first.

    Args:
        found: headers and tags by dataset.
        settings: what a version was purified with, in short.
        sizes: bytes by ``dataset@version``, as far as they are counted.
        now_s: seconds since 1970.
        look: how it is shown.
    """
    if not found:
        return "the store holds no version yet\n"
    columns = [
        Column("dataset"),
        Column("version, tags", least=20),
        Column("settings"),
        Column("images", right=True),
        Column("bytes", right=True),
        Column("age", right=True),
        *((Column("started"),) if look.wide else ()),
    ]
    cells = [
        (
            *_version_row(
                header, tags, settings=settings(header), size=(sizes or {}).get(f"{dataset}@{header.version}")
            ),
            age_text(now_s - header.started_s),
            *((header.started,) if look.wide else ()),
        )
        for dataset, (headers, tags) in found.items()
        for header in headers
    ]
    return table_text(columns, cells, look)


def _version_row(header: VersionHeader, tags: Mapping[str, str], *, settings: str, size: int | None) -> tuple[str, ...]:
    own = sorted(tag for tag, version in tags.items() if version == header.version)
    return (
        header.dataset,
        "\n".join((header.version, *own)),
        settings,
        str(sum(split["samples"] for split in header.counts.values()))
        + (f" (+{header.quarantined} quarantined)" if header.quarantined else "")
        + ("" if header.trial is None else " (trial)"),
        NOTHING if size is None else size_text(size),
    )


def version_text(
    header: VersionHeader,
    shards: Sequence[tuple[VersionRow, int | None]],
    *,
    tags: Sequence[str],
    purifier: str,
    origin: str,
    signed: Sequence[str] = (),
    now_s: float,
    look: Look,
) -> str:
    """A version for people.

    Args:
        header: what it is.
        shards: its rows, each with the bytes of its object where they are known.
        tags: that point to it.
        purifier: its purifier with all settings.
        origin: what was computed and what reused.
        signed: fingerprints of the keys that are said to have signed it.
        now_s: seconds since 1970.
        look: how it is shown; only ``wide`` lists more than ``LISTED`` shards.
    """
    others = {name: value for name, value in header.purifier.items() if name not in {"method", "settings"}}
    sizes = [size for _, size in shards if size is not None]
    size = f", {size_text(sum(sizes))}" if len(sizes) == len(shards) else ""
    counts = [
        f"{split}: {count['samples']} images in {count['shards']} shards"
        + (f", {count['quarantined']} more quarantined" if count.get("quarantined") else "")
        for split, count in header.counts.items()
    ]
    values = {
        "version": f"{header.version}{', tags ' if tags else ''}{', '.join(tags)}",
        "made": f"{header.started} ({age_text(now_s - header.started_s)}), by zipbatch {header.zipbatch}",
        **({} if header.trial is None else {"trial": f"{header.trial_text}"}),
        "purifier": purifier,
        **{name.replace("_", " "): plain_text(value) for name, value in others.items() if value is not None},
        "images": f"{sum(row.samples for row, _ in shards)}{size}\n" + "\n".join(counts),
        "shards": origin,
        "parent": header.parent or "none",
        **({"signed by": "\n".join(f"sha256:{who}" for who in signed) + "\n(see 'store verify')"} if signed else {}),
    }
    shown = shards if look.wide else shards[:LISTED]
    more = f"  … and {len(shards) - len(shown)} more shards: ‹wide›\n" if len(shown) < len(shards) else ""
    return f"{header.dataset}\n{pairs_text(values, look)}{_shards_table(shown, look)}{more}"


def _shards_table(shards: Sequence[tuple[VersionRow, int | None]], look: Look) -> str:
    columns = [Column("split"), Column("shard"), Column("images", right=True)]
    columns += [
        Column("quarantined", right=True, rank=1),
        Column("bytes", right=True),
        Column("object"),
    ]
    rows = [
        (
            row.split,
            row.shard,
            str(row.samples),
            str(row.quarantined or NOTHING),
            NOTHING if size is None else size_text(size),
            row.output if look.wide else row.output[:12],
        )
        for row, size in shards
    ]
    return table_text(columns, rows, look, indent="  ")
