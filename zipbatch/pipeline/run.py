"""``zipbatch run``: stages chained, each for every choice of the axes it depends on, each skipped when it is done."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zipbatch import atomic, filesystem
from zipbatch.errors import UsageError, WorkFailed, ZipbatchError
from zipbatch.pipeline.config import PipelineConfig
from zipbatch.pipeline.expansion import expanded
from zipbatch.pipeline.file_digests import Fingerprints
from zipbatch.pipeline.identity import identity_now
from zipbatch.pipeline.rows import combined_rows
from zipbatch.pipeline.seed_statistics import rows_over_seeds
from zipbatch.pipeline.seeds import seeded_stages
from zipbatch.pipeline.spelling import key_of
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.report.progress import Progress
from zipbatch.results import PipelineResults, PipelineRow, RunAnswer, SeedlessRow, SeedRow, dump
from zipbatch.spelling import readers_spell
from zipbatch.stages.adapter import Instance, Report, Workspace
from zipbatch.stages.evaluate.adapter import sheet_file

log = logging.getLogger(__name__)
_IDS = ".ids"
Count = Callable[[int, int, Mapping[str, str]], None]


@dataclass(frozen=True, kw_only=True)
class PipelinePlan:
    """Every instance, makers before users."""

    workspace: Workspace
    axes: tuple[str, ...]
    instances: tuple[Instance, ...]
    fingerprints: Fingerprints
    seeds: tuple[int, ...] = ()

    def state(self, instance: Instance) -> str:
        """``done``, or why it is to be run."""
        if _is_done(instance, self.workspace):
            return "done"
        for maker in instance.makers:
            if not _is_done(maker, self.workspace):
                return f"after {maker.label}"
        return _why(instance, self.workspace)


@dataclass(frozen=True, kw_only=True)
class PipelineResult:
    """Combined rows of the evaluations, the contact sheets that they made, and the reason of each stage that failed.

    ``over_seeds`` are the rows over seeds; None where the pipeline has no seeds.
    """

    rows: list[PipelineRow]
    sheets: tuple[Path, ...]
    ran: int
    skipped: int
    failed: dict[str, str]
    over_seeds: list[SeedRow | SeedlessRow] | None = None

    @property
    def kept(self) -> PipelineResults:
        """What is kept as ``results.json``."""
        return PipelineResults(rows=self.rows, **self._over(), failed=self.failed)

    @property
    def answer(self) -> RunAnswer:
        """What is told to machines."""
        return RunAnswer(
            rows=self.rows,
            **self._over(),
            ran=self.ran,
            skipped=self.skipped,
            failed=self.failed,
            sheets=[str(sheet) for sheet in self.sheets],
        )

    def _over(self) -> dict[str, list[SeedRow | SeedlessRow]]:
        return {} if self.over_seeds is None else {"over_seeds": self.over_seeds}

    def raise_failures(self) -> None:
        """Raise ``WorkFailed`` with every failed stage and its reason, if there is one."""
        if self.failed:
            lines = [f"  {label}: {reason}" for label, reason in self.failed.items()]
            total = self.ran + self.skipped + len(self.failed)
            raise WorkFailed("\n".join([f"{len(self.failed)} of {total} stages failed", *lines]))


def plan_pipeline(
    config: PipelineConfig, workspace: Workspace, values: Mapping[str, Any], *, where: str, trust_mtime: bool = False
) -> PipelinePlan:
    """Expand and check a pipeline, without writing anything.

    Args:
        config: the pipeline.
        workspace: where it keeps its results.
        values: variables that override the file's.
        where: the file, for messages.
        trust_mtime: know an unchanged input by size and mtime alone.

    Raises:
        UsageError: unknown names, stages that need each other, settings or inputs that do not fit; names the stage.
    """
    if unknown := sorted(set(values) - set(config.vars)):
        raise UsageError(f"{where}: no variable {unknown[0]!r}; there are: {', '.join(config.vars) or 'none'}")
    fingerprints = Fingerprints(workspace.out / _IDS / "inputs.json", trust_mtime=trust_mtime)
    instances = expanded(config, {**config.vars, **values}, fingerprints, where)
    return PipelinePlan(
        workspace=workspace, axes=tuple(config.axes), instances=instances, fingerprints=fingerprints, seeds=config.seeds
    )


def run_pipeline(
    plan: PipelinePlan, *, report: Report, on_count: Count = lambda _ran, _skipped, _failed: None
) -> PipelineResult:
    """Run what is not done. What a failed stage makes is missing to its users alone; the others go on.

    A full disk and the like end the run; every other failure is told at the end, beside the rows of what is done.

    Args:
        plan: what to run.
        report: told what is being done.
        on_count: told how many stages were run and skipped and which failed, before each stage and at the end.
    """
    plan.fingerprints.save()
    failed: dict[str, str] = {}
    ran = skipped = 0
    for instance in plan.instances:
        on_count(ran, skipped, failed)
        if _is_done(instance, plan.workspace):
            skipped += 1
            continue
        if lacking := [item.label for item in instance.makers if item.label in failed]:
            failed[instance.label] = f"not run without {lacking[0]}"
            continue
        try:
            with readers_spell(key_of(instance.kind)):
                made = _make(instance, plan, report)
        except OSError:
            raise
        except ZipbatchError as error:
            failed[instance.label] = str(error)
        except Exception as error:  # one stage's own mistake must not stop the others
            log.debug("%s failed", instance.label, exc_info=True)
            failed[instance.label] = f"{type(error).__name__}: {error} (-vv: the traceback)"
        else:
            ran, skipped = ran + made, skipped + (not made)
    on_count(ran, skipped, failed)
    found = combined_rows(_evaluated(plan), plan.axes, plan.workspace, planned=plan.instances, seeds=bool(plan.seeds))
    over = rows_over_seeds(found, stages=_seeded(plan)) if plan.seeds else None
    sheets = [sheet_file(i, plan.workspace) for i in plan.instances if i.kind == "evaluate"]
    there = tuple(sheet for sheet in sheets if sheet.is_file())
    result = PipelineResult(
        rows=[one.row for one in found], sheets=there, ran=ran, skipped=skipped, failed=failed, over_seeds=over
    )
    atomic.write_json(plan.workspace.out / "results.json", dump(result.kept))
    return result


def _seeded(plan: PipelinePlan) -> list[str]:
    """The stages that took the pipeline's seeds."""
    return seeded_stages(plan.instances, lambda kind: STAGE_TYPES[kind].seed)


