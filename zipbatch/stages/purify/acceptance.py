"""Whether what was made of a shard before is what a run would make now: strict runs take nothing from quarantine."""

from __future__ import annotations

from zipbatch.stages.purify.reading import OTHER_IMAGES
from zipbatch.store import TaskRecord, VersionRow


def acceptable(record: TaskRecord, *, quarantine: bool, keep: bool) -> bool:
    """Whether what a record tells of is what a run with these settings would make, or comes as near as it can."""
    if record.quarantined and not quarantine:
        return False
    if keep:
        return not any(reason.startswith(OTHER_IMAGES) for reason in record.reasons.values())
    return not record.other_images


def acceptable_row(row: VersionRow, *, quarantine: bool, keep: bool) -> bool:
    """The same of a line of a version's list. Why samples are in quarantine only the record says, so that where other
    images are kept it has to be asked.
    """
    if keep:
        return not row.quarantined
    return not row.other_images and (quarantine or not row.quarantined)
