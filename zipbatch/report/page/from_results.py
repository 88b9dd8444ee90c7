"""The page of results that were written before: all that their rows say, without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zipbatch.report.page.evaluation import at_a_glance, chart, findings, table
from zipbatch.report.page.model import Fact, Facts, Finding, Page, Provenance, Table
from zipbatch.report.page.results import Results, Shown


@dataclass(frozen=True)
class ResultsFile:
    """Results, where they were read, and the digest of that file."""

    name: str
    sha256: str
    results: Results


def rows_of(files: Sequence[ResultsFile]) -> list[Shown]:
    """The rows of all files for one table: of each those over seeds, where it has any."""
    return [row for file in files for row in file.results.shown]


def failures(failed: Sequence[tuple[str, str]]) -> list[Finding]:
    """A finding for each stage that failed."""
    return [Finding(text=f"failed: {reason}", tone="bad", who=stage) for stage, reason in failed]


def results_table(files: Sequence[ResultsFile]) -> Table:
    """All rows in one table."""
    return table(rows_of(files))


def results_page(files: Sequence[ResultsFile], provenance: Provenance) -> Page:
    """A page of one or more files of results."""
    rows = rows_of(files)
    failed = [one for file in files for one in file.results.failed.items()]
    origin = [
        fact
        for file in files
        for fact in (Fact(name="file", text=file.name, code=True), Fact(name="sha256", text=file.sha256, code=True))
    ]
    names = ", ".join(file.name.rsplit("/", 1)[-1] for file in files)
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    return Page(
        title=f"Results of {names}",
        about=f"{count} out of {len(files)} file{'' if len(files) == 1 else 's'}. Pictures are in the reports of "
        "evaluate, audit and run.",
        findings=[*failures(failed), *findings(rows)],
        figures=at_a_glance(rows),
        tables=[table(rows)],
        charts=chart(rows),
        provenance=Provenance(provenance.command, [*provenance.groups, Facts("Results", origin), data_of(rows)]),
    )


def data_of(rows: Sequence[Shown]) -> Facts:
    """What was measured, as far as rows tell: data, victims, versions."""
    facts = []
    for name, values in (
        ("data", [row.row.data for row in rows]),
        ("victims", [row.row.victim for row in rows]),
        ("versions", [f"{row.row.purified} {row.row.version}" for row in rows if row.row.version]),
    ):
        known = list(dict.fromkeys(value for value in values if value))
        if known:
            facts.append(Fact(name=name, text="\n".join(known), code=True))
    return Facts("What was measured", facts)
