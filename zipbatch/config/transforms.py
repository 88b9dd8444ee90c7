"""Transforms, what may be left of an image: the one grammar, for settings and for what applies them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

Kind = Literal["gray", "blur", "gauss", "dct"]
Grid = Literal["fixed", "mean", "key"]
MAX_SIGMA = 100
"""Pixels of a Gaussian."""
_FORM = re.compile(
    r"gray"
    r"|blur:(?P<blur>[1-9][0-9]{0,4})(?:@(?P<grid>mean|key))?"
    r"|gauss:(?P<gauss>[0-9]{1,3}(?:\.[0-9]{1,3})?)"
    r"|dct:(?P<dct>[1-9][0-9]{0,4})"
)
_GRIDS: dict[str | None, Grid] = {None: "fixed", "mean": "mean", "key": "key"}


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A transform by its parts.

    Attributes:
        kind: ``gray``, ``blur``, ``gauss`` or ``dct``.
        factor: N of ``blur:N`` and ``dct:N``; 1 for the others.
        sigma: S of ``gauss:S``, in pixels; 0 for the others.
        grid: where a blur's grid lies: ``fixed``, at all places in the ``mean``, or at one drawn by ``key``.
    """

    kind: Kind
    factor: int = 1
    sigma: float = 0.0
    grid: Grid = "fixed"

    @property
    def is_projection(self) -> bool:
        """Whether applying it twice is applying it once."""
        return self.kind != "gauss" and self.grid != "mean"


def parse_transform(text: str) -> Transform:
    """``gray``, ``blur:N``, ``blur:N@mean``, ``blur:N@key``, ``gauss:S`` or ``dct:N``.

    Raises:
        ValueError: anything else.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(
            f"unknown transform {text!r}: it is 'gray' or 'blur:N' with a whole number N of 1 or more (blur:1 keeps "
            "all), 'blur:N@mean' (all places of its grid), 'blur:N@key' (one of them, drawn by key), 'gauss:S' (S "
            "pixels) or 'dct:N' (the lowest 1 of N frequencies)"
        )
    if found["blur"]:
        return Transform(kind="blur", factor=int(found["blur"]), grid=_GRIDS[found["grid"]])
    if found["dct"]:
        return Transform(kind="dct", factor=int(found["dct"]))
    if found["gauss"]:
        if not 0 < (sigma := float(found["gauss"])) <= MAX_SIGMA:
            raise ValueError(f"{text}: gauss needs a sigma above 0 and up to {MAX_SIGMA} pixels")
        return Transform(kind="gauss", sigma=sigma)
    return Transform(kind="gray")


def _checked(text: str) -> str:
    parse_transform(text)
    return text


def listed(value: object) -> object:
    """``blur:2,gray`` as a list; anything else as it is."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Transforms = Annotated[
    tuple[Annotated[str, AfterValidator(_checked)], ...], BeforeValidator(listed), Field(min_length=1)
]
"""Transforms as users write them, one or more; settings keep the text, which identities and manifests tell."""
