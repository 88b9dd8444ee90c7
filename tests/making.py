"""Small real things for tests: sources, priors and victims on disk, and the command run in this process."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from zipbatch import images
from zipbatch.checkpoints import load_prior, open_prior, write_calibration, write_restorer
from zipbatch.checkpoints.victim import VictimSpec, save_victim
from zipbatch.cli.main import _run
from zipbatch.config import Calibration
from zipbatch.shards import Sample, ShardWriter
from zipbatch.stages.assets import sample_source
from zipbatch.stages.purify import resolve
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.storage import StoragePath, workbench
from zipbatch.victims import build_victim

IMAGE_SIZE = 16
CLASSES = ["ant", "bee", "cow"]


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


def zipbatch(*arguments: object) -> Ran:
    """Run ``zipbatch`` with these arguments in this process, as the shell would see it."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["zipbatch", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _run()
    finally:
        sys.argv = argv
    return Ran(code, out.getvalue(), err.getvalue())


def picture(seed: int, size: int = IMAGE_SIZE) -> images.U8:
    """A smooth random uint8 image [size, size, 3], the same for the same seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return images.resize(coarse, size)


def sample(key: str, label: int | None, *, seed: int, size: int = IMAGE_SIZE) -> Sample:
    """A sample with a PNG and, where there is a label, a .cls."""
    members = {"png": images.encode_png(picture(seed, size))}
    if label is not None:
        members["cls"] = str(label).encode()
    return Sample(key, members)


def write_shard(path: StoragePath, samples: Sequence[Sample]) -> StoragePath:
    """A real shard through the project's own writer."""
    with ShardWriter(workbench(path.parent)) as writer:
        for item in samples:
            writer.write(item)
        writer.finish()
        writer.publish(path)
    return path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar with exactly these members in this order, through the standard library: for shards that are wrong."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_images(root: Path, *names: str) -> Path:
    """A tree of PNG images with these paths, each image another."""
    for i, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(images.encode_png(picture(i)))
    return root


def write_source(
    folder: Path,
    *,
    counts: Mapping[str, int] | None = None,
    shards: int = 2,
    labelled: bool = True,
    size: int = IMAGE_SIZE,
) -> Path:
    """A folder of ``<split>-NNNNNN.tar`` with ``classes.txt``; labels go round the three classes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for split, count in (counts or {"train": 24, "test": 12}).items():
        rows = [
            sample(
                f"{split}_{i:04d}", i % len(CLASSES) if labelled else None, seed=i + 1000 * (split == "test"), size=size
            )
            for i in range(count)
        ]
        for number, chunk in enumerate(np.array_split(np.arange(count), shards)):
            write_shard(folder / f"{split}-{number:06d}.tar", [rows[i] for i in chunk])
    return folder


def stage_sample(out: Path, *, limit: int) -> Path:
    """So many images of the shipped sample and their twins with BadNets' patch, in shards of 24."""
    given = ("--attack", "badnets", "--out", out, "--limit", limit, "--samples-per-shard", 24)
    ran = zipbatch("poison", sample_source(), *given)
    assert ran.code == 0, ran.err
    return out


def write_prior(
    folder: Path,
    *,
    seed: int = 0,
    image_size: int = IMAGE_SIZE,
    patch: int = 2,
    learned_sigma: bool = False,
    flat: bool = False,
    binary: bool = False,
    calibrated: bool = True,
    taught: bool = False,
) -> Path:
    """A tiny diffusers prior with random weights, none of them zero; its calibration is made up, and so is its restorer
    where it is ``taught``.
    """
    from diffusers import DDPMScheduler, UNet2DModel

    channels = 3 * patch**2
    unet = UNet2DModel(
        sample_size=image_size // patch,
        in_channels=channels,
        out_channels=channels * (2 if learned_sigma else 1),
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        add_attention=False,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + 0.01)
    unet.save_pretrained(folder if flat else folder / "unet", safe_serialization=not binary)
    DDPMScheduler(num_train_timesteps=1000, clip_sample=False).save_pretrained(folder if flat else folder / "scheduler")
    if calibrated:
        calibrate_made_up(folder)
    if taught:
        network = load_prior(open_prior(folder)).unet
        write_restorer(open_prior(folder), network.state_dict(), 150, {})
    return folder


def calibrate_made_up(folder: Path, *, image_size: int = IMAGE_SIZE) -> None:
    """As if clean images had residuals of these levels: some images are repainted, others are not."""
    calibration = Calibration(
        image_size=image_size,
        residual_steps=(100, 300, 500),
        levels=(0.26, 0.65, 0.86),
        shares=(0.5, 0.03, 0.0001),
        scores=(0.57, 0.63, 0.66),
    )
    write_calibration(open_prior(folder), calibration, {})


def write_ddpm_cifar10(folder: Path, *, binary: bool = False, seed: int = 0) -> Path:
    """google/ddpm-cifar10-32 at a quarter of its width, random: flat, the same config, old attention names."""
    from diffusers import UNet2DModel

    config = {
        "act_fn": "silu",
        "attention_head_dim": None,
        "block_out_channels": [32, 64, 64, 64],
        "center_input_sample": False,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "in_channels": 3,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-06,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 32,
        "time_embedding_type": "positional",
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    }
    schedule = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.1.1",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": True,
        "num_train_timesteps": 1000,
        "trained_betas": None,
        "variance_type": "fixed_large",
    }
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, tensor in UNet2DModel(**config).state_dict().items():
        if ".attentions." in name:
            for now, then in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
                name = name.replace(f".{now}.", f".{then}.")  # noqa: PLW2901
        state[name] = torch.randn(tensor.shape, generator=generator) * 0.05 + 0.01
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", **config})
    )
    (folder / "scheduler_config.json").write_text(json.dumps(schedule))
    if binary:
        torch.save(state, folder / "diffusion_pytorch_model.bin")
    else:
        save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return folder


def write_victim(folder: Path, *, classes: int = len(CLASSES), size: int = IMAGE_SIZE, seed: int = 0) -> Path:
    """An untrained ResNet-20 victim."""
    torch.manual_seed(seed)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    victim = build_victim("resnet20", num_classes=classes, mean=mean, std=std)
    spec = VictimSpec(arch="resnet20", num_classes=classes, image_size=size, mean=mean, std=std)
    save_victim(folder, spec, victim.network, {"format_version": 1})
    return folder


def files_below(folder: Any) -> dict[str, bytes]:
    """Every file below a folder with its bytes, by relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def purifier_spec(
    *,
    prior: StoragePath | None = None,
    method: str | None = None,
    overrides: Mapping[str, object] | None = None,
    assigned: Mapping[str, object] | None = None,
    **asked: Any,
) -> PurifierSpec:
    """A purifier as the command line asks for it: ``overrides`` by flags of their own, ``assigned`` by ``--set``."""
    request = PurifierRequest.model_validate({"purifier": method, "set": assigned or {}, **(overrides or {}), **asked})
    return resolve.purifier_spec(request, prior)
