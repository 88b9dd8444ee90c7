"""The header of a version: what it is and where it came from, without its list."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from zipbatch import storage
from zipbatch.errors import DataError
from zipbatch.storage import StoragePath
from zipbatch.store.seal import unsealed

MAX_HEADER_BYTES = 16 * 1024**2


class Origin(BaseModel):
    """Where the shards of a version came from, as the run that published it first saw it.

    ``computed`` by that run, reused from the ``parent`` version's list, or found in the ``store`` by their task keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    computed: int
    parent: int
    store: int


class VersionHeader(BaseModel):
    """``<version>.json``: what the version is and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: Literal[1] = 1
    dataset: str
    version: str
    purifier: dict[str, Any]
    prior_sha256: str | None
    seed: int | None
    counts: dict[str, dict[str, int]]
    quarantined: int
    parent: str | None
    origin: Origin | None = None
    started: str
    zipbatch: str

    @property
    def started_s(self) -> float:
        """When its run started, seconds since 1970."""
        try:
            return datetime.fromisoformat(self.started).timestamp()
        except ValueError as error:
            raise DataError(f"{self.dataset}@{self.version}", f"damaged version: started {self.started!r}") from error

    @field_validator("counts")
    @classmethod
    def _counted(cls, counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        if any(not {"shards", "samples"} <= set(split) for split in counts.values()):
            raise ValueError("a split has shards and samples")
        return counts

    @field_validator("purifier")
    @classmethod
    def _named(cls, purifier: dict[str, Any]) -> dict[str, Any]:
        settings = purifier.get("settings", {})
        steps = settings.get("steps") if isinstance(settings, dict) and purifier.get("method") == "chain" else []
        if not (isinstance(steps, list) and all(map(_is_named, (purifier, *steps)))):
            raise ValueError("a purifier has a method, and its settings by name")
        return purifier


def _is_named(purifier: object) -> bool:
    return (
        isinstance(purifier, dict)
        and isinstance(purifier.get("method"), str)
        and isinstance(purifier.get("settings", {}), dict)
    )


def read_header(path: StoragePath) -> VersionHeader:
    """The header in a file.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, or over ``MAX_HEADER_BYTES``.
    """
    return VersionHeader.model_validate(unsealed(storage.read_bytes(path, limit=MAX_HEADER_BYTES)))
