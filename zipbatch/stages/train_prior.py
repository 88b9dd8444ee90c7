"""``zipbatch train prior``: train a diffusion prior on the images of a source, resumable, with held-out loss."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zipbatch import __version__, atomic, images
from zipbatch.checkpoints import PriorFolder, fresh_prior, open_prior, save_prior, write_calibration
from zipbatch.checkpoints.prior import MANIFEST
from zipbatch.config import PriorConfig
from zipbatch.diffusion import Prior, guided_sample, noise_streams, standard_normal
from zipbatch.errors import UsageError, WorkFailed
from zipbatch.memory import check_fits, in_batches
from zipbatch.pixels import from_u8, to_u8
from zipbatch.report.progress import Part, Progress
from zipbatch.sources import SourceImage
from zipbatch.stages.calibrate import about, measured
from zipbatch.stages.source import Source
from zipbatch.stages.training import (
    Budget,
    Checkpoint,
    Stateful,
    Stopwatch,
    cosine_rate,
    finished_manifest,
    has_bfloat16,
    prepare_out,
    share_of_all,
    training_identity,
)

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
_REPORT_EVERY, _REPORT_EVERY_S = 25, 1.0
_CHECKPOINT_EVERY = 1000
_CHUNK, _CHUNK_BYTES = 256, 64 * 1024**2
_HELD_OUT_SPLITS = ("test", "val")
_SHEET_ROWS, _SHEET_STEPS = 6, 50
_SHEET_PASSES = _SHEET_ROWS**2 * _SHEET_STEPS


@dataclass(frozen=True)
class PriorProgress:
    """What is shown of a run. ``loss`` is a running mean, ``held_out`` the last held-out eps-MSE.

    ``fraction`` is of all of it, the measuring counted in; ``steps`` is None where the minutes are likely to run out
    before.
    """

    fraction: float
    step: int
    loss: float
    held_out: float | None
    images_per_s: float
    steps: int | None = None
    measuring: bool = False

    def shown(self, what: str) -> Progress:
        """As a bar shows it."""
        held_out = () if self.held_out is None else (f"held out {self.held_out:.4f}",)
        measuring = ("measuring",) if self.measuring else ()
        notes = (f"{self.images_per_s:.0f} images/s", f"eps-MSE {self.loss:.4f}", *held_out, *measuring)
        return Progress(what, (Part("steps", self.step, self.steps),), self.fraction, notes=notes)


@dataclass(frozen=True)
class TrainedPrior:
    """The result: the folder, its held-out eps-MSE and the steps taken."""

    path: Path
    steps: int
    held_out: float
    reused: bool


@dataclass
class _Run:
    config: PriorConfig
    device: torch.device
    prior: Prior
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    budget: Budget
    checkpoint: Checkpoint
    on_progress: Callable[[PriorProgress], None]
    network: nn.Module
    loss: float = math.nan
    held_out: float | None = None
    images_per_s: float = 0.0
    measured: int = 0

    def report(self, held_out: int, *, measuring: bool = False) -> None:
        """Tell how far it has come; each of its measures takes ``held_out`` images."""
        budget, batch_size = self.budget, self.config.batch_size

        def to_measure(steps: int) -> int:
            return held_out * (steps // _CHECKPOINT_EVERY + 1) + _SHEET_PASSES

        fraction = share_of_all(budget, batch_size=batch_size, measured=self.measured, to_measure=to_measure)
        late = budget.minutes is not None and budget.step / budget.steps < budget.fraction
        steps = None if late else budget.steps
        self.on_progress(
            PriorProgress(fraction, budget.step, self.loss, self.held_out, self.images_per_s, steps, measuring)
        )


def train_prior(
    source: Source,
    out: Path,
    config: PriorConfig,
    *,
    device: torch.device,
    on_progress: Callable[[PriorProgress], None] = lambda _: None,
) -> TrainedPrior:
    """Train an epsilon predictor (Ho et al. 2020, arXiv 2006.11239, eq. 14) on the split ``train`` of a source.

    Held-out loss is measured on ``test`` or ``val``, which are never trained on; without either, on the last images
    of ``train``, which are then left out of training. A checkpoint is kept in ``out``; a rerun with the same settings
    goes on from it, and a finished folder is left as it is.

    Raises:
        UsageError: no split train, settings that diffusers cannot build, ``out`` holds another prior.
        DataError: images that cannot be decoded or differ in size.
    """
    source_sha256 = source.survey("train").sha256
    learned_from = source_sha256 if source.size is None else {"source": source_sha256, "image_size": source.size}
    identity = training_identity(config, learned_from)
    if (done := finished_manifest(out, MANIFEST, identity, opened=open_prior)) is not None:
        (out / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed right after its last file
        return TrainedPrior(out, done["steps"], done["held_out_eps_mse"]["value"], reused=True)
    train, held_out, where = _load(source, config.held_out, source_sha256)
    source.left()
    unet, schedule = _configs(config, int(train.shape[-1]))
    run = _start(fresh_prior(unet, schedule, seed=config.seed), config, identity, out, device=device)
    run.on_progress = on_progress
    run.measured = len(held_out) * (run.budget.step // _CHECKPOINT_EVERY)
    prepare_out(out)
    _fit(train, held_out, run)
    prior = _averaged(run)
    loss = _held_out_loss(held_out, prior, run)
    run.held_out = loss
    atomic.write_bytes(out / "samples.png", _sample_sheet(prior, run, len(held_out)))
    trained_on = {"source_sha256": source_sha256, "images": len(train), "image_size": train.shape[-1]}
    manifest = {
        "format_version": 1,
        "identity": identity,
        "trained_on": trained_on,
        "training": config.model_dump(mode="json"),
        "steps": run.budget.step,
        "seconds": round(run.budget.seconds, 1),
        "held_out_eps_mse": {"value": loss, "images": len(held_out), "split": where},
        "device": str(device),
        "versions": {"zipbatch": __version__, "torch": torch.__version__},
    }
    save_prior(
        out, prior, unet, schedule, manifest, before_manifest=lambda saved: _calibrate(saved, held_out, where, run)
    )
    run.checkpoint.remove()
    return TrainedPrior(out, run.budget.step, loss, reused=False)


def _calibrate(saved: PriorFolder, held_out: Tensor, split: str, run: _Run) -> None:
    """Learn from the held-out images what the prior makes of clean ones, unless they or its schedule are too small."""
    keys = [str(i) for i in range(len(held_out))]
    try:
        calibration = measured(saved, held_out, keys, device=run.device)
    except (UsageError, WorkFailed, RuntimeError, MemoryError) as error:  # what was trained is kept
        log.warning("not calibrated, so that 'repaint' cannot use it yet; 'zipbatch calibrate' does it: %s", error)
        return
    write_calibration(saved, calibration, about(images=len(held_out), split=split))


def held_out_of(source: Source, config: PriorConfig, split: str | None) -> int | None:
    """How many images at the end of a split are not trained on: None for all, as of those that are never trained on.

    Args:
        source: with all its splits.
        config: of the training.
        split: that is asked about; None for the first that is not trained on, or else what is left of ``train``.

    Raises:
        UsageError: no split train, or one that is trained on whole.
    """
    if "train" not in source.splits:
        raise UsageError(
            f"{source.place}: has no split train to train a prior on, only {', '.join(source.splits)}; "
            "take a prior that is there"
        )
    apart = [name for name in _HELD_OUT_SPLITS if name in source.splits]
    if split == "train" and apart:
        raise UsageError(f"{source.place}: the prior is trained on split train; take {apart[0]} or leave the split out")
    return None if apart else config.held_out


def _load(source: Source, held_out: int, sha256: str) -> tuple[Tensor, Tensor, str]:
    """Training and held-out images, uint8 [N, 3, S, S], and the split that the latter are from."""
    train = _decode_all(source, "train", None, sha256)
    for split in _HELD_OUT_SPLITS:
        if split in source.splits:
            return train, _decode_all(source, split, held_out), split
    if len(train) <= held_out:
        raise UsageError(f"{source.place}: {len(train)} images are too few to hold {held_out} out; set held_out lower")
    return train[:-held_out], train[-held_out:], "train"


def _decode_all(source: Source, split: str, limit: int | None, sha256: str | None = None) -> Tensor:
    found: list[Tensor] = []
    side, taken = 0, 0
    with ThreadPoolExecutor(max_workers=4) as pool:
        encoded = islice(source.images(split, sha256=sha256), limit)
        for chunk in in_batches(encoded, count=_CHUNK, size=_CHUNK_BYTES, of=lambda image: 8 * len(image.data)):
            for pixels in pool.map(SourceImage.pixels, chunk):
                side = side or pixels.shape[0]
                if pixels.shape != (side, side, 3):
                    raise UsageError(f"{source.place}: images of split {split} must be square and of one size")
                found.append(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))
                taken += pixels.nbytes
                check_fits(2 * taken, f"{source.place}: split {split}")
    if not found:
        raise UsageError(f"{source.place}: split {split} is empty")
    return torch.stack(found)


def _configs(config: PriorConfig, image_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if image_size % config.patch:
        raise UsageError(f"patch {config.patch} does not divide the images' {image_size} px")
    channels = 3 * config.patch**2
    unet = {
        **config.unet,
        "sample_size": image_size // config.patch,
        "in_channels": channels,
        "out_channels": channels,
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


def _start(prior: Prior, config: PriorConfig, identity: str, out: Path, *, device: torch.device) -> _Run:
    prior.to(device, memory_format=_layout(device))  # type: ignore[call-overload]
    average = AveragedModel(prior, multi_avg_fn=get_ema_multi_avg_fn(config.ema))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.Adam(prior.parameters(), lr=config.lr, betas=(0.9, config.beta2), fused=True)
    budget = Budget(config.steps, config.minutes)
    parts: dict[str, Stateful] = {"prior": prior, "average": average, "optimizer": optimizer}
    checkpoint = Checkpoint(out / CHECKPOINT, identity, parts, budget)
    if checkpoint.resume():
        log.info("resuming after step %d", budget.step)
    torch._dynamo.config.suppress_errors = True  # without a C compiler it goes on uncompiled
    network: nn.Module = torch.compile(prior) if device.type == "cuda" else prior  # type: ignore[assignment]
    return _Run(config, device, prior, average, optimizer, budget, checkpoint, lambda _: None, network)


def _layout(device: torch.device) -> torch.memory_format:
    """Which layout trains faster: on CPUs planes do, by a quarter, on GPUs channels."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def _fit(train: Tensor, held_out: Tensor, run: _Run) -> None:
    """Optimise until the budget is spent; order, timesteps and noise depend on (seed, step) alone."""
    watch, first, seconds = Stopwatch(run.budget), run.budget.step, run.budget.seconds
    told_s = seconds
    while not run.budget.spent:
        loss = _step(train, run)
        run.budget.step += 1
        watch.tick()
        step = run.budget.step
        if step % _REPORT_EVERY == 0 or run.budget.spent or run.budget.seconds - told_s > _REPORT_EVERY_S:
            value, told_s = loss.item(), run.budget.seconds
            run.loss = value if math.isnan(run.loss) else 0.95 * run.loss + 0.05 * value
            run.images_per_s = (step - first) * run.config.batch_size / max(1e-9, run.budget.seconds - seconds)
            run.report(len(held_out))
            if not math.isfinite(value):
                raise UsageError(f"training diverged at step {step} (loss {value}); lower lr")
        if step % _CHECKPOINT_EVERY == 0:
            run.held_out = _held_out_loss(held_out, _averaged(run), run)
            log.info("step %d: held-out eps-MSE %.4f after %.0f s", step, run.held_out, run.budget.seconds)
            run.checkpoint.save()
            watch.tick()


