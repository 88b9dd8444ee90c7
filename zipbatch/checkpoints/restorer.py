"""A prior's restorer: the same network with other weights, ``restorer.safetensors`` beside the prior's own, and
``restorer.json``, which is written last and holds their digest.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from zipbatch import atomic, storage
from zipbatch.checkpoints.beside import read_beside
from zipbatch.checkpoints.calibration import check_writable
from zipbatch.checkpoints.prior import PriorFolder
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath

RESTORER, RESTORER_WEIGHTS = "restorer.json", "restorer.safetensors"
RESTORER_SAMPLES, RESTORER_CHECKPOINT = "restorer.png", "restorer.checkpoint.pt"
"""What training leaves beside them: a picture of what was learned, and, until it has ended, how far it has come."""


@dataclass(frozen=True)
class Restorer:
    """What restores damaged images in one call: ``folder`` is the prior with the restorer's weights for its own.

    Attributes:
        folder: to be loaded as a prior is.
        sha256: of its weights' file.
        max_step: it was taught at the timesteps below.
    """

    folder: PriorFolder
    sha256: str
    max_step: int


def read_restorer(prior: PriorFolder) -> Restorer:
    """The restorer of this very prior, its weights as they were written.

    Raises:
        UsageError: there is none, it is damaged, or it was taught from another prior; says what to do.
    """
    teach = f"teach it with clean images of yours: 'zipbatch train restorer {prior.path} SOURCE'"
    if prior.guided is not None:
        teach = f"make it a folder ('zipbatch import prior'), and {teach}"
    elif not isinstance(prior.path, Path) or not os.access(prior.path, os.W_OK):
        teach = "copy the prior to a folder of yours, and teach it there ('zipbatch train restorer')"
    teach += ", or take a preset without 'restore'"
    file, weights = prior.path / RESTORER, prior.path / RESTORER_WEIGHTS
    if prior.guided is not None or not file.is_file():
        raise UsageError(f"{prior.path}: has no restorer, which 'restore' needs: {teach}")
    if not weights.is_file():
        raise UsageError(f"{weights}: missing; {teach}")
    try:
        sha256, max_step = _told(file, weights, prior)
    except UsageError as error:
        raise UsageError(f"{error}; {teach}") from error
    return Restorer(replace(prior, weights=weights, parts=(), known=(sha256,)), sha256, max_step)


def _told(file: StoragePath, weights: StoragePath, prior: PriorFolder) -> tuple[str, int]:
    """The digest of the weights, and the timestep below which they know what to do."""
    other = "was taught from other weights or another schedule than lie there"
    values = read_beside(file, prior, no_such="that describes no restorer", of_others=other)
    sha256, max_step = values.get("weights_sha256"), values.get("max_step")
    if not isinstance(sha256, str) or len(sha256) != 64 or type(max_step) is not int:
        raise UsageError(f"{file}: weights_sha256 and max_step must be a digest and a timestep")
    if not 1 <= max_step <= prior.trained_below:
        raise UsageError(f"{file}: max_step must be 1 to {prior.trained_below}, got {max_step}")
    if storage.sha256(weights) != sha256:
        raise UsageError(f"{weights}: is not what {RESTORER} says")
    return sha256, max_step


def write_restorer(prior: PriorFolder, state: dict[str, Tensor], max_step: int, about: dict[str, Any]) -> Path:
    """Put it beside the prior's weights as fp16; a folder that has ``restorer.json`` has all of it.

    Raises:
        UsageError: the prior is one file, or lies where it cannot be written.
    """
    check_writable(prior)
    assert isinstance(prior.path, Path)
    weights = save({key: value.detach().cpu().half().contiguous() for key, value in state.items()})
    (prior.path / RESTORER).unlink(missing_ok=True)
    atomic.write_bytes(prior.path / RESTORER_WEIGHTS, weights)
    told = {"format_version": 1, "prior_sha256": prior.digest, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    atomic.write_json(prior.path / RESTORER, {**told, "max_step": max_step, **about})
    return prior.path / RESTORER
