"""``zipbatch train restorer``: teach a prior's network to undo damage in one call, from clean images; resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zipbatch import atomic, images
from zipbatch.checkpoints import (
    RESTORER,
    RESTORER_CHECKPOINT,
    RESTORER_SAMPLES,
    PriorFolder,
    check_writable,
    load_prior,
    read_restorer,
    write_restorer,
)
from zipbatch.checkpoints.tensors import read_json
from zipbatch.config import RestorerConfig
from zipbatch.datasets.source import Source
from zipbatch.diffusion import damaged, restored
from zipbatch.errors import UsageError
from zipbatch.pixels import from_u8, to_u8
from zipbatch.report.progress import Progress
from zipbatch.spelling import setting
from zipbatch.stages.train.denoising import (
    Denoising,
    Objective,
    begun,
    fit,
    picture,
)
from zipbatch.stages.train.run import training_identity
from zipbatch.stages.train.source_images import Images, learned_from, load_images, training_digest

_ROWS, _COLUMNS = 12, 6
_SHOWN_STEP = 60


@dataclass(frozen=True, kw_only=True)
class TrainedRestorer:
    """The result: its file, the mean absolute error on held-out images, in model units, with it and without it."""

    path: Path
    steps: int
    held_out: float
    before: float
    reused: bool


def train_restorer(
    prior: PriorFolder,
    source: Source,
    config: RestorerConfig,
    *,
    device: torch.device,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> TrainedRestorer:
    """Teach a copy of a prior's network, on the split ``train`` of a source, to make clean images of damaged ones that
    were compressed and noised; write it beside the prior's weights. Labels are not needed.

    Damage is drawn anew for each image (``zipbatch.diffusion.damage``). Held-out images and the checkpoint are as of
    ``train_prior``; a restorer that was taught with the same settings, images and prior is left as it is.

    Raises:
        UsageError: images that are not of the prior's size, a prior that lies where nothing can be written.
        DataError: images that cannot be decoded.
    """
    check_writable(prior)
    prior = prior.pinned()
    assert isinstance(prior.path, Path)  # it is writable
    _check_learned(prior, config)
    atomic.sweep(prior.path)
    digest = training_digest(source)
    identity = training_identity(config, [prior.digest, learned_from(source, digest)])
    if (done := _finished(prior, identity)) is not None:
        (prior.path / RESTORER_CHECKPOINT).unlink(missing_ok=True)
        told = done["held_out_error"]
        return TrainedRestorer(
            path=prior.path / RESTORER, steps=done["steps"], held_out=told["value"], before=told["before"], reused=True
        )
    found = _images(source, prior, config, digest)
    network, kept = load_prior(prior).requires_grad_(True).train(), prior.path / RESTORER_CHECKPOINT
    run = begun(network, found, config, _objective(config), checkpoint=kept, identity=identity, device=device)
    run.on_progress = on_progress
    error, before = fit(run), _error_before(config, found.held_out)
    atomic.write_bytes(prior.path / RESTORER_SAMPLES, _sheet(config, run))
    about = _about(run, identity, source_sha256=digest, error=error, before=before)
    file = write_restorer(prior, run.averaged.unet.state_dict(), config.max_step, about)
    run.checkpoint.remove()
    return TrainedRestorer(path=file, steps=run.budget.step, held_out=error, before=before, reused=False)


def _check_learned(prior: PriorFolder, config: RestorerConfig) -> None:
    if config.max_step > prior.trained_below:
        raise UsageError(
            f"{prior.path}: learned the timesteps below {prior.trained_below} alone; ‹max_step› takes that or less"
        )


def _images(source: Source, prior: PriorFolder, config: RestorerConfig, sha256: str) -> Images:
    found = load_images(source, config.held_out, sha256)
    source.left()
    if found.side != prior.image_size:
        raise UsageError(
            f"{source.place}: images are of {found.side} px, the prior of {prior.image_size}; "
            f"{setting('image_size', prior.image_size)} resizes them"
        )
    return found


def _objective(config: RestorerConfig) -> Objective:
    return Objective("error", partial(_error, config), shown=_ROWS)


def _about(run: Denoising, identity: str, *, source_sha256: str, error: float, before: float) -> dict[str, Any]:
    """What ``restorer.json`` says beside the restorer."""
    images = run.images
    return {
        "identity": identity,
        "trained_on": {"source_sha256": source_sha256, "images": len(images.train), "image_size": images.side},
        "held_out_error": {
            "value": error,
            "before": before,
            "images": len(images.held_out),
            "split": images.split,
        },
        **run.told,
    }


def _finished(prior: PriorFolder, identity: str) -> dict[str, Any] | None:
    """What the prior's restorer says of itself, if that is the one that is asked for and it can be loaded."""
    if not (prior.path / RESTORER).is_file():
        return None
    try:
        read_restorer(prior)
    except UsageError:
        return None  # damaged, or of weights that were there before: it is taught anew
    told = read_json(prior.path / RESTORER)
    if told.get("identity") != identity:
        raise UsageError(
            f"{prior.path / RESTORER}: was taught with other settings, images or weights; remove it to teach another, "
            "or copy the prior"
        )
    return told


