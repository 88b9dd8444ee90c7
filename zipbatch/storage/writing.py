"""Write to a path or URL: whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from zipbatch import atomic, filesystem
from zipbatch.errors import WorkFailed
from zipbatch.storage import cache
from zipbatch.storage.path import StoragePath, Url
from zipbatch.storage.reading import beginning

_UPDATES = 20
MAX_UPDATED_BYTES = 1 << 16


def put_bytes(target: StoragePath, data: bytes) -> None:
    """Publish ``data``, whole or not at all."""
    if isinstance(target, Url):
        target.client.put(target.text, data)
    else:
        atomic.write_bytes(target, data)


def put_json(target: StoragePath, value: object) -> None:
    """Publish ``value`` as indented JSON that people can read."""
    put_bytes(target, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def put_file(temp: Path, target: StoragePath) -> None:
    """Publish a finished file, whole or not at all: ``temp`` from ``workbench(target.parent)`` is gone afterwards."""
    if isinstance(target, Url):
        target.client.put_file(target.text, temp)
        temp.unlink()
    else:
        atomic.publish(temp, target)


def workbench(folder: StoragePath) -> Path:
    """Where files for ``folder`` are made: in it, or in the cache for those that are sent away when they are done."""
    return folder if isinstance(folder, Path) else cache.folder() / "outgoing"


def update(target: StoragePath, decide: Callable[[bytes | None], bytes | None]) -> None:
    """Let ``decide`` turn the present content (None: missing) into the next one (None: leave it).

    Of content that has grown over ``MAX_UPDATED_BYTES`` it is shown the beginning.

    Nobody else's update comes in between, and ``decide`` may be asked again: a lock file beside a local file, a
    conditional put on S3. Other object stores, and S3 servers without conditional puts, leave a window between the look
    and the put.
    """
    if isinstance(target, Url):
        _update_object(target, decide)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("wb") as lock:
        filesystem.lock(lock, Path(lock.name))
        present = beginning(target, MAX_UPDATED_BYTES) if target.is_file() else None
        if (new := decide(present)) is not None:
            atomic.write_bytes(target, new)


def remove_if(target: StoragePath, wanted: Callable[[], bool]) -> None:
    """Remove a file, which need not be there, if ``wanted`` says so while nobody can ``update`` it; on an object store
    that leaves a window between the look and the removal.
    """
    if isinstance(target, Url):
        if wanted():
            target.unlink(missing_ok=True)
    elif target.parent.is_dir():
        with (target.parent / ".lock").open("wb") as lock:
            filesystem.lock(lock, Path(lock.name))
            if wanted():
                target.unlink(missing_ok=True)


def _update_object(target: Url, decide: Callable[[bytes | None], bytes | None]) -> None:
    for _ in range(_UPDATES):
        etag, present = _present(target)
        new = decide(present)
        if new is None or target.client.put_unless_changed(target.text, new, etag):
            return
    raise WorkFailed(f"{target}: others keep changing it; run again")


def _present(target: Url) -> tuple[str | None, bytes | None]:
    """The ETag first: content that is newer than it makes the conditional put fail, as it should."""
    try:
        return str(target.client.info(target.text).get("ETag", "")), beginning(target, MAX_UPDATED_BYTES)
    except FileNotFoundError:
        return None, None


def make_writable(root: StoragePath, folders: Iterable[str]) -> list[Path]:
    """Make ``folders`` below ``root`` where there are such things, and show that ``root`` can be written.

    Returns:
        The local folders that were not there before.

    Raises:
        OSError: it cannot be written.
        UsageError: an object store refuses.
    """
    if isinstance(root, Url):
        probe = root / ".zipbatch-writable"  # one name for all: what a killed run leaves of it, the next one removes
        put_bytes(probe, b"")
        probe.unlink(missing_ok=True)
        return []
    made = [folder for name in folders for folder in atomic.make_folder(root / name)]
    temp = atomic.temp_path(root)
    temp.touch()
    temp.unlink()
    return made
