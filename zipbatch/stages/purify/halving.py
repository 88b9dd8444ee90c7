"""Work on many rows in pieces: one after the other from the moment the GPU's memory proves too small for several at
once, and of half the size when it is too small for one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from zipbatch.errors import WorkFailed

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Halving:
    """How many rows fit at once: what was asked for, or what is left of it. Threads may share one.

    Args:
        rows: those to begin with.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._changed = threading.Condition()
        self._working = self._begun = 0
        self._in_turn = False

    def pieces(
        self,
        total: int,
        work: Callable[[slice], Result],
        *,
        images_per_row: int = 1,
        undo: Callable[[slice], None] = lambda _piece: None,
    ) -> Iterator[Result]:
        """The results of ``work`` on each piece of ``total`` images, in order.

        Args:
            total: how many images there are.
            work: on the images of a slice; is called again with a shorter one when memory runs out.
            images_per_row: of the network's batch.
            undo: called with a slice whose work has failed for want of memory.

        Raises:
            WorkFailed: not even one row fits.
        """
        start = 0
        while start < total:
            with self._turn() as was_alone:
                piece = slice(start, start + self._rows * images_per_row)
                try:
                    result = work(piece)
                    worked = True
                except torch.OutOfMemoryError:  # which holds on to the memory: go on outside of it
                    worked = False
                if not worked:
                    undo(piece)
                    self._make_room(alone=was_alone())
            if worked:
                yield result
                start = piece.stop

    @contextmanager
    def _turn(self) -> Iterator[Callable[[], bool]]:
        """Work meanwhile; asked then, whether nobody else has since."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._in_turn and self._working))
            self._working += 1
            self._begun += 1
            sole, begun = self._working == 1, self._begun
        try:
            yield lambda: sole and self._begun == begun
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _make_room(self, *, alone: bool) -> None:
        """Work one after the other from now on; where that is so already, on half as many rows."""
        torch.cuda.empty_cache()
        if not alone:
            self._in_turn = True
            return
        if self._rows == 1:
            raise WorkFailed("out of GPU memory with a single row; use a smaller prior or ‹precision='bfloat16'›")
        self._rows //= 2
        log.warning("out of GPU memory: going on with batches of %d", self._rows)
