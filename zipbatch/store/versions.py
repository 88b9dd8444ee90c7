"""Versions: immutable lists of purified shards; tags: movable names for them."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from zipbatch import atomic
from zipbatch.errors import DataError, UsageError
from zipbatch.store.lists import unpacked_lines
from zipbatch.store.store import Store, check_name

LATEST = "latest"
_ID_DIGITS = 20


class VersionRow(BaseModel):
    """One shard of a version, in the order of the input.

    ``samples`` are those of the object ``output``; ``quarantined`` more lie in the quarantine shard of digest
    ``quarantine``. A row without any is written without these two fields, so that only versions that are short of
    samples say so, and have an id of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    split: str
    shard: str
    output: str
    input: str
    samples: int
    quarantined: int = Field(default=0, ge=0)
    quarantine: str | None = None

    @model_serializer(mode="wrap")
    def _whole_without(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return fields if self.quarantined else {k: v for k, v in fields.items() if not k.startswith("quarantine")}


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

    @field_validator("counts")
    @classmethod
    def _counted(cls, counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        if any(not {"shards", "samples"} <= set(split) for split in counts.values()):
            raise ValueError("a split has shards and samples")
        return counts

    @field_validator("purifier")
    @classmethod
    def _named(cls, purifier: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(purifier.get("method"), str) or not isinstance(purifier.get("settings", {}), dict):
            raise ValueError("a purifier has a method, and its settings by name")  # noqa: TRY004 (pydantic's way)
        return purifier


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


def counts_of(rows: Iterable[VersionRow]) -> dict[str, dict[str, int]]:
    """Split -> how many ``shards`` and ``samples``, and ``quarantined`` ones where there are any."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        split = counts.setdefault(row.split, {"shards": 0, "samples": 0})
        split["shards"] += 1
        split["samples"] += row.samples
        if row.quarantined:
            split["quarantined"] = split.get("quarantined", 0) + row.quarantined
    return counts


def parse_reference(text: str) -> tuple[str, str]:
    """``NAME@TAG-OR-VERSION`` -> (name, tag or version); without ``@`` the tag is ``latest``."""
    name, _, tag = text.partition("@")
    return check_name(name, "dataset"), check_name(tag or LATEST, "tag")


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
        for row in rows:
            if not self._store.has_all(row.output, row.quarantine):
                raise DataError(row.shard, f"object {row.output} (or its quarantine) is not in the store; run again")
        path = self._header_path(header.dataset, header.version)
        if path.is_file() and self._is_sound(header, rows):
            return False
        lines = b"".join(atomic.canonical_json(row.model_dump(mode="json")) + b"\n" for row in rows)
        atomic.write_bytes(path.with_suffix(".jsonl.gz"), gzip.compress(lines, mtime=0))
        atomic.write_json(path, header.model_dump(mode="json"))
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
        self._store.require()
        version = self.tag(dataset, wanted) or wanted
        path = self._header_path(dataset, version)
        if not path.is_file():
            raise UsageError(f"{reference}: not in {self._root}; {self._what_there_is(dataset)}")
        try:
            header = VersionHeader.model_validate_json(path.read_bytes())
            lines = unpacked_lines(path.with_suffix(".jsonl.gz").read_bytes())
            return Version(header, tuple(VersionRow.model_validate(json.loads(line)) for line in lines))
        except (ValidationError, ValueError, OSError, RecursionError) as error:
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
        return _names(self._root / "versions")

    def versions(self, dataset: str) -> list[VersionHeader]:
        """Headers of a dataset's versions, oldest run first.

        Raises:
            DataError: a header is damaged.
        """
        headers = []
        for path in (self._root / "versions" / dataset).glob("*.json"):
            if not path.name.startswith(atomic.TEMP_PREFIX):
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
        return _names(self._root / "tags" / dataset)

    def _header_path(self, dataset: str, version: str) -> Path:
        return self._root / "versions" / dataset / f"{version}.json"

    def _tag_path(self, dataset: str, tag: str) -> Path:
        return self._root / "tags" / dataset / tag

    def _what_there_is(self, dataset: str) -> str:
        tags = ", ".join(self.tag_names(dataset))
        if tags:
            return f"{dataset} has the tags {tags}"
        return f"datasets there: {', '.join(self.datasets()) or 'none'}"


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
