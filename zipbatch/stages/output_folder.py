"""Folders come into being whole, or not at all; a run that was killed can be run again."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zipbatch import atomic, storage
from zipbatch.datasets import ShardDataset, StagedManifest, open_dataset
from zipbatch.datasets.base import CLASSES
from zipbatch.datasets.companions import EDITED
from zipbatch.datasets.opening import MAX_MANIFEST_BYTES
from zipbatch.datasets.staged import MANIFEST, SHARD_LIST, TRIGGER, TRIGGER_PICTURE
from zipbatch.errors import UsageError
from zipbatch.kinds import taken_by
from zipbatch.spelling import setting

log = logging.getLogger(__name__)


def stage_folder(
    out: Path, options: Mapping[str, Any], write: Callable[[Path, Mapping[str, Any]], None]
) -> tuple[ShardDataset, bool]:
    """The staged dataset of these options in ``out``: the one that is there, or a new one.

    Of one that is there but not whole any more, the files are made anew, but for what people add to.

    Args:
        out: its folder.
        options: everything that decides its bytes, as its manifest holds it.
        write: (folder, options) -> fills the folder, manifest last.

    Returns:
        The dataset, and whether it was there already.

    Raises:
        UsageError: ``out`` holds something else.
    """
    there = staged_manifest(out)
    if there is not None and there.options == options:
        if (existing := whole_dataset(out)) is not None and _is_as_listed(existing):
            return existing, True
        log.warning("%s: files are missing or damaged; staging them again", out)
        with atomic.mended_folder(out, last=MANIFEST, keep=EDITED) as folder:
            write(folder, options)
        return open_dataset([str(out)]), False
    if there is not None and (out / SHARD_LIST).is_file():
        raise UsageError(
            f"{setting('out', out)}: taken by a staged dataset of other settings; choose another ‹out› or remove it"
        )
    taken = f"{setting('out', out)}: taken by {taken_by(out)}; choose another ‹out› or remove it"
    new_folder(out, lambda folder: write(folder, options), taken=taken)
    return open_dataset([str(out)]), False


def new_folder(out: Path, write: Callable[[Path], None], *, taken: str) -> None:
    """Let ``write`` fill a folder that becomes ``out`` when it is whole.

    Raises:
        UsageError: something else is there, with the text ``taken``; or another run has made it meanwhile.
    """
    try:
        with atomic.whole_folder(out) as folder:
            write(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(taken) from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise UsageError(f"{out}: something is mounted there; name a new folder in it") from error
        if error.errno != errno.ENOTEMPTY:
            raise
        raise UsageError(f"{out}: another run has just made it; run again") from error


def staged_manifest(folder: Path) -> StagedManifest | None:
    """The manifest of a staged folder, whatever has become of its other files; None where there is none, or another's.

    Raises:
        UsageError: it is damaged.
    """
    file = folder / MANIFEST
    try:
        return StagedManifest.model_validate_json(storage.read_bytes(file, limit=MAX_MANIFEST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        if not (folder / SHARD_LIST).is_file():
            return None  # the manifest of something else
        raise UsageError(f"{file}: not a staged dataset of this version; remove {folder} to stage it anew") from error


def whole_dataset(folder: Path) -> ShardDataset | None:
    """The staged dataset in a folder, None unless all that staging publishes is there: shards, classes, trigger."""
    try:
        dataset = open_dataset([str(folder)])
    except UsageError:
        return None
    if dataset.manifest is None or not (folder / CLASSES).is_file():
        return None
    trigger = dataset.manifest.attack.trigger_sha256
    return dataset if trigger is None or _has_trigger(folder, trigger) else None


def _is_as_listed(dataset: ShardDataset) -> bool:
    """Whether every shard has the bytes that the manifest lists."""
    found = storage.each(lambda shard: storage.sha256(shard.path), dataset.shards, at=dataset.shards[0].path)
    return all(sha256 == shard.sha256 for sha256, shard in zip(found, dataset.shards, strict=True))


def _has_trigger(folder: Path, sha256: str) -> bool:
    arrays, picture = folder / TRIGGER, folder / TRIGGER_PICTURE
    return arrays.is_file() and picture.is_file() and atomic.sha256_file(arrays) == sha256
