"""Tables of what was measured: rows of ``evaluate`` and of pipelines, strengths of ``tune``."""

from __future__ import annotations

from collections.abc import Sequence

from zipbatch.report.columns import NOTHING, PLAIN, Column, Look, styled, table_text
from zipbatch.report.units import share_text
from zipbatch.report.verdict import over_seeds, verdict
from zipbatch.results import EvaluationRow, Measured, Number, PipelineRow, SeedlessRow, SeedRow, ShareName, TuneReport

Row = EvaluationRow | SeedRow
_SHARES: tuple[ShareName, ...] = ("ca", "asr", "fpr", "pa", "ra")
_COLOURS = {"nothing left": "green", "something left": "red", "too few": "yellow"}


def evaluation_table(rows: Sequence[Row], axes: Sequence[str] = (), look: Look = PLAIN) -> str:
    """Rows of ``evaluate`` as a table: shares with their 95 % interval, n below, and what is left of each attack.

    With ``axes``, rows of a pipeline are named by the values of their axes, and by their victim only where that says
    more. Rows over seeds have measures with their standard deviation.
    """
    labelled = any(row.n_ca or row.n_asr for row in rows)
    victims = not axes or _several_victims(rows)
    named = [*axes, *(("victim",) if victims else ())]
    names = _SHARES if labelled else ()
    over = any(isinstance(row, SeedRow | SeedlessRow) for row in rows)
    columns = [
        *(Column(name) for name in named),
        *(() if axes else (Column("attack", rank=2),)),
        Column("purifier", rank=9 if axes else 0),
        *((Column("seeds", right=True),) if over else ()),
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
        (*(_name(row, name) for name in named), *(() if axes else (row.attack or "",)), *_cells(row, names))
        for row in rows
    ]
    notes = _notes(rows, names) + (_about_seconds(rows, look) if look.wide or not labelled else "")
    return table_text(columns, cells, look) + notes + _verdicts(rows, axes, victims, look)


def _cells(row: Row, names: Sequence[ShareName]) -> tuple[str, ...]:
    """All but the names of a row."""
    shares, numbers = row.shares, row.numbers
    return (
        row.settings or ("no defence" if row.purifier is None else NOTHING),
        *((str(row.n_seeds or NOTHING),) if isinstance(row, SeedRow | SeedlessRow) else ()),
        *(_share(shares[name], over_seeds=isinstance(row, SeedRow | SeedlessRow)) for name in names),
        _spread(numbers.flip_rate, ".3f"),
        *((_spread(numbers.der, ".3f"), _spread(numbers.collapsed, ".3f"), _p_ca(row)) if names else ()),
        _spread(numbers.psnr_db, ".1f"),
        _spread(numbers.ssim, ".3f"),
        _calls(row),
        _spread(numbers.seconds_per_image, ".2g"),
    )


def _name(row: Row, column: str) -> str:
    if column == "victim":
        return _stage(row) or _short(str(row.victim))
    return _axes(row)[column] or ("no defence" if row.purifier is None else NOTHING)


def _stage(row: Row) -> str | None:
    """That made its victim."""
    return row.victim_stage if isinstance(row, PipelineRow | SeedRow) else None


def _axes(row: Row) -> dict[str, str | None]:
    return row.axes if isinstance(row, PipelineRow | SeedRow) else {}


def _verdicts(rows: Sequence[Row], axes: Sequence[str], victims: bool, look: Look) -> str:
    """A line for each victim and what defends it; without a defence where none is measured."""
    defended = [row for row in rows if row.settings is not None] or rows
    lines = []
    for row in defended:
        if (found := over_seeds(row) if isinstance(row, SeedRow) else verdict(row)) is None:
            continue
        names = [_name(row, name) for name in (*axes, *(("victim",) if victims else ()))]
        names += [] if axes else [row.settings or "no defence"]
        lines.append(styled(f"{', '.join(names)}: {found.text}", _COLOURS[found.finding], look))
    return "".join(lines)


def _several_victims(rows: Sequence[Row]) -> bool:
    """Whether victims differ among rows of the same axes, so that the axes do not name them."""
    victims: dict[str, set[str]] = {}
    for row in rows:
        if row.purifier is not None:
            victims.setdefault(str(_axes(row)), set()).add(str(row.victim))
    return any(len(names) > 1 for names in victims.values())


