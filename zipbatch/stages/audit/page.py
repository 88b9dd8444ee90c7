"""The page of an audit."""

from __future__ import annotations

from collections import Counter

from zipbatch.report.page.audit import audit_figures, audit_finding, grounds_table, images_table
from zipbatch.report.page.evaluation import short
from zipbatch.report.page.model import Page, Provenance
from zipbatch.stages.audit.gallery import form_titles
from zipbatch.stages.audit.run import AuditResult, audit_report, image_rows
from zipbatch.stages.evaluate.confusions import moves
from zipbatch.stages.evaluate.page import origin
from zipbatch.stages.evaluate.victims import classes_of


def audit_page(result: AuditResult, provenance: Provenance) -> Page:
    """What ``audit`` found, with the pictures that it kept."""
    found, job, answers = audit_report(result), result.job, result.answers
    before, *purified = answers.forms
    moved = [
        (name, Counter(zip(before.tolist(), after.tolist(), strict=True)))
        for name, after in zip(form_titles(job.forms, answers), purified, strict=True)
    ]
    return Page(
        title=f"Audit of {short(job.victim.label)}",
        about=f"Is it backdoored, and by which images? Told from its answers on {job.data_label} alone.",
        findings=[audit_finding(found)],
        figures=audit_figures(found),
        tables=[grounds_table(found), images_table(image_rows(result))],
        galleries=[] if result.gallery is None else [result.gallery],
        confusions=moves("", moved, classes=answers.classes, names=classes_of(job.victim, job.dataset)),
        provenance=Provenance(
            provenance.command,
            [*provenance.groups, *([] if answers.plan is None else origin(answers.plan, ()))],
        ),
    )
