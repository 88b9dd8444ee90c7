"""What may be asked of ``purify``: every setting, its default, its limits and its help are written here alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zipbatch.config import Option, Request, pairs
from zipbatch.errors import UsageError
from zipbatch.purifiers.settings import Precision
from zipbatch.spelling import setting

OutputSize = Literal["input", "prior"]
AUTO: Literal["auto"] = "auto"
CHAIN = "chain"
PRIOR = Option(
    "Diffusion model: a diffusers folder, an OpenAI checkpoint, one to fetch, or 'embedded'.",
    metavar="DIR|FILE.pt|URL|hub:NAME[@REV]",
    decides="identity",
)


class NetworkRequest(Request):
    """How a prior's network is run, by whoever purifies."""

    seed: Annotated[int, Field(ge=0), Option("Of the noise.", metavar="N", decides="identity")] = 0
    precision: Annotated[
        Literal["auto", Precision],
        Option(
            "Of the network; auto: bfloat16 where the hardware has it, else float32; in pipelines float32.",
            decides="identity",
        ),
    ] = AUTO
    batch_size: Annotated[int, Field(ge=1), Option("Network batch.", metavar="N", decides="nothing")] = 32


class PurifierRequest(NetworkRequest):
    """Which purifier, and its settings. All of it decides pixels; most is told by the purifier's identity."""

    preset: Annotated[
        str | None,
        Option(
            "Settings from configs/purifiers; single settings override them.",
            metavar="NAME|FILE",
            default="balanced",
            decides="identity",
        ),
    ] = None
    purifier: Annotated[
        str | None,
        Option("Method; 'zipbatch ls purifiers'.", metavar="NAME", default="the preset's", decides="identity"),
    ] = None
    transforms: Annotated[
        tuple[str, ...],
        Option(
            "gray, blur:N, blur:N@mean, blur:N@key, gauss:S or dct:N; repeats, averaged.",
            flag="transform",
            metavar="T",
            decides="identity",
        ),
    ] = ()
    guidance_exponent: Annotated[
        float | None, Option("The pull at step t is 1 - alpha_bar[t]^K.", metavar="K", decides="identity")
    ] = None
    steps: Annotated[int | None, Option("Sampling steps over the whole schedule.", metavar="S", decides="identity")] = (
        None
    )
    eta: Annotated[float | None, Option("0 deterministic (DDIM) … 1 ancestral.", metavar="ETA", decides="identity")] = (
        None
    )
    start_step: Annotated[
        int | None, Option("Start at the first step below T0; T is pure noise.", metavar="T0", decides="identity")
    ] = None
    set: Annotated[
        dict[str, Any],
        Option(
            "Any setting of the purifier, as 'zipbatch ls purifiers' shows it; repeats. Lists by commas, null for "
            "none. Of a chain's step by its number, 2.quality=70, or by its method where that occurs once, "
            "zip.guidance_exponent=40.",
            metavar="NAME=VALUE",
            decides="identity",
        ),
    ] = Field(default_factory=dict)
    chain: Annotated[
        tuple[str, ...],
        Option(
            "A purifier with its settings, after that of the ‹chain› before. A range, quality=40..80, is drawn "
            "for each image; draws=K takes the mean of K.",
            metavar="'METHOD NAME=VALUE…'",
            decides="identity",
        ),
    ] = ()
    resize: Annotated[
        Literal["stretch", "center-crop"] | None,
        Option("Make images fit that do not: whole, or the middle square alone.", decides="identity"),
    ] = None
    output_size: Annotated[
        OutputSize | None,
        Option("Size that resized images come out with.", default="input; with center-crop: prior", decides="identity"),
    ] = None
    compile: Annotated[
        Literal["off", "on"],
        Option(
            "Compile the network, on CPUs: that takes minutes, and pays from some 20,000 images on; pixels differ as "
            "between precisions."
        ),
    ] = "off"
    keep_masks: Annotated[
        bool, Option("Add what was repainted to each purified sample, white in KEY.mask.png (purifier repaint).")
    ] = False

    @model_validator(mode="after")
    def _chain_stands_alone(self) -> PurifierRequest:
        if self.chain and (self.preset or self.purifier):
            raise ValueError("‹chain› names the purifiers itself; leave ‹preset› and ‹purifier› out")
        return self

    @property
    def method(self) -> str | None:
        """The purifier that is asked for; None for the preset's."""
        return CHAIN if self.chain else self.purifier

    @property
    def flags(self) -> dict[str, object]:
        """Settings of the purifier that are fields of their own and were given."""
        given = {name: getattr(self, name) for name in ("guidance_exponent", "steps", "eta", "start_step")}
        given["transforms"] = self.transforms or None
        return {name: value for name, value in given.items() if value is not None}

    @property
    def assigned(self) -> dict[str, object]:
        """Settings of the purifier as ``set`` gives them, and the steps of the chain."""
        return {**self.set, **({"steps": [chain_step(text) for text in self.chain]} if self.chain else {})}


