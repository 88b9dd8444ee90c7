"""What may be asked of ``import victim`` and ``import dataset``: settings, defaults, limits and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from zipbatch.config import Option, Request
from zipbatch.errors import UsageError


class ImportVictimSettings(Request):
    """How a checkpoint is taken. None: as the file says, or as its kind implies; what is only implied is told."""

    arch: Annotated[
        str | None,
        Option(
            "resnet20, resnet18 to resnet152, preactresnet18, vgg11 to vgg19, vgg11_bn to vgg19_bn (CIFAR's), "
            "torchvision:NAME or timm:NAME.",
            metavar="NAME",
            default="told from the file",
            decides="identity",
        ),
    ] = None
    num_classes: Annotated[
        int | None, Field(ge=2), Option("Where the file leaves it open.", metavar="N", decides="identity")
    ] = None
    image_size: Annotated[
        int | None, Field(ge=1), Option("Side of the images that it takes.", metavar="PX", decides="identity")
    ] = None
    mean: Annotated[
        str | None,
        Option(
            "Subtracted from pixels in [0, 1]; NAME (none, half, imagenet, cifar10, cifar100, tiny) says mean and std.",
            metavar="R,G,B|NAME",
            decides="identity",
        ),
    ] = None
    std: Annotated[
        str | None,
        Option("Divided by, after that.", metavar="R,G,B|NAME", default="of the same NAME", decides="identity"),
    ] = None
    channel_order: Annotated[
        Literal["rgb", "bgr"] | None, Option("bgr for victims trained on cv2.imread.", decides="identity")
    ] = None

    @model_validator(mode="after")
    def _goes_together(self) -> ImportVictimSettings:
        if self.std is not None and self.mean is None:
            raise UsageError("‹std› needs ‹mean›")
        return self


class ImportVictimRequest(ImportVictimSettings):
    """What to import, and where to."""

    file: Annotated[Path, Option(decides="identity")]
    out: Annotated[Path, Option("Victim folder to write.", metavar="DIR", decides="nothing")]


class ImportDatasetRequest(Request):
    """What to import: a folder that BackdoorBench wrote. The staged options tell of what decides the staged bytes."""

    record: Annotated[Path, Option(decides="identity")]
    out: Annotated[Path, Option("Staged dataset to write.", metavar="DIR", decides="nothing")]
    source: Annotated[
        str | None,
        Option(
            "Clean test images in the dataset's own order, as for 'zipbatch poison': adds the split test.",
            metavar="SOURCE",
            decides="identity",
        ),
    ] = None
    samples_per_shard: Annotated[int, Field(ge=1), Option(metavar="N", decides="identity")] = 1000
