"""Settings of the purifiers: types, limits, defaults. Without torch, so that a store is listed in no time."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from zipbatch.config import Calibration, Settings, Transforms, listed, parse_transform

Precision = Literal["float32", "tf32", "float16", "bfloat16"]
"""Of a prior's forward pass. States, guidance and noise are float32 whatever it is."""


def _timesteps(training_steps: int, steps: int, start_step: int) -> list[tuple[int, int]]:
    """As ``zipbatch.diffusion.timesteps``, which knows torch."""
    from zipbatch.diffusion import timesteps

    return timesteps(training_steps, steps, start_step)


class PriorSettings(Settings):
    """Settings of a purifier with a prior."""

    def calls(self, training_steps: int) -> int:
        """Forward passes of a network that an image takes, at most, with a schedule of T steps."""
        raise NotImplementedError

    def least_calls(self, training_steps: int) -> int:
        """Those that every image takes."""
        return self.calls(training_steps)


class SamplerSettings(PriorSettings):
    """How a prior is sampled, the same for every purifier that samples one."""

    steps: int | None = Field(20, ge=1, description="S, sampling steps over the whole schedule; null: all T")
    eta: float = Field(1.0, ge=0, le=1, description="0 deterministic (DDIM) to 1 ancestral")
    start_step: int | None = Field(None, ge=1, description="start at the first step below it; null: T, pure noise")

    def grid(self, training_steps: int) -> tuple[int, int]:
        """S and start step for a schedule of T steps: null is T, and so is a start above T.

        Raises:
            ValueError: more steps than T.
        """
        steps = training_steps if self.steps is None else self.steps
        start_step = min(self.start_step or training_steps, training_steps)
        _timesteps(training_steps, steps, start_step)  # says what is wrong
        return steps, start_step

    def calls(self, training_steps: int) -> int:
        """Forward passes of the prior that an image takes, at most."""
        return len(_timesteps(training_steps, *self.grid(training_steps)))

    def highest(self, training_steps: int) -> int:
        """The highest timestep that the network is asked about."""
        return _timesteps(training_steps, *self.grid(training_steps))[0][0]

    def check_learned(self, training_steps: int, below: int) -> None:
        """Raises ``ValueError`` where the network is asked about timesteps that it never learned: ``below`` and on."""
        if (highest := self.highest(training_steps)) >= below:
            raise ValueError(
                f"learned the timesteps below {below} alone, would be asked at {highest}; take lower steps"
            )


class ZipSettings(SamplerSettings):
    """Settings of ``zip``; the defaults are those of the preset ``balanced-v1``, the published ones are ``paper``."""

    start_step: int | None = Field(300, ge=1, description="start at the first step below it; null: T, pure noise")
    transforms: Transforms = Field(("blur:2", "blur:1"), description="what guides the sampler; several are averaged")
    guidance_exponent: float = Field(10.0, gt=0, description="k; the pull at step t is 1 - alpha_bar[t]^k")


def _listed(value: object) -> object:
    """``100,300`` as a list; a single number, which YAML reads as such, too."""
    return [value] if isinstance(value, int | float) else listed(value)


class RepaintSettings(SamplerSettings):
    """Settings of ``repaint``. What is usual on clean images, and so the last four, comes with the prior, from its
    ``calibration.json``, where they are not given.
    """

    LEARNED: ClassVar[tuple[str, ...]] = ("levels", "seed_threshold", "region_threshold", "image_size")

    start_step: int = Field(100, ge=1, description="repaint from the first step below it on")
    residual_steps: Annotated[tuple[int, ...], BeforeValidator(_listed), Field(min_length=1, max_length=32)] = Field(
        (100, 300, 500), description="timesteps whose clean estimates an image is held against"
    )
    seed_share: float = Field(0.0005, gt=0, le=0.5, description="share of clean pixels that would begin a region")
    region_share: float = Field(0.03, gt=0, le=0.5, description="share of clean pixels that could belong to one")
    levels: Annotated[tuple[float, ...] | None, BeforeValidator(_listed)] = Field(
        None, description="mean absolute residual of clean images at each timestep; null: the prior's"
    )
    seed_threshold: float | None = Field(None, gt=0, description="score above which a region begins; null: the prior's")
    region_threshold: float | None = Field(None, gt=0, description="score above which it goes on; null: the prior's")
    image_size: int | None = Field(None, ge=1, description="side of the images that all this holds for; null: any")

    @model_validator(mode="after")
    def _fits(self) -> RepaintSettings:
        if len(set(self.residual_steps)) < len(self.residual_steps) or min(self.residual_steps) < 0:
            raise ValueError("residual_steps must differ and be 0 or more")
        given = [self.levels is None, self.seed_threshold is None, self.region_threshold is None]
        if any(given) and not all(given):
            raise ValueError("levels, seed_threshold and region_threshold are given together or not at all")
        if self.levels is not None and (len(self.levels) != len(self.residual_steps) or min(self.levels) <= 0):
            raise ValueError("levels must be above 0, one for each of residual_steps")
        if self.region_share < self.seed_share:
            raise ValueError("region_share must be no less than seed_share")
        return self

    def grid(self, training_steps: int) -> tuple[int, int]:
        """As of every sampler; the timesteps of residuals must be below T, too."""
        if max(self.residual_steps) >= training_steps:
            raise ValueError(f"residual_steps must be below the prior's {training_steps}, got {self.residual_steps}")
        return super().grid(training_steps)

    def highest(self, training_steps: int) -> int:
        """As of every sampler, or that of a residual."""
        return max(super().highest(training_steps), *self.residual_steps)

    def calls(self, training_steps: int) -> int:
        """Those that look, and those that paint where something was found."""
        return len(self.residual_steps) + super().calls(training_steps)

    def least_calls(self, training_steps: int) -> int:  # noqa: ARG002
        """Those that look: where nothing is found, nothing is painted."""
        return len(self.residual_steps)

    def calibrated(self, calibration: Calibration) -> RepaintSettings:
        """With what is usual on clean images, as far as it is not given.

        Raises:
            ValueError: it was measured at other timesteps, or on too few images for the shares.
        """
        if self.levels is not None:
            return self
        if self.residual_steps != calibration.residual_steps:
            raise ValueError(
                f"residual_steps are {self.residual_steps}, the prior was calibrated at {calibration.residual_steps}; "
                "'zipbatch calibrate --residual-steps' does it at others"
            )
        return self.model_copy(
            update={
                "levels": calibration.levels,
                "seed_threshold": calibration.score(self.seed_share),
                "region_threshold": calibration.score(self.region_share),
                "image_size": calibration.image_size,
            }
        )


