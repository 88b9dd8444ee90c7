"""Tags: movable names for versions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from zipbatch import storage
from zipbatch.errors import DataError, UsageError
from zipbatch.storage import StoragePath
from zipbatch.store.files import StoreFiles, check_name

LATEST = "latest"
ID_DIGITS = 20
VERSION_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")
MAX_TAG_BYTES = 1 << 12
CLOCKS_AGREE_NS = 300 * 10**9
"""As far as clocks of machines may differ without one of them being wrong."""


def check_tag(name: str, what: str = "tag") -> str:
    """A tag's name: one that is safe as a file name and cannot be taken for a version's id.

    Raises:
        UsageError: it is not; says what is allowed.
    """
    if VERSION_ID.fullmatch(check_name(name, what)):
        raise UsageError(f"{what} {name!r}: is the id of a version, or looks like one; choose another name")
    return name


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


class Tags:
    """The tags of a store's datasets."""

    def __init__(self, files: StoreFiles) -> None:
        self._files = files

    def read(self, dataset: str, tag: str) -> str | None:
        """The version id a tag points to, None when there is no such tag.

        Raises:
            DataError: the tag's file does not hold a version id.
        """
        path = self._tag_path(dataset, tag)
        try:
            return _parse_tag(storage.read_bytes(path, limit=MAX_TAG_BYTES)).version
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise DataError(path, "damaged tag; run purify again, which moves it") from error

    def move(self, dataset: str, tag: str, version: str, *, started_ns: int | None) -> bool:
        """Point a tag at a version, unless a run that started later has moved it already.

        A start that is still to come, by this machine's clock, is that of a clock that went ahead, and binds nobody.

        Args:
            dataset: whose tag.
            tag: its name.
            version: the version's id.
            started_ns: when the run that moves it started; None where a person does, who always may.

        Returns:
            Whether the tag now points to ``version``.
        """
        moved = _Tag(check_name(version, "version"), time.time_ns() if started_ns is None else started_ns)
        now = moved

        def decide(content: bytes | None) -> bytes | None:
            nonlocal now
            now = moved
            try:
                there = _parse_tag(content or b"")
            except ValueError:
                return moved.content  # missing, or damaged: that is nobody's newer result
            future = there.started_ns > time.time_ns() + CLOCKS_AGREE_NS
            if started_ns is None or future or there.started_ns <= started_ns:
                return moved.content
            now = there
            return None

        storage.update(self._tag_path(dataset, check_tag(tag)), decide)
        return now.version == version

    def remove(self, dataset: str, tag: str, *, only_if: Callable[[], bool] = lambda: True) -> None:
        """Remove a tag, which need not be there, if that is still so when nobody can move it."""
        storage.remove_if(self._tag_path(dataset, tag), only_if)

    def of(self, dataset: str) -> dict[str, str]:
        """Tag -> version id of a dataset.

        Raises:
            DataError: a tag's file is damaged.
        """
        found = {tag: self.read(dataset, tag) for tag in self.names(dataset)}
        return {tag: version for tag, version in found.items() if version is not None}

    def names(self, dataset: str) -> list[str]:
        """Names of a dataset's tags."""
        return storage.names_in(self._files.root / "tags" / dataset)

    def _tag_path(self, dataset: str, tag: str) -> StoragePath:
        return self._files.root / "tags" / dataset / tag
