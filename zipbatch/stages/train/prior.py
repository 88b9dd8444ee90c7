"""``zipbatch train prior``: train a diffusion prior on the images of a source, resumable, with held-out loss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zipbatch import atomic
from zipbatch.checkpoints import PriorFolder, fresh_prior, open_prior, save_prior, write_calibration
from zipbatch.checkpoints.prior import MANIFEST
from zipbatch.checkpoints.unet import BELOW
from zipbatch.config import PriorConfig
from zipbatch.datasets.source import Source
from zipbatch.diffusion import guided_sample, noise_streams, standard_normal
from zipbatch.errors import UsageError, WorkFailed
from zipbatch.pixels import from_u8
from zipbatch.report.progress import Progress
from zipbatch.stages.train.calibration import about, measured
from zipbatch.stages.train.denoising import (
    Denoising,
    Objective,
    begun,
    fit,
    picture,
)
from zipbatch.stages.train.run import finished_manifest, prepare_out, training_identity
from zipbatch.stages.train.source_images import learned_from, load_images, training_digest

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
_SHEET_ROWS, _SHEET_STEPS = 6, 50
_SHEET_PASSES = _SHEET_ROWS**2 * _SHEET_STEPS
_NO_PULL = 1e-12
"""A guidance exponent so small that nothing holds the sampler."""


@dataclass(frozen=True, kw_only=True)
class TrainedPrior:
    """The result: the folder, its held-out eps-MSE and the steps taken."""

    path: Path
    steps: int
    held_out: float
    reused: bool


def train_prior(
    source: Source,
    out: Path,
    config: PriorConfig,
    *,
    device: torch.device,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> TrainedPrior:
    """Train an epsilon predictor (Ho et al. 2020, arXiv 2006.11239, eq. 14) on the split ``train`` of a source.

    Held-out loss is measured on ``test`` or ``val``, which are never trained on; without either, on the last images
    of ``train``, which are then left out of training. A checkpoint is kept in ``out``; a rerun with the same settings
    goes on from it, and a finished folder is left as it is.

    Raises:
        UsageError: no split train, settings that diffusers cannot build, ``out`` holds another prior.
        DataError: images that cannot be decoded or differ in size.
    """
    digest = training_digest(source)
    identity = training_identity(config, learned_from(source, digest))
    if (done := finished_manifest(out, MANIFEST, identity, opened=open_prior)) is not None:
        (out / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed right after its last file
        return TrainedPrior(path=out, steps=done["steps"], held_out=done["held_out_eps_mse"]["value"], reused=True)
    images = load_images(source, config.held_out, digest)
    source.left()
    unet, schedule = _configs(config, images.side)
    prior = fresh_prior(unet, schedule, seed=config.seed)
    run = begun(
        prior, images, config, _objective(config), checkpoint=out / CHECKPOINT, identity=identity, device=device
    )
    run.on_progress = on_progress
    prepare_out(out)
    loss = fit(run)
    atomic.write_bytes(out / "samples.png", _sample_sheet(run, config))
    manifest = _manifest(run, identity, source=source, source_sha256=digest, loss=loss)
    save_prior(out, run.averaged, unet, schedule, manifest, before_manifest=partial(_calibrate, run))
    run.checkpoint.remove()
    return TrainedPrior(path=out, steps=run.budget.step, held_out=loss, reused=False)


def _objective(config: PriorConfig) -> Objective:
    return Objective("eps-MSE", partial(_eps_mse, config), shown=_SHEET_PASSES)


def _manifest(run: Denoising, identity: str, *, source: Source, source_sha256: str, loss: float) -> dict[str, Any]:
    images, resized = run.images, {} if source.size is None else {"resize": source.resize}
    return {
        "format_version": 1,
        "identity": identity,
        "trained_on": {
            "source_sha256": source_sha256,
            "images": len(images.train),
            "image_size": images.side,
            **resized,
        },
        "held_out_eps_mse": {"value": loss, "images": len(images.held_out), "split": images.split},
        **run.told,
    }


def _calibrate(run: Denoising, saved: PriorFolder) -> None:
    """Learn from the held-out images what the prior makes of clean ones, unless they or its schedule are too small."""
    images = run.images
    keys = [str(i) for i in range(len(images.held_out))]
    try:
        calibration = measured(saved, images.held_out, keys, device=run.device)
    except (UsageError, WorkFailed, RuntimeError, MemoryError) as error:  # what was trained is kept
        log.warning("not calibrated, so that 'repaint' cannot use it yet; 'zipbatch calibrate' does it: %s", error)
        return
    write_calibration(saved, calibration, about(images=len(keys), split=images.split))


def _configs(config: PriorConfig, image_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if image_size % config.patch:
        raise UsageError(f"patch {config.patch} does not divide the images' {image_size} px")
    channels = 3 * config.patch**2
    unet = {
        **config.unet,
        "sample_size": image_size // config.patch,
        "in_channels": channels,
        "out_channels": channels,
        **({} if config.max_step is None else {BELOW: config.max_step}),
    }
    schedule = {
        "num_train_timesteps": config.training_steps,
        "beta_schedule": config.beta_schedule,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "prediction_type": "epsilon",
        "clip_sample": False,
    }
    return unet, schedule


def _eps_mse(
    config: PriorConfig, run: Denoising, x_0: Tensor, network: nn.Module, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the noise estimate at uniform timesteps, each weighed by min(SNR, gamma) / SNR if asked."""
    x_t, eps, t, ab = run.noised(x_0, config.max_step or len(run.prior.alpha_bar), generator)
    estimate = run.estimate(network, x_t, t)
    if config.min_snr is None or not torch.is_grad_enabled():  # held-out losses compare between weightings
        return F.mse_loss(estimate, run.there(eps))
    snr = ab / (1 - ab)
    weights = run.there(snr.clamp_max(config.min_snr) / snr)
    return (weights * (estimate - run.there(eps)).square()).mean()


@torch.inference_mode()
def _sample_sheet(run: Denoising, config: PriorConfig) -> bytes:
    """Unguided samples, to judge by eye what the prior has learned; of one that learned only small timesteps, held-out
    images that were noised as far and painted back.
    """
    prior, device = run.averaged, run.device
    start_step = config.max_step or config.training_steps

    def predict(x: Tensor, t: int) -> Tensor:
        eps: Tensor = prior(x, t)
        run.measured += len(x)
        run.report(measuring=True)
        return eps

    shape = (3, prior.image_size, prior.image_size)
    known = from_u8(run.images.held_out[: _SHEET_ROWS**2].to(device), "model")
    begin = known.new_zeros(_SHEET_ROWS**2, *shape)
    begin[: len(known)] = known
    streams = noise_streams(config.seed, [str(i) for i in range(_SHEET_ROWS**2)], device=device)
    x = guided_sample(
        predict,
        begin,
        alpha_bar=prior.alpha_bar,
        project=lambda x: x,
        guidance_exponent=_NO_PULL,
        steps=min(_SHEET_STEPS, config.training_steps),
        start_step=start_step,
        eta=1.0,
        noise_at=lambda counter: standard_normal(streams, step=counter, shape=shape),
    )
    return picture(x, columns=_SHEET_ROWS)
