"""What may be asked of ``tune``: every setting, its default, its limits and its help are written here alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from zipbatch.config import DEFAULTS, Option
from zipbatch.errors import UsageError
from zipbatch.stages.evaluate.request import TrialRequest
from zipbatch.stages.purify.request import PRIOR

_OF_SUSPECTS = ("exponents", "splits", "shards", "limit")
_OF_CLEAN_IMAGES = (
    *("fit_split", "fit_limit", "max_loss", "image_size", "resize", "calibrate", "train_minutes", "train_preset"),
)
_INSTEAD = {"splits": "; of ‹fit› it is ‹fit_split›", "limit": "; of ‹fit› it is ‹fit_limit› or ‹max_loss›"}


class TuneRequest(TrialRequest):
    """All that ``zipbatch tune`` is asked, beside who works: of suspect images, of clean ones (``fit``), or of both."""

    prior: Annotated[str, PRIOR]
    store: Annotated[
        str | None,
        Option("Where results are kept; needed with ‹data›.", metavar="DIR|URL", default="nowhere", decides="nothing"),
    ] = None
    presets: Annotated[
        tuple[str, ...],
        Option(
            "Settings whose strength is tuned; with ‹fit› one more to try, beside fast, balanced and strong: repeats, "
            "weakest first.",
            flag="preset",
            metavar="NAME|FILE",
            default=DEFAULTS["purifiers"],
        ),
    ] = ()
    exponents: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        Option(
            "A strength to try beside the preset's; repeats.",
            flag="guidance-exponent",
            metavar="K",
            default="8, 4, 2, 1/2, 1/4 times the preset's",
        ),
    ] = ()
    limit: Annotated[
        float,
        Field(ge=0, le=1),
        Option("Attack success rate that may be left, as the answers let it be estimated.", metavar="SHARE"),
    ] = 0.02
    fit: Annotated[
        str | None,
        Option(
            "Clean images of yours, as for 'zipbatch poison', without labels, too: choose the preset that they can "
            "afford.",
            metavar="SOURCE",
        ),
    ] = None
    fit_split: Annotated[
        str | None, Option("Split of SOURCE.", metavar="NAME", default="the first of test, val, train")
    ] = None
    fit_limit: Annotated[int, Field(ge=1), Option("Clean images at most.", metavar="N")] = 500
    max_loss: Annotated[
        float,
        Field(ge=0, le=1),
        Option(
            "Share of answers on clean images that purifying may change; of accuracy it costs no more, mostly a half "
            "or less.",
            metavar="SHARE",
        ),
    ] = 0.1
    image_size: Annotated[
        int | None,
        Field(ge=8),
        Option("Stretch clean images to PX x PX.", metavar="PX", default="what VICTIM takes, else the source's"),
    ] = None
    calibrate: Annotated[
        bool, Option("Learn thresholds from the clean images, too, where the prior has its own for their size.")
    ] = False
    train_minutes: Annotated[
        float | None,
        Field(gt=0),
        Option(
            "Train a prior on SOURCE first, in the folder ‹prior›, MIN minutes at most; a rerun goes on.", metavar="MIN"
        ),
    ] = None
    train_preset: Annotated[str, Option("Settings of that training, from configs/priors.", metavar="NAME|FILE")] = (
        DEFAULTS["priors"]
    )
    out: Annotated[
        Path | None, Option("Write the choice, for 'zipbatch purify --preset'.", metavar="FILE.yaml", decides="nothing")
    ] = None

    @model_validator(mode="after")
    def _goes_together(self) -> TuneRequest:
        if self.fit is None and (stray := self.given(*_OF_CLEAN_IMAGES)):
            raise UsageError(f"‹{stray[0]}› goes with ‹fit›, which names clean images; without it, leave it out")
        if not self.data and self.fit is None:
            raise UsageError("Missing option '‹data›'. Suspect images, or clean ones with ‹fit›.")
        if self.data and self.store is None:
            raise UsageError("Missing option '‹store›'. Where purified images are kept.")
        if not self.data and (stray := self.given(*_OF_SUSPECTS)):
            raise UsageError(f"‹{stray[0]}› goes with ‹data›, which names suspect images{_INSTEAD.get(stray[0], '')}")
        return self

    @property
    def preset(self) -> str | None:
        """The preset whose strength is tuned; None for the default."""
        return self.presets[-1] if self.presets else None
