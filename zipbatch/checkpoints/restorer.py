"""A prior's restorer: the same network with other weights, ``restorer.safetensors`` beside the prior's own, and
``restorer.json``, which is written last and holds their digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from zipbatch import atomic
from zipbatch.checkpoints.calibration import check_writable
from zipbatch.checkpoints.prior import PriorFolder
from zipbatch.checkpoints.tensors import read_json
from zipbatch.errors import UsageError
from zipbatch.places import stamp

RESTORER, RESTORER_WEIGHTS, MAX_BYTES = "restorer.json", "restorer.safetensors", 64 * 1024


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
    """The restorer of a prior; its weights are held against their digest when they are loaded.

    Raises:
        UsageError: there is none, or it is damaged; says what to do.
    """
    train = f"'zipbatch train restorer {prior.path} SOURCE' teaches it with clean images"
    without = "or take a preset without 'restore'"
    if prior.guided is not None:
        raise UsageError(
            f"{prior.path}: one file has no restorer; make it a folder: 'zipbatch import prior'; {without}"
        )
    file = prior.path / RESTORER
    if not file.is_file():
        raise UsageError(f"{prior.path}: has no restorer, which 'restore' needs; {train}, {without}")
    if stamp(file).size > MAX_BYTES:
        raise UsageError(f"{file}: over {MAX_BYTES} bytes; that describes no restorer; {train}")
    values = read_json(file)
    if values.get("format_version") != 1:
        raise UsageError(f"{file}: format_version must be 1, got {values.get('format_version')!r}; {train}")
    sha256, max_step = values.get("weights_sha256"), values.get("max_step")
    if not isinstance(sha256, str) or len(sha256) != 64 or not isinstance(max_step, int) or max_step < 1:
        raise UsageError(f"{file}: weights_sha256 and max_step must be a digest and a timestep; {train}")
    return Restorer(_with_weights(prior, sha256), sha256, max_step)


def _with_weights(prior: PriorFolder, sha256: str) -> PriorFolder:
    return replace(prior, weights=prior.path / RESTORER_WEIGHTS, parts=(), known=(sha256,))


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
    told = {"format_version": 1, "weights_sha256": hashlib.sha256(weights).hexdigest(), "max_step": max_step, **about}
    atomic.write_json(prior.path / RESTORER, told)
    return prior.path / RESTORER
