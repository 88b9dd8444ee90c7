"""The jobs of the command line as calls: fields of their requests as keywords, typed results."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zipbatch.cluster import WorkerRequest
from zipbatch.config import validate
from zipbatch.report.progress import Progress
from zipbatch.stages.assets import source_place
from zipbatch.stages.poison.request import PoisonRequest
from zipbatch.stages.poison.run import PoisonResult
from zipbatch.stages.poison.run import poison as stage
from zipbatch.stages.purify.job import opened_job
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.publish import check_tagged
from zipbatch.stages.purify.request import PurifyRequest
from zipbatch.stages.purify.run import PurifySummary
from zipbatch.stages.purify.run import purify as run_purify

_Location = str | Path


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
        settings: other fields of ``PoisonRequest``, as the flags of ``zipbatch poison``.

    Raises:
        UsageError: source, split or attack unknown, settings that do not fit, ``out`` holds something else.
        DataError: an image or label of the source cannot be read.
    """
    given = {"source": source_place(os.fspath(source)), "attack": attack, "out": out, **settings}
    return stage(validate(PoisonRequest, given, where="poison"), on_progress=on_progress)


def purify(
    sources: _Location | Sequence[_Location],
    *,
    store: _Location,
    gpus: int | None = None,
    workers: int = 0,
    address: str | None = None,
    device: str = "auto",
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    **settings: Any,
) -> PurifySummary:
    """Purify shards into a versioned store: ``zipbatch purify``.

    Args:
        sources: a staged dataset, or shards: files, folders, brace patterns, on a disk or in an object store.
        store: where results are kept, a folder or URL.
        gpus: Ray actors, one pinned to each GPU.
        workers: Ray actors on CPU cores; 0 works in this process.
        address: a running Ray cluster to join.
        device: ``auto``, ``cpu`` or ``cuda``.
        on_progress: called before the work begins, after each shard, and every second or two.
        settings: other fields of ``PurifyRequest``, as the flags of ``zipbatch purify``: ``prior``, ``preset``, …

    Raises:
        UsageError: what is asked cannot be; says what is allowed.
        WorkFailed: some shards failed, or a tag could not be moved; names each with its reason.
    """
    names = [sources] if isinstance(sources, str | Path) else list(sources)
    who = {"gpus": gpus, "workers": None if gpus is not None else workers, "address": address, "device": device}
    request = validate(PurifyRequest, {"store": os.fspath(store), **settings}, where="purify")
    asked = validate(WorkerRequest, who, where="purify")
    job = opened_job([os.fspath(name) for name in names], request, asked.resolve())
    summary = run_purify(plan_purify(job), on_progress=on_progress)
    check_tagged(summary, job.dataset.name, job.tag)
    return summary
