"""``zipbatch calibrate``: learn from clean images alone what a prior makes of them, to tell what sticks out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zipbatch import __version__, images
from zipbatch.checkpoints import PriorFolder, load_prior, write_calibration
from zipbatch.config import Calibration
from zipbatch.errors import UsageError
from zipbatch.purifiers import Painter, RepaintSettings, Resources, calibration_of
from zipbatch.stages.source import Source

log = logging.getLogger(__name__)
MAX_PIXELS = 4 * 1024**2
"""Of all images together: a tail of one in 10,000 pixels is told well by then, and residuals take 60 bytes a pixel."""
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
    settings: RepaintSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Calibrated:
    """Measure a prior on the clean images of a source and write ``calibration.json`` beside its weights.

    The split is the first there is of test, val and train: images that the prior was not trained on say more of those
    to come. Labels are not needed, and nothing is asked of a classifier.

    Args:
        prior: the diffusion model.
        source: clean images, up to its limit.
        device: where the prior computes.
        image_size: resize images to so many pixels; None for the source's own size.
        settings: with the timesteps to measure at; None for the defaults.
        on_progress: called with the images done so far and in all.

    Raises:
        UsageError: too few images, images of different sizes or that do not fit the prior, or a prior that lies where
            nothing can be written.
        DataError: an image cannot be read; it names the shard or file and the key.
    """
    split = next(split for split in (*_HELD_OUT, *source.splits) if split in source.splits)
    survey = source.survey(split)
    pixels, keys = _read(source, split, survey.sha256, image_size)
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
    try:
        painter = Painter(settings, Resources(device, load_prior(prior).to(device)))
        batch = _BATCH * painter.tiling(pixels).slots
        parts: list[list[Tensor]] = []
        for start in range(0, len(keys), batch):
            rows = slice(start, start + batch)
            parts.append(painter.residuals(pixels[rows], keys[rows], settings.residual_steps))
            on_progress(min(start + batch, len(keys)), len(keys))
        residuals = [torch.cat(each) for each in zip(*parts, strict=True)]
        calibration = calibration_of(residuals, settings.residual_steps, image_size=int(pixels.shape[-1]))
        settings.calibrated(calibration)  # says what is wrong
    except ValueError as error:
        raise UsageError(f"{prior.path}: {error}") from error
    return calibration


def _read(source: Source, split: str, sha256: str, image_size: int | None) -> tuple[Tensor, list[str]]:
    """Images uint8 [N, 3, S, S] and their keys, as many as ``MAX_PIXELS`` allows."""
    size = image_size or source.image_size()
    count = max(1, MAX_PIXELS // size**2)
    found, keys = [], []
    for image in islice(source.images(split, sha256=sha256), count):
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
