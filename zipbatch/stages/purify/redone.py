"""How many images of a shard were done again in float32, because they did not come out finite in fewer bits."""

from __future__ import annotations

import threading
from contextvars import ContextVar


class Redone:
    """Counts one shard's, from several threads."""

    def __init__(self) -> None:
        self._lock, self.images = threading.Lock(), 0

    def add(self, images: int) -> None:
        """So many more."""
        with self._lock:
            self.images += images


_REDONE: ContextVar[Redone] = ContextVar("redone")


def done_again(images: int) -> None:
    """To be called by a purifier, in a copy of the context in which ``count_redone`` was called."""
    if (redone := _REDONE.get(None)) is not None:
        redone.add(images)


def count_redone() -> Redone:
    """Begin to count, for all that is done in this context and in copies of it from now on."""
    redone = Redone()
    _REDONE.set(redone)
    return redone
