"""What may be asked of ``train`` and ``calibrate``; how a model is trained is said in ``config/training.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from zipbatch.config import (
    DEFAULTS,
    Option,
    PriorConfig,
    RestorerConfig,
    VictimConfig,
    find_config,
    load_config,
    validate,
)
from zipbatch.config.request import Device
from zipbatch.errors import UsageError
from zipbatch.stages.resizing import ResizedToRequest

VictimPreset = Annotated[
    str,
    Option("Settings from configs/victims; single settings override them.", metavar="NAME|FILE", decides="identity"),
]
PriorPreset = Annotated[
    str,
    Option("Settings from configs/priors; single settings override them.", metavar="NAME|FILE", decides="identity"),
]


class VictimSettings(ResizedToRequest):
    """A preset for victims, and single settings over it."""

    preset: VictimPreset
    set: Annotated[dict[str, Any], Option(settings_of=VictimConfig, default="the preset's", decides="identity")] = (
        Field(default_factory=dict)
    )

    def config(self) -> VictimConfig:
        """The preset with the settings over it.

        Raises:
            UsageError: no such preset, or unfit settings.
        """
        return load_config(find_config("victims", self.preset), VictimConfig, self.set)


class VictimRequest(VictimSettings):
    """All that ``zipbatch train victim`` is asked, beside the staged dataset."""

    out: Annotated[Path, Option("Victim folder to write.", metavar="DIR", decides="nothing")]
    preset: VictimPreset = DEFAULTS["victims"]
    purified: Annotated[
        str | None,
        Option(
            "Train on the purified form of the train split; needs ‹store›.", metavar="NAME[@TAG]", decides="identity"
        ),
    ] = None
    store: Annotated[
        str | None,
        Option("The store of the purified version.", metavar="DIR|URL", beside="purified", decides="nothing"),
    ] = None
    start: Annotated[
        str | None,
        Option(
            "Begin with the weights of this victim's folder, or embedded:ATTACK.", metavar="VICTIM", decides="identity"
        ),
    ] = None
    device: Device = "auto"

    @model_validator(mode="after")
    def _goes_together(self) -> VictimRequest:
        if (self.purified is None) != (self.store is None):
            raise UsageError("‹purified› and ‹store› go together: which version, and where is it?")
        return self


class PriorSettings(ResizedToRequest):
    """A preset for priors, and single settings over it."""

    preset: PriorPreset
    set: Annotated[dict[str, Any], Option(settings_of=PriorConfig, default="the preset's", decides="identity")] = Field(
        default_factory=dict
    )

    def config(self) -> PriorConfig:
        """As of ``VictimSettings``."""
        return load_config(find_config("priors", self.preset), PriorConfig, self.set)


class PriorRequest(PriorSettings):
    """All that ``zipbatch train prior`` is asked, beside the source."""

    out: Annotated[Path, Option("Prior folder to write.", metavar="DIR", decides="nothing")]
    preset: PriorPreset = DEFAULTS["priors"]
    device: Device = "auto"


class RestorerRequest(ResizedToRequest):
    """All that ``zipbatch train restorer`` is asked, beside the prior and the source."""

    set: Annotated[dict[str, Any], Option(settings_of=RestorerConfig, decides="identity")] = Field(default_factory=dict)
    device: Device = "auto"

    def config(self, trained_below: int) -> RestorerConfig:
        """The settings, by default at no timestep that the prior has not learned.

        Args:
            trained_below: the timestep below which the prior has learned.

        Raises:
            UsageError: unfit settings.
        """
        defaults = RestorerConfig.model_validate({})
        highest = {"max_step": min(defaults.max_step, trained_below)}
        return validate(RestorerConfig, highest | self.set, where="settings given one by one")


class CalibrateRequest(ResizedToRequest):
    """All that ``zipbatch calibrate`` is asked, beside the prior and the source."""

    split: Annotated[
        str | None, Option("Split to learn from.", metavar="NAME", default="the first of test, val, train")
    ] = None
    limit: Annotated[int, Field(ge=1), Option("Images at most.", metavar="N")] = 4000
    residual_steps: Annotated[str, Option("Timesteps to measure at, as 'repaint' has them.", metavar="T,…")] = (
        "100,300,500"
    )
    device: Device = "auto"
