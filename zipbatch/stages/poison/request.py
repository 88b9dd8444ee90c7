"""What may be asked of ``poison``: every setting, its default, its limits and its help are written here alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from zipbatch.config import AS_CLASS, Option
from zipbatch.stages.resizing import ResizedRequest

Profile = Literal["standard", "zip-code", "backdoorbench"]
TargetMode = Literal["all-to-one", "all-to-all"]


def _several(value: object) -> object:
    """One path, or none, as a tuple of paths."""
    return () if value is None else (value,) if isinstance(value, str | Path) else value


def _as_texts(value: object) -> object:
    """Attack parameters as the command line has them; lists of a YAML file by commas."""
    if not isinstance(value, Mapping):
        return value
    return {name: ",".join(map(str, one)) if isinstance(one, list | tuple) else str(one) for name, one in value.items()}


class PoisonSettings(ResizedRequest):
    """Attack, images and shards. None is the attack's own default (target, rates, clean label) or the source's size.

    The staged options tell of all that decides the staged bytes (``staging.requested_options``).
    """

    attack: Annotated[
        str,
        Option(
            "The attack; 'zipbatch ls attacks' lists them. python:FILE.py:FUNCTION is a function of "
            "yours, which is run.",
            metavar="NAME",
            decides="identity",
        ),
    ]
    profile: Annotated[
        Profile,
        Option(
            "Whose choices are the attack's defaults: the literature's, the ZIP reference code's or BackdoorBench's.",
            decides="identity",
        ),
    ] = "standard"
    target: Annotated[
        int | str | None,
        AS_CLASS,
        Option("Target class, by number or name.", metavar="CLASS", default="the attack's", decides="identity"),
    ] = None
    target_mode: Annotated[TargetMode, Option("All-to-all takes each class for the next.", decides="identity")] = (
        "all-to-one"
    )
    clean_label: Annotated[
        bool | None,
        Option(
            "Poison training images of the target class alone, labels true.", default="the attack's", decides="identity"
        ),
    ] = None
    poison_rate: Annotated[
        float | None,
        Field(ge=0, le=1),
        Option("Share of train to poison.", metavar="SHARE", default="the attack's", decides="identity"),
    ] = None
    cover_rate: Annotated[
        float | None,
        Field(ge=0, le=1),
        Option(
            "Share of train to stamp with its true label kept.",
            metavar="SHARE",
            default="the attack's",
            decides="identity",
        ),
    ] = None
    params: Annotated[
        dict[str, str],
        BeforeValidator(_as_texts),
        Option(
            "Parameter of the attack ('zipbatch ls attacks'), lists as 5,7 or cat,dog; repeats.",
            flag="param",
            metavar="NAME=VALUE",
            decides="identity",
        ),
    ] = Field(default_factory=dict)
    trigger_image: Annotated[
        tuple[Path, ...],
        BeforeValidator(_several),
        Option(
            "The picture of patch, pattern, adaptive-blend and, in profile backdoorbench, blended; repeats for "
            "adaptive-patch; a folder of pictures for refool.",
            metavar="PATH",
            decides="identity",
        ),
    ] = ()
    trigger_array: Annotated[
        Path | None,
        Option("The array that lf adds, as numpy.save writes it (.npy).", metavar="FILE", decides="identity"),
    ] = None
    seed: Annotated[int, Field(ge=0), Option("Of trigger and poison indices.", decides="identity")] = 1234
    splits: Annotated[
        tuple[str, ...],
        Option("Source split to stage; repeats.", flag="split", metavar="NAME", default="all", decides="identity"),
    ] = ()
    limit: Annotated[
        int | None, Field(ge=1), Option("Only the first N images of each split.", metavar="N", decides="identity")
    ] = None
    skip_unreadable: Annotated[
        bool,
        Option(
            "Stage the others where images cannot be read; counted and listed.",
            default="list them and stop",
            decides="identity",
        ),
    ] = False
    samples_per_shard: Annotated[int, Field(ge=1), Option(metavar="N", decides="identity")] = 1000


class PoisonRequest(PoisonSettings):
    """All that ``zipbatch poison`` is asked. ``source`` is what ``open_source`` takes."""

    source: Annotated[Any, Option(decides="identity")]
    out: Annotated[Path, Option("Staged dataset to write.", metavar="DIR", decides="nothing")]
    sheet: Annotated[
        Path | None,
        Option("Also a picture of some images, clean and with the trigger.", metavar="FILE.png", decides="nothing"),
    ] = None
