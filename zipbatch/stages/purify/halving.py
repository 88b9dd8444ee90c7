"""Work on many rows in pieces, of half the size from the moment the GPU's memory proves too small for whole ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
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
            piece = slice(start, start + self._rows * images_per_row)
            try:
                result = work(piece)
            except torch.OutOfMemoryError:
                pass  # the exception holds on to the memory: go on outside of it
            else:
                yield result
                start = piece.stop
                continue
            undo(piece)
            self._halve()

    def _halve(self) -> None:
        if self._rows == 1:
            raise WorkFailed("out of GPU memory with a single row; use a smaller prior or --precision bfloat16")
        self._rows //= 2
        torch.cuda.empty_cache()
        log.warning("out of GPU memory: going on with batches of %d", self._rows)
