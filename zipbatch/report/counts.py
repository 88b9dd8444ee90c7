"""How much of its work a run got done, by what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much of its work a run got done.

    Attributes:
        unit: what is counted: shards, images or stages.
        total: all of them; None when nobody knows.
        computed: done by this run.
        reused: done before.
        failed: tried in vain.
        samples: images in what is done; None when they are not counted.
        quarantined: images set aside; None when they are not counted.
    """

    unit: str
    total: int | None
    computed: int = 0
    reused: int = 0
    failed: int = 0
    samples: int | None = None
    quarantined: int | None = None

    @property
    def done(self) -> int:
        """Computed and reused."""
        return self.computed + self.reused

    @property
    def left(self) -> int | None:
        """Neither done nor failed."""
        return None if self.total is None else self.total - self.done - self.failed

    def as_json(self) -> dict[str, object]:
        """Every number by name."""
        states = {"computed": self.computed, "reused": self.reused, "failed": self.failed, "left": self.left}
        what = {"samples": self.samples, "quarantined": self.quarantined}
        return {"unit": self.unit, "total": self.total, "done": self.done, **states, **what}
