"""Datasets are found where the user says: a staged folder with its manifest, or bare tars from anywhere."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import braceexpand
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zipbatch import storage
from zipbatch.config import problems
from zipbatch.datasets.folders import leads_to_images
from zipbatch.datasets.staged import (
    KNOWN_SPLITS,
    MANIFEST,
    SHARD_LIST,
    ShardDataset,
    ShardRef,
    SplitCounts,
    StagedManifest,
    is_reserved,
)
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath, Url, storage_path
from zipbatch.strays import Tally, is_stray

log = logging.getLogger(__name__)
SUFFIXES = (".tar", ".tar.gz", ".tgz")
BARE_SPLIT = "data"
MAX_MANIFEST_BYTES = 16 * 1024**2
MAX_SHARD_LIST_BYTES = 1024**3
"""Several million shards."""
MAX_EXPANDED = 10_000_000
MAX_NAME_BYTES = 255  # what file systems take
_RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})")
_FIELDS = ("split", "shard", "sha256", "samples", "bytes")
_FIELD_TYPES = (str, str, str, int, int)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHARD_NAME = re.compile(r"^(?P<split>[A-Za-z][A-Za-z0-9_]*?)-\d+\.(?:tar|tar\.gz|tgz)$")


class _ListedShard(BaseModel):
    """A line of ``shards.jsonl``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    split: str
    shard: str
    samples: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


def open_dataset(sources: Sequence[str], *, name: str | None = None) -> ShardDataset:
    """Open a staged folder, a folder of bare tars, or single tars and brace patterns (``day-{000..009}.tar``).

    Each is a path or the URL of an object store. Only folders of bare tars are listed.

    Args:
        sources: one staged folder, or any mix of folders and tars, kept in the order given; a folder's own tars
            come in name order.
        name: the dataset's name; default: the folder's name, or the name of the folder that holds the first tar.

    Raises:
        UsageError: nothing there, no tars in it, a damaged manifest, or two shards with one name.
    """
    if not sources:
        raise UsageError("no input: name a staged folder or shards")
    paths = [path for source in sources for path in expand_places(source)]
    kinds = storage.each(_kind_of, paths, at=paths[0])
    for path, kind in zip(paths, kinds, strict=True):
        if kind is None:
            raise UsageError(f"{path}: no such file or folder")
    staged = [path for path, kind in zip(paths, kinds, strict=True) if kind == "staged"]
    if len(paths) == 1 and staged:
        return _open_staged(paths[0], name)
    if staged:
        raise UsageError(f"{staged[0]}: is a staged dataset and must be the only input; take the others separately")
    folders = [path for path, kind in zip(paths, kinds, strict=True) if kind == "folder"]
    files = [file for path in paths for file in (_tars_in(path) if path in folders else [path])]
    _check_names([file.name for file in files], " ".join(sources))
    root = paths[0] if len(paths) == 1 and folders else None
    folder = root if root is not None else files[0].resolve().parent
    shards = tuple(ShardRef(split=_bare_split(file.name), name=file.name, path=file) for file in files)
    return ShardDataset(name=name or folder.resolve().name, shards=shards, manifest=None, root=root)


def _check_names(names: Sequence[str], where: object) -> None:
    """Names that differ, and that a version's list, JSON in UTF-8, and a line of text can hold."""
    if odd := next((name for name in names if not name.isprintable()), None):
        if any("\ud800" <= letter <= "\udfff" for letter in odd):
            raise UsageError(f"shard {odd!r}: its name is not UTF-8; rename it")
        raise UsageError(f"{where}: shard name {odd!r} has unprintable characters; rename it")
    if len(set(names)) == len(names):
        return
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(
            f"{where}: two shards are named {repeated[0]}; names must differ, take their folders one by one"
        )


def _kind_of(path: StoragePath) -> Literal["staged", "folder", "file"] | None:
    """What is there, the cheapest question first: nearly every path of a long pattern is a shard."""
    if path.name.endswith(SUFFIXES) and path.is_file():
        return "file"
    if (path / MANIFEST).is_file() and (path / SHARD_LIST).is_file():
        return "staged"
    if path.is_dir():
        return "folder"
    return "file" if path.exists() else None


def expand_places(source: str) -> list[StoragePath]:
    """A place, or the places of a brace pattern, absolute; they need not be there.

    Raises:
        UsageError: braces that do not fit together or stand for too many, or a URL that is none.
    """
    if not isinstance(where := storage_path(source), Url):
        return list(expand_paths(str(where)))
    return [storage_path(text) for text in _expanded(str(where))]


def expand_paths(source: str) -> list[Path]:
    """A path, or the paths of a brace pattern, absolute; they need not be there.

    Raises:
        UsageError: braces that do not fit together or stand for too many.
    """
    if Path(source).exists():
        return [Path(source).absolute()]
    return [Path(text).absolute() for text in _expanded(source)]


def _expanded(pattern: str) -> list[str]:
    ends = [(int(low), int(high)) for low, high in _RANGE.findall(pattern)]
    if math.prod(abs(high - low) + 1 for low, high in ends) > MAX_EXPANDED:
        raise UsageError(f"{pattern}: stands for over {MAX_EXPANDED} shards; name their folder instead")
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise UsageError(f"{pattern}: not a path, URL or brace pattern ({error})") from error


