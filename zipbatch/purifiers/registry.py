"""All purifiers by name."""

from __future__ import annotations

from zipbatch.purifiers.base import Purifier
from zipbatch.purifiers.chain import Chain
from zipbatch.purifiers.methods import METHODS

PURIFIERS: dict[str, type[Purifier]] = {**METHODS, "chain": Chain}
