"""What may be asked of ``audit``: every setting, its default, its limits and its help are written here alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from zipbatch.config import DEFAULTS, Option
from zipbatch.errors import UsageError
from zipbatch.stages.evaluate.request import DATA, TrialRequest
from zipbatch.stages.purify.request import PRIOR

_PURIFYING = ("prior", "presets", "resize", "seed", "precision", "batch_size")


class AuditRequest(TrialRequest):
    """All that ``zipbatch audit`` is asked, beside who works: of versions that exist, or of images to be purified."""

    data: Annotated[tuple[str, ...], Field(min_length=1), DATA]
    purified: Annotated[
        tuple[str, ...],
        Option("Version of the data in ‹store›, purified before; repeats, weakest first.", metavar="NAME[@TAG]"),
    ] = ()
    store: Annotated[
        str | None,
        Option(
            "Of ‹purified›; else where what is purified is kept. Answers are kept there, too, and not asked for again.",
            metavar="DIR|URL",
            beside="purified",
            decides="nothing",
        ),
    ] = None
    victim_version: Annotated[
        str | None,
        Field(min_length=1, max_length=200),
        Option(
            "What you call the model that answers behind an endpoint or function now: answers are kept in ‹store›, and "
            "reused for as long as this stays the same.",
            metavar="TEXT",
            beside="store",
            decides="nothing",
        ),
    ] = None
    prior: Annotated[str | None, replace(PRIOR, instead_of="purified")] = None
    presets: Annotated[
        tuple[str, ...],
        Option(
            "How to purify; repeats, weakest first.",
            flag="preset",
            metavar="NAME|FILE",
            default=DEFAULTS["purifiers"],
        ),
    ] = ()
    share: Annotated[
        float,
        Field(ge=0, le=1),
        Option(
            "Share of images with a trigger that must not be missed; with fewer images than that takes, none can tell.",
            metavar="SHARE",
        ),
    ] = 0.1
    per_image: Annotated[
        Path | None,
        Option("Write a row for each image: .csv or .jsonl (JSON lines).", metavar="FILE", decides="nothing"),
    ] = None

    @model_validator(mode="after")
    def _one_way(self) -> AuditRequest:
        """Versions that exist, or how to make them."""
        if not self.purified and self.prior is None and not self.presets:
            raise UsageError("name ‹purified NAME[@TAG]› with ‹store›, or ‹prior› to purify the data: 'embedded' ships")
        if self.purified and (stray := self.given(*_PURIFYING)):
            raise UsageError(f"‹{stray[0]}› is for images that are still to be purified; leave it or ‹purified› out")
        if self.purified and self.store is None:
            raise UsageError("Missing option '‹store›'. Where the purified versions are.")
        if self.victim_version is not None and self.store is None:
            raise UsageError("Missing option '‹store›'. ‹victim_version› is for answers that are kept there.")
        return self
