"""What SIGINT, SIGTERM and SIGHUP do to a run: the first stops it in order, one more ends it at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130
TERMINATED = 143
_ECHO_S = 1.0
_SIGNALS = {
    signal.SIGINT: ("interrupted", INTERRUPTED),
    signal.SIGTERM: ("terminated", TERMINATED),
    signal.SIGHUP: ("hung up", TERMINATED),
}


class Stop:
    """Signal handler. ``how`` and ``code`` say what has come; until then they are those of Ctrl-C.

    The first signal leaves as Ctrl-C does (Ray lets no other exception through its waits). One that comes right after
    it is its echo, as timeout(1) and terminals send it to a process and to its group, and must not break the way out.

    Args:
        at_once: called with the exit code before the process ends without further ado.
    """

    def __init__(self, at_once: Callable[[int], object] = lambda _: None) -> None:
        self.how, self.code = _SIGNALS[signal.SIGINT]
        self._at_once = at_once
        self._first_at: float | None = None

    @property
    def came(self) -> bool:
        """Whether a signal has come."""
        return self._first_at is not None

    def install(self) -> None:
        """Handle the signals that the caller does not have ignored, as nohup does."""
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            self.how, self.code = _SIGNALS[signal.Signals(number)]
            raise KeyboardInterrupt
        if now - self._first_at > _ECHO_S:
            for other in _SIGNALS:
                signal.signal(other, signal.SIG_DFL)
            try:
                self._at_once(self.code)
            finally:
                os._exit(self.code)
