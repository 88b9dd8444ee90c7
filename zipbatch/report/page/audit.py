"""The parts of a page that tell an audit: verdict, what it goes by, and the images that look most triggered."""

from __future__ import annotations

from collections.abc import Iterable

from zipbatch.report.audit_text import grounds, verdict_sentence
from zipbatch.report.columns import NOTHING
from zipbatch.report.page.model import Cell, Column, Figure, Finding, Table, Tone
from zipbatch.report.units import share_text
from zipbatch.results import AuditVerdict, ImageRow

LISTED = 200
"""Images in the table at most: those that look most triggered."""
_TONES: dict[str, Tone] = {
    "backdoored": "bad",
    "nothing found": "good",
    "too few images": "unsure",
    "manipulated images": "unsure",
}


def audit_finding(found: AuditVerdict) -> Finding:
    """The verdict of ``zipbatch audit --json``."""
    return Finding(text=verdict_sentence(found), tone=_TONES[found.verdict])


def audit_figures(found: AuditVerdict) -> list[Figure]:
    """The numbers of an audit to see at once."""
    images = found.images
    figures = [Figure(title="images", after=str(images), before="", about=f"{found.quarantined} more in quarantine")]
    if (fled := found.target or found.driven) is not None:
        figures.append(Figure(title="target class" if found.target else "driven to", after=fled))
        share = f"{share_text(found.suspects / images)} of all" if images else ""
        figures.append(Figure(title="suspects", after=str(found.suspects), before="", about=share))
    needed = f"{found.deviations_needed:g} are asked for"
    figures.append(
        Figure(
            title="stands out by", after=f"{found.deviations:.1f}", before="", about=f"standard deviations; {needed}"
        )
    )
    return figures


def grounds_table(found: AuditVerdict) -> Table:
    """What the verdict goes by."""
    rows = [[Cell(text=name), Cell(text=text)] for name, text in grounds(found).items()]
    return Table(title="Grounds", columns=[Column("what"), Column("found")], rows=rows)


def images_table(rows: Iterable[ImageRow]) -> Table:
    """Images as ``zipbatch audit --per-image`` writes them, the most triggered-looking first."""
    every = sorted(rows, key=lambda row: (not row.suspect, -row.score))
    columns = [
        Column("key"),
        Column("shard"),
        Column("score", True, "how much it looks triggered, 0 to 1"),
        Column("before", about="the answer on the image as it came"),
        Column("after", about="the answer after the last purifier"),
        Column("moved", True, "how many purifiers change the answer"),
        Column("suspect"),
    ]
    cells = [
        [
            Cell(text=row.key),
            Cell(text=row.shard),
            Cell(text=share_text(row.score), value=row.score),
            Cell(text=row.before),
            Cell(text=row.after),
            Cell(text=str(row.moved), value=row.moved),
            Cell(text="suspect" if row.suspect else NOTHING),
        ]
        for row in every[:LISTED]
    ]
    some = f"The first {len(cells)} of {len(every)} images; ‹per_image› writes all." if len(cells) < len(every) else ""
    return Table(title="Images", columns=columns, rows=cells, notes=[some] if some else [], names=2)
