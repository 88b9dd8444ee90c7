"""The settings of each stage and what they may be."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _transform(text: str) -> str:
    if text == "gray":
        return text
    match = re.fullmatch(r"blur:([1-9]\d{0,4})", text)
    if not match:
        raise ValueError("a transform is 'gray' or 'blur:N' with a whole number N of 1 or more (blur:1 keeps all)")
    return text


Transform = Annotated[str, AfterValidator(_transform)]


class Settings(BaseModel):
    """Base of all settings: unknown fields, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VictimConfig(Settings):
    """How a victim is trained."""

    arch: str = "resnet18"
    epochs: int = Field(100, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(128, ge=2)
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    augment: bool = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    seed: int = Field(0, ge=0)


class DemoConfig(Settings):
    """What the demo compares."""

    attacks: tuple[str, ...]
    purifiers: tuple[str, ...]
    seed: int = 0
    samples_per_shard: int = Field(250, ge=1)
    batch_size: int = Field(32, ge=1)
