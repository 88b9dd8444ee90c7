"""The task that these tests hand out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A task: its name says what to do, if anything."""

    name: str
