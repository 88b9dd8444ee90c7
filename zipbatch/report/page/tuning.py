"""The parts of a page that tell what ``tune`` tried and chose."""

from __future__ import annotations

import json

from zipbatch.report.columns import NOTHING
from zipbatch.report.fit_table import choice_told
from zipbatch.report.page.evaluation import short
from zipbatch.report.page.model import Cell, Chart, Column, Fact, Facts, Figure, Finding, Page, Point, Provenance, Table
from zipbatch.report.tables import suspicion_told
from zipbatch.report.units import share_text
from zipbatch.results import FitAndTuneAnswer, FitAnswer, FitReport, TuneReport


def tuning_page(
    answer: TuneReport | FitAnswer | FitAndTuneAnswer,
    found: TuneReport | None,
    fit: FitReport | None,
    provenance: Provenance,
) -> Page:
    """What ``tune`` tried and chose.

    Args:
        answer: all of it.
        found: what suspect images say of strengths, where there are any.
        fit: what clean images say of presets, where there are any.
        provenance: the command, and what there is to say of the run.
    """
    findings, figures, tables, charts, about = [], [], [], [], []
    if found is not None:
        findings.append(Finding(text=suspicion_told(found), tone="plain", who="strength"))
        figures.append(
            Figure(
                title="exponent chosen",
                after=f"{found.chosen:g}",
                before="",
                about=f"of {len(found.rungs)} that were tried",
            )
        )
        tables.append(_strengths(found))
        charts += _chart(found)
        about.append(f"{found.images} suspect images of {found.data}")
    if fit is not None:
        findings.append(Finding(text=choice_told(fit), tone="plain" if fit.within else "unsure", who="preset"))
        figures.append(
            Figure(title="preset chosen", after=fit.chosen, before="", about=f"of {len(fit.presets)} that were tried")
        )
        tables.append(_presets(fit))
        about.append(f"{fit.images} clean images of {fit.source}")
    settings = json.dumps(answer.settings, indent=2, ensure_ascii=False)
    groups = [*provenance.groups, Facts("Chosen", [Fact(name="settings", text=settings, code=True, unfolded=True)])]
    return Page(
        title=f"How to purify for {short(answer.victim)}",
        about=f"Told from answers on {' and '.join(about)}.",
        findings=findings,
        figures=figures,
        tables=tables,
        charts=charts,
        provenance=Provenance(provenance.command, groups),
    )


def _strengths(found: TuneReport) -> Table:
    labelled = found.undefended.ca is not None or found.undefended.asr is not None
    measured = ("ca", "asr", "pa") if labelled else ()
    columns = [
        Column("exponent", True, "of the guidance: the smaller, the stronger"),
        Column("answers kept", True, "share of answers on other images that stay the same"),
        Column(
            "attack left",
            True,
            "estimated share of triggered images that are still taken for the target",
        ),
        Column("95 % below", True, "with 95 % confidence no more of the attack is left"),
        *(Column(name.upper(), True, "from the labels, which the choice does not use") for name in measured),
    ]
    rows = [
        [
            Cell(text=f"{row.guidance_exponent:g}", value=row.guidance_exponent, more="chosen" if row.chosen else ""),
            *map(_share, (row.agreement, row.residual, row.residual_upper)),
            *(map(_share, (row.ca, row.asr, row.pa)) if labelled else ()),
        ]
        for row in found.rungs
    ]
    return Table(
        title="Strengths", columns=columns, rows=rows, notes=[f"{found.limit:g} of the attack may be left (‹limit›)."]
    )


def _chart(found: TuneReport) -> list[Chart]:
    """Answers kept against the attack that is left, as the answers let it be estimated."""
    points = [
        Point(
            label=f"exponent {row.guidance_exponent:g}",
            series="chosen" if row.chosen else "tried",
            x=row.residual,
            y=row.agreement,
            x_ends=(row.residual, row.residual if row.residual_upper is None else row.residual_upper),
            y_ends=(row.agreement, row.agreement),
        )
        for row in found.rungs
        if row.residual is not None
    ]
    about = "Up and to the left is better. Bars reach to where, with 95 % confidence, no more of the attack is left."
    return (
        [
            Chart(
                title="Answers kept against attack left",
                x_title="attack left",
                y_title="answers kept",
                points=points,
                about=about,
            )
        ]
        if points
        else []
    )


def _presets(fit: FitReport) -> Table:
    labelled = fit.ca_before is not None
    columns = [
        Column("preset"),
        Column("purifier"),
        Column("calls", True, "network calls an image"),
        Column("answers kept", True, "share of answers on clean images that stay the same"),
        Column("loss at most", True, "share of answers that change: CA changes by no more than that"),
        *((Column("CA", True), Column("CA lost", True)) if labelled else ()),
    ]
    rows = [
        [
            Cell(text=row.preset, more="chosen" if row.chosen else ""),
            Cell(text=row.purifier),
            Cell(text=_from_to(row.calls_at_least, row.calls), value=row.calls),
            _with_interval(row.agreement, row.agreement_ci95),
            _share(row.loss),
            *((_share(row.ca), _share(row.ca_loss)) if labelled else ()),
        ]
        for row in fit.presets
    ]
    return Table(
        title="Presets", columns=columns, rows=rows, notes=[f"{fit.max_loss:g} of the answers may change (‹max_loss›)."]
    )


def _from_to(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"


def _with_interval(value: float, ends: tuple[float, float]) -> Cell:
    about = f"95 % interval: {share_text(ends[0])} to {share_text(ends[1])}"
    return Cell(text=share_text(value), value=value, more=f"±{share_text((ends[1] - ends[0]) / 2)}", about=about)


def _share(value: float | None) -> Cell:
    if value is None:
        return Cell(text=NOTHING)
    return Cell(text=f"-{share_text(-value)}" if value < 0 else share_text(value), value=value)