def _step(train: Tensor, run: _Run) -> Tensor:
    config = run.config
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + run.budget.step)
    rows = torch.randint(len(train), (config.batch_size,), generator=generator)
    x_0 = from_u8(train[rows], "model")
    if config.flip:
        mirrored = torch.rand(len(rows), generator=generator) < 0.5
        x_0 = torch.where(mirrored[:, None, None, None], x_0.flip(-1), x_0)
    rate = cosine_rate(run.budget.fraction, peak=config.lr, warmup=config.warmup, final=config.final_lr)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    loss = _eps_mse(x_0, run.network, run, generator)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.prior.parameters(), config.clip_grad_norm)
    run.optimizer.step()
    run.average.update_parameters(run.prior)
    return loss.detach()


def _eps_mse(x_0: Tensor, network: nn.Module, run: _Run, generator: torch.Generator) -> Tensor:
    """Mean squared error of the noise estimate at uniform timesteps."""
    alpha_bar = torch.from_numpy(run.prior.alpha_bar).float()
    t = torch.randint(len(alpha_bar), (len(x_0),), generator=generator)
    eps = torch.randn(x_0.shape, generator=generator)
    ab = alpha_bar[t][:, None, None, None]
    x_t = (ab.sqrt() * x_0 + (1 - ab).sqrt() * eps).to(run.device)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=has_bfloat16(run.device)):
        estimate = network(x_t.contiguous(memory_format=_layout(run.device)), t.to(run.device))
    return F.mse_loss(estimate.float(), eps.to(run.device))


