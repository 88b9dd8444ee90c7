"""What a file system may lack that a run can do without: locks (Lustre without ``-o flock``, some NFS), the syncing of
folders and permissions (some CIFS and FUSE). Where the system says that it has none, the run goes on and says so once;
any other error is one, and names its file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
_UNSUPPORTED_OF_FOLDERS = _UNSUPPORTED | {errno.EBADF, errno.EISDIR}
_told: set[tuple[str, int]] = set()


def lock(stream: IO[Any], path: Path, *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file until it is closed.

    Args:
        stream: the file.
        path: its name, for messages.
        shared: beside others that share it.
        wait: until nobody else holds it.

    Returns:
        Whether it is held; False where the file system has no locks.

    Raises:
        BlockingIOError: somebody else holds it, and ``wait`` is False.
        OSError: it cannot be locked.
    """
    flags = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    with _doing_without("locks", path, _UNSUPPORTED):
        fcntl.flock(stream.fileno(), flags)
        return True
    return False


def sync(path: Path) -> None:
    """Have the bytes of a file on disk."""
    with _doing_without("fsync", path, _UNSUPPORTED):
        _fsync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Make renames within a folder durable."""
    with _doing_without("fsync of folders", folder, _UNSUPPORTED_OF_FOLDERS):
        _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)


def make_read_only(path: Path) -> None:
    """Take everyone's right to write to a file; replacing and removing it is a matter of its folder."""
    with _doing_without("permissions", path, _UNSUPPORTED | {errno.EPERM}):
        path.chmod(path.stat().st_mode & 0o7444)


def _fsync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _doing_without(what: str, path: Path, unsupported: frozenset[int]) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in unsupported:
            error.filename = error.filename or str(path)
            raise
        _tell(what, path)


def _tell(what: str, path: Path) -> None:
    """Once for each file system of a process."""
    try:
        device = path.stat().st_dev
    except OSError:
        device = 0
    if (what, device) not in _told:
        _told.add((what, device))
        log.warning("%s: its file system has no %s; going on without", path.parent, what)
