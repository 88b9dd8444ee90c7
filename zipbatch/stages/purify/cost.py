"""What a purified version took, an image: network calls and seconds, as the records of its shards tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from zipbatch import storage
from zipbatch.purifiers import PURIFIERS
from zipbatch.results import Cost
from zipbatch.stages.purify.identity import steps_of
from zipbatch.store import Store, TaskRecord, Version, VersionHeader, VersionRow, task_key

_NAMED = 3


def cost_of(version: Version, store: Store, shards: Collection[str]) -> Cost:
    """What a version's shards took.

    Only what was measured when they were made is told: ``calls_least`` and ``calls_most`` of the prior an image,
    ``seconds_per_image`` of one CPU core or one GPU, without reading and writing, and ``seconds_on`` which. Seconds are
    None where a shard's are not known (it was made before they were measured, or elsewhere), and where several machines
    worked, which ``seconds_on`` then names. ``purified_first`` and ``purified_last`` are when shards were done, UTC.

    Args:
        version: a purified version.
        store: where it is.
        shards: names of those that count.
    """
    rows = [row for row in version.rows if row.shard in shards]
    keys = [task_key(row.input, version.header.purifier) for row in rows]
    found = storage.each(store.tasks.record, keys, at=store.root)
    records = [_of(row, record) for row, record in zip(rows, found, strict=True)]
    known = [record for record in records if record is not None]
    least, most = _calls(version.header, known)
    times = sorted(record.made for record in known if record.made is not None)
    whole = len(known) == len(rows) and all(record.busy_s is not None for record in known)
    machines = sorted({_machine(record) for record in known}) if whole else []
    return Cost(
        calls_least=least,
        calls_most=most,
        seconds_per_image=_seconds(known) if len(machines) == 1 else None,
        seconds_on=_told(machines),
        purified_first=times[0] if whole and times else None,
        purified_last=times[-1] if whole and times else None,
    )


def _of(row: VersionRow, record: TaskRecord | None) -> TaskRecord | None:
    """A record of the very object that a row lists: the same work may have been done again since, elsewhere."""
    return record if record is not None and record.output_sha256 == row.output else None


def _calls(header: VersionHeader, records: Sequence[TaskRecord]) -> tuple[int | None, int | None]:
    """All records of a purifier tell the same; one that needs no prior makes none."""
    if told := next((record.calls for record in records if record.calls is not None), None):
        return told
    methods = [step["method"] for step in steps_of(header.purifier)]
    free = all(method in PURIFIERS and not PURIFIERS[method].needs_prior for method in methods)
    return (0, 0) if free else (None, None)


def _seconds(records: Sequence[TaskRecord]) -> float | None:
    images = sum(record.samples_out for record in records)
    return sum(record.busy_s or 0.0 for record in records) / images if images else None


def _machine(record: TaskRecord) -> str:
    """GPUs of a kind are alike; CPUs have no name but their machine's."""
    return record.device if record.device != "cpu" else f"cpu of {record.worker.get('host', 'an unknown machine')}"


def _told(machines: Sequence[str]) -> str | None:
    if len(machines) <= 1:
        return machines[0] if machines else None
    more = f" and {len(machines) - _NAMED} more" if len(machines) > _NAMED else ""
    return f"several: {', '.join(machines[:_NAMED])}{more}"
