"""What may be asked of ``evaluate``, and what all who purify on trial may be asked: ``tune`` and ``audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from zipbatch.config import Option, Request
from zipbatch.stages.purify.request import NetworkRequest, PurifierRequest

DATA = Option("Suspect images; repeats.", metavar="STAGED|SHARDS")


class EvaluateRequest(Request):
    """All that ``zipbatch evaluate`` is asked, beside who works."""

    victims: Annotated[tuple[str, ...], Field(min_length=1)]
    data: Annotated[tuple[str, ...], Field(min_length=1), DATA]
    purified: Annotated[tuple[str, ...], Option("Purified version of the data; repeats.", metavar="NAME[@TAG]")] = ()
    store: Annotated[
        str | None, Option("The store of the purified versions.", metavar="DIR|URL", decides="nothing")
    ] = None
    sheet: Annotated[Path | None, Option("Contact sheet: .png, .pdf or .svg.", metavar="FILE", decides="nothing")] = (
        None
    )
    per_image: Annotated[
        Path | None,
        Option("Write a row for each image: .csv or .jsonl (JSON lines).", metavar="FILE", decides="nothing"),
    ] = None


class TrialRequest(NetworkRequest):
    """Suspect images that are purified on trial, and a victim that is asked about them."""

    victim: str
    data: Annotated[tuple[str, ...], DATA] = ()
    resize: Annotated[
        Literal["stretch"] | None, Option("Make images fit that neither equal nor tile the prior's size, as in purify.")
    ] = None
    splits: Annotated[
        tuple[str, ...], Option("Split; repeats.", flag="split", metavar="NAME", default="as in purify")
    ] = ()
    shards: Annotated[
        int | None, Field(ge=1), Option("Shards of each split to look at.", metavar="N", default="all")
    ] = None

    def purifier(self, preset: str | None) -> PurifierRequest:
        """A preset as it is to purify; None for the default."""
        return PurifierRequest(preset=preset, seed=self.seed, precision=self.precision, resize=self.resize)
