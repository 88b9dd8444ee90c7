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
_TONES: dict[str, Tone] = {"backdoored": "bad", "nothing found": "good", "too few images": "unsure"}


def audit_finding(found: AuditVerdict) -> Finding:
    """The verdict of ``audit --json``."""
    return Finding(verdict_sentence(found), _TONES[found.verdict])


def audit_figures(found: AuditVerdict) -> list[Figure]:
    """The numbers of an audit to see at once."""
    images = found.images
    figures = [Figure("images", str(images), "", f"{found.quarantined} more in quarantine")]
    if found.verdict == "backdoored":
        figures.append(Figure("target class", str(found.target)))
        share = f"{share_text(found.suspects / images)} of all" if images else ""
        figures.append(Figure("suspects", str(found.suspects), "", share))
    needed = f"{found.deviations_needed:g} are asked for"
    figures.append(Figure("stands out by", f"{found.deviations:.1f}", "", f"standard deviations; {needed}"))
    return figures


def grounds_table(found: AuditVerdict) -> Table:
    """What the verdict goes by."""
    rows = [[Cell(name), Cell(text)] for name, text in grounds(found).items()]
    return Table("Grounds", [Column("what"), Column("found")], rows)


def images_table(rows: Iterable[ImageRow]) -> Table:
    """Images as ``audit --per-image`` writes them, the most triggered-looking first."""
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
            Cell(row.key),
            Cell(row.shard),
            Cell(share_text(row.score), row.score),
            Cell(row.before),
            Cell(row.after),
            Cell(str(row.moved), row.moved),
            Cell("suspect" if row.suspect else NOTHING),
        ]
        for row in every[:LISTED]
    ]
    some = f"The first {len(cells)} of {len(every)} images; --per-image writes all." if len(cells) < len(every) else ""
    return Table("Images", columns, cells, [some] if some else [], names=2)
