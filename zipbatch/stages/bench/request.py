"""What may be asked of ``bench``: every setting, its default, its limits and its help are written here alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zipbatch.config import Option
from zipbatch.config.request import Device
from zipbatch.stages.purify.request import PRIOR, PurifierRequest


class BenchRequest(PurifierRequest):
    """Which purifier is measured, on what, and the run that is to be foretold."""

    prior: Annotated[str | None, PRIOR] = None
    data: Annotated[
        str | None,
        Option(
            "Purify images of these, as for 'zipbatch purify'.",
            metavar="STAGED|SHARDS",
            default="shipped pictures, at the prior's size",
            decides="nothing",
        ),
    ] = None
    images: Annotated[
        int | None, Field(ge=1), Option("Say what a run on so many takes.", metavar="N", decides="nothing")
    ] = None
    gpus: Annotated[
        int, Field(ge=1), Option("Of that run: GPUs like this machine's first one.", metavar="G", decides="nothing")
    ] = 1
    seconds: Annotated[
        float, Field(gt=0, le=3600), Option("Purify for about so long.", metavar="S", decides="nothing")
    ] = 20.0
    device: Device = "auto"
