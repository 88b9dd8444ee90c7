"""What may be asked of all that read images of any size: how they are brought to one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from zipbatch.config import Option, Request
from zipbatch.errors import UsageError
from zipbatch.images import Resize
from zipbatch.spelling import setting


class ResizedRequest(Request):
    """Images of any size: at their own, or brought to another."""

    image_size: Annotated[
        int | None,
        Field(ge=8),
        Option("Resize to PX x PX.", metavar="PX", default="the source's", decides="identity"),
    ] = None
    resize: Annotated[
        Resize,
        Option("Squeeze the whole image, or cut its middle square out.", decides="identity"),
    ] = "stretch"

    @property
    def resized(self) -> dict[str, Any]:
        """What of that is not at its default, for an identity: nothing where images stay as they are."""
        return self.model_dump(mode="json", include=set(ResizedRequest.model_fields), exclude_defaults=True)


class ResizedToRequest(ResizedRequest):
    """As above, where images stay as they are unless a size is named."""

    @model_validator(mode="after")
    def _to_a_size(self) -> ResizedToRequest:
        if self.image_size is None and self.resize != "stretch":
            raise UsageError(f"{setting('resize', self.resize)} goes with ‹image_size PX›, the size to bring images to")
        return self