def _tars_in(folder: StoragePath) -> list[StoragePath]:
    names = [name for name in storage.names_in(folder) if not is_stray(name)]
    files: list[StoragePath] = [folder / name for name in names if name.endswith(SUFFIXES)]
    if not files:
        raise UsageError(f"{folder}: holds no shards ({', '.join(SUFFIXES)}) and no {MANIFEST}{_of_images(folder)}")
    left = Tally()
    for name in names:
        if not name.endswith(SUFFIXES) and not is_reserved(name):
            left.add(name)
    if left.count:
        log.warning("%s: not taken, for they are no shards (%s): %s", folder, ", ".join(SUFFIXES), left)
    return files


def _of_images(folder: StoragePath) -> str:
    """What to do with a folder that holds images, or folders of images, for a message; nothing where it does not."""
    if not isinstance(folder, Path) or not leads_to_images(folder):
        return ""
    name = folder.name
    return f", but images: 'tar cf {name}.tar -C {name} .' makes a shard of them, 'zipbatch poison' stages them"


def _bare_split(file_name: str) -> str:
    match = _SHARD_NAME.match(file_name)
    return match["split"] if match and match["split"] in KNOWN_SPLITS else BARE_SPLIT


def _open_staged(folder: StoragePath, name: str | None) -> ShardDataset:
    try:
        manifest = StagedManifest.model_validate_json(storage.read_bytes(folder / MANIFEST, limit=MAX_MANIFEST_BYTES))
        shard_list = _bounded(folder / SHARD_LIST, MAX_SHARD_LIST_BYTES)
        with storage.local_copy(shard_list, cached=False) as file, file.open("rb") as lines:
            listed = [_listed(line, folder) for line in lines]
    except ValidationError as error:
        raise UsageError(f"{folder / MANIFEST}: not a staged dataset of this version\n{problems(error)}") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{folder / MANIFEST}: not a staged dataset of this version: {error}") from error
    shards = tuple(shard for shard, _ in listed)
    _check_names([shard.name for shard in shards], folder / SHARD_LIST)
    _check_sizes(folder, listed)
    _check_counts(folder, manifest, shards)
    return ShardDataset(name=name or folder.resolve().name, shards=shards, manifest=manifest, root=folder)


def listed_digests(folder: Path) -> dict[StoragePath, str | None]:
    """Path -> digest of the shards that a staged folder lists, be they there or not.

    Raises:
        UsageError: its list is damaged.
    """
    shard_list = folder / SHARD_LIST
    try:
        with _bounded(shard_list, MAX_SHARD_LIST_BYTES).open("rb") as lines:  # type: ignore[union-attr]  # a local one
            return {shard.path: shard.sha256 for shard, _ in (_listed(line, folder) for line in lines)}
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{shard_list}: not the list of a staged dataset: {error}") from error


def _bounded(file: StoragePath, limit: int) -> StoragePath:
    if (size := storage.stamp(file).size) > limit:
        raise ValueError(f"{file.name} has {size} bytes, over the limit of {limit}")
    return file


def _plain(file_name: str) -> str:
    if "/" in file_name or "\0" in file_name or file_name in {"", ".", ".."}:
        raise ValueError(f"shard name {file_name[:200]!r} is a path")
    if len(file_name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"shard name {file_name[:40]!r}… is over {MAX_NAME_BYTES} bytes")
    if is_reserved(file_name):
        raise ValueError(f"shard name {file_name!r} is that of a file beside the shards")
    return file_name


def _listed(line: bytes, folder: StoragePath) -> tuple[ShardRef, int]:
    """A line of the list: the shard, and how many bytes it is to have. A list may have a million lines.

    Raises:
        ValidationError: it is no such line; says why.
        ValueError: the shard's name is a path.
    """
    value = json.loads(line)
    fields: tuple[Any, ...] = ()
    if type(value) is dict and len(value) == len(_FIELDS):
        fields = tuple(map(value.get, _FIELDS))
    if tuple(map(type, fields)) != _FIELD_TYPES or not _DIGEST.fullmatch(fields[2]) or fields[3] < 0 or fields[4] < 0:
        row = _ListedShard.model_validate_json(line)  # for what it says
        fields = (row.split, row.shard, row.sha256, row.samples, row.bytes)
    split, name, sha256, samples, size = fields
    return ShardRef(
        split=sys.intern(split), name=name, path=folder / _plain(name), sha256=sha256, samples=samples
    ), size


def _check_sizes(folder: StoragePath, listed: Sequence[tuple[ShardRef, int]]) -> None:
    def size_of(entry: tuple[ShardRef, int]) -> int | None:
        try:
            if isinstance(folder, Path):  # a Path and a Stamp for each of a million would take as long as all else
                return os.stat(f"{folder}/{entry[0].name}").st_size  # noqa: PTH116
            return storage.stamp(entry[0].path).size
        except OSError:
            return None

    for (shard, expected), size in zip(listed, storage.each(size_of, listed, at=folder), strict=True):
        if size is None:
            raise UsageError(f"{shard.path}: listed in {SHARD_LIST} but missing")
        if size != expected:
            raise UsageError(f"{shard.path}: has {size} bytes, {SHARD_LIST} says {expected}; stage the dataset again")


def _check_counts(folder: StoragePath, manifest: StagedManifest, shards: Iterable[ShardRef]) -> None:
    counted: dict[str, tuple[int, int]] = {}
    for shard in shards:
        number, samples = counted.get(shard.split, (0, 0))
        counted[shard.split] = (number + 1, samples + (shard.samples or 0))
    listed = {split: SplitCounts(shards=number, samples=samples) for split, (number, samples) in counted.items()}
    if listed != manifest.splits:
        raise UsageError(f"{folder / SHARD_LIST}: does not agree with the counts in {MANIFEST}")
