"""The jobs of the command line as calls: fields of their requests as keywords, typed results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zipbatch.api.spelling import keyword
from zipbatch.cluster import WorkerRequest, Workers
from zipbatch.config import find_config, load_config, validate
from zipbatch.errors import UsageError
from zipbatch.pipeline.config import PipelineConfig
from zipbatch.pipeline.run import PipelineResult, plan_pipeline, run_pipeline
from zipbatch.report.progress import Progress
from zipbatch.results import AuditVerdict, EvaluationRow, ImageRow
from zipbatch.spelling import readers_spell, spelled
from zipbatch.stages.adapter import Workspace
from zipbatch.stages.assets import source_place
from zipbatch.stages.audit.job import opened_job as open_audit
from zipbatch.stages.audit.request import AuditRequest
from zipbatch.stages.audit.run import audit as run_audit
from zipbatch.stages.audit.run import audit_report, image_rows
from zipbatch.stages.evaluate.job import opened_job as open_evaluation
from zipbatch.stages.evaluate.plan import plan_evaluate
from zipbatch.stages.evaluate.request import EvaluateRequest
from zipbatch.stages.evaluate.run import evaluate as run_evaluate
from zipbatch.stages.poison.request import PoisonRequest
from zipbatch.stages.poison.run import PoisonResult
from zipbatch.stages.poison.run import poison as stage
from zipbatch.stages.purify.job import opened_job
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.publish import check_tagged
from zipbatch.stages.purify.request import PurifyRequest
from zipbatch.stages.purify.run import PurifySummary
from zipbatch.stages.purify.run import purify as run_purify
from zipbatch.stages.tune.request import TuneRequest
from zipbatch.stages.tune.run import TuneOutcome, carry_out

_Location = str | Path
OnProgress = Callable[[Progress], None]


def _unseen(_progress: Progress) -> None:
    return None


@readers_spell(keyword)
def poison(
    source: _Location,
    *,
    attack: str,
    out: _Location,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
    **settings: Any,
) -> PoisonResult:
    """Stage a source as shards, with a backdoor trigger on some of its images: ``zipbatch poison``.

    Args:
        source: an official archive, an image-folder tree or shards; ``embedded`` for the sample that ships.
        attack: a name of ``zipbatch ls attacks``, or ``python:FILE.py:FUNCTION``, which is run.
        out: the folder to write; it appears whole or not at all.
        on_progress: called with the images written so far and in all.
        settings: other fields of ``PoisonRequest``, those of ``zipbatch poison``.

    Raises:
        UsageError: source, split or attack unknown, settings that do not fit, ``out`` holds something else.
        DataError: an image or label of the source cannot be read.
    """
    given = {"source": source_place(os.fspath(source)), "attack": attack, "out": out, **settings}
    return stage(validate(PoisonRequest, given, where="poison"), on_progress=on_progress)


@readers_spell(keyword)
def purify(
    sources: _Location | Sequence[_Location],
    *,
    store: _Location,
    on_progress: OnProgress = _unseen,
    **settings: Any,
) -> PurifySummary:
    """Purify shards into a versioned store: ``zipbatch purify``.

    Args:
        sources: a staged dataset, or shards: files, folders, brace patterns, on a disk or in an object store.
        store: where results are kept, a folder or URL.
        on_progress: called before the work begins, after each shard, and every second or two.
        settings: other fields of ``PurifyRequest`` and ``WorkerRequest``, those of ``zipbatch purify``:
            ``prior``, ``preset``, ``tag``, ``gpus``, ``workers``, …

    Raises:
        UsageError: what is asked cannot be; says what is allowed.
        WorkFailed: some shards failed, or a tag could not be moved; names each with its reason.
    """
    workers, others = _workers(settings)
    request = validate(PurifyRequest, {"store": os.fspath(store), **others}, where="purify")
    job = opened_job(_texts(sources), request, workers)
    summary = run_purify(plan_purify(job), on_progress=on_progress)
    check_tagged(summary, job.dataset.name, job.tag)
    return summary


@readers_spell(keyword)
def evaluate(
    victims: _Location | Sequence[_Location],
    *,
    data: _Location | Sequence[_Location],
    on_progress: OnProgress = _unseen,
    **settings: Any,
) -> list[EvaluationRow]:
    """Measure classifiers on suspect and purified shards: ``zipbatch evaluate``.

    Args:
        victims: folders, ``embedded:ATTACK``, HTTP endpoints, or ``python:FILE.py:FUNCTION``, which is run.
        data: a staged dataset, or shards.
        on_progress: called with how far it is.
        settings: other fields of ``EvaluateRequest`` and ``WorkerRequest``: ``purified``, ``store``, ``gpus``, …

    Returns:
        A row for each victim without a defence, then with each purified version.

    Raises:
        UsageError: victims, data or versions that are not there or do not fit each other.
        WorkFailed: some shards could not be measured.
    """
    workers, others = _workers(settings)
    given = {"victims": _texts(victims), "data": _texts(data), **_with_store(others)}
    job = open_evaluation(validate(EvaluateRequest, given, where="evaluate"), workers)
    return run_evaluate(plan_evaluate(job), on_progress=on_progress)


@readers_spell(keyword)
def audit(
    victim: _Location,
    *,
    data: _Location | Sequence[_Location],
    on_progress: OnProgress = _unseen,
    **settings: Any,
) -> Audited:
    """Is a classifier backdoored, and by which images? Told from its answers alone: ``zipbatch audit``.

    Args:
        victim: a folder, ``embedded:ATTACK``, an HTTP endpoint, or ``python:FILE.py:FUNCTION``, which is run.
        data: suspect images: a staged dataset, or shards.
        on_progress: called with how far it is.
        settings: other fields of ``AuditRequest`` and ``WorkerRequest``: ``prior`` and ``presets``, or ``purified`` and
            ``store``; ``share``, ``gpus``, …

    Raises:
        UsageError: what is asked cannot be; says what is allowed.
        WorkFailed: some shards could not be purified, or the classifier did not answer.
    """
    workers, others = _workers(settings)
    given = {"victim": os.fspath(victim), "data": _texts(data), **_with_store(others)}
    result = run_audit(open_audit(validate(AuditRequest, given, where="audit"), workers), report=on_progress)
    return Audited(audit_report(result), list(image_rows(result)))


@readers_spell(keyword)
def tune(victim: _Location, *, on_progress: OnProgress = _unseen, **settings: Any) -> TuneOutcome:
    """Choose how to purify, from a classifier's answers alone: ``zipbatch tune``.

    Args:
        victim: a folder, ``embedded:ATTACK``, an HTTP endpoint, or ``python:FILE.py:FUNCTION``, which is run.
        on_progress: called with how far it is.
        settings: fields of ``TuneRequest`` and ``WorkerRequest``: ``data`` (suspect images) or ``fit`` (clean ones),
            ``prior``, ``store``, ``presets``, ``out``, …

    Returns:
        What was chosen: ``settings`` as a preset has them, ``answer`` with all that was measured.

    Raises:
        UsageError: what is asked cannot be; says what is allowed.
        WorkFailed: some shards could not be purified, or the classifier did not answer.
    """
    workers, others = _workers(settings)
    given = {"victim": os.fspath(victim), **_with_store(others)}
    if "data" in given:
        given["data"] = _texts(given["data"])
    return carry_out(validate(TuneRequest, given, where="tune"), workers, report=on_progress)


@readers_spell(keyword)
def run(
    pipeline: _Location,
    *,
    out: _Location | None = None,
    values: Mapping[str, object] | None = None,
    seeds: Sequence[int] | int | None = None,
    on_progress: OnProgress = _unseen,
    **workers: Any,
) -> PipelineResult:
    """Run a pipeline; what is done is skipped: ``zipbatch run``.

    Args:
        pipeline: a YAML file, or the name of one that ships (``zipbatch ls pipelines``).
        out: where it keeps its results; None for a folder named after it.
        values: its variables, as ``zipbatch run --var NAME=VALUE`` gives them.
        seeds: in place of the file's: how many, or which.
        on_progress: called with what is being done.
        workers: fields of ``WorkerRequest``: ``gpus``, ``workers``, ``device``, …

    Returns:
        Its rows, and what was run, skipped and failed; ``raise_failures()`` raises for the last.

    Raises:
        UsageError: no such pipeline or variable, stages or inputs that do not fit; names the stage.
    """
    who, others = _workers(workers)
    if others:
        raise UsageError(f"run: no setting {next(iter(others))!r}; there are: {', '.join(WorkerRequest.model_fields)}")
    file = find_config("pipelines", os.fspath(pipeline))
    config = load_config(file, PipelineConfig, None if seeds is None else {"seeds": seeds})
    workspace = Workspace(Path(out or f"{file.stem}-out"), who)
    result = run_pipeline(plan_pipeline(config, workspace, values or {}, where=str(file)), report=on_progress)
    return replace(result, failed={label: spelled(reason, keyword) for label, reason in result.failed.items()})


@dataclass(frozen=True)
class Audited:
    """What an audit found.

    Attributes:
        verdict: whether the classifier looks backdoored, with its target and the number of suspects.
        images: a row for each image: key, shard, answers, score.
    """

    verdict: AuditVerdict
    images: list[ImageRow]


def _workers(settings: Mapping[str, Any]) -> tuple[Workers, dict[str, Any]]:
    """The workers that are asked for, and the other settings."""
    asked = {name: value for name, value in settings.items() if name in WorkerRequest.model_fields}
    others = {name: value for name, value in settings.items() if name not in asked}
    return validate(WorkerRequest, asked, where="workers").resolve(), others


def _texts(named: _Location | Sequence[_Location]) -> list[str]:
    return [os.fspath(one) for one in ([named] if isinstance(named, str | Path) else named)]


def _with_store(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the store as text; one purified version as a list of one."""
    given = dict(settings)
    if given.get("store") is not None:
        given["store"] = os.fspath(given["store"])
    if isinstance(given.get("purified"), str):
        given["purified"] = [given["purified"]]
    return given
