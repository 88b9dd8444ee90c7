"""How long a shard's pixels are worked on, without reading, writing and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class SharedClock:
    """The time of a device that several work on at once: while there are two, each has half of what passes.

    Args:
        now: seconds of another clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, threading.Lock()
        self._last = self._time = 0.0
        self._working = 0

    def change(self, by: int) -> float:
        """So many more work from here on, or fewer; the time by now."""
        with self._lock:
            now = self._now()
            if self._working:
                self._time += (now - self._last) / self._working
            self._last = now
            self._working += by
            return self._time


_GPU = SharedClock()
"""Of this process's one GPU."""


class Busy:
    """Adds up, over threads, how long pixels are worked on: a core's own time, which others on it do not lengthen; of a
    GPU, which works while the thread waits, what passed by the clock, shared among the batches that it had in hand.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._lock, self.seconds = threading.Lock(), 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work meanwhile, in this thread."""
        started = _GPU.change(1) if self._on_gpu else time.thread_time()
        try:
            yield
        finally:
            spent = (_GPU.change(-1) if self._on_gpu else time.thread_time()) - started
            with self._lock:
                self.seconds += spent
