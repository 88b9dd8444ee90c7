"""Task records: what is known of one purified shard, written after its object."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from zipbatch import storage
from zipbatch.storage import StoragePath
from zipbatch.store.seal import unsealed

_DIGEST = re.compile(r"^[0-9a-f]{64}$")
MAX_RECORD_BYTES = 256 * 1024**2
"""Of a task record: some hundred thousand samples that could not be read, each with its reason."""
QUARANTINE = ".quarantine"


class SlotRun(BaseModel):
    """Consecutive samples of one size in a shard, and how they shared canvases.

    Sample i of the run, from 0, was in slot i % slots of its canvas i // slots; slots count in reading order, and a
    canvas has as many columns as ``width`` goes into its side. Where a run ends within a canvas, its images repeat.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    samples: int = Field(ge=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    slots: int = Field(ge=1)


class TaskRecord(BaseModel):
    """What is known of one purified shard; written after its object.

    ``quarantined`` are the keys, in order, of samples that could not be read, for ``reasons`` by key; they lie
    untouched in the quarantine shard of digest ``quarantine_sha256``, None where there are none. ``other_images`` are
    members of purified samples that are images, too, and were kept as they are; ``passed_over`` are members of the
    input that are no sample's; ``in_float32`` images did not come out finite in fewer bits and were done again. Records
    without any say nothing of them.

    ``calls`` are the prior's forward passes that an image took, at least and at most; ``busy_s`` the seconds that one
    CPU core (its own time) or one GPU worked on the shard's pixels, in all; ``made`` when it was done, UTC. Older
    records lack them. ``seconds``, by the clock, are of reading, writing and waiting for others, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: Literal[1] = 1
    input_sha256: str = Field(pattern=_DIGEST.pattern)
    output_sha256: str = Field(pattern=_DIGEST.pattern)
    samples_in: int = Field(ge=0)
    samples_out: int = Field(ge=0)
    quarantined: list[str] = []
    quarantine_sha256: str | None = Field(default=None, pattern=_DIGEST.pattern)
    reasons: dict[str, str] = {}
    slots: list[SlotRun] = []
    other_images: int = Field(default=0, ge=0)
    passed_over: int = Field(default=0, ge=0)
    in_float32: int = Field(default=0, ge=0)
    seconds: float
    device: str
    worker: dict[str, Any]
    versions: dict[str, str]
    calls: tuple[NonNegativeInt, NonNegativeInt] | None = None
    busy_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    made: str | None = None

    @property
    def objects(self) -> tuple[str, ...]:
        """The names of the objects that it needs (``Store.object_path``)."""
        quarantine = self.quarantine_sha256
        return (self.output_sha256,) if quarantine is None else (self.output_sha256, f"{quarantine}{QUARANTINE}")


def read_record(file: StoragePath) -> TaskRecord | None:
    """The record in a file; None when it is missing or damaged."""
    try:
        return TaskRecord.model_validate(unsealed(storage.read_bytes(file, limit=MAX_RECORD_BYTES)))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
