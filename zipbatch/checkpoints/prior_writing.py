"""Priors with new weights, and priors as folders on a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from zipbatch import atomic
from zipbatch.checkpoints.prior import MANIFEST, SCHEDULER_CONFIG, PriorFolder, built, open_prior
from zipbatch.checkpoints.unet import build_unet, check_configs
from zipbatch.checkpoints.weights import WEIGHT_NAMES
from zipbatch.diffusion.prior import Prior


def fresh_prior(unet_config: dict[str, Any], scheduler_config: dict[str, Any], *, seed: int) -> Prior:
    """A prior with new weights that depend on the seed alone; the global generator is left as it was.

    Raises:
        UsageError: diffusers cannot build such a network or schedule.
    """
    where = Path("unet settings")
    check_configs(where, unet_config, Path("schedule settings"), scheduler_config)
    folder = PriorFolder(path=where, unet_config=unet_config, scheduler_config=scheduler_config, weights=where)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return built(folder, build_unet(folder.path, folder.unet_config))


def save_prior(
    path: Path,
    prior: Prior,
    unet_config: dict[str, Any],
    scheduler_config: dict[str, Any],
    manifest: dict[str, Any],
    *,
    before_manifest: Callable[[PriorFolder], None] = lambda _: None,
) -> None:
    """Write a diffusers pipeline folder with fp16 weights and a manifest, each file atomically.

    The manifest comes last: a folder that has one is whole. ``before_manifest`` is given the folder without it, to
    put more there.
    """
    state = {key: value.detach().cpu().half() for key, value in prior.unet.state_dict().items()}
    _write_network(path, state, unet_config, scheduler_config)
    before_manifest(open_prior(path))
    atomic.write_json(path / MANIFEST, manifest)


def write_prior(
    path: Path,
    state: dict[str, Tensor],
    unet_config: dict[str, Any],
    scheduler_config: dict[str, Any],
    manifest: dict[str, Any],
) -> None:
    """Write a diffusers pipeline folder with these tensors and a manifest, each file atomically, the manifest last."""
    _write_network(path, state, unet_config, scheduler_config)
    atomic.write_json(path / MANIFEST, manifest)


def _write_network(
    path: Path, state: dict[str, Tensor], unet_config: dict[str, Any], scheduler_config: dict[str, Any]
) -> None:
    model_index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    atomic.write_json(path / "model_index.json", model_index)
    atomic.write_json(path / "scheduler" / SCHEDULER_CONFIG, {"_class_name": "DDPMScheduler", **scheduler_config})
    atomic.write_json(path / "unet" / "config.json", {"_class_name": "UNet2DModel", **unet_config})
    contiguous = {key: value.contiguous() for key, value in state.items()}
    atomic.write_bytes(path / "unet" / WEIGHT_NAMES[0], save(contiguous))
