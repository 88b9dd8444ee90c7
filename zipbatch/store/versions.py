"""Versions: immutable lists of purified shards; tags: movable names for them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from zipbatch import atomic, places
from zipbatch.errors import DataError, UsageError
from zipbatch.places import Place
from zipbatch.store.store import Store, check_name

LATEST = "latest"
_ID_DIGITS = 20


class VersionRow(BaseModel):
    """One shard of a version, in the order of the input."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    split: str
    shard: str
    output: str
    input: str
    samples: int


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
    started: str
    zipbatch: str


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
    listed = [row.model_dump(mode="json") for row in rows]
    return atomic.sha256_json({"dataset": dataset, "purifier": identity, "list": listed})[:_ID_DIGITS]


def parse_reference(text: str) -> tuple[str, str]:
    """``NAME@TAG-OR-VERSION`` -> (name, tag or version); without ``@`` the tag is ``latest``."""
    name, _, tag = text.partition("@")
    return check_name(name, "dataset"), check_name(tag or LATEST, "tag")


@dataclass(frozen=True)
class _Tag:
    """A tag's file: the version, and below it when the run that moved it started, ns since the epoch."""

    version: str
    started_ns: int

    @property
    def content(self) -> bytes:
        return f"{self.version}\n{self.started_ns}\n".encode()


def _parse_tag(content: bytes) -> _Tag:
    """Raises ``ValueError`` for a damaged one. Without its second line it is older than any run."""
    version, _, started = content.decode("ascii").strip().partition("\n")
    try:
        return _Tag(check_name(version.strip(), "version"), int(started or 0))
    except UsageError as error:
        raise ValueError(str(error)) from error


class Versions:
    """The versions and tags of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = store.root

    def publish(self, header: VersionHeader, rows: Sequence[VersionRow]) -> bool:
        """Write a version, list first, header last; a sound version that is there already is left alone.

        Returns:
            Whether it is new.

        Raises:
            DataError: an object of the list is not in the store.
        """
        for row, there in zip(rows, self._store.has_objects(row.output for row in rows), strict=True):
            if not there:
                raise DataError(row.shard, f"object {row.output} is not in the store; run again")
        path = self._header_path(header.dataset, header.version)
        if path.is_file() and self._is_sound(header, rows):
            return False
        lines = b"".join(atomic.canonical_json(row.model_dump(mode="json")) + b"\n" for row in rows)
        places.put_bytes(path.with_suffix(".jsonl.gz"), gzip.compress(lines, mtime=0))
        places.put_json(path, header.model_dump(mode="json"))
        return True

    def _is_sound(self, header: VersionHeader, rows: Sequence[VersionRow]) -> bool:
        """Whether the version on disk is the one that was asked for; a damaged one is to be written again."""
        try:
            return self.read(f"{header.dataset}@{header.version}").rows == tuple(rows)
        except DataError:
            return False

    def read(self, reference: str) -> Version:
        """The version behind ``NAME@TAG``, ``NAME@VERSION`` or ``NAME`` (latest).

        Raises:
            UsageError: no such dataset, tag or version; says what there is.
            DataError: its files are damaged.
        """
        dataset, wanted = parse_reference(reference)
        version = self.tag(dataset, wanted) or wanted
        path = self._header_path(dataset, version)
        if not path.is_file():
            self._store.require()
            raise UsageError(f"{reference}: not in {self._root}; {self._what_there_is(dataset)}")
        try:
            header = VersionHeader.model_validate_json(path.read_bytes())
            lines = gzip.decompress(path.with_suffix(".jsonl.gz").read_bytes()).splitlines()
            return Version(header, tuple(VersionRow.model_validate(json.loads(line)) for line in lines))
        except (ValidationError, ValueError, OSError, EOFError, zlib.error, RecursionError) as error:
            raise DataError(path, f"damaged version: {error}") from error

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
            return _parse_tag(path.read_bytes()).version
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise DataError(path, "damaged tag; run purify again, which moves it") from error

    def move_tag(self, dataset: str, tag: str, version: str, *, started_ns: int) -> bool:
        """Point a tag at a version, unless a run that started later has moved it already.

        Returns:
            Whether the tag now points to ``version``.
        """
        moved = _Tag(check_name(version, "version"), started_ns)
        now = moved

        def decide(content: bytes | None) -> bytes | None:
            nonlocal now
            now = moved
            try:
                there = _parse_tag(content or b"")
            except ValueError:
                return moved.content  # missing, or damaged: that is nobody's newer result
            if there.started_ns <= started_ns:
                return moved.content
            now = there
            return None

        places.update(self._tag_path(dataset, check_name(tag, "tag")), decide)
        return now.version == version

    def datasets(self) -> list[str]:
        """Names of the datasets that have versions."""
        return places.names_in(self._root / "versions")

    def versions(self, dataset: str) -> list[VersionHeader]:
        """Headers of a dataset's versions, oldest run first.

        Raises:
            DataError: a header is damaged.
        """
        headers = []
        folder = self._root / "versions" / dataset
        for path in (folder / name for name in places.names_in(folder) if name.endswith(".json")):
            try:
                headers.append(VersionHeader.model_validate_json(path.read_bytes()))
            except ValidationError as error:
                raise DataError(path, f"damaged version: {error}") from error
        return sorted(headers, key=lambda header: (header.started, header.version))

    def tags(self, dataset: str) -> dict[str, str]:
        """Tag -> version id of a dataset.

        Raises:
            DataError: a tag's file is damaged.
        """
        found = {tag: self.tag(dataset, tag) for tag in self.tag_names(dataset)}
        return {tag: version for tag, version in found.items() if version is not None}

    def tag_names(self, dataset: str) -> list[str]:
        """Names of a dataset's tags."""
        return places.names_in(self._root / "tags" / dataset)

    def _header_path(self, dataset: str, version: str) -> Place:
        return self._root / "versions" / dataset / f"{version}.json"

    def _tag_path(self, dataset: str, tag: str) -> Place:
        return self._root / "tags" / dataset / tag

    def _what_there_is(self, dataset: str) -> str:
        tags = ", ".join(self.tag_names(dataset))
        if tags:
            return f"{dataset} has the tags {tags}"
        return f"datasets there: {', '.join(self.datasets()) or 'none'}"
