"""Tables on stdout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zipbatch.report.columns import NOTHING, PLAIN, Column, Look, pairs_text, styled, table_text
from zipbatch.report.units import age_text, share_text, size_text
from zipbatch.report.verdict import over_seeds, verdict

if TYPE_CHECKING:
    from zipbatch.store import VersionHeader, VersionRow

LISTED = 50
"""Shards that are listed unless all are asked for."""
_SHARES = ("ca", "asr", "fpr", "pa", "ra")
_COLOURS = {"nothing left": "green", "something left": "red", "too few": "yellow"}


def evaluation_table(rows: Sequence[Mapping[str, Any]], axes: Sequence[str] = (), look: Look = PLAIN) -> str:
    """Rows of ``evaluate`` as a table: shares with their 95 % interval, n below, and what is left of each attack.

    With ``axes``, rows are named by the values in their ``axes``, and by their victim only where that says more. Rows
    over seeds have measures with their standard deviation.
    """
    labelled = any(row[f"n_{name}"] for row in rows for name in ("ca", "asr"))
    victims = not axes or _several_victims(rows)
    named = [*axes, *(("victim",) if victims else ())]
    names = _SHARES if labelled else ()
    columns = [
        *(Column(name) for name in named),
        *(() if axes else (Column("attack", rank=2),)),
        Column("purifier", rank=9 if axes else 0),
        *((Column("seeds", right=True),) if any("n_seeds" in row for row in rows) else ()),
        *(Column(name.upper(), right=True, rank=0 if name in {"ca", "asr", "fpr"} else 3) for name in names),
        Column("flips", right=True, rank=4 if labelled else 0),
        *((Column("DER", right=True, rank=7),) if labelled else ()),
        *((Column("collapsed", right=True, rank=8), Column("p CA", right=True, rank=8)) if labelled else ()),
        Column("PSNR dB", right=True, rank=5),
        Column("SSIM", right=True, rank=6),
        Column("calls", right=True, rank=5),
        Column("s/image", right=True, rank=6),
    ]
    cells = [
        (
            *(_name(row, name) for name in named),
            *(() if axes else (row["attack"] or "",)),
            row["settings"] or ("no defence" if row.get("purifier") is None else NOTHING),
            *((str(row["n_seeds"] or NOTHING),) if "n_seeds" in row else ()),
            *(_share(row, name) for name in names),
            _spread(row, "flip_rate", ".3f"),
            *((_spread(row, "der", ".3f"),) if labelled else ()),
            *((_spread(row, "collapsed", ".3f"), _p(row, "ca")) if labelled else ()),
            _spread(row, "psnr_poisoned_db" if row["psnr_poisoned_db"] else "psnr_clean_db", ".1f"),
            _spread(row, "ssim_poisoned" if row["ssim_poisoned"] else "ssim_clean", ".3f"),
            _calls(row),
            _spread(row, "seconds_per_image", ".2g"),
        )
        for row in rows
    ]
    notes = _notes(rows, names) + (_about_seconds(rows, look) if look.wide or not labelled else "")
    return table_text(columns, cells, look) + notes + _verdicts(rows, axes, victims, look)


def _name(row: Mapping[str, Any], column: str) -> str:
    if column == "victim":
        return str(row.get("victim_stage") or _short(str(row["victim"])))
    return row["axes"][column] or ("no defence" if row["purifier"] is None else NOTHING)


def _verdicts(rows: Sequence[Mapping[str, Any]], axes: Sequence[str], victims: bool, look: Look) -> str:
    """A line for each victim and what defends it; without a defence where none is measured."""
    defended = [row for row in rows if row["settings"] is not None] or rows
    lines = []
    for row in defended:
        if (found := over_seeds(row) if row.get("n_seeds") else verdict(row)) is None:
            continue
        names = [_name(row, name) for name in (*axes, *(("victim",) if victims else ()))]
        names += [] if axes else [row["settings"] or "no defence"]
        lines.append(styled(f"{', '.join(names)}: {found.text}", _COLOURS[found.finding], look))
    return "".join(lines)


def _several_victims(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether victims differ among rows of the same axes, so that the axes do not name them."""
    victims: dict[str, set[str]] = {}
    for row in rows:
        if row["purifier"] is not None:
            victims.setdefault(str(row["axes"]), set()).add(str(row["victim"]))
    return any(len(names) > 1 for names in victims.values())


def _short(victim: str) -> str:
    """The last part of a path; an address whole, but for its scheme."""
    return victim.partition("://")[2] or victim.rstrip("/").rsplit("/", 1)[-1]


