"""Versions: immutable lists of purified shards; tags: movable names for them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from zipbatch import atomic, storage
from zipbatch.errors import DataError, UsageError
from zipbatch.storage import StoragePath
from zipbatch.store.attestation import signature_name
from zipbatch.store.contents import StoreContents
from zipbatch.store.files import LostObjectsError, StoredFile, check_name
from zipbatch.store.headers import MAX_HEADER_BYTES, VersionHeader, read_header
from zipbatch.store.identity import task_key
from zipbatch.store.lists import MAX_BYTES, unpacked_lines
from zipbatch.store.removals import Removals, claimed, lost_objects
from zipbatch.store.rows import VersionRow, count_rows, pack_rows, parse_rows
from zipbatch.store.seal import sealed
from zipbatch.store.tags import ID_DIGITS, LATEST, VERSION_ID, Tags

log = logging.getLogger(__name__)
_LIST = ".jsonl.gz"


@dataclass(frozen=True)
class Version:
    """A version read whole. ``written_ns``: when its header was, by its file; its objects were there before."""

    header: VersionHeader
    rows: tuple[VersionRow, ...]
    written_ns: int = field(default=0, compare=False)

    @property
    def reference(self) -> str:
        """``dataset@version``."""
        return f"{self.header.dataset}@{self.header.version}"


class _Id:
    """A version's id while its list passes by: the digest of the canonical JSON of the whole, which nobody holds."""

    def __init__(self, dataset: str) -> None:
        self._digest = hashlib.sha256(b'{"dataset":%s,"list":[' % atomic.canonical_json(dataset))

    def passing(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines, each of which becomes part of the id."""
        for number, line in enumerate(lines):
            self._digest.update(b"," + line if number else line)
            yield line

    def of(self, identity: dict[str, Any], trial: dict[str, int] | None) -> str:
        """The id, after the last line; once."""
        self._digest.update(b'],"purifier":%s' % atomic.canonical_json(identity))
        self._digest.update(b"}" if trial is None else b',"trial":%s}' % atomic.canonical_json(trial))
        return self._digest.hexdigest()[:ID_DIGITS]


def version_id(
    dataset: str, identity: dict[str, Any], rows: Sequence[VersionRow], *, trial: dict[str, int] | None = None
) -> str:
    """Digest of (dataset, purifier identity, ordered list), without times: repeating a run gives the same id.

    A trial has another one than a whole version of the same list.
    """
    found = _Id(dataset)
    for _ in found.passing(row.line()[:-1] for row in rows):
        pass
    return found.of(identity, trial)


def parse_reference(text: str) -> tuple[str, str]:
    """``NAME@TAG-OR-VERSION`` -> (name, tag or version); without ``@`` the tag is ``latest``."""
    name, _, tag = text.partition("@")
    return check_name(name, "dataset"), check_name(tag or LATEST, "tag")


class Versions:
    """The versions of a store, and the tags that name them."""

    def __init__(self, store: StoreContents, tags: Tags) -> None:
        self._store, self.tags = store, tags
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
            LostObjectsError: an object of the list is not in the store.
        """
        name, outputs = _list_name(header.dataset, header.version), [name for row in rows for name in row.objects]
        removals, reference = Removals(self._store), f"{header.dataset}@{header.version}"
        removals.await_end(reference, ())  # who begins later to remove versions sees the claim
        sound = self._is_sound(header, rows)
        if not sound:
            self._store.write_file(name, pack_rows(rows))
        removals.await_end(reference, outputs)  # who begins later to remove objects sees the list
        doubted: Collection[str] = outputs
        if sound:  # plans trust what is older than its header
            written_ns = storage.stamp(self._header_path(header.dataset, header.version)).touched_ns
            doubted = lost_objects(self._store, outputs, since_ns=written_ns)
        if doubted and (lost := lost_objects(self._store, doubted)):
            row = next(row for row in rows if not lost.isdisjoint(row.objects))
            reason = f"object {row.output} (or its quarantine) is not in the store (any more); run again"
            raise LostObjectsError(row.shard, reason)
        if not sound:
            storage.put_json(self._header_path(header.dataset, header.version), sealed(header.model_dump(mode="json")))
        elif doubted:
            self._renew(header, [row for row in rows if not set(row.objects).isdisjoint(doubted)])
        return not sound

    def _renew(self, header: VersionHeader, doubted: Sequence[VersionRow]) -> None:
        """Write a header again as it is, though something was done to objects of its list since, where younger records
        say that they were read and found sound.
        """
        path = self._header_path(header.dataset, header.version)
        keys = [task_key(row.input, header.purifier) for row in doubted]
        try:
            if all(record is not None for record in storage.each(self._store.tasks.read, keys, at=self._root)):
                storage.put_bytes(path, storage.read_bytes(path, limit=MAX_HEADER_BYTES))
        except OSError as error:
            log.debug("%s: not written again: %s", path, error)  # it costs the next run another look

    def _is_sound(self, header: VersionHeader, rows: Sequence[VersionRow]) -> bool:
        """Whether the version on disk is the one that was asked for; a damaged one is to be written again."""
        try:
            return self.read_id(header.dataset, header.version).rows == tuple(rows)
        except (DataError, FileNotFoundError):
            return False

    def read(self, reference: str) -> Version:
        """The version behind ``NAME@TAG``, ``NAME@VERSION`` or ``NAME`` (latest).

        Raises:
            UsageError: no such dataset, tag or version; says what there is.
            DataError: its files are damaged.
        """
        dataset, version = self.resolve(reference)
        try:
            return self.read_id(dataset, version)
        except FileNotFoundError as error:
            raise UsageError(f"{reference}: was removed meanwhile; {self.what_there_is(dataset)}") from error

    def read_id(self, dataset: str, version: str) -> Version:
        """The version of that id, whose header and list must be what the id is the digest of.

        Raises:
            FileNotFoundError: it has no header.
            DataError: its files are damaged, or another version's.
        """
        path, found = self._header_path(dataset, version), _Id(dataset)
        header = self.header(dataset, version)
        rows = self._rows(dataset, version, found)
        if found.of(header.purifier, header.trial) != version:
            raise DataError(path, "damaged version: its id is not that of its purifier and list")
        if (count_rows(rows), sum(row.quarantined for row in rows)) != (header.counts, header.quarantined):
            raise DataError(path, "damaged version: its counts are not those of its list")
        return Version(header, rows, storage.stamp(path).touched_ns)

    def header(self, dataset: str, version: str) -> VersionHeader:
        """The header of a version, without its list.

        Raises:
            FileNotFoundError: it is not there.
            DataError: it is damaged, or another version's.
        """
        path = self._header_path(dataset, version)
        try:
            header = read_header(path)
        except FileNotFoundError:
            raise
        except (ValueError, OSError) as error:
            raise DataError(path, f"damaged version: {error}") from error
        if (header.dataset, header.version) != (dataset, version):
            raise DataError(path, f"damaged version: its header is that of {header.dataset}@{header.version}")
        return header

    def resolve(self, reference: str) -> tuple[str, str]:
        """(dataset, version id) of a reference, without reading the version.

        Raises:
            UsageError: no such dataset, tag or version; says what there is.
        """
        dataset, wanted = parse_reference(reference)
        if VERSION_ID.fullmatch(wanted) and self._header_path(dataset, wanted).is_file():
            return dataset, wanted
        version = self.tags.read(dataset, wanted) or wanted
        if not self._header_path(dataset, version).is_file():
            self._store.require()
            raise UsageError(f"{reference}: not in {self._root}; {self.what_there_is(dataset)}")
        return dataset, version

    def rows(self, dataset: str, version: str) -> tuple[VersionRow, ...]:
        """A version's list, whether its header is there or not.

        Raises:
            DataError: it is missing or damaged.
        """
        return self._rows(dataset, version, _Id(dataset))

    def _rows(self, dataset: str, version: str, passed: _Id) -> tuple[VersionRow, ...]:
        path = self._header_path(dataset, version)
        try:
            data = self._store.read_file(_list_name(dataset, version), limit=MAX_BYTES)
            if data is None:
                raise DataError(path, "damaged version: its list is missing")
            return parse_rows(passed.passing(unpacked_lines(data)))
        except ValueError as error:
            raise DataError(path, f"damaged version: {error}") from error

    def lists(self) -> Iterator[tuple[str, str, StoredFile]]:
        """(dataset, version, file) of every list, also of those whose header is not there, yet or any more."""
        for file in self._store.list_files("versions"):
            _, dataset, name = (*file.name.split("/"), "", "")[:3]
            if name.endswith(_LIST):
                yield dataset, name.removesuffix(_LIST), file

    def remove(self, dataset: str, version: str) -> None:
        """Remove a version, header first: it exists as long as that is there; its list last, by which gc finds it."""
        self._store.remove_file(f"versions/{dataset}/{version}.json")
        self._store.remove_file(signature_name(dataset, version))
        self._store.remove_file(_list_name(dataset, version))

    def latest(self, dataset: str) -> Version | None:
        """The version tagged ``latest``, None when there is none or it cannot be read."""
        try:
            version = self.tags.read(dataset, LATEST)
            return None if version is None else self.read_id(dataset, version)
        except (UsageError, DataError, FileNotFoundError):
            return None

    def datasets(self) -> list[str]:
        """Names of the datasets that have versions."""
        return [name for name in storage.names_in(self._root / "versions") if self.ids(name)]

    def versions(self, dataset: str) -> list[VersionHeader]:
        """Headers of a dataset's versions, oldest run first.

        Raises:
            DataError: a header is damaged.
        """
        headers = []
        for version in self.ids(dataset):
            try:
                headers.append(self.header(dataset, version))
            except FileNotFoundError:
                continue  # forgotten meanwhile
        return sorted(headers, key=lambda header: (header.started, header.version))

    def ids(self, dataset: str) -> list[str]:
        """Ids of a dataset's versions, damaged ones among them."""
        names = storage.names_in(self._root / "versions" / dataset)
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def _header_path(self, dataset: str, version: str) -> StoragePath:
        return self._root / "versions" / dataset / f"{version}.json"

    def what_there_is(self, dataset: str) -> str:
        """For messages: the tags of a dataset, or the datasets that there are."""
        tags = ", ".join(self.tags.names(dataset))
        if tags:
            return f"{dataset} has the tags {tags}"
        return f"datasets there: {', '.join(self.datasets()) or 'none'}"


def _list_name(dataset: str, version: str) -> str:
    return f"versions/{dataset}/{version}{_LIST}"
