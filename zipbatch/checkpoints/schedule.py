"""The noise schedule that a prior was trained with, out of a diffusers scheduler's config.

A scheduler is a sampler, and ours is another; what counts of its config is the forward process that it undoes, and what
the network predicts of it. Those below all undo DDPM's (Ho et al. 2020, arXiv 2006.11239): x_t = sqrt(alpha_bar) x_0 +
sqrt(1 - alpha_bar) noise at t = 0 … T - 1. How they step (spacing, order, Karras or other sigmas, clipping) says
nothing of the network, so it is left aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

import numpy as np
import torch

from zipbatch.diffusion.prior import Prediction
from zipbatch.diffusion.sampler import AlphaBar
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath

MAX_TRAINING_STEPS = 100_000
DDPM = "DDPMScheduler"
_AS_DDPM = (
    *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DDPMParallelScheduler", "DDIMParallelScheduler"),
    *("DDIMInverseScheduler", "RePaintScheduler", "LMSDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverMultistepInverseScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler"),
    *("UniPCMultistepScheduler", "SASolverScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
)
_OTHER_BETAS = (
    *("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"),
)
SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
    **{name: {} for name in _AS_DDPM},
    **{name: {"beta_start": 0.00085, "beta_end": 0.012} for name in _OTHER_BETAS},
}
"""Those with DDPM's forward process, and what a config that is silent means there, where that is not DDPM's default."""
_FIELDS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
_FORWARD = {
    "use_flow_sigmas": "a flow's forward process",
    "use_dynamic_shifting": "a shifted schedule",
}
"""Fields that, when true, replace the forward process."""
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


def check_scheduler(where: StoragePath, config: Mapping[str, Any]) -> None:
    """Hold a scheduler's config against what the sampler takes for granted.

    Raises:
        UsageError: another forward process than DDPM's, or a prediction that has no epsilon; names the field.
    """
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or not 1 <= steps <= MAX_TRAINING_STEPS:
        raise UsageError(f"{where}: num_train_timesteps must be in 1 to {MAX_TRAINING_STEPS}, got {steps!r}")
    name = config.get("_class_name", DDPM)
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise UsageError(
            f"{where}: _class_name is {str(name)[:80]!r}, which has not DDPM's forward process; the sampler needs a "
            f"prior that was trained with that, such as those of {', '.join(list(SCHEDULERS)[:3])}"
        )
    for field, process in _FORWARD.items():
        if config.get(field):
            raise UsageError(f"{where}: {field} is {config[field]!r}, {process}; the sampler needs DDPM's")
    if config.get("timestep_type", "discrete") != "discrete":
        raise UsageError(f"{where}: timestep_type is {config['timestep_type']!r}; the sampler needs 'discrete'")
    prediction_of(where, config)


def prediction_of(where: StoragePath, config: Mapping[str, Any]) -> Prediction:
    """What the network predicts. Older configs say ``predict_epsilon``, false for the clean image.

    Raises:
        UsageError: something that has no epsilon, or both fields, and they differ.
    """
    kind = config.get("prediction_type")
    if (old := config.get("predict_epsilon")) is not None:
        if not isinstance(old, bool):
            raise UsageError(f"{where}: predict_epsilon must be true or false, got {str(old)[:40]!r}")
        meant = "epsilon" if old else "sample"
        if kind is not None and kind != meant:
            raise UsageError(f"{where}: predict_epsilon is {old}, but prediction_type is {kind!r}; keep the true one")
        kind = meant
    kind = kind or "epsilon"
    if kind not in PREDICTIONS:
        known = ", ".join(map(repr, PREDICTIONS))
        raise UsageError(f"{where}: prediction_type is {str(kind)[:40]!r}, only {known} are supported")
    return cast(Prediction, kind)


def schedule_identity(where: StoragePath, config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a scheduler's config decides pixels, each behaviour written in one way."""
    silent = SCHEDULERS[config.get("_class_name", DDPM)]
    identity = {field: config.get(field, silent.get(field)) for field in _FIELDS}
    if (kind := prediction_of(where, config)) != "epsilon":  # not written, so that identities from before it stand
        identity["prediction_type"] = kind
    return identity


def alpha_bar(where: StoragePath, config: Mapping[str, Any]) -> AlphaBar:
    """Cumulative signal variance of a scheduler's config, float64 [T], from diffusers' own betas.

    Raises:
        UsageError: a schedule that diffusers does not know, or one whose alpha_bar leaves (0, 1).
    """
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    silent = SCHEDULERS[config.get("_class_name", DDPM)]
    fields = {**silent, **{key: config[key] for key in _FIELDS if key in config}}
    steps = config.get("num_train_timesteps", 1000)
    try:
        betas = DDPMScheduler(**fields).betas
    except (TypeError, ValueError, OverflowError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{where}: not a schedule that diffusers knows: {error}") from error
    found: AlphaBar = np.cumprod(1 - betas.to(torch.float64).numpy())
    if found.shape != (steps,):
        raise UsageError(f"{where}: trained_betas must be num_train_timesteps = {steps} numbers")
    if not (np.isfinite(found).all() and found.min() > 0 and found.max() < 1):
        raise UsageError(f"{where}: alpha_bar leaves (0, 1); schedules with zero terminal SNR are not supported")
    return found