def _share(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return NOTHING
    if "n_seeds" in row:
        spread = row.get(f"{name}_sd")
        return share_text(row[name]) + ("" if spread is None else f" ±{share_text(spread)}")
    low, high = row[f"{name}_ci95"]
    return f"{share_text(row[name])} ±{share_text((high - low) / 2)}"


def _spread(row: Mapping[str, Any], name: str, form: str) -> str:
    """A number, over seeds with its standard deviation."""
    spread = row.get(f"{name}_sd")
    return _number(row.get(name), form) + ("" if spread is None else f" ±{spread:{form}}")


def _calls(row: Mapping[str, Any]) -> str:
    """Network calls an image: ``2``, ``5 to 7``."""
    least, most = row.get("calls_least"), row.get("calls_most")
    return NOTHING if most is None else str(most) if least == most else f"{least} to {most}"


def _about_seconds(rows: Sequence[Mapping[str, Any]], look: Look) -> str:
    machines = list(dict.fromkeys(row["seconds_on"] for row in rows if row.get("seconds_on") is not None))
    if not machines:
        return ""
    text = f"s/image: of one CPU core or GPU, reading and writing apart; on {'; '.join(machines)}"
    return styled(text, "none", look)


def _p(row: Mapping[str, Any], name: str) -> str:
    """McNemar's p-value against the first purified form."""
    pair = (row.get("paired") or {}).get(name)
    return NOTHING if pair is None else _number(pair["p"], ".2g")


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _notes(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    lines = []
    if names:
        counts = ", ".join(f"{name.upper()} {max(row[f'n_{name}'] for row in rows)}" for name in names)
        lines.append(f"{_about_spread(rows)}images: {counts}")
    if aside := max((row.get("n_quarantined", 0) for row in rows), default=0):
        lines.append(f"{aside} more images are in quarantine and in none of these measures")
    if unlabelled := max((row.get("n_unlabelled", 0) for row in rows), default=0) if names else 0:
        lines.append(f"{unlabelled} more images have no label that can be used: only their flips are measured")
    for row in rows:
        if row["flip_rate"] is not None and not names and "fled" in row:
            fled = ", ".join(f"{name} {count}" for name, count in list(row["fled"].items())[:5]) or "none"
            lines.append(f"{row['settings']}: classes that answers left: {fled}")
    return "".join(f"{line}\n" for line in lines)


def _about_spread(rows: Sequence[Mapping[str, Any]]) -> str:
    seeds = [row["seeds"] for row in rows if "seeds" in row]
    if not seeds:
        return "± is half the 95 % Wilson interval\n"
    every = ", ".join(map(str, sorted({seed for of_row in seeds for seed in of_row})))
    stages = ", ".join(dict.fromkeys(stage for row in rows for stage in row.get("seeds_of", ())))
    return (
        f"mean ± standard deviation (n - 1) over the seeds {every}{' of ' if stages else ''}{stages}\n"
        f"{NOTHING} under seeds: the same whatever the seed, so without ±\n"
    )


def tune_table(found: Mapping[str, Any], look: Look = PLAIN) -> str:
    """What ``tune`` found: a row for each strength, weakest first, and the verdict below."""
    labelled = found["undefended"]["ca"] is not None or found["undefended"]["asr"] is not None
    measures = ("ca", "asr", "pa") if labelled else ()
    titles = ("exponent", "answers kept", "attack left", "95 % below", *(name.upper() for name in measures), "")
    cells = [
        (
            f"{row['guidance_exponent']:g}",
            *(_number(row[name], ".3f") for name in ("agreement", "residual", "residual_upper", *measures)),
            "chosen" if row["chosen"] else "",
        )
        for row in found["rungs"]
    ]
    note = "CA, ASR and PA are from the labels, which the choice does not use\n" if labelled else ""
    table = table_text([Column(title, right=True) for title in titles], cells, look)
    return f"{table}{suspicion_told(found)}\n{note}"


def suspicion_told(found: Mapping[str, Any]) -> str:
    """What ``tune`` saw that made it choose."""
    if found["suspect"] is None:
        return "no class stands out among those that answers leave: the preset's own strength is kept"
    return (
        f"answers flee the class {found['suspect']}: about {found['triggered']:.0f} of {found['images']} images "
        f"look triggered, and {found['limit']:g} of them may be left there"
    )


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
        + (f" (+{header.quarantined} quarantined)" if header.quarantined else ""),
        NOTHING if size is None else size_text(size),
    )


def version_text(
    header: VersionHeader,
    shards: Sequence[tuple[VersionRow, int | None]],
    *,
    tags: Sequence[str],
    purifier: str,
    origin: str,
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
        "purifier": purifier,
        **{name.replace("_", " "): plain_text(value) for name, value in others.items() if value is not None},
        "images": f"{sum(row.samples for row, _ in shards)}{size}\n" + "\n".join(counts),
        "shards": origin,
        "parent": header.parent or "none",
    }
    columns = [Column("split"), Column("shard"), Column("images", right=True)]
    columns += [Column("quarantined", right=True, rank=1), Column("bytes", right=True), Column("object")]
    rows = [
        (
            row.split,
            row.shard,
            str(row.samples),
            str(row.quarantined or NOTHING),
            NOTHING if size is None else size_text(size),
            row.output if look.wide else row.output[:12],
        )
        for row, size in (shards if look.wide else shards[:LISTED])
    ]
    more = f"  … and {len(shards) - len(rows)} more shards: --wide\n" if len(rows) < len(shards) else ""
    return f"{header.dataset}\n{pairs_text(values, look)}{table_text(columns, rows, look, indent='  ')}{more}"


def plain_text(value: object) -> str:
    """A value as ``--set`` and ``--param`` take it, mappings as ``name=value``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(plain_text, value))
    if isinstance(value, dict):
        return " ".join(f"{name}={plain_text(entry)}" for name, entry in value.items()) or "none"
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
