"""Tables on stdout."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from zipbatch.store import VersionHeader


def evaluation_table(rows: Sequence[Mapping[str, Any]], axes: Sequence[str] = ()) -> str:
    """Rows of ``evaluate`` as a table: shares with their 95 % interval, and n below.

    With ``axes``, rows are named by the values in their ``axes``, and by their victim only where that says more.
    """
    labelled = any(row[f"n_{name}"] for row in rows for name in ("ca", "asr"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = list(axes)
    if not axes or _several_victims(rows):
        columns += ["victim"]
    for column in (*columns, *(() if axes else ("attack",)), "purifier"):
        table.add_column(column, overflow="fold")
    names = ("ca", "asr", "fpr", "pa", "ra") if labelled else ()
    for name in (*(name.upper() for name in names), "flips", "PSNR dB", "SSIM"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        victim = row.get("victim_stage") or _short(str(row["victim"]))
        named = [victim if column == "victim" else row["axes"][column] or "–" for column in columns]
        table.add_row(
            *named,
            *(() if axes else (row["attack"] or "",)),
            row["settings"] or "no defence",
            *(_share(row, name) for name in names),
            _number(row["flip_rate"], ".3f"),
            _number(row["psnr_poisoned_db"] or row["psnr_clean_db"], ".1f"),
            _number(row["ssim_poisoned"] or row["ssim_clean"], ".3f"),
        )
    return _text(table) + _notes(rows, names)


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
        return "–"
    low, high = row[f"{name}_ci95"]
    return f"{row[name]:.3f} ±{(high - low) / 2:.3f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _notes(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    lines = []
    if names:
        counts = ", ".join(f"{name.upper()} {max(row[f'n_{name}'] for row in rows)}" for name in names)
        lines.append(f"images: {counts}; ± is half the 95 % Wilson interval")
    if aside := max((row.get("n_quarantined", 0) for row in rows), default=0):
        lines.append(f"{aside} more images are in quarantine and in none of these measures")
    for row in rows:
        if row["flip_rate"] is not None and not names:
            fled = ", ".join(f"{name} {count}" for name, count in list(row["fled"].items())[:5]) or "none"
            lines.append(f"{row['settings']}: classes that answers left: {fled}")
    return "".join(f"{line}\n" for line in lines)


def tune_table(found: Mapping[str, Any]) -> str:
    """What ``tune`` found: a row for each strength, weakest first, and the verdict below."""
    labelled = found["undefended"]["ca"] is not None or found["undefended"]["asr"] is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("exponent", "answers kept", "attack left", "95 % below", *(("CA", "ASR", "PA") if labelled else ()), "")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["rungs"]:
        table.add_row(
            f"{row['guidance_exponent']:g}",
            _number(row["agreement"], ".3f"),
            _number(row["residual"], ".3f"),
            _number(row["residual_upper"], ".3f"),
            *((_number(row[name], ".3f") for name in ("ca", "asr", "pa")) if labelled else ()),
            "chosen" if row["chosen"] else "",
        )
    if found["suspect"] is None:
        verdict = "no class stands out among those that answers leave: the preset's own strength is kept"
    else:
        verdict = (
            f"answers flee the class {found['suspect']}: about {found['triggered']:.0f} of {found['images']} images "
            f"look triggered, and {found['limit']:g} of them may be left there"
        )
    note = "CA, ASR and PA are from the labels, which the choice does not use\n" if labelled else ""
    return f"{_text(table)}{verdict}\n{note}"


def versions_table(
    found: Mapping[str, tuple[Sequence[VersionHeader], Mapping[str, str]]], describe: Callable[[VersionHeader], str]
) -> str:
    """Datasets with their versions and tags, oldest first; ``describe`` says what one was purified with."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("dataset", "version", "tags", "started", "images", "purifier"):
        table.add_column(column, overflow="fold")
    for dataset, (headers, tags) in found.items():
        for header in headers:
            table.add_row(
                dataset,
                header.version,
                " ".join(sorted(tag for tag, version in tags.items() if version == header.version)),
                header.started,
                str(sum(split["samples"] for split in header.counts.values()))
                + (f" (+{header.quarantined} quarantined)" if header.quarantined else ""),
                describe(header),
            )
    return _text(table) if found else "the store holds no version yet\n"


def _text(table: Table) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=180, no_color=True).print(table)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())
