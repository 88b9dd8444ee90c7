"""How long a shard's pixels are worked on, without reading, writing and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Busy:
    """Adds up, over threads, how long pixels are worked on: a core's own time, which others on it do not lengthen; of a
    GPU, which works while the thread waits, that of the clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._clock = time.monotonic if device.type == "cuda" else time.thread_time
        self._lock, self.seconds = threading.Lock(), 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work meanwhile, in this thread."""
        started = self._clock()
        yield
        with self._lock:
            self.seconds += self._clock() - started
