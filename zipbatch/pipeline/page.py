"""The page of a pipeline: the table of all its evaluations, and pictures of each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from zipbatch.errors import ZipbatchError
from zipbatch.pipeline.run import PipelinePlan, PipelineResult
from zipbatch.report.page.evaluation import at_a_glance, chart, findings, table
from zipbatch.report.page.from_results import failures
from zipbatch.report.page.model import Fact, Facts, Gallery, Page, Provenance
from zipbatch.report.page.results import Results
from zipbatch.stages.adapter import Instance
from zipbatch.stages.evaluate.adapter import plan_of, read_rows
from zipbatch.stages.evaluate.gallery import SHOWN, gallery
from zipbatch.stages.evaluate.page import origin

log = logging.getLogger(__name__)
ITEMS = 96
"""Images that a page shows at most, of all evaluations."""
_TABS, _LEAST = 4, 2


def pipeline_page(plan: PipelinePlan, result: PipelineResult, name: str, provenance: Provenance) -> Page:
    """What ``run`` tells at its end, with pictures of the evaluations that are done."""
    rows = Results(result.rows, result.over_seeds, result.failed).shown
    done = [one for one in plan.instances if one.kind == "evaluate" and plan.state(one) == "done"]
    shown = done[: ITEMS // (_TABS * _LEAST)]
    each = min(SHOWN, ITEMS // (_TABS * max(1, len(shown))))
    parts = [found for one in shown if (found := _parts(plan, one, each)) is not None]
    more = f"Pictures of the first {len(shown)} of {len(done)} evaluations." if len(shown) < len(done) else ""
    return Page(
        title=f"Pipeline {name}",
        about=f"{len(plan.instances)} stages, {len(done)} of them evaluations, over {_axes(plan)}.",
        findings=[*failures(list(result.failed.items())), *findings(rows)],
        figures=at_a_glance(rows),
        tables=[table(rows)],
        charts=chart(rows),
        galleries=[gallery for gallery, _ in parts],
        provenance=Provenance(provenance.command, [*provenance.groups, _stages(plan, result), *_origins(parts)]),
        notes=[more] if more else [],
    )


def _origins(parts: Sequence[tuple[Gallery, list[Facts]]]) -> list[Facts]:
    """Each once: evaluations share data, victims and versions."""
    found: list[Facts] = []
    for _, origins in parts:
        found += [facts for facts in origins if facts not in found]
    return found


def _axes(plan: PipelinePlan) -> str:
    return ", ".join(plan.axes) or "no axes"


def _parts(plan: PipelinePlan, instance: Instance, shown: int) -> tuple[Gallery, list[Facts]] | None:
    """The pictures of an evaluation and where it comes from; without those that cannot be had the page is worth having
    all the same.
    """
    try:
        measured = plan_of(instance, plan.workspace)
        found = gallery(measured, shown=shown)
        origins = origin(measured, read_rows(instance, plan.workspace))
    except ZipbatchError as error:
        log.warning("%s: no pictures in the report: %s", instance.label, error)
        return None
    values = ", ".join(instance.axes.values())
    return replace(found, title=f"Pictures, {values}" if values else f"Pictures of {instance.stage}"), origins


def _stages(plan: PipelinePlan, result: PipelineResult) -> Facts:
    facts = [
        Fact(name="stages", text=f"{result.ran} run, {result.skipped} done before, {len(result.failed)} failed"),
        Fact(name="results", text=str(plan.workspace.out / "results.json"), code=True),
        Fact(name="store", text=str(plan.workspace.store.root), code=True),
        *([Fact(name="seeds", text=", ".join(map(str, plan.seeds)))] if plan.seeds else []),
        Fact(name="names", text="\n".join(f"{one.stage} {one.slug}" for one in plan.instances), code=True),
    ]
    return Facts("Stages", facts)