def _short(victim: str) -> str:
    """The last part of a path; an address whole, but for its scheme."""
    return victim.partition("://")[2] or victim.rstrip("/").rsplit("/", 1)[-1]


def _share(share: Measured, *, over_seeds: bool) -> str:
    if share.value is None:
        return NOTHING
    text = share_text(share.value)
    if over_seeds:
        return text if share.sd is None else f"{text} ±{share_text(share.sd)}"
    low, high = share.ci95 or (share.value, share.value)
    return f"{text} ±{share_text((high - low) / 2)}"


def _spread(number: Number, form: str) -> str:
    """A number, over seeds with its standard deviation."""
    return _number(number.value, form) + ("" if number.sd is None else f" ±{number.sd:{form}}")


def _calls(row: Row) -> str:
    """Network calls an image: ``2``, ``5 to 7``."""
    least, most = row.calls_least, row.calls_most
    return NOTHING if most is None else str(most) if least == most else f"{least} to {most}"


def _about_seconds(rows: Sequence[Row], look: Look) -> str:
    machines = list(dict.fromkeys(row.seconds_on for row in rows if row.seconds_on is not None))
    if not machines:
        return ""
    text = f"s/image: of one CPU core or GPU, reading and writing apart; on {'; '.join(machines)}"
    return styled(text, "none", look)


def _p_ca(row: Row) -> str:
    """McNemar's p-value of CA against the first purified form."""
    pair = None if row.paired is None else row.paired.ca
    return NOTHING if pair is None else _number(pair.p, ".2g")


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _notes(rows: Sequence[Row], names: Sequence[ShareName]) -> str:
    lines = []
    if names:
        counts = ", ".join(f"{name.upper()} {max(row.shares[name].n for row in rows)}" for name in names)
        lines.append(f"{_about_spread(rows)}images: {counts}")
    if aside := max((row.n_quarantined for row in rows), default=0):
        lines.append(f"{aside} more images are in quarantine and in none of these measures")
    if unlabelled := max((row.n_unlabelled for row in rows), default=0) if names else 0:
        lines.append(f"{unlabelled} more images have no label that can be used: only their flips are measured")
    for row in rows:
        if isinstance(row, EvaluationRow) and row.flip_rate is not None and not names:
            fled = ", ".join(f"{name} {count}" for name, count in list(row.fled.items())[:5]) or "none"
            lines.append(f"{row.settings}: classes that answers left: {fled}")
    return "".join(f"{line}\n" for line in lines)


def _about_spread(rows: Sequence[Row]) -> str:
    over = [row for row in rows if isinstance(row, SeedRow | SeedlessRow)]
    if not over:
        return "± is half the 95 % Wilson interval\n"
    every = ", ".join(map(str, sorted({seed for row in over for seed in row.seeds})))
    stages = ", ".join(dict.fromkeys(stage for row in over for stage in row.seeds_of))
    return (
        f"mean ± standard deviation (n - 1) over the seeds {every}{' of ' if stages else ''}{stages}\n"
        f"{NOTHING} under seeds: the same whatever the seed, so without ±\n"
    )


def tune_table(found: TuneReport, look: Look = PLAIN) -> str:
    """What ``tune`` found: a row for each strength, weakest first, and the verdict below."""
    labelled = found.undefended.ca is not None or found.undefended.asr is not None
    titles = ("exponent", "answers kept", "attack left", "95 % below", *(("CA", "ASR", "PA") if labelled else ()), "")
    cells = [
        (
            f"{row.guidance_exponent:g}",
            *(_number(value, ".3f") for value in (row.agreement, row.residual, row.residual_upper)),
            *((_number(value, ".3f") for value in (row.ca, row.asr, row.pa)) if labelled else ()),
            "chosen" if row.chosen else "",
        )
        for row in found.rungs
    ]
    note = "CA, ASR and PA are from the labels, which the choice does not use\n" if labelled else ""
    table = table_text([Column(title, right=True) for title in titles], cells, look)
    return f"{table}{suspicion_told(found)}\n{note}"


def suspicion_told(found: TuneReport) -> str:
    """What ``tune`` saw that made it choose."""
    if found.suspect is None:
        return "no class stands out among those that answers leave: the preset's own strength is kept"
    return (
        f"answers flee the class {found.suspect}: about {found.triggered:.0f} of {found.images} images "
        f"look triggered, and {found.limit:g} of them may be left there"
    )
