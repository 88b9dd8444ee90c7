"""Publish files whole or not at all: temp name on the same filesystem, fsync, rename, fsync the folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from zipbatch import filesystem

TEMP_PREFIX = ".tmp-"
ABANDONED_S = 86_400.0
"""Since when nobody has written to a temp file that is taken for abandoned where no locks tell."""
_MARK = ".lock"
_TEMP_FOLDER = re.compile(re.escape(TEMP_PREFIX) + r"\d+-[0-9a-f]{12}")
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def temp_path(folder: Path) -> Path:
    """A fresh temp name in ``folder``, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{TEMP_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; the ones that were missing, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def hold(stream: BinaryIO) -> None:
    """Mark an open temp file as in use by this process, for ``sweep``; ends with the process at the latest."""
    filesystem.lock(stream, Path(stream.name), wait=False)


def sweep(folder: Path, *, older_than_s: float = 600.0) -> None:
    """Remove temp files right in ``folder`` that nobody holds and that were not written to for a while, or, where there
    are no locks to tell, for ``ABANDONED_S``.
    """
    for path in folder.glob(f"{TEMP_PREFIX}*"):
        try:
            with path.open("rb") as stream:
                free = filesystem.lock(stream, path, wait=False)
                if time.time() - path.stat().st_mtime > (older_than_s if free else max(older_than_s, ABANDONED_S)):
                    path.unlink()
        except OSError:
            continue  # held by a run, or gone already


def sweep_folders(folder: Path, *, older_than_s: float = 600.0) -> None:
    """Remove what killed runs left of ``whole_folder`` beside their target, by the same rule as ``sweep``.

    ``folder`` may be anybody's: only names as ``temp_path`` makes them are taken for ours.
    """
    for path in folder.glob(f"{TEMP_PREFIX}*"):
        if not _TEMP_FOLDER.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        try:
            silent_s = time.time() - _last_write(path)
            if silent_s <= older_than_s:
                continue
            with path.with_name(path.name + _MARK).open("ab") as mark:
                if filesystem.lock(mark, Path(mark.name), wait=False) or silent_s > ABANDONED_S:
                    shutil.rmtree(path)
                    Path(mark.name).unlink()
        except OSError:
            continue  # held by a run, or gone already


def _last_write(folder: Path) -> float:
    """When a folder was last written to. Files in it may be links to old ones, folders tell when names came in."""
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def publish(temp: Path, final: Path) -> None:
    """Move the finished ``temp`` file to ``final`` in one step. Its bytes are on disk before its name is."""
    filesystem.sync(temp)
    final.parent.mkdir(parents=True, exist_ok=True)
    temp.replace(final)
    filesystem.sync_folder(final.parent)


def write_with(final: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let ``write`` fill a temp file, then publish it as ``final``. Nothing appears when ``write`` raises."""
    temp = temp_path(final.parent)
    try:
        with _named(final):
            with temp.open("xb") as stream:
                write(stream)
            publish(temp, final)
    finally:
        temp.unlink(missing_ok=True)


def write_bytes(final: Path, data: bytes) -> None:
    """Publish ``data`` as ``final``."""

    def write(stream: BinaryIO) -> None:
        stream.write(data)

    write_with(final, write)


def write_json(final: Path, value: object) -> None:
    """Publish ``value`` as indented JSON that people can read."""
    write_bytes(final, (readable_json(value) + "\n").encode())


def readable_json(value: object, *, encoding: str = "utf-8") -> str:
    """Indented JSON, its characters as they are, or all escaped where ``encoding`` lacks one: half a surrogate of a
    file's name that is not UTF-8, say.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


def canonical_json(value: object) -> bytes:
    """One byte string per value: sorted keys, no spaces, no NaN. What digests are taken of."""
    return _canonical(value).encode()


def sha256_json(value: object) -> str:
    """Hex SHA-256 of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A temp folder that becomes ``final`` only when the block ends well; on any exception it is removed.

    Raises:
        FileExistsError: ``final`` exists already and is not an empty folder.
    """
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise FileExistsError(f"{final} exists already")
    with _named(final), _temp_folder(final.parent) as temp:
        yield temp
        for file in temp.rglob("*"):
            if file.is_file():
                filesystem.sync(file)
        if final.exists():
            final.rmdir()
        temp.rename(final)
        filesystem.sync_folder(final.parent)


@contextmanager
def mended_folder(final: Path, *, last: str, keep: Collection[str] = ()) -> Iterator[Path]:
    """A temp folder whose files take the places of those in ``final`` when the block ends well, ``last`` last. Those
    called as ``keep`` says take nobody's place.

    For a folder of which files are missing or damaged, and whose other files are to stay. A kill leaves some of them
    replaced, and ``last``, which tells what the folder is, as it was: the next run mends it.
    """
    with _named(final), _temp_folder(final.parent) as temp:
        yield temp
        for file in sorted(temp.iterdir(), key=lambda file: (file.name == last, file.name)):
            if file.name not in keep or not (final / file.name).exists():
                publish(file, final / file.name)


@contextmanager
def _temp_folder(parent: Path) -> Iterator[Path]:
    """A temp folder, held and in the end removed; before it is made, what killed runs left of theirs goes."""
    temp = temp_path(parent)
    sweep_folders(parent)
    with _held(temp.with_name(temp.name + _MARK)):
        temp.mkdir()
        try:
            yield temp
        finally:
            shutil.rmtree(temp, ignore_errors=True)


@contextmanager
def _named(final: Path) -> Iterator[None]:
    """Have it said what was being made when the room for it ran out: errors of writing know no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            error.filename = str(final)
        raise


@contextmanager
def _held(mark: Path) -> Iterator[None]:
    """A file that is held while the block lasts: it stands for a folder, which not every file system can lock."""
    with mark.open("xb") as stream:
        try:
            hold(stream)
            yield
        finally:
            mark.unlink(missing_ok=True)
