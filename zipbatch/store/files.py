"""The files of a store, by their names below its root."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zipbatch import atomic, storage
from zipbatch.errors import DataError, UsageError
from zipbatch.storage import StoragePath

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FOLDERS = ("objects", "tasks", "versions", "tags")
OLD_TEMP_S = 86_400.0


class LostObjectsError(DataError):
    """Objects that a run had found or made were removed before it could publish what names them."""


def check_name(name: str, what: str) -> str:
    """A dataset or tag name that is safe as a file name.

    Raises:
        UsageError: it is not; says what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r}: use letters, digits, '.', '_' and '-', starting with a letter or digit")
    return name


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a store: its name below the root, its size in bytes, and when it was written (ns since 1970)."""

    name: str
    size: int
    mtime_ns: int


class StoreFiles:
    """What lies below a folder or URL. Reading never creates anything; ``prepare`` makes it ready for writing."""

    def __init__(self, root: StoragePath) -> None:
        self.root: StoragePath = root.absolute()

    def prepare(self) -> list[Path]:
        """Create the store's folders, show that they can be written, and sweep up what killed runs left behind.

        Returns:
            The folders that were not there before.

        Raises:
            UsageError: they cannot be written.
        """
        try:
            made = storage.make_writable(self.root, _FOLDERS)
            atomic.sweep(storage.workbench(self.root / "objects"))
        except OSError as error:
            raise UsageError(
                f"{self.root}: the store cannot be written ({error.strerror}); choose another ‹store› or fix it"
            ) from error
        return made

    def check_there(self) -> None:
        """Raise ``FileNotFoundError`` where the store is gone.

        A disk that was unmounted in mid-run leaves its empty folder behind, which is not to be written to.
        """
        if isinstance(self.root, Path) and not (objects := self.root / "objects").is_dir():
            raise FileNotFoundError(
                errno.ENOENT, "the store is gone: was its disk unmounted, or removed?", str(objects)
            )

    def sweep(self) -> None:
        """Remove the temp files that killed runs left anywhere in the store, a day ago or longer."""
        if isinstance(self.root, Path):
            for folder, _, _ in os.walk(self.root):
                atomic.sweep(Path(folder), older_than_s=OLD_TEMP_S)

    @staticmethod
    def discard_empty(made: list[Path]) -> None:
        """Take back folders of ``prepare`` that are still empty, after a run that published nothing."""
        for folder in reversed(made):
            try:
                folder.rmdir()
            except OSError:
                pass  # no longer empty: it stays

    def require(self) -> None:
        """Raises ``UsageError`` when there is no store at the root."""
        if not (self.root / "objects").is_dir():
            raise UsageError(f"{self.root}: no store there; 'zipbatch purify … --store {self.root}' makes one")

    def read_file(self, name: str, *, limit: int) -> bytes | None:
        """The bytes of a file of the store by its name below the root, None when it is not there.

        Raises:
            ValueError: it has over ``limit`` bytes.
        """
        try:
            return storage.read_bytes(self.root / name, limit=limit)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write_file(self, name: str, data: bytes) -> None:
        """Publish a file of the store, whole or not at all."""
        self.check_there()
        storage.put_bytes(self.root / name, data)

    def remove_file(self, name: str) -> None:
        """Remove a file of the store; it need not be there."""
        (self.root / name).unlink(missing_ok=True)

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Every file in a folder of the store and below, sorted by name; those that vanish meanwhile are left out.

        For what looks after the store (``gc.py``, ``removals.py``); runs never list objects or records.
        """
        for name, stamp in storage.stamps_below(self.root / folder):
            yield StoredFile(f"{folder}/{name}", stamp.size, int((stamp.modified_s or 0) * 1e9))
