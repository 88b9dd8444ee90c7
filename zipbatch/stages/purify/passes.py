"""How far a shard is, counted in forward passes of its images, so that it shows within a batch, too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class _Piece:
    """Images that are computed at once; a pass is done when the next one begins."""

    def __init__(self, add: Callable[[int], None], images: int, passes: int) -> None:
        self._add, self._images, self._passes = add, images, passes
        self._begun = self._told = 0

    def begin_pass(self) -> None:
        """A forward pass begins."""
        self._begun += 1
        self.tell(min(self._begun - 1, self._passes))

    def tell(self, passes: int) -> None:
        """So many passes are done."""
        self._add(self._images * (passes - self._told))
        self._told = passes


_PIECE: ContextVar[_Piece] = ContextVar("piece")


def begin_pass() -> None:
    """To be called before each forward pass, in the context of ``Passes.piece``."""
    if (piece := _PIECE.get(None)) is not None:
        piece.begin_pass()


class Passes:
    """Counts one shard's, from several threads.

    Args:
        tell: called with the count whenever it changes.
        passes: how many an image takes.
    """

    def __init__(self, tell: Callable[[int], None], passes: int) -> None:
        self._tell, self._passes = tell, passes
        self._lock, self._count = threading.Lock(), 0

    @contextmanager
    def piece(self, images: int) -> Iterator[None]:
        """Compute images meanwhile; what fails has made no passes."""
        piece = _Piece(self._add, images, self._passes)
        token = _PIECE.set(piece)
        try:
            yield
        except BaseException:
            piece.tell(0)
            raise
        finally:
            _PIECE.reset(token)
        piece.tell(self._passes)

    def _add(self, passes: int) -> None:
        with self._lock:
            self._count += passes
            self._tell(self._count)
