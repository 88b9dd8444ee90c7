"""A layer below every command that changes files while the command runs: right before one of them is opened to be read.

What a command knows of a file by then, a digest or a size, is not true any more. Python's own audit events tell of each
opening, so whatever reads through Python meets the change: readers of digests, of tars, of checkpoints.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Change = Callable[[Path], None]
_READING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Opened:
    """How often each file below a folder was opened to be read; ``changed`` is the one that was meddled with."""

    folder: Path
    times: Counter[str] = field(default_factory=Counter)
    changed: bool = False


@dataclass
class _Layer:
    """What is watched now, and what happens before the ``nth`` opening of ``name``."""

    opened: Opened | None = None
    name: str = ""
    nth: int = 0
    change: Change | None = None
    busy: bool = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.opened is None or self.busy or event != "open" or not _is_reading(arguments):
            return
        try:
            name = Path(os.fsdecode(arguments[0])).resolve().relative_to(self.opened.folder).as_posix()
        except (TypeError, ValueError):
            return
        self.opened.times[name] += 1
        if self.change is not None and (name, self.opened.times[name]) == (self.name, self.nth):
            self.busy = True
            try:
                self.change(self.opened.folder / name)
                self.opened.changed = True
            finally:
                self.busy = False


_LAYER = _Layer()
_HOOKED: list[bool] = []


def _is_reading(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = arguments
    if not isinstance(path, str | bytes):
        return False
    return "r" in mode and "+" not in mode if isinstance(mode, str) else not flags & _READING


@contextmanager
def watched(folder: Path, *, name: str = "", nth: int = 0, change: Change | None = None) -> Iterator[Opened]:
    """Within, openings of files below ``folder`` are counted, and ``change`` is done to one of them right before its
    ``nth``.
    """
    if not _HOOKED:
        sys.addaudithook(_LAYER)
        _HOOKED.append(True)
    opened = Opened(folder.resolve())
    _LAYER.opened, _LAYER.name, _LAYER.nth, _LAYER.change = opened, name, nth, change
    try:
        yield opened
    finally:
        _LAYER.opened = None


def swapped(other: Path) -> Change:
    """Another file in its place, by rename: whoever has it open still reads the old one."""

    def change(file: Path) -> None:
        temp = file.with_name(".meddling")
        temp.write_bytes(other.read_bytes())
        temp.replace(file)

    return change


def alike(other: Path) -> Change:
    """Another file's bytes in its place, with the size and times that it had: what ``cp -p`` and ``rsync -t`` leave."""

    def change(file: Path) -> None:
        before = file.stat()
        assert before.st_size == other.stat().st_size
        swapped(other)(file)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return change


def flipped(file: Path) -> None:
    """One bit of its middle, in place."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.write(data)
