"""How much memory this machine has, and how images are kept within a share of it, whatever their size."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from zipbatch.errors import UsageError

T = TypeVar("T")
GB = 10**9
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_SHARE, _USUAL, _A_LANE = 16, GB, 64 * 1024**2
_NO_MEMORY = (
    *("not enough memory", "cannot allocate memory", "can't allocate memory"),
    *("failed to map segment", "can't start new thread"),
)
NEXT_STEP = "give ‹memory_gb› less than there is, use fewer ‹workers›, smaller images, or a machine with more"


@lru_cache
def total() -> int:
    """Bytes of memory that this process may use: the machine's, or what a container limits it to."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _CGROUP:
        try:
            there = min(there, int(file.read_text()))
        except (OSError, ValueError):
            continue  # no such limit, or "max"
    return there


def usual_share(compute_threads: int = 1) -> int:
    """What images in hand may take unless a user says otherwise: 1 GB, more for many threads, a 16th of all at most."""
    return min(total() // _SHARE, max(_USUAL, compute_threads * _A_LANE))


def check_fits(size: int, what: str, *, smaller: str = "fewer (‹limit N›)") -> None:
    """Refuse what is held in memory whole, such as images to learn from, before the machine begins to starve.

    Args:
        size: what it takes, bytes.
        what: that, for the message.
        smaller: what else than smaller images would help.

    Raises:
        UsageError: it takes more than there is.
    """
    if size > (there := total()):
        raise UsageError(
            f"{what} takes over {size / GB:.1f} GB in memory, this machine has {there / GB:.1f} GB: stage smaller "
            f"images ('zipbatch poison --image-size PX'), or take {smaller}"
        )


class Room:
    """Bytes that threads share. Who wants more than there is at all comes in when nobody else is there.

    Nobody may wait for room while holding some, or all could wait for each other.
    """

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int, *, heartbeat: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold ``size`` bytes within, after waiting for them; ``heartbeat`` is called while it waits, and may raise."""
        with self._changed:
            while self._taken and self._taken + size > self._size:
                self._changed.wait(1.0)
                heartbeat()
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


def in_batches(items: Iterable[T], *, count: int, size: int, of: Callable[[T], int]) -> Iterator[list[T]]:
    """Consecutive items, as many as fit: ``count`` at most, and no more once they have ``size`` bytes together."""
    held: list[T] = []
    taken = 0
    for item in items:
        held.append(item)
        taken += of(item)
        if len(held) == count or taken >= size:
            yield held
            held, taken = [], 0
    if held:
        yield held


def is_lacking(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that this machine has too little memory; not of a GPU's.

    torch and the loader of libraries tell it in words.
    """
    while error is not None:
        text = str(error).lower()
        told = isinstance(error, RuntimeError | ImportError) and any(words in text for words in _NO_MEMORY)
        if told or isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