def _averaged(run: _Run) -> Prior:
    prior = run.average.module
    assert isinstance(prior, Prior)
    return prior.eval()


@torch.no_grad()
def _held_out_loss(held_out: Tensor, prior: Prior, run: _Run) -> float:
    """Eps-MSE of the averaged weights on the held-out images, with the same timesteps and noise every time."""
    generator = torch.Generator().manual_seed(run.config.seed)
    total = 0.0
    for rows in torch.split(held_out, 128):
        total += len(rows) * _eps_mse(from_u8(rows, "model"), prior, run, generator).item()
        run.measured += len(rows)
        run.report(len(held_out), measuring=True)
    return total / len(held_out)


@torch.inference_mode()
def _sample_sheet(prior: Prior, run: _Run, held_out: int) -> bytes:
    """Unguided samples, to judge by eye what the prior has learned."""
    size, config, device = prior.image_size, run.config, run.device

    def predict(x: Tensor, t: int) -> Tensor:
        eps: Tensor = prior(x, t)
        run.measured += len(x)
        run.report(held_out, measuring=True)
        return eps

    shape = (3, size, size)
    streams = noise_streams(config.seed, [str(i) for i in range(_SHEET_ROWS**2)], device=device)
    x = guided_sample(
        predict,
        torch.zeros(_SHEET_ROWS**2, *shape, device=device),
        alpha_bar=prior.alpha_bar,
        project=torch.zeros_like,
        guidance_exponent=1.0,
        steps=min(_SHEET_STEPS, config.training_steps),
        start_step=config.training_steps,
        eta=1.0,
        noise_at=lambda counter: standard_normal(streams, step=counter, shape=shape),
    )
    tiles = to_u8(x, "model").cpu().view(_SHEET_ROWS, _SHEET_ROWS, *shape)
    grid = tiles.permute(0, 3, 1, 4, 2).reshape(_SHEET_ROWS * size, _SHEET_ROWS * size, 3).numpy()
    scale = max(1, 64 // size)
    return images.encode_png(np.ascontiguousarray(grid.repeat(scale, axis=0).repeat(scale, axis=1)))
