"""How models are trained: every setting, its default and its limits; those with an ``Option`` have a flag, too."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from zipbatch.config.request import Option, Request

Minutes = Annotated[float | None, Field(gt=0), Option("Stop after MIN minutes at most.", metavar="MIN")]
PeakRate = Annotated[float, Field(gt=0), Option("Peak learning rate (cosine decay).", metavar="RATE")]
Seed = Annotated[int, Field(ge=0), Option(metavar="N")]
OptimizerSteps = Annotated[int, Field(ge=1), Option("Optimizer steps.", metavar="N")]
BatchSize = Annotated[int, Field(ge=1), Option(metavar="N")]
Warmup = Annotated[float, Field(ge=0, lt=1)]
Ema = Annotated[float, Field(ge=0, lt=1)]
HeldOut = Annotated[int, Field(ge=1)]


class VictimConfig(Request):
    """How a victim is trained."""

    arch: Annotated[str, Option("resnet20, resnet18, resnet34 or torchvision:NAME.", metavar="NAME")] = "resnet18"
    epochs: Annotated[int, Field(ge=1), Option(metavar="N")] = 100
    minutes: Minutes = None
    batch_size: Annotated[int, Field(ge=2), Option(metavar="N")] = 128
    lr: PeakRate = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup: Warmup = 0.05
    augment: Annotated[bool, Option("Random crops and flips.")] = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    seed: Seed = 0


class DenoiserConfig(Request):
    """How a network is trained that takes noise away: a prior, or its restorer."""

    steps: OptimizerSteps = 30_000
    minutes: Minutes = None
    batch_size: BatchSize = 16
    lr: PeakRate = 1e-3
    final_lr: Annotated[float, Field(ge=0, le=1)] = 0.02
    warmup: Warmup = 0.01
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    clip_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    ema: Ema = 0.9992
    flip: bool = True
    held_out: HeldOut = 512
    seed: Seed = 0


class PriorConfig(DenoiserConfig):
    """How a prior is trained. ``unet`` is a diffusers UNet2DModel config without channels and sample size.

    With ``max_step`` only the timesteps below it are learned, and the prior is good for those alone. ``min_snr`` is the
    gamma of min-SNR weighting (Hang et al. 2023, arXiv 2303.09556); None weighs all timesteps alike.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"max_step", "min_snr"})

    unet: dict[str, Any] = Field(
        default={
            "block_out_channels": [64, 128],
            "down_block_types": ["DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "add_attention": False,
            "norm_num_groups": 16,
        }
    )
    patch: Annotated[int, Field(ge=1, le=8)] = 2
    beta_schedule: str = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    training_steps: Annotated[int, Field(ge=10)] = 1000
    max_step: Annotated[int | None, Field(ge=2)] = None
    min_snr: Annotated[float | None, Field(gt=0)] = None

    @model_validator(mode="after")
    def _fits(self) -> PriorConfig:
        if self.max_step is not None and self.max_step > self.training_steps:
            raise ValueError(f"max_step must be at most training_steps, {self.training_steps}, got {self.max_step}")
        return self


class RestorerConfig(DenoiserConfig):
    """How a prior's restorer is trained: from the prior's own weights, on images that were damaged on purpose.

    Of the images of a batch, the share ``plain`` is only compressed and noised; the others get a patch, a picture mixed
    in or a warp before that, drawn anew each time.
    """

    steps: OptimizerSteps = 6000
    batch_size: BatchSize = 32
    lr: PeakRate = 4e-4
    warmup: Warmup = 0.03
    ema: Ema = 0.998
    held_out: Annotated[HeldOut, Option("Images that measure it, at most.", metavar="N")] = 512
    max_step: Annotated[
        int,
        Field(ge=2),
        Option("Learn at the timesteps below.", metavar="T", default="150, or what the prior has"),
    ] = 150
    quality: tuple[int, int] = (30, 90)
    plain: Annotated[
        float, Field(ge=0, le=1), Option("Images that are compressed and noised alone.", metavar="SHARE")
    ] = 0.5

    @model_validator(mode="after")
    def _fits(self) -> RestorerConfig:
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(f"quality must go from the lower to the higher of 1 to 100, got {self.quality}")
        return self
