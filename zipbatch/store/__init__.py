"""The ``pur/`` store: content-addressed objects, task records, immutable versions, movable tags."""

from zipbatch.store.answers import ShardAnswers
from zipbatch.store.files import LostObjectsError, check_name
from zipbatch.store.gc import Collected, Garbage, GcPolicy, collect, find_garbage
from zipbatch.store.headers import Origin, VersionHeader
from zipbatch.store.identity import task_key
from zipbatch.store.inputs import RememberedInputs
from zipbatch.store.records import SlotRun, TaskRecord
from zipbatch.store.removals import lost_objects
from zipbatch.store.reused import reused
from zipbatch.store.rows import VersionRow
from zipbatch.store.store import Store
from zipbatch.store.tags import check_tag
from zipbatch.store.verify import Fault, verify
from zipbatch.store.versions import Version, Versions, parse_reference

__all__ = [
    "Collected",
    "Fault",
    "Garbage",
    "GcPolicy",
    "LostObjectsError",
    "Origin",
    "RememberedInputs",
    "ShardAnswers",
    "SlotRun",
    "Store",
    "TaskRecord",
    "Version",
    "VersionHeader",
    "VersionRow",
    "Versions",
    "check_name",
    "check_tag",
    "collect",
    "find_garbage",
    "lost_objects",
    "parse_reference",
    "reused",
    "task_key",
    "verify",
]
