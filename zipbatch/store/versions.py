"""Versions: immutable lists of purified shards; tags: movable names for them."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from zipbatch import atomic
from zipbatch.errors import DataError, UsageError
from zipbatch.store.removals import Removals, claimed
from zipbatch.store.rows import VersionRow, pack_rows, unpack_rows
from zipbatch.store.store import Store, StoredFile, check_name

LATEST = "latest"
_ID_DIGITS = 20
_LIST = ".jsonl.gz"


class Origin(BaseModel):
    """Where the shards of a version came from, as the run that published it first saw it.

    ``computed`` by that run, reused from the ``parent`` version's list, or found in the ``store`` by their task keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    computed: int
    parent: int
    store: int


class VersionHeader(BaseModel):
    """``<version>.json``: what the version is and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: Literal[1] = 1
    dataset: str
    version: str
    purifier: dict[str, Any]
    prior_sha256: str | None
    seed: int | None
    counts: dict[str, dict[str, int]]
    quarantined: int
    parent: str | None
    origin: Origin | None = None
    started: str
    zipbatch: str

    @property
    def started_s(self) -> float:
        """When its run started, seconds since 1970."""
        try:
            return datetime.fromisoformat(self.started).timestamp()
        except ValueError as error:
            raise DataError(f"{self.dataset}@{self.version}", f"damaged version: started {self.started!r}") from error


@dataclass(frozen=True)
class Version:
    """A version read whole."""

    header: VersionHeader
    rows: tuple[VersionRow, ...]

    @property
    def reference(self) -> str:
        """``dataset@version``."""
        return f"{self.header.dataset}@{self.header.version}"


def version_id(dataset: str, identity: dict[str, Any], rows: Sequence[VersionRow]) -> str:
    """Digest of (dataset, purifier identity, ordered list), without times: repeating a run gives the same id."""
    digest = hashlib.sha256(b'{"dataset":%s,"list":[' % atomic.canonical_json(dataset))
    for number, row in enumerate(rows):  # canonical JSON of the whole, without holding it
        digest.update(b"," + row.line()[:-1] if number else row.line()[:-1])
    digest.update(b'],"purifier":%s}' % atomic.canonical_json(identity))
    return digest.hexdigest()[:_ID_DIGITS]


def parse_reference(text: str) -> tuple[str, str]:
    """``NAME@TAG-OR-VERSION`` -> (name, tag or version); without ``@`` the tag is ``latest``."""
    name, _, tag = text.partition("@")
    return check_name(name, "dataset"), check_name(tag or LATEST, "tag")


class Versions:
    """The versions and tags of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = store.root

    def claim(self, dataset: str, version: str) -> AbstractContextManager[None]:
        """Hold a version against ``gc`` while it is published and tagged."""
        return claimed(self._store, dataset, version)

    def publish(self, header: VersionHeader, rows: Sequence[VersionRow]) -> bool:
        """Write a version, list first, header last; a sound version that is there already is left alone.

        The list keeps its objects from being removed from the moment that it is there (``removals.py``). Call it with
        the version claimed, or ``gc`` may remove the version before a tag keeps it.

        Returns:
            Whether it is new.

        Raises:
            DataError: an object of the list is not in the store.
        """
        name, outputs = _list_name(header.dataset, header.version), [row.output for row in rows]
        removals, reference = Removals(self._store), f"{header.dataset}@{header.version}"
        removals.await_end(reference, ())  # who begins later to remove versions sees the claim
        sound = self._is_sound(header, rows)
        if not sound:
            self._store.write_file(name, pack_rows(rows))
        removals.await_end(reference, outputs)  # who begins later to remove objects sees the list
        if lost := self._lost(outputs, removals):
            shard = next(row.shard for row in rows if row.output in lost)
            raise DataError(shard, f"object {next(iter(lost))} is not in the store; run again")
        if not sound:
            atomic.write_json(self._header_path(header.dataset, header.version), header.model_dump(mode="json"))
        return not sound

    def _lost(self, outputs: Sequence[str], removals: Removals) -> set[str]:
        """Those that are not there. One that a note names is looked for by all means."""
        doubted = removals.named().intersection(outputs)
        return self._store.lost_objects(outputs) | {sha256 for sha256 in doubted if not self._store.has_object(sha256)}

    def _is_sound(self, header: VersionHeader, rows: Sequence[VersionRow]) -> bool:
        """Whether the version on disk is the one that was asked for; a damaged one is to be written again."""
        if not self._header_path(header.dataset, header.version).is_file():
            return False
        try:
            return self.read(f"{header.dataset}@{header.version}").rows == tuple(rows)
        except (DataError, UsageError):
            return False

    def read(self, reference: str) -> Version:
        """The version behind ``NAME@TAG``, ``NAME@VERSION`` or ``NAME`` (latest).

        Raises:
            UsageError: no such dataset, tag or version; says what there is.
            DataError: its files are damaged.
        """
        dataset, version = self.resolve(reference)
        path = self._header_path(dataset, version)
        try:
            header = VersionHeader.model_validate_json(path.read_bytes())
        except (ValidationError, ValueError, OSError) as error:
            raise DataError(path, f"damaged version: {error}") from error
        return Version(header, self.rows(dataset, version))

    def resolve(self, reference: str) -> tuple[str, str]:
        """(dataset, version id) of a reference, without reading the version.

        Raises:
            UsageError: no such dataset, tag or version; says what there is.
        """
        dataset, wanted = parse_reference(reference)
        self._store.require()
        version = self.tag(dataset, wanted) or wanted
        if not self._header_path(dataset, version).is_file():
            raise UsageError(f"{reference}: not in {self._root}; {self.what_there_is(dataset)}")
        return dataset, version

    def rows(self, dataset: str, version: str) -> tuple[VersionRow, ...]:
        """A version's list, whether its header is there or not.

        Raises:
            DataError: it is missing or damaged.
        """
        path = self._header_path(dataset, version)
        data = self._store.read_file(_list_name(dataset, version))
        if data is None:
            raise DataError(path, "damaged version: its list is missing")
        try:
            return unpack_rows(data)
        except ValueError as error:
            raise DataError(path, f"damaged version: {error}") from error

    def lists(self) -> Iterator[tuple[str, str, StoredFile]]:
        """(dataset, version, file) of every list, also of those whose header is not there, yet or any more."""
        for file in self._store.list_files("versions"):
            _, dataset, name = (*file.name.split("/"), "", "")[:3]
            if name.endswith(_LIST):
                yield dataset, name.removesuffix(_LIST), file

    def remove(self, dataset: str, version: str) -> None:
        """Remove a version, header first: it exists as long as that is there."""
        self._store.remove_file(f"versions/{dataset}/{version}.json")
        self._store.remove_file(_list_name(dataset, version))

    def latest(self, dataset: str) -> Version | None:
        """The version tagged ``latest``, None when there is none or it cannot be read."""
        try:
            version = self.tag(dataset, LATEST)
            return None if version is None else self.read(f"{dataset}@{version}")
        except (UsageError, DataError):
            return None

    def tag(self, dataset: str, tag: str) -> str | None:
        """The version id a tag points to, None when there is no such tag.

        Raises:
            DataError: the tag's file does not hold a version id.
        """
        path = self._tag_path(dataset, tag)
        try:
            return check_name(path.read_text(encoding="ascii").strip(), "version")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (UnicodeDecodeError, UsageError) as error:
            raise DataError(path, "damaged tag; run purify again, which moves it") from error

    def move_tag(self, dataset: str, tag: str, version: str, *, started_ns: int) -> bool:
        """Point a tag at a version, unless a run that started later has moved it already.

        The tag file's modification time is the start of the run that moved it.

        Returns:
            Whether the tag now points to ``version``.
        """
        path = self._tag_path(dataset, check_name(tag, "tag"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / ".lock").open("wb") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)  # two runs must not move it between each other's look and move
            return self._move(path, dataset, tag, version, started_ns=started_ns)

    def remove_tag(self, dataset: str, tag: str) -> None:
        """Remove a tag; it need not be there."""
        self._store.remove_file(f"tags/{dataset}/{tag}")

    def _move(self, path: Path, dataset: str, tag: str, version: str, *, started_ns: int) -> bool:
        if path.is_file() and path.stat().st_mtime_ns > started_ns:
            try:
                return self.tag(dataset, tag) == version
            except DataError:
                pass  # a damaged tag is nobody's newer result: put it right
        temp = atomic.temp_path(path.parent)
        try:
            temp.write_text(f"{version}\n")
            os.utime(temp, ns=(started_ns, started_ns))
            atomic.publish(temp, path)
        finally:
            temp.unlink(missing_ok=True)
        return True

    def datasets(self) -> list[str]:
        """Names of the datasets that have versions."""
        return [name for name in _names(self._root / "versions") if self.ids(name)]

    def versions(self, dataset: str) -> list[VersionHeader]:
        """Headers of a dataset's versions, oldest run first.

        Raises:
            DataError: a header is damaged.
        """
        headers = []
        for version in self.ids(dataset):
            path = self._header_path(dataset, version)
            try:
                headers.append(VersionHeader.model_validate_json(path.read_bytes()))
            except FileNotFoundError:
                continue  # forgotten meanwhile
            except ValidationError as error:
                raise DataError(path, f"damaged version: {error}") from error
        return sorted(headers, key=lambda header: (header.started, header.version))

    def ids(self, dataset: str) -> list[str]:
        """Ids of a dataset's versions, damaged ones among them."""
        names = _names(self._root / "versions" / dataset)
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def tags(self, dataset: str) -> dict[str, str]:
        """Tag -> version id of a dataset.

        Raises:
            DataError: a tag's file is damaged.
        """
        found = {tag: self.tag(dataset, tag) for tag in self.tag_names(dataset)}
        return {tag: version for tag, version in found.items() if version is not None}

    def tag_names(self, dataset: str) -> list[str]:
        """Names of a dataset's tags."""
        return _names(self._root / "tags" / dataset)

    def _header_path(self, dataset: str, version: str) -> Path:
        return self._root / "versions" / dataset / f"{version}.json"

    def _tag_path(self, dataset: str, tag: str) -> Path:
        return self._root / "tags" / dataset / tag

    def what_there_is(self, dataset: str) -> str:
        """For messages: the tags of a dataset, or the datasets that there are."""
        tags = ", ".join(self.tag_names(dataset))
        if tags:
            return f"{dataset} has the tags {tags}"
        return f"datasets there: {', '.join(self.datasets()) or 'none'}"


def _list_name(dataset: str, version: str) -> str:
    return f"versions/{dataset}/{version}{_LIST}"


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
