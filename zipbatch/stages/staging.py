"""Staged datasets come into being whole, or not at all."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zipbatch import atomic
from zipbatch.errors import UsageError
from zipbatch.kinds import taken_by
from zipbatch.shards import ShardDataset, open_dataset
from zipbatch.shards.dataset import MANIFEST, SHARD_LIST


def stage_folder(
    out: Path, options: Mapping[str, Any], write: Callable[[Path, Mapping[str, Any]], None]
) -> tuple[ShardDataset, bool]:
    """The staged dataset of these options in ``out``: the one that is there, or a new one.

    Args:
        out: its folder.
        options: everything that decides its bytes, as its manifest holds it.
        write: (folder, options) -> fills the folder, manifest last.

    Returns:
        The dataset, and whether it was there already.

    Raises:
        UsageError: ``out`` holds something else.
    """
    if (out / MANIFEST).is_file() and (out / SHARD_LIST).is_file():
        existing = open_dataset([str(out)])
        if existing.manifest is not None and existing.manifest.options == options:
            return existing, True
        raise UsageError(f"--out {out}: taken by a staged dataset of other settings; choose another --out or remove it")
    try:
        with atomic.whole_folder(out) as folder:
            write(folder, options)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"--out {out}: taken by {taken_by(out)}; choose another --out or remove it") from error
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise UsageError(f"--out {out}: another run has just staged it; run again") from error
    return open_dataset([str(out)]), False