def _error(
    config: RestorerConfig, run: Denoising, x_0: Tensor, network: nn.Module, generator: torch.Generator
) -> Tensor:
    """Mean absolute error of the restored images, model units."""
    x_t, _, t, alpha_bar = run.noised(_degraded(config, x_0, generator), config.max_step, generator)
    out = run.estimate(network, x_t, t)
    clean = restored(out, run.there(x_t), alpha_bar=run.there(alpha_bar))
    return (clean - run.there(x_0)).abs().mean()


def _degraded(config: RestorerConfig, x_0: Tensor, generator: torch.Generator) -> Tensor:
    """Images [B, 3, S, S], model units, with a damage drawn for each, compressed at a quality drawn for each."""
    pixels = to_u8(damaged(x_0, plain=config.plain, generator=generator), "model").permute(0, 2, 3, 1).numpy()
    low, high = config.quality
    qualities = torch.randint(low, high + 1, (len(x_0),), generator=generator).tolist()
    compressed = [_compressed(image, quality) for image, quality in zip(pixels, qualities, strict=True)]
    return from_u8(torch.from_numpy(np.stack(compressed)).permute(0, 3, 1, 2), "model")


def _compressed(image: images.U8, quality: int) -> images.U8:
    return images.decode(images.encode_jpeg(np.ascontiguousarray(image), quality=quality), "jpg")


def _error_before(config: RestorerConfig, held_out: Tensor) -> float:
    """Mean absolute error of the degraded images themselves, before noise is added; the same draws every time."""
    generator = torch.Generator().manual_seed(config.seed)
    errors = [
        float((_degraded(config, x_0, generator) - x_0).abs().mean()) * len(x_0)
        for x_0 in (from_u8(rows, "model") for rows in torch.split(held_out, 128))
    ]
    return sum(errors) / len(held_out)


@torch.inference_mode()
def _sheet(config: RestorerConfig, run: Denoising) -> bytes:
    """Held-out images, clean, degraded and restored, side by side: to judge by eye what it has learned."""
    generator = torch.Generator().manual_seed(config.seed)
    clean = from_u8(run.images.held_out[:_ROWS], "model")
    degraded = _degraded(config, clean, generator)
    t = min(_SHOWN_STEP, config.max_step - 1)
    alpha_bar = torch.from_numpy(run.prior.alpha_bar).float()[t].view(1, 1, 1, 1)
    noise = torch.randn(clean.shape, generator=generator)
    x_t = alpha_bar.sqrt() * degraded + (1 - alpha_bar).sqrt() * noise
    out = run.averaged(x_t.to(run.device), t)
    made = restored(out, x_t.to(run.device), alpha_bar=alpha_bar.to(run.device)).cpu()
    return picture(torch.stack([clean, degraded, made], dim=1).flatten(0, 1), columns=_COLUMNS)
