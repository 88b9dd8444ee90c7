"""The header of a version: what it is and where it came from, without its list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, field_validator, model_serializer

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
    """``<version>.json``: what the version is and where it came from.

    ``trial`` is there where it was made from some shards of its data alone: split -> how many there were.
    """

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
    trial: dict[str, int] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_newer(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As headers were before there were trials, where it is none."""
        return {name: value for name, value in serialize(self).items() if name != "trial" or value is not None}

    @property
    def trial_text(self) -> str | None:
        """``1 of 10 shards of test``, of each split; None of a version that is no trial."""
        return None if self.trial is None else trial_text(self.trial, self.counts)

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


def trial_text(trial: Mapping[str, int], counts: Mapping[str, Mapping[str, int]]) -> str:
    """``1 of 10 shards of test``, of each split of a trial."""
    parts = [f"{counts.get(split, {}).get('shards', 0)} of {total} shards of {split}" for split, total in trial.items()]
    return ", ".join(parts)


def read_header(path: StoragePath) -> VersionHeader:
    """The header in a file.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, or over ``MAX_HEADER_BYTES``.
    """
    return VersionHeader.model_validate(unsealed(storage.read_bytes(path, limit=MAX_HEADER_BYTES)))
