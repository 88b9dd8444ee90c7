"""What may be asked of ``adapt``: every setting, its default, its limits and its help are written here alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from zipbatch.config import ClassGiven, Option
from zipbatch.config.request import Device
from zipbatch.errors import UsageError
from zipbatch.stages.resizing import ResizedToRequest

NO_DEFENCE = "none"


class AdaptRequest(ResizedToRequest):
    """All that ``zipbatch adapt`` is asked, beside the source."""

    surrogate: Annotated[str, Option("Classifier to optimise against, a victim's folder: white box.", metavar="VICTIM")]
    through: Annotated[
        str,
        Option(
            "The defence to survive, as for 'zipbatch purify --preset'; 'none' for none, to compare with.",
            metavar="PRESET|FILE",
        ),
    ] = "balanced"
    prior: Annotated[
        str | None, Option("Its diffusion model; 'embedded' ships.", metavar="DIR|FILE.pt|URL|hub:NAME[@REV]")
    ] = None
    target: Annotated[ClassGiven, Option("Target class, by number or name.", metavar="CLASS")] = 0
    out: Annotated[
        Path,
        Option(
            "The trigger to write: FILE.png for a patch, FILE.npy for a pattern.", metavar="FILE", decides="nothing"
        ),
    ]
    patch_size: Annotated[int | None, Field(ge=1), Option("Optimise a patch of PX x PX pixels.", metavar="PX")] = None
    row: Annotated[int, Option("Its upper row; below 0 from the far edge.", metavar="N")] = -1
    column: Annotated[int, Option("Its left column; likewise.", metavar="N")] = -1
    epsilon: Annotated[
        int | None,
        Field(ge=1, le=255),
        Option("Optimise a pattern that adds or takes at most so many of 255 levels at each pixel.", metavar="LEVELS"),
    ] = None
    steps: Annotated[int, Field(ge=1), Option("Optimiser steps.", metavar="N")] = 200
    batch_size: Annotated[int, Field(ge=1), Option("Images of each step.", metavar="N")] = 32
    images: Annotated[int, Field(ge=1), Option("Images to optimise on.", metavar="N")] = 512
    held_out: Annotated[int, Field(ge=1), Option("Others to measure it on.", metavar="N")] = 200
    evade: Annotated[bool, Option("Also keep below what 'repaint' masks, whose score costs a pass there and back.")] = (
        False
    )
    split: Annotated[
        str | None,
        Option("Split to take them from.", metavar="NAME", default="the first of train, val, test"),
    ] = None
    seed: Annotated[int, Field(ge=0), Option("Of the start, the batches and the noise.")] = 0
    device: Device = "auto"

    @model_validator(mode="after")
    def _has_one_form(self) -> AdaptRequest:
        if (self.epsilon is None) == (self.patch_size is None):
            raise UsageError("give ‹patch_size PX› for a patch, or ‹epsilon LEVELS› for a pattern over the whole image")
        return self
