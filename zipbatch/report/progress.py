"""How far work has got, in words: the same for a bar, a line of a log and a machine."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zipbatch.report.counts import Counts
from zipbatch.report.units import clock_text, rate_text

_POINTS, _APART_S = 300, 1.0


@dataclass(frozen=True)
class Part:
    """``done`` of a kind of thing, of ``total`` where that is known."""

    unit: str
    done: int
    total: int | None = None

    @property
    def text(self) -> str:
        """``97/180 images``, ``97 images``."""
        return f"{self.done}{'' if self.total is None else f'/{self.total}'} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Work at a moment: the one form in which every job tells how far it is, made where the work is done.

    Attributes:
        what: what is being done: "purifying incoming"; empty until somebody who knows says so (``shown``).
        parts: what is counted, coarse first: shards, then images.
        fraction: how much of the work is done, 0 to 1; None for that of the last part with a total.
        per_s: how many of the last part a second.
        measures: numbers that are watched while it runs: {"loss": 0.412}; none that is not finite.
        notes: what else there is to say: "reused 3", "waiting for memory".
        counts: what has become of what is counted coarsest: how many were computed, reused, failed; None where parts
            say all there is to say.
        failed: the reason of each of them that failed, by name; grows with the run.
    """

    what: str = ""
    parts: tuple[Part, ...] = ()
    fraction: float | None = None
    per_s: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    counts: Counts | None = None
    failed: Mapping[str, str] = field(default_factory=dict)

    def shown(self, what: str) -> Progress:
        """The same of work that has a name by now."""
        return replace(self, what=what)

    def part(self, unit: str) -> Part:
        """What is counted in this unit.

        Raises:
            LookupError: nothing is.
        """
        found = next((part for part in self.parts if part.unit == unit), None)
        if found is None:
            raise LookupError(
                f"{unit}: not counted; there are: {', '.join(part.unit for part in self.parts) or 'none'}"
            )
        return found

    @property
    def share(self) -> float | None:
        """How much of the work is done, 0 to 1; None when nobody knows."""
        if self.fraction is not None:
            return min(1.0, max(0.0, self.fraction))
        known = [part for part in self.parts if part.total]
        return min(1.0, known[-1].done / (known[-1].total or 1)) if known else None

    def text(self, left_s: float | None) -> str:
        """``1/3 shards 97/180 images 4.1/s ETA 0:21 reused 0 failed 0``."""
        words = [part.text for part in self.parts]
        words += [] if self.per_s is None else [rate_text(self.per_s)]
        if self.share is not None:
            words.append(f"ETA {'-:--' if left_s is None else clock_text(left_s)}")
        words += [f"{name} {value:.4f}" for name, value in self.measures.items()]
        return " ".join((*words, *self.notes))

    def value(self, left_s: float | None) -> dict[str, Any]:
        """The same for machines."""
        parts = {part.unit: {"done": part.done, "total": part.total} for part in self.parts}
        share = None if self.share is None else round(self.share, 4)
        rate = None if self.per_s is None else round(self.per_s, 2)
        left = None if left_s is None else round(left_s, 1)
        return {"what": self.what, **parts, "share": share, "per_s": rate, "eta_s": left, **self.measures}


def finite(measures: Mapping[str, float]) -> dict[str, float]:
    """Those that are numbers by now."""
    return {name: value for name, value in measures.items() if math.isfinite(value)}


class TimeLeft:
    """Tells the time that is left from the shares that are done and when, over the last minutes of the same work."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._what = ""
        self._points: deque[tuple[float, float]] = deque(maxlen=_POINTS)

    def note(self, progress: Progress) -> None:
        """Take in how far the work has got by now."""
        now, share = self._clock(), progress.share
        if share is None or progress.what != self._what or (self._points and share < self._points[-1][1]):
            self._what = progress.what
            self._points.clear()
        if share is None:
            return
        if len(self._points) > 1 and now - self._points[-2][0] < _APART_S:
            self._points.pop()
        self._points.append((now, share))

    def seconds(self) -> float | None:
        """What is left; None as long as nothing tells."""
        if len(self._points) < 2:
            return None
        (began, first), (last, share) = self._points[0], self._points[-1]
        if share <= first or last <= began:
            return None
        return max(0.0, (1 - share) * (last - began) / (share - first) - (self._clock() - last))
