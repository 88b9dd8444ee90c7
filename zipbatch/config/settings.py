"""The base of all settings."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of all settings: unknown fields, NaN and infinity are errors.

    ``LATER`` names fields that came when results without them were there: None leaves them out of an identity.
    ``LEARNED`` names those that come with a prior's folder where they are not given: the first of them is None then.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()
    LEARNED: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
