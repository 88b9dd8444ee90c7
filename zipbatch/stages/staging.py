"""Folders come into being whole, or not at all; a run that was killed can be run again."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zipbatch import atomic
from zipbatch.errors import UsageError
from zipbatch.shards import ShardDataset, open_dataset
from zipbatch.shards.dataset import MANIFEST


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
    if (out / MANIFEST).is_file():
        existing = open_dataset([str(out)])
        if existing.manifest is not None and existing.manifest.options == options:
            return existing, True
    taken = f"--out {out}: taken by something else; choose another --out or remove it"
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
