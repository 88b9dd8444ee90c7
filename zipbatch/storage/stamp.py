"""What tells one content of a file from the next without reading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from zipbatch.errors import UsageError

_FIELDS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "updated", "mtime", "modified", "created")


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Files with equal stamps hold the same bytes.

    Attributes:
        size: bytes.
        changed: modification time in ns, or what an object store has for it: an ETag, a generation, a time.
        inode: of a local file: another one has been put in its place where it differs.
        status_ns: of a local file, when anything about it changed (``ctime``), which no program can set back.
        modified_s: when it was written, seconds since the epoch; None where nobody knows. Not compared.
    """

    size: int
    changed: int | str
    inode: int = 0
    status_ns: int = 0
    modified_s: float | None = field(default=None, compare=False)

    @property
    def touched_ns(self) -> int:
        """When it was last written, renamed or linked to, ns since the epoch; 0 where nobody knows."""
        return max(self.status_ns, int((self.modified_s or 0) * 1e9))


def stamp_of(info: Mapping[str, Any]) -> Stamp:
    """The stamp of an object, from what fsspec tells of it.

    Raises:
        UsageError: it says nothing that would change with the content.
    """
    changed = next((str(info[name]) for name in _FIELDS if info.get(name)), None)
    if changed is None or info.get("size") is None:
        raise UsageError(f"{info.get('name', 'object')}: its store tells neither ETag nor time; copy it to a disk")
    times = (info.get(name) for name in ("LastModified", "updated", "mtime", "created"))
    written = next((time.timestamp() for time in times if isinstance(time, datetime)), None)
    return Stamp(size=int(info["size"]), changed=changed, modified_s=written)
