"""A lock on one dataset of a store, for runs that are not to overlap; the store itself needs none.

The kernel holds the lock (``flock``), not the file: it ends with the process that took it, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from zipbatch.errors import UsageError
from zipbatch.logs import utc
from zipbatch.storage import StoragePath, cache


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who took a lock: ``run`` is the id of its run, ``since`` the time in UTC."""

    host: str
    pid: int
    since: str
    run: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since} (run {self.run})"


def lock_file(store: StoragePath, dataset: str) -> Path:
    """Where the lock of a dataset lies: in a local store, or for a store at a URL below the user's home.

    The latter keeps apart the runs of one user, on the hosts that share that home.
    """
    if isinstance(store, Path):
        return store.absolute() / "locks" / f"{dataset}.lock"
    key = hashlib.sha256(f"{store}\n{dataset}".encode()).hexdigest()
    return cache.home() / ".cache" / "zipbatch" / "locks" / f"{key[:32]}.lock"


class RunLock:
    """The lock in a file, which stays when the lock is let go: a file that can be removed can be held twice."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._held: BinaryIO | None = None

    def take(self, *, run: str, now: float) -> bool:
        """Take the lock for a run; False when another process has it.

        Raises:
            UsageError: the file cannot be written, or its file system has no locks.
        """
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            stream = os.fdopen(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
            try:
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                stream.close()
                if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                    return False
                raise
            holder = Holder(host=socket.gethostname(), pid=os.getpid(), since=utc(now), run=run)
            stream.truncate()
            stream.write(json.dumps(asdict(holder)).encode() + b"\n")
            stream.flush()
        except OSError as error:
            raise UsageError(f"‹lock›: {self._file} cannot be locked ({error.strerror}); run without ‹lock›") from error
        self._held = stream
        return True

    def holder(self) -> Holder | None:
        """Who took the lock last; None when that is not to be read."""
        with suppress(OSError, ValueError, TypeError, RecursionError):
            return Holder(**json.loads(self._file.read_bytes()[:4096]))
        return None

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        if self._held is not None:
            self._held.close()
            self._held = None
