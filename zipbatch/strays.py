"""What file managers, archivers and editors leave in any folder, and counts of what was not taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

_NAMES = frozenset(
    {
        *("__macosx", "icon\r"),  # macOS
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),  # Windows
        *("$recycle.bin", "system volume information"),
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # network storage
        "lost+found",
    }
)
"""Beside every name with a leading dot: .DS_Store, ._0001.jpg, .ipynb_checkpoints, .Trash-1000, .git, …"""
_EXAMPLES = 5


def is_stray(name: str) -> bool:
    """Whether a file or folder of this name is nobody's data: the only place that says so, for folders and archives."""
    return (name.startswith(".") and name not in {".", ".."}) or name.casefold() in _NAMES


def has_stray(path: str) -> bool:
    """Whether any part of a relative path, ``/`` between its parts, is a stray."""
    return any(map(is_stray, PurePosixPath(path).parts))


def is_keyless(path: str) -> bool:
    """Whether no reader of shards takes a tar's member for a sample's: webdataset finds no key in a name with a leading
    dot, and macOS's resource forks lie under ``__MACOSX/``.

    Other strays in a tar may be samples, as they are for every reader: stores hold them. Nor is a name that begins like
    a way out of the folder (``..png``) anything that a file manager leaves.
    """
    *folders, name = PurePosixPath(path).parts or ("",)
    return (name.startswith(".") and not name.startswith("..")) or "__MACOSX" in folders


@dataclass
class Tally:
    """How many there are, and the names of the first ones."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(name[:200])

    def update(self, other: Tally) -> None:
        """All of another one."""
        self.examples = (self.examples + other.examples)[:_EXAMPLES]
        self.count += other.count

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.examples) else ""
        return f"{self.count} ({', '.join(map(quoted, self.examples))}{more})"


def quoted(name: str) -> str:
    """A name from a stranger as it may stand in a line of a log."""
    return name if name.isprintable() else repr(name)
