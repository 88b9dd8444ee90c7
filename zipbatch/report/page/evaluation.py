"""The parts of a page that tell an evaluation: verdicts, numbers at a glance, table and chart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from zipbatch.report.columns import NOTHING
from zipbatch.report.page.model import Cell, Chart, Column, Figure, Finding, Point, Table, Tone
from zipbatch.report.page.results import SHARES, Shown, ends_of
from zipbatch.report.units import share_text
from zipbatch.results import Measured, Number

NO_DEFENCE = "no defence"
_TONES: dict[str, Tone] = {"nothing left": "good", "something left": "bad", "too few": "unsure"}
_MEASURES = {
    "ca": "clean accuracy: share of clean images that get their true class",
    "asr": "attack success rate: share of triggered images of other classes that are taken for the target",
    "fpr": "share of clean images of other classes that are taken for the target: what an ASR is held against",
    "pa": "share of triggered images that get their true class",
    "ra": "as PA, without images of the target class",
}
_Number = tuple[Column, Callable[[Shown], Cell]]


def findings(rows: Sequence[Shown]) -> list[Finding]:
    """What is left of the attack for each victim and what defends it; without a defence where none is measured."""
    defended = [row for row in rows if row.defended] or list(rows)
    found = [(row, row.verdict) for row in defended]
    told = [
        Finding(text=one.text, tone=_TONES[one.finding], who=name_of(row, rows), more=_change(row, rows))
        for row, one in found
        if one is not None
    ]
    if told or not defended:
        return told
    changed = [row for row in defended if row.numbers.flip_rate.value is not None]
    flips = [Finding(text=_flips_told(row), tone="plain", who=name_of(row, rows)) for row in changed]
    return flips or [Finding(text="no images with labels that an attack could be measured on", tone="unsure")]


def _change(row: Shown, rows: Sequence[Shown]) -> str:
    """What the defence did to the two main measures, where the victim was measured without it, too."""
    before = next((other for other in rows if not other.defended and _case(other) == _case(row)), None)
    if before is None or not row.defended:
        return ""
    return ", ".join(
        f"{name.upper()} {share_text(old)} → {share_text(new)}"
        for name in ("ca", "asr")
        if (old := before.share(name).value) is not None and (new := row.share(name).value) is not None
    )


def _flips_told(row: Shown) -> str:
    fled = ", ".join(f"{name} {count}" for name, count in list(row.fled.items())[:5])
    share = share_text(row.numbers.flip_rate.value or 0.0)
    return f"no labels: purification changes {share} of the answers" + (f"; they leave: {fled}" if fled else "")


def name_of(row: Shown, rows: Sequence[Shown]) -> str:
    """What tells a row from the others: its axes; without axes its victim, where there are several, and its defence."""
    if row.axes:
        return ", ".join(value for value in row.axes.values() if value) + ("" if row.defended else f", {NO_DEFENCE}")
    names = short_names(other.row.settings for other in rows if other.row.settings)
    defence = names[row.row.settings] if row.row.settings else NO_DEFENCE
    return f"{short(row.row.victim)}, {defence}" if len({other.row.victim for other in rows}) > 1 else defence


def short_names(settings: Iterable[str]) -> dict[str, str]:
    """Purifiers with all their settings -> their methods alone, ``repaint > jpeg > zip``, where no two agree."""
    names = {text: " > ".join(map(_method, text.split(" > "))) for text in settings}
    count = Counter(names.values())
    return {text: name if count[name] == 1 else text for text, name in names.items()}


def _method(step: str) -> str:
    found = re.match(r"(?:\d+x )?\S+", step)
    return found[0] if found else step


def short(victim: str | None) -> str:
    """The last part of a path; an address whole, but for its scheme."""
    text = victim or NOTHING
    return text.partition("://")[2] or text.rstrip("/").rsplit("/", 1)[-1]


def at_a_glance(rows: Sequence[Shown]) -> list[Figure]:
    """The main numbers before and after, where a victim and a purified form stand out: where there is one of each."""
    before = [row for row in rows if not row.defended]
    after = [row for row in rows if row.defended]
    if len(before) != 1 or len(after) != 1:
        return []
    told = {"ca": "clean accuracy", "asr": "attack success", "pa": "right on triggered images"}
    found = [
        Figure(title=title, after=share_text(new), before=share_text(old), about=f"of {after[0].share(name).n} images")
        for name, title in told.items()
        if (old := before[0].share(name).value) is not None and (new := after[0].share(name).value) is not None
    ]
    if not found and (changed := after[0].numbers.flip_rate.value) is not None:
        found = [
            Figure(
                title="answers changed", after=share_text(changed), before="", about=f"of {after[0].row.n_flip} images"
            )
        ]
    return found


def table(rows: Sequence[Shown]) -> Table:
    """Every measure that some row has, one row each. Names that are the same for all are left out, but for the last."""
    axes = list(dict.fromkeys(axis for row in rows for axis in row.axes)) if all(row.axes for row in rows) else []
    names: list[_Number] = [(Column(axis), _axis(axis)) for axis in axes]
    if not axes or len({row.victim_stage or row.row.victim for row in rows}) > len({str(row.axes) for row in rows}):
        names.append((Column("victim"), _victim))
    if not axes:
        names.append((Column("attack"), lambda row: Cell(text=row.row.attack or NOTHING)))
        names.insert(0, (Column("data"), lambda row: Cell(text=short(row.row.data), about=row.row.data or "")))
    names = [one for one in names if len({one[1](row).text for row in rows}) > 1]
    names.append((Column("purifier" if axes else "defence"), _defence))
    kept = [one for one in _numbers() if any(one[1](row).value is not None for row in rows)]
    every = [*names, *kept]
    cells = [[cell(row) for _, cell in every] for row in rows]
    return Table(
        title="Measures", columns=[column for column, _ in every], rows=cells, notes=_notes(rows), names=len(names)
    )


def _victim(row: Shown) -> Cell:
    return Cell(text=row.victim_stage or short(row.row.victim), about=row.row.victim or "")


def _defence(row: Shown) -> Cell:
    return Cell(text=row.row.settings or (NOTHING if row.defended or row.axes else NO_DEFENCE))


def _numbers() -> list[_Number]:
    return [
        (Column("seeds", True, "over how many seeds the means are"), lambda row: _count(row.n_seeds)),
        *((Column(name.upper(), True, about), _share(name)) for name, about in _MEASURES.items()),
        (
            Column("flips", True, "share of answers that purification changes"),
            lambda row: _told(row.numbers.flip_rate),
        ),
        (
            Column("DER", True, "(max(0, ASR lost) - max(0, CA lost) + 1) / 2, against no defence"),
            lambda row: _told(row.numbers.der),
        ),
        (
            Column(
                "collapsed",
                True,
                "share of right answers on clean images that purification made wrong",
            ),
            lambda row: _told(row.numbers.collapsed),
        ),
        (
            Column("p CA", True, "McNemar's test of CA against the first purified form"),
            lambda row: Cell(text=NOTHING) if row.p_ca is None else Cell(text=f"{row.p_ca:.2g}", value=row.p_ca),
        ),
        (
            Column("PSNR dB", True, "likeness to the clean image"),
            lambda row: _told(row.numbers.psnr_db, ".1f"),
        ),
        (Column("SSIM", True, "likeness to the clean image"), lambda row: _told(row.numbers.ssim)),
        (Column("calls", True, "network calls an image"), _calls),
        (
            Column("s/image", True, "seconds an image of one CPU core or GPU, reading and writing apart"),
            lambda row: _told(row.numbers.seconds_per_image, ".2g"),
        ),
    ]


def _axis(axis: str) -> Callable[[Shown], Cell]:
    return lambda row: Cell(text=row.axes.get(axis) or (NOTHING if row.defended else NO_DEFENCE))


def _share(name: str) -> Callable[[Shown], Cell]:
    return lambda row: _measured(row.share(name))


def _measured(measured: Measured) -> Cell:
    """A share with half its interval beside it, and both its ends on demand."""
    value, ends = measured.value, ends_of(measured)
    if value is None:
        return Cell(text=NOTHING)
    if ends is None:
        return Cell(text=share_text(value), value=value)
    what = "95 % interval" if measured.ci95 else "a standard deviation over the seeds either way"
    half = (ends[1] - ends[0]) / 2 if measured.sd is None else measured.sd
    about = f"{what}: {share_text(ends[0])} to {share_text(ends[1])}, of {measured.n} images"
    return Cell(text=share_text(value), value=value, more=f"±{share_text(half)}", about=about)


def _told(number: Number, form: str = ".3f") -> Cell:
    if number.value is None:
        return Cell(text=NOTHING)
    return Cell(
        text=f"{number.value:{form}}", value=number.value, more="" if number.sd is None else f"±{number.sd:{form}}"
    )


def _count(value: int | None) -> Cell:
    return Cell(text=NOTHING) if not value else Cell(text=str(value), value=value)


def _calls(row: Shown) -> Cell:
    least, most = row.row.calls_least, row.row.calls_most
    if most is None:
        return Cell(text=NOTHING)
    return Cell(text=str(most) if least == most else f"{least} to {most}", value=most)


def _notes(rows: Sequence[Shown]) -> list[str]:
    spread = (
        "a standard deviation over the seeds" if any(row.n_seeds for row in rows) else "half the 95 % Wilson interval"
    )
    counts = ", ".join(
        f"{name.upper()} {most}" for name in SHARES if (most := max((row.share(name).n for row in rows), default=0))
    )
    notes = [f"± is {spread}. Images: {counts}."] if counts else []
    if aside := max((row.row.n_quarantined for row in rows), default=0):
        notes.append(f"{aside} more images are in quarantine and in none of these measures.")
    if counts and (unlabelled := max((row.row.n_unlabelled for row in rows), default=0)):
        notes.append(f"{unlabelled} more images have no label that can be used: only their flips are measured.")
    machines = list(dict.fromkeys(row.row.seconds_on for row in rows if row.row.seconds_on))
    if machines:
        notes.append(f"s/image: of one CPU core or GPU, reading and writing apart; on {'; '.join(machines)}.")
    return notes


def chart(rows: Sequence[Shown]) -> list[Chart]:
    """Clean accuracy against the attack's success; none where they are not known."""
    known = [row for row in rows if row.row.ca is not None and row.row.asr is not None]
    if not known:
        return []
    names = short_names(row.row.settings for row in rows if row.row.settings)
    starts = {_case(row): number for number, row in enumerate(known) if not row.defended}
    points = [
        Point(
            label=name_of(row, rows),
            series=_series(row, names),
            x=(x := row.row.asr or 0.0),
            y=(y := row.row.ca or 0.0),
            x_ends=row.ends("asr") or (x, x),
            y_ends=row.ends("ca") or (y, y),
            before=starts.get(_case(row)) if row.defended else None,
        )
        for row in known
    ]
    spread = "standard deviations over seeds" if any(row.n_seeds for row in known) else "95 % intervals"
    about = f"Up and to the left is better. Bars are {spread}; a line leads from each victim without a defence."
    return [
        Chart(
            title="Accuracy against attack",
            x_title="attack success rate (ASR)",
            y_title="clean accuracy (CA)",
            points=points,
            about=about,
        )
    ]


def _case(row: Shown) -> tuple[str | None, ...]:
    return row.row.data, row.row.victim, row.victim_stage


def _series(row: Shown, names: Mapping[str, str]) -> str:
    """What it is defended with, as its axis calls it where there is one."""
    if not row.defended:
        return NO_DEFENCE
    for axis in ("purifier", "preset", "defence"):
        if value := row.axes.get(axis):
            return value
    return names[row.row.settings] if row.row.settings else NOTHING