def _evaluated(plan: PipelinePlan) -> list[Instance]:
    """The evaluations that are there."""
    return [one for one in plan.instances if one.kind == "evaluate" and _is_done(one, plan.workspace)]


def _make(instance: Instance, plan: PipelinePlan, report: Report) -> bool:
    """Run a stage, unless another run of the pipeline, which had it in hand, has made it meanwhile.

    Raises:
        WorkFailed: what it is made from is not any more what its result would be named by; nothing of it stays.
    """
    workspace, kind = plan.workspace, STAGE_TYPES[instance.kind]
    ids = _id_file(instance, workspace)
    instance.path(workspace).parent.mkdir(parents=True, exist_ok=True)
    ids.parent.mkdir(parents=True, exist_ok=True)
    with ids.with_suffix(".lock").open("wb") as lock:
        try:
            filesystem.lock(lock, Path(lock.name), wait=False)
        except BlockingIOError:
            report(Progress(what=f"{instance.label}: waiting for another run"))
            filesystem.lock(lock, Path(lock.name))
        if _is_done(instance, workspace):
            return False
        report(Progress(what=instance.label))
        _check_unchanged(instance, plan.fingerprints)
        atomic.write_json(ids, dict(instance.identity))
        doubt = _doubt(instance, workspace)
        doubt.touch()
        kind.run(instance, workspace, report)
        try:
            _check_unchanged(instance, plan.fingerprints)
        except ZipbatchError:
            kind.discard(instance, workspace)
            raise
        finally:
            plan.fingerprints.save()
        doubt.unlink(missing_ok=True)
        return True


def _doubt(instance: Instance, workspace: Workspace) -> Path:
    """A mark that is there while a stage is run, until what it was made from has been looked at again.

    A run that is killed in between leaves it, and the next one looks.
    """
    return _id_file(instance, workspace).with_suffix(".unchecked")


def _is_done(instance: Instance, workspace: Workspace) -> bool:
    return not _doubt(instance, workspace).exists() and STAGE_TYPES[instance.kind].is_done(instance, workspace)


def _check_unchanged(instance: Instance, fingerprints: Fingerprints) -> None:
    now = identity_now(instance, fingerprints.anew())
    if atomic.sha256_json(now) != atomic.sha256_json(instance.identity):
        raise WorkFailed(
            f"changed since the run was planned: {', '.join(_differences(instance.identity, now))}; run again"
        )


def _id_file(instance: Instance, workspace: Workspace) -> Path:
    return workspace.out / _IDS / instance.stage / f"{instance.slug}.json"


def _why(instance: Instance, workspace: Workspace) -> str:
    """What differs from the last time this stage was run for these axes."""
    stem = instance.slug.removesuffix(instance.id)
    folder = _id_file(instance, workspace).parent
    known = sorted(folder.glob(f"{stem}{'?' * 8}.json"), key=lambda file: file.stat().st_mtime)
    if not known:
        return "not run yet"
    if known[-1] == _id_file(instance, workspace):
        return "not finished"
    try:
        before = json.loads(known[-1].read_bytes())
    except ValueError:
        return "not run yet"
    if not isinstance(before, dict):
        return "not run yet"
    return f"changed: {', '.join(_differences(before, instance.identity))}"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [part for side in ("facts", "inputs") for part in _changes(before.get(side), now.get(side))]


def _changes(before: object, now: object, name: str = "") -> list[str]:
    """Names of what differs, mappings taken apart."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [name]
    known = sorted({*before, *now})
    inner = {key: f"{name}.{key}" if name else key for key in known}
    return [found for key in known for found in _changes(before.get(key), now.get(key), inner[key])]