class RestoreSettings(PriorSettings):
    """Settings of ``restore``."""

    LEARNED: ClassVar[tuple[str, ...]] = ("weights",)

    noise_step: int = Field(30, ge=0, description="timestep whose noise is added before; more hides more")
    weights: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the restorer's weights; null: the prior's restorer"
    )

    def taught(self, weights: str, max_step: int) -> RestoreSettings:
        """With the digest of the prior's restorer, which was taught at the timesteps below ``max_step``.

        Raises:
            ValueError: other weights are asked for, or a timestep that it does not know.
        """
        if self.weights not in {None, weights}:
            raise ValueError(f"its restorer has weights {weights[:12]}…, {str(self.weights)[:12]}… are asked for")
        if self.noise_step >= max_step:
            raise ValueError(f"its restorer was taught at timesteps below {max_step}; noise_step is {self.noise_step}")
        return self.model_copy(update={"weights": weights})

    def calls(self, training_steps: int) -> int:  # noqa: ARG002 (as of every purifier with a prior)
        """Always one."""
        return 1


class DdnmSettings(SamplerSettings):
    """Settings of ``ddnm``; steps and eta are the published ones."""

    steps: int | None = Field(100, ge=1, description="S, sampling steps over the whole schedule; null: all T")
    eta: float = Field(0.85, ge=0, le=1, description="0 deterministic (DDIM) to 1 ancestral")
    transforms: Transforms = Field(
        ("blur:2",), max_length=1, description="the one transform whose image is kept; a mean of several keeps none"
    )

    @field_validator("transforms")
    @classmethod
    def _projects(cls, transforms: tuple[str, ...]) -> tuple[str, ...]:
        if odd := [text for text in transforms if not parse_transform(text).is_projection]:
            raise ValueError(f"{odd[0]} is no projection, whose image could be kept; take blur:N, blur:N@key or dct:N")
        return transforms


class DiffPureSettings(SamplerSettings):
    """Settings of ``diffpure``; the defaults are the published ones for CIFAR-10 (ImageNet: start step 150)."""

    steps: int | None = Field(None, ge=1, description="sampling steps over the whole schedule; null: all T")
    start_step: int = Field(100, ge=1, description="t, how many training steps of noise the image gets")


class BlurSettings(Settings):
    """Settings of ``blur``."""

    transforms: Transforms = Field(("blur:2",), description="what is left of the image; several are averaged")


def _odd(window: int) -> int:
    if window % 2 == 0:
        raise ValueError("a window is odd, so that it has a middle")
    return window


class MedianSettings(Settings):
    """Settings of ``median``; the default is that of Trusted-AI/adversarial-robustness-toolbox."""

    window: Annotated[int, AfterValidator(_odd)] = Field(3, ge=3, le=31, description="side of the window, odd, 3 to 31")


class BitDepthSettings(Settings):
    """Settings of ``bitdepth``. The toolbox's default of 8 changes no uint8 image; 3 leaves 8 levels a channel."""

    bits: int = Field(3, ge=1, le=8, description="bits a channel, 1 to 8; 8 changes nothing")


class JpegSettings(Settings):
    """Settings of ``jpeg``; the default is that of Trusted-AI/adversarial-robustness-toolbox."""

    quality: int = Field(50, ge=1, le=100, description="libjpeg's quality, 1 to 100")


class ShrinkPadSettings(Settings):
    """Settings of ``shrinkpad``; the default is the published one for 32 px and does not grow with the image."""

    pad: int = Field(4, ge=1, description="pixels that height and width lose, and get back as black borders")


SETTINGS: dict[str, type[Settings]] = {
    "zip": ZipSettings,
    "repaint": RepaintSettings,
    "restore": RestoreSettings,
    "ddnm": DdnmSettings,
    "diffpure": DiffPureSettings,
    "blur": BlurSettings,
    "median": MedianSettings,
    "bitdepth": BitDepthSettings,
    "jpeg": JpegSettings,
    "shrinkpad": ShrinkPadSettings,
}
"""By purifier; a chain's are those of its steps."""
