"""What every tracking package is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

Setting = str | int | float | bool


@dataclass(frozen=True)
class TrackedRun:
    """A run as packages are told of it: its ``name`` for people, its ``id``, and its ``settings`` by dotted name."""

    name: str
    id: str
    settings: Mapping[str, Setting] = field(default_factory=dict)


class Tracker(Protocol):
    """A run in a tracking package, from its first call to ``end``. All calls come from one thread; any may fail."""

    def progress(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Numbers at a step of a piece of work; ``group`` is empty where the run is one piece."""

    def final(self, values: Mapping[str, float]) -> None:
        """Numbers that the run came to."""

    def end(self, *, ok: bool) -> None:
        """The run is over; ``ok`` says whether it did what it was to."""


def joined(group: str, name: str) -> str:
    """``group/name``."""
    return f"{group}/{name}" if group else name
