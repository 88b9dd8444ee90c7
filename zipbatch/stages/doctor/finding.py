"""What a check has found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of ``zipbatch doctor``.

    Attributes:
        check: what was looked at.
        text: what was found.
        state: ``failed``: work cannot be done; ``warning``: it can, but worse than it might.
        next_step: what to do about it; empty where nothing is to be done.
    """

    check: str
    text: str
    state: State = "ok"
    next_step: str = ""

    @classmethod
    def of(cls, check: str, text: str, good: bool, next_step: str, *, warns: bool = False) -> Self:
        """A finding that is good, or else calls for a step."""
        return (
            cls(check=check, text=text)
            if good
            else cls(check=check, text=text, state="warning" if warns else "failed", next_step=next_step)
        )
