"""``zipbatch calibrate``: learn from clean images alone what a prior makes of them, to tell what sticks out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zipbatch import __version__, images
from zipbatch.checkpoints import PriorFolder, check_writable, load_prior, write_calibration
from zipbatch.config import Calibration
from zipbatch.diffusion.tiling import DoesNotTileError
from zipbatch.errors import UsageError
from zipbatch.purifiers import Painter, RepaintSettings, Resources, calibration_of
from zipbatch.stages.purifier import exact_on
from zipbatch.stages.source import Source, Survey

log = logging.getLogger(__name__)
MAX_PIXELS = 4 * 1024**2
"""Of all images together: a tail of one in 10,000 pixels is told well by then."""
_HELD_OUT = ("test", "val", "train")
_BATCH = 32


@dataclass(frozen=True)
class Calibrated:
    """The file beside the prior, what it says, and how many images of which split it was learned from."""

    file: Path
    calibration: Calibration
    images: int
    split: str


def calibrate(
    prior: PriorFolder,
    source: Source,
    *,
    device: torch.device,
    image_size: int | None = None,
    limit: int = 4000,
    settings: RepaintSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Calibrated:
    """Measure a prior on the clean images of a source and write ``calibration.json`` beside its weights.

    The split is the first there is of test, val and train: images that the prior was not trained on say more of those
    to come. Labels are not needed, and nothing is asked of a classifier.

    Args:
        prior: the diffusion model.
        source: clean images.
        device: where the prior computes.
        image_size: resize images to so many pixels; None for the source's own size.
        limit: images at most.
        settings: with the timesteps to measure at; None for the defaults.
        on_progress: called with the images done so far and in all.

    Raises:
        UsageError: too few images, images of different sizes or that do not fit the prior, or a prior that lies where
            nothing can be written.
        DataError: an image cannot be read; it names the shard or file and the key.
    """
    check_writable(prior)
    split = next(split for split in (*_HELD_OUT, *source.splits) if split in source.splits)
    survey = source.survey(split)
    size = image_size or source.image_size()
    count = min(limit, MAX_PIXELS // size**2)
    pixels, keys = spaced_images(source, split, survey, count=count, image_size=image_size)
    if len(keys) < survey.images:
        log.warning("%s: learning from %d of %d images, evenly spaced", source.place, len(keys), survey.images)
    calibration = measured(prior, pixels, keys, device=device, settings=settings, on_progress=on_progress)
    told = about(images=len(keys), split=split, source_sha256=survey.sha256)
    return Calibrated(write_calibration(prior, calibration, told), calibration, len(keys), split)


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
    chosen = spaced(len(keys), MAX_PIXELS // pixels.shape[-1] ** 2)
    pixels, keys = pixels[chosen], [keys[i] for i in chosen]
    try:
        exact_on(device)
        painter = Painter(settings, Resources(device, load_prior(prior).to(device)))
        batch = _BATCH * painter.tiling(pixels).slots
        residuals = [torch.empty(pixels.shape) for _ in settings.residual_steps]
        for start in range(0, len(keys), batch):
            rows = slice(start, start + batch)
            made = painter.residuals(pixels[rows], keys[rows], settings.residual_steps)
            for whole, part in zip(residuals, made, strict=True):
                whole[rows] = part
            on_progress(min(start + batch, len(keys)), len(keys))
        calibration = calibration_of(residuals, settings.residual_steps, image_size=int(pixels.shape[-1]))
        settings.calibrated(calibration)  # says what is wrong
    except DoesNotTileError as error:
        size, side = pixels.shape[-1], prior.image_size
        raise UsageError(
            f"{prior.path}: images of {size} px neither equal nor tile the prior's {side} px; --image-size {side} "
            "resizes them"
        ) from error
    except ValueError as error:
        raise UsageError(f"{prior.path}: {error}") from error
    return calibration


def spaced(total: int, limit: int) -> list[int]:
    """At most ``limit`` numbers of ``total``, evenly spaced: sources often come class by class."""
    count = min(total, max(1, limit))
    return [i * total // count for i in range(count)]


def spaced_images(
    source: Source, split: str, survey: Survey, *, count: int, image_size: int | None
) -> tuple[Tensor, list[str]]:
    """At most ``count`` images, uint8 [N, 3, S, S], evenly spaced over the split, and their keys.

    Raises:
        UsageError: they differ in size and are not resized to ``image_size``.
        DataError: one cannot be read; it names the shard or file and the key.
    """
    size = image_size or source.image_size()
    wanted = set(spaced(survey.images, count))
    found, keys = [], []
    for number, image in enumerate(source.images(split, sha256=survey.sha256)):
        if number not in wanted:
            continue
        pixels = image.pixels()
        if image_size is None and pixels.shape[:2] != (size, size):
            height, width = pixels.shape[:2]
            raise UsageError(
                f"{image.origin}: key {image.key!r} is {width}x{height}, the first image is {size} px; "
                "name --image-size to resize all"
            )
        found.append(torch.from_numpy(np.ascontiguousarray(images.resize(pixels, size).transpose(2, 0, 1))))
        keys.append(image.key)
    return torch.stack(found), keys
