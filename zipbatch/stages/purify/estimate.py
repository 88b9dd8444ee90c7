"""How long a purify may take, from what the store remembers of earlier shards by the same purifier, or else from what
``zipbatch bench`` has measured on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from zipbatch import storage
from zipbatch.cluster import pick_device
from zipbatch.errors import DataError, UsageError
from zipbatch.report.units import about_text
from zipbatch.stages.purify.measured import remembered
from zipbatch.stages.purify.plan import PurifyPlan
from zipbatch.store import TaskRecord, VersionRow, Versions, task_key

_RECORDS = 24
_VERSIONS = 20


@dataclass(frozen=True)
class Estimate:
    """About how many seconds, told from how many ``shards`` that were purified before; None: from a bench."""

    seconds: float
    shards: int | None

    @property
    def text(self) -> str:
        """``about 3 minutes, as 12 shards before took``, ``about 3 minutes, as 'zipbatch bench' measured``."""
        if self.shards is None:
            return f"{about_text(self.seconds)}, as 'zipbatch bench' measured"
        return f"{about_text(self.seconds)}, as {self.shards} shard{'s' * (self.shards > 1)} before took"


def estimate(plan: PurifyPlan) -> Estimate | None:
    """The time that the shards of a plan will take on its workers; None where nothing tells it.

    A record says how long its shard took while its worker had others in hand, as this plan's workers will.
    """
    workers, records = plan.job.workers, _records(plan)
    images, seconds = sum(record.samples_in for record in records), sum(record.seconds for record in records)
    if not plan.tasks:
        return None
    if not images:
        return _from_bench(plan)
    left = plan.images_left
    work = seconds / images * left if left is not None else seconds / len(records) * len(plan.tasks)
    at_once = min(len(plan.tasks), workers.count * workers.in_flight)
    return Estimate(work / at_once, len(records))


def _from_bench(plan: PurifyPlan) -> Estimate | None:
    """Of this machine's own workers; those of a cluster may be any."""
    job, left = plan.job, plan.images_left
    spec, manifest = job.spec, job.dataset.manifest
    side = manifest.image_size if manifest is not None else None if spec.prior is None else spec.prior.image_size
    if left is None or side is None or job.workers.address is not None:
        return None
    device = pick_device("cpu" if job.workers.workers else job.workers.device)
    speed = remembered(spec, device, batch_size=job.settings.batch_size, image_size=side)
    return None if speed is None else Estimate(speed.seconds(left, workers=job.workers.gpus or 1), None)


def _records(plan: PurifyPlan) -> list[TaskRecord]:
    """Some records of the plan's purifier on the kind of device that its workers have."""
    store, workers = plan.job.store, plan.job.workers
    on_cpu = workers.gpus is None and pick_device(workers.device).type == "cpu"
    rows = _spread([*plan.rows.values(), *plan.known.values()]) or _elsewhere(plan)
    keys = [task_key(digest, plan.identity) for digest in dict.fromkeys(row.input for row in rows)]
    found = storage.each(store.tasks.record, keys, at=store.root)
    return [record for record in found if record is not None and (record.device == "cpu") == on_cpu]


def _elsewhere(plan: PurifyPlan) -> list[VersionRow]:
    """Rows of another version by the same purifier. An object store, where each look costs, is not searched."""
    if not isinstance(plan.job.store.root, Path):
        return []
    versions = plan.job.store.versions
    for reference in islice(_alike(versions, plan), _VERSIONS):
        try:
            return _spread(versions.read(reference).rows)
        except (DataError, UsageError):
            continue
    return []


def _alike(versions: Versions, plan: PurifyPlan) -> Iterator[str]:
    for dataset in versions.datasets():
        try:
            headers = versions.versions(dataset)
        except DataError:
            continue
        yield from (f"{dataset}@{h.version}" for h in reversed(headers) if h.purifier == plan.identity)


def _spread(rows: Iterable[VersionRow]) -> list[VersionRow]:
    listed = list(rows)
    return listed[:: max(1, len(listed) // _RECORDS)][:_RECORDS]