class PurifySettings(PurifierRequest):
    """What a version is made with, whatever the shards and the store."""

    splits: Annotated[
        tuple[str, ...],
        Option(
            "Split; repeats.",
            flag="split",
            metavar="NAME",
            default="test, test_poisoned; bare: all",
            decides="identity",
        ),
    ] = ()
    quarantine: Annotated[
        bool,
        Option(
            "Set samples that cannot be read aside, untouched, and go on.",
            default="they fail their shard",
            decides="selection",
        ),
    ] = False
    other_images: Annotated[
        Literal["refuse", "keep"],
        Option(
            "Images beside a sample's own (1.mask.png beside 1.jpg; 1.5.jpg is one, too): keep passes them on "
            "untouched.",
            decides="selection",
        ),
    ] = "refuse"


class PurifyRequest(PurifySettings):
    """All that ``zipbatch purify`` is asked, beside the shards and who works."""

    prior: Annotated[str | None, PRIOR] = None
    store: Annotated[str, Option("Where results are kept.", metavar="DIR|URL", decides="nothing")]
    name: Annotated[
        str | None,
        Option("Name of the dataset in the store.", metavar="NAME", default="the input folder's", decides="nothing"),
    ] = None
    tag: Annotated[
        str | None, Option("Tag to move to the result, beside 'latest'.", metavar="TAG", decides="nothing")
    ] = None
    limit: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "A trial: of each split the first shards that hold N images. It never moves 'latest', and is tagged "
            "'trial' unless a tag is given.",
            metavar="N",
            default="all",
            decides="nothing",
        ),
    ] = None
    latest: Annotated[
        bool | None,
        Option(
            "Move the tag 'latest' to the result, or don't.",
            default="unless that leaves the line of another tag",
            decides="nothing",
        ),
    ] = None
    trust_mtime: Annotated[
        bool,
        Option(
            "Know an unchanged input by size and mtime alone, where inodes or ctimes change by themselves.",
            decides="nothing",
        ),
    ] = False

    @model_validator(mode="after")
    def _trial_is_not_latest(self) -> PurifyRequest:
        if self.limit is not None and (self.latest or self.tag == "latest"):
            raise UsageError(
                "a trial (‹limit›) is of some shards alone and never becomes 'latest', which stands for all of them; "
                "leave ‹latest› out and take another ‹tag›, or leave ‹limit› out"
            )
        return self


def chain_step(text: str) -> Mapping[str, object]:
    """``jpeg quality=60`` as a step of a chain.

    Raises:
        UsageError: no purifier, or what follows it is not ``NAME=VALUE``.
    """
    try:
        method, *given = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"{setting('chain', text)}: name a purifier and its settings, as in 'jpeg quality=60'"
        ) from error
    values = pairs(given, setting("chain", text))
    return {"method": method, **{name: None if value == "null" else value for name, value in values.items()}}
