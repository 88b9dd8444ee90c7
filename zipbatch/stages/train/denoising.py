"""How a network that takes noise away learns, a prior or its restorer: images, steps, averaged weights, checkpoints."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zipbatch import __version__, images
from zipbatch.config import DenoiserConfig
from zipbatch.diffusion import Prior
from zipbatch.errors import UsageError
from zipbatch.pixels import from_u8, to_u8
from zipbatch.report.progress import Part, Progress, finite
from zipbatch.stages.train.run import (
    Budget,
    Checkpoint,
    Stateful,
    Stopwatch,
    cosine_rate,
    has_bfloat16,
    share_of_all,
)
from zipbatch.stages.train.source_images import Images

log = logging.getLogger(__name__)
_REPORT_EVERY, _REPORT_EVERY_S = 25, 1.0
_CHECKPOINT_EVERY = 1000
LossOf = Callable[["Denoising", Tensor, nn.Module, torch.Generator], Tensor]
"""(run, clean images float32 [B, 3, S, S] in model units, network, draws) -> what is to become small."""


@dataclass(frozen=True)
class Objective:
    """What a network learns: its loss, what that is called, and the forward passes of the picture at the end."""

    measure: str
    loss_of: LossOf
    shown: int


@dataclass(kw_only=True)
class Denoising:
    """A training run: what it was asked to do, and how far it has come.

    ``loss`` is a running mean, ``held_out`` the last loss on the held-out images, ``measured`` how many times one of
    these was measured.
    """

    config: DenoiserConfig
    device: torch.device
    prior: Prior
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    budget: Budget
    checkpoint: Checkpoint
    network: nn.Module
    objective: Objective
    images: Images
    on_progress: Callable[[Progress], None] = lambda _: None
    loss: float = math.nan
    held_out: float | None = None
    images_per_s: float = 0.0
    measured: int = 0

    def report(self, *, measuring: bool = False) -> None:
        """Report how far it has come.

        Each of its measures takes the held-out images. Where the minutes are likely to run out before the steps,
        nobody knows how many there will be.
        """
        budget, batch_size = self.budget, self.config.batch_size

        def to_measure(steps: int) -> int:
            return len(self.images.held_out) * (steps // _CHECKPOINT_EVERY + 1) + self.objective.shown

        fraction = share_of_all(budget, batch_size=batch_size, measured=self.measured, to_measure=to_measure)
        late = budget.minutes is not None and budget.step / budget.steps < budget.fraction
        steps = Part("steps", budget.step, None if late else budget.steps)
        measures = {self.objective.measure: self.loss, "held-out": math.nan if self.held_out is None else self.held_out}
        notes = (f"{self.images_per_s:.0f} images/s", *(("measuring",) if measuring else ()))
        self.on_progress(Progress(parts=(steps,), fraction=fraction, measures=finite(measures), notes=notes))

    @property
    def averaged(self) -> Prior:
        """The network with its averaged weights, which are what is kept."""
        prior = self.average.module
        assert isinstance(prior, Prior)
        return prior.eval()

    def noised(self, x: Tensor, below: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images [B, 3, S, S] at timesteps drawn below ``below``: states and noise of that shape, timesteps [B], and
        the schedule there, float32 [B, 1, 1, 1].
        """
        t = torch.randint(below, (len(x),), generator=generator)
        eps = torch.randn(x.shape, generator=generator)
        alpha_bar = torch.from_numpy(self.prior.alpha_bar).float()[t][:, None, None, None]
        return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * eps, eps, t, alpha_bar

    @property
    def told(self) -> dict[str, Any]:
        """What a manifest says of how it was trained."""
        return {
            "training": self.config.model_dump(mode="json"),
            "steps": self.budget.step,
            "seconds": round(self.budget.seconds, 1),
            "device": str(self.device),
            "versions": {"zipbatch": __version__, "torch": torch.__version__},
        }

    def estimate(self, network: nn.Module, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's output for states [B, 3, S, S] at timesteps [B], float32, on its device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bfloat16(self.device)):
            x_t = self.there(x_t).contiguous(memory_format=_layout(self.device))
            out: Tensor = network(x_t, self.there(t))
        return out.float()

    def there(self, drawn: Tensor) -> Tensor:
        """What was drawn on the CPU, on the network's device; the host does not wait until a GPU has it."""
        return drawn.to(self.device, non_blocking=True)


def begun(
    prior: Prior,
    images: Images,
    config: DenoiserConfig,
    objective: Objective,
    *,
    checkpoint: Path,
    identity: str,
    device: torch.device,
) -> Denoising:
    """A fresh run, or one that goes on from its checkpoint.

    Raises:
        UsageError: the checkpoint is of another run.
    """
    prior.to(device, memory_format=_layout(device))  # type: ignore[call-overload]
    average = AveragedModel(prior, multi_avg_fn=get_ema_multi_avg_fn(config.ema))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.Adam(prior.parameters(), lr=config.lr, betas=(0.9, config.beta2), fused=True)
    budget = Budget(steps=config.steps, minutes=config.minutes)
    parts: dict[str, Stateful] = {"prior": prior, "average": average, "optimizer": optimizer}
    kept = Checkpoint(checkpoint, identity, parts, budget)
    if kept.resume():
        log.info("resuming after step %d", budget.step)
    torch._dynamo.config.suppress_errors = True  # without a C compiler it goes on uncompiled
    network: nn.Module = torch.compile(prior) if device.type == "cuda" else prior  # type: ignore[assignment]
    run = Denoising(
        config=config,
        device=device,
        prior=prior,
        average=average,
        optimizer=optimizer,
        budget=budget,
        checkpoint=kept,
        network=network,
        objective=objective,
        images=images,
    )
    run.measured = len(images.held_out) * (budget.step // _CHECKPOINT_EVERY)
    return run


def _layout(device: torch.device) -> torch.memory_format:
    """Which layout trains faster: on CPUs planes do, by a quarter, on GPUs channels."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def fit(run: Denoising) -> float:
    """Optimise until the budget is spent; order and all that is drawn depend on (seed, step) alone.

    Returns:
        What is left of the loss on the held-out images.

    Raises:
        UsageError: the loss is not finite.
    """
    watch, first, seconds = Stopwatch(run.budget), run.budget.step, run.budget.seconds
    told_s = seconds
    while not run.budget.spent:
        loss = _step(run)
        run.budget.step += 1
        watch.lap()
        step = run.budget.step
        if step % _REPORT_EVERY == 0 or run.budget.spent or run.budget.seconds - told_s > _REPORT_EVERY_S:
            value, told_s = loss.item(), run.budget.seconds
            run.loss = value if math.isnan(run.loss) else 0.95 * run.loss + 0.05 * value
            run.images_per_s = (step - first) * run.config.batch_size / max(1e-9, run.budget.seconds - seconds)
            run.report()
            if not math.isfinite(value):
                raise UsageError(f"training diverged at step {step} (loss {value}); lower lr")
        if step % _CHECKPOINT_EVERY == 0:
            run.held_out = _held_out_loss(run)
            log.info(
                "step %d: held-out %s %.4f after %.0f s", step, run.objective.measure, run.held_out, run.budget.seconds
            )
            run.checkpoint.save()
            watch.lap()
    run.held_out = _held_out_loss(run)
    return run.held_out


def _step(run: Denoising) -> Tensor:
    config, train = run.config, run.images.train
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + run.budget.step)
    rows = torch.randint(len(train), (config.batch_size,), generator=generator)
    x_0 = from_u8(train[rows], "model")
    if config.flip:
        mirrored = torch.rand(len(rows), generator=generator) < 0.5
        x_0 = torch.where(mirrored[:, None, None, None], x_0.flip(-1), x_0)
    rate = cosine_rate(run.budget.fraction, peak=config.lr, warmup=config.warmup, final=config.final_lr)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    loss = run.objective.loss_of(run, x_0, run.network, generator)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.prior.parameters(), config.clip_grad_norm)
    run.optimizer.step()
    run.average.update_parameters(run.prior)
    return loss.detach()


@torch.no_grad()
def _held_out_loss(run: Denoising) -> float:
    """Of the averaged weights on the held-out images, with the same draws every time."""
    generator = torch.Generator().manual_seed(run.config.seed)
    total, averaged = 0.0, run.averaged
    for rows in torch.split(run.images.held_out, 128):
        total += len(rows) * run.objective.loss_of(run, from_u8(rows, "model"), averaged, generator).item()
        run.measured += len(rows)
        run.report(measuring=True)
    return total / len(run.images.held_out)


def picture(tiles: Tensor, *, columns: int) -> bytes:
    """PNG of images float32 [N, 3, S, S] in model units, row by row."""
    rows, size = len(tiles) // columns, tiles.shape[-1]
    pixels = to_u8(tiles, "model").cpu().view(rows, columns, 3, size, size)
    grid = pixels.permute(0, 3, 1, 4, 2).reshape(rows * size, columns * size, 3).numpy()
    scale = max(1, 64 // size)
    return images.encode_png(np.ascontiguousarray(grid.repeat(scale, axis=0).repeat(scale, axis=1)))
