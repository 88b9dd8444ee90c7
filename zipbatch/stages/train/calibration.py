"""``zipbatch calibrate``: learn from clean images alone what a prior makes of them, to tell what sticks out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zipbatch import __version__
from zipbatch.checkpoints import PriorFolder, check_writable, load_prior, write_calibration
from zipbatch.cluster import pick_device
from zipbatch.config import Calibration, validate
from zipbatch.datasets.clean_images import held_out_split, some_images, spaced, stacked
from zipbatch.datasets.source import Source
from zipbatch.diffusion.tiling import DoesNotTileError
from zipbatch.errors import UsageError
from zipbatch.purifiers import DiffusionSampler, RepaintSettings, Resources, calibration_of
from zipbatch.spelling import setting
from zipbatch.stages.purify.build import exact_on
from zipbatch.stages.purify.halving import Halving
from zipbatch.stages.train.request import CalibrateRequest

log = logging.getLogger(__name__)
MAX_PIXELS = 4 * 1024**2
"""Of all images together: a tail of one in 10,000 pixels is told well by then."""
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The file beside the prior, what it says, and how many images of which split it was learned from."""

    file: Path
    calibration: Calibration
    images: int
    split: str


def calibrate(
    prior: PriorFolder,
    source: Source,
    asked: CalibrateRequest,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Calibrated:
    """Measure a prior on the clean images of a source and write ``calibration.json`` beside its weights.

    The split is the first there is of test, val and train: images that the prior was not trained on say more of those
    to come. Labels are not needed, and nothing is asked of a classifier.

    Args:
        prior: the diffusion model.
        source: clean images, of the split and size that are asked for.
        asked: how many, at which timesteps, and where the prior computes.
        on_progress: called with the images done so far and in all.

    Raises:
        UsageError: too few images, images of different sizes or that do not fit the prior, or a prior that lies where
            nothing can be written.
        DataError: an image cannot be read; it names the shard or file and the key.
        WorkFailed: the GPU's memory does not take a single row.
    """
    settings = validate(RepaintSettings, {"residual_steps": asked.residual_steps}, where="‹residual_steps›")
    device = pick_device(asked.device)
    check_writable(prior)
    split = held_out_split(source)
    survey = source.survey(split)
    source.left()
    limit = min(asked.limit, MAX_PIXELS // source.image_size() ** 2)
    some = list(some_images(source, split, survey, limit=limit))
    keys, pixels = [image.key for image, _ in some], stacked([pixels for _, pixels in some])
    if len(keys) < survey.images:
        log.warning("%s: learning from %d of %d images, evenly spaced", source.place, len(keys), survey.images)
    calibration = measured(prior, pixels, keys, device=device, settings=settings, on_progress=on_progress)
    told = about(images=len(keys), split=split, source_sha256=survey.sha256)
    return Calibrated(
        file=write_calibration(prior, calibration, told), calibration=calibration, images=len(keys), split=split
    )


def about(**measured_on: object) -> dict[str, Any]:
    """What a calibration file says beside the calibration."""
    return {"measured_on": measured_on, "versions": {"zipbatch": __version__, "torch": torch.__version__}}


def measured(
    prior: PriorFolder,
    pixels: Tensor,
    keys: Sequence[str],
    *,
    device: torch.device,
    settings: RepaintSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Calibration:
    """What a prior makes of clean images, uint8 [N, 3, S, S], named by ``keys``; else as ``calibrate``."""
    settings = settings or RepaintSettings.model_validate({})
    _check_learned(prior, settings)
    chosen = spaced(len(keys), MAX_PIXELS // pixels.shape[-1] ** 2)
    pixels, keys = pixels[chosen], [keys[i] for i in chosen]
    try:
        exact_on(device)
        sampler = DiffusionSampler(settings, Resources(device=device, prior=load_prior(prior).to(device)))
        residuals = _residuals(sampler, settings, pixels, keys, on_progress)
        calibration = calibration_of(residuals, settings.residual_steps, image_size=int(pixels.shape[-1]))
        settings.calibrated(calibration)  # says what is wrong
    except DoesNotTileError as error:
        size, side = pixels.shape[-1], prior.image_size
        raise UsageError(
            f"{prior.path}: images of {size} px neither equal nor tile the prior's {side} px; "
            f"{setting('image_size', side)} resizes them"
        ) from error
    except ValueError as error:
        raise UsageError(f"{prior.path}: {error}") from error
    return calibration


def _check_learned(prior: PriorFolder, settings: RepaintSettings) -> None:
    if prior.trained_below <= (highest := max(settings.residual_steps)) < prior.training_steps:
        raise UsageError(
            f"{prior.path}: learned the timesteps below {prior.trained_below} alone, not {highest}; measure at lower "
            "ones (‹residual_steps›), and let 'repaint' look there (‹set={'repaint.residual_steps': '…'}›)"
        )


def _residuals(
    sampler: DiffusionSampler,
    settings: RepaintSettings,
    pixels: Tensor,
    keys: Sequence[str],
    on_progress: Callable[[int, int], None],
) -> list[Tensor]:
    """Images [N, 3, S, S] less the prior's estimates of them, that shape, at each of the timesteps."""
    residuals = [torch.empty(pixels.shape) for _ in settings.residual_steps]

    def measure(rows: slice) -> int:
        made = sampler.residuals(pixels[rows], keys[rows], settings.residual_steps)
        for whole, part in zip(residuals, made, strict=True):
            whole[rows] = part
        return min(int(rows.stop), len(keys))

    for done in Halving(_BATCH).pieces(len(keys), measure, images_per_row=sampler.tiling(pixels).slots):
        on_progress(done, len(keys))
    return residuals
