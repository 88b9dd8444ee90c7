"""Priors: every layout that diffusers writes is read; what cannot be used, or would run code, is refused by name."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.making import write_ddpm_cifar10, write_prior, zipbatch
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.checkpoints.prior import alpha_bar_of
from zipbatch.errors import UsageError

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(prior: Path, tmp_path: Path) -> Path:
    """A prior that a test may damage."""
    return Path(shutil.copytree(prior, tmp_path / "copy"))


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def schedule(folder: Path, **fields: Any) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **fields)


def unet(folder: Path, **fields: Any) -> None:
    change(folder / "unet" / "config.json", **fields)


def refused(folder: Path, *parts: str, load: bool = False) -> None:
    """Opening (or loading) names the folder and each of ``parts``."""
    with pytest.raises(UsageError) as caught:
        opened = open_prior(folder)
        assert load, "open_prior should have refused it"
        load_prior(opened)
    for part in (str(folder), *parts):
        assert part in str(caught.value)


# ---- what it reads


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_layouts(prior: Path, tmp_path: Path, flat: bool, binary: bool):
    folder = write_prior(tmp_path / "p", flat=flat, binary=binary)
    opened = open_prior(folder)
    assert opened.weights.suffix == (".bin" if binary else ".safetensors")
    assert (opened.image_size, opened.training_steps) == (16, 1000)
    model, reference = load_prior(opened), load_prior(open_prior(prior))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(x, 500), reference(x, 500))


@pytest.mark.parametrize("binary", [False, True])
def test_ddpm_cifar10_from_a_folder(tmp_path: Path, binary: bool):
    from diffusers import UNet2DModel

    folder = write_ddpm_cifar10(tmp_path / "ddpm-cifar10-32", binary=binary)
    opened = open_prior(folder)
    assert (opened.image_size, opened.training_steps) == (32, 1000)
    np.testing.assert_allclose(alpha_bar_of(opened), np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), rtol=1e-4)
    model = load_prior(opened)
    theirs = UNet2DModel.from_pretrained(folder, use_safetensors=not binary).eval()
    attention = [key for key in model.unet.state_dict() if ".attentions." in key]
    assert len(attention) == 6 * 10  # at 16 px down and up, and in the middle: a norm and four linear maps each
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(model(x, 37), theirs(x, 37).sample, atol=1e-6)


def test_ddpm_cifar10_has_its_published_size(tmp_path: Path):
    from diffusers import UNet2DModel

    config = open_prior(write_ddpm_cifar10(tmp_path / "x")).unet_config
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    with torch.device("meta"):
        unet = UNet2DModel(**{**config, "block_out_channels": [128, 256, 256, 256]})
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6, 1) == 35.7


def test_constants_that_no_checkpoint_brings(tmp_path: Path):
    """Some of diffusers' blocks keep constants outside of the state dict: they must not be lost."""
    folder = write_prior(tmp_path / "p", patch=1)
    unet(folder, down_block_types=["KDownBlock2D", "DownBlock2D"])
    from diffusers import UNet2DModel

    config = {k: v for k, v in json.loads((folder / "unet/config.json").read_text()).items() if not k.startswith("_")}
    theirs = UNet2DModel(**config)
    theirs.save_pretrained(folder / "unet")
    loaded = load_prior(open_prior(folder)).unet
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


def test_evaluation_mode_without_gradients_in_float32(prior: Path):
    model = load_prior(open_prior(prior))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("learned_sigma", [False, True])
def test_patch_and_learned_sigma(tmp_path: Path, patch: int, learned_sigma: bool):
    from diffusers import UNet2DModel
    from torch.nn import functional as F

    folder = write_prior(tmp_path / "p", patch=patch, learned_sigma=learned_sigma)
    assert open_prior(folder).image_size == 16
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = UNet2DModel.from_pretrained(folder / "unet").eval()
    with torch.inference_mode():
        eps = load_prior(open_prior(folder))(x, 37)
        out = theirs(F.pixel_unshuffle(x, patch), torch.tensor([37, 37])).sample[:, : 3 * patch**2]
    assert eps.shape == x.shape
    assert torch.allclose(eps, F.pixel_shuffle(out, patch), atol=1e-6)


def test_half_precision_weights_become_float32(copy: Path):
    state = load_file(copy / WEIGHTS)
    save_file({k: v.half() for k, v in state.items()}, copy / WEIGHTS)
    loaded = load_prior(open_prior(copy)).unet.state_dict()
    assert all(torch.equal(loaded[k], v.half().float()) for k, v in state.items())


# ---- configs


def test_missing_scheduler(copy: Path):
    (copy / "scheduler" / "scheduler_config.json").unlink()
    refused(copy, "scheduler_config.json", "missing", "noise schedule")


def test_missing_files(copy: Path, tmp_path: Path):
    refused(tmp_path / "gone", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "config.json", "missing")
    (copy / WEIGHTS).unlink()
    refused(copy, "no weights", "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("text", ["", "[]", "{", "1", "[" * 50_000])
@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_damaged_configs(copy: Path, file: str, text: str):
    (copy / file).write_text(text)
    refused(copy, file)


def test_an_enormous_config(copy: Path):
    (copy / "unet" / "config.json").write_text(" " * 5_000_000)
    refused(copy, "unet/config.json", "4000000")


@pytest.mark.parametrize("fields", [{"num_class_embeds": 10}, {"class_embed_type": "timestep"}])
def test_class_conditional(copy: Path, fields: dict[str, Any]):
    unet(copy, **fields)
    refused(copy, "unet/config.json", "class-conditional")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"in_channels": 4}, "got 4"),
        ({"in_channels": 1}, "got 1"),
        ({"in_channels": 6}, "got 6"),
        ({"in_channels": "12"}, "in_channels"),
        ({"out_channels": 3}, "got 3"),
        ({"out_channels": 36}, "learned sigma"),
        ({"sample_size": None}, "sample_size"),
        ({"sample_size": 0}, "sample_size"),
        ({"sample_size": [8, 16]}, "sample_size"),
        ({"sample_size": [8, 8, 8]}, "sample_size"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
    ],
)
def test_networks_of_another_kind(copy: Path, fields: dict[str, Any], part: str):
    unet(copy, **fields)
    refused(copy, "unet/config.json", part)


@pytest.mark.parametrize(
    ("fields", "part"),
    [({"nonsense": 1}, "nonsense"), ({"norm_num_groups": 0}, "config"), ({"down_block_types": ["X", "Y"]}, "X")],
)
def test_configs_that_diffusers_cannot_build(copy: Path, fields: dict[str, Any], part: str):
    unet(copy, **fields)
    refused(copy, part, load=True)


# ---- weights


def test_unfit_tensors_are_all_named(copy: Path):
    state = load_file(copy / WEIGHTS)
    del state["conv_in.weight"]
    state["conv_out.bias"] = torch.zeros(5)
    state["stranger"] = torch.zeros(1)
    save_file(state, copy / WEIGHTS)
    refused(
        copy, "1 missing: conv_in.weight", "1 unexpected: stranger", "conv_out.bias is (5,)", "must be (12,)", load=True
    )


def test_many_unfit_tensors_are_counted_and_the_first_are_named(copy: Path):
    names = sorted(load_file(copy / WEIGHTS))
    save_file({f"x{i}": torch.zeros(1) for i in range(9)}, copy / WEIGHTS)
    expected = f"{len(names)} missing: {', '.join(names[:5])} and {len(names) - 5} more\n"
    refused(copy, expected, "9 unexpected: x0, x1, x2, x3, x4 and 4 more", load=True)


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("how", ["torch", "pickle", "nested"])
def test_a_malicious_bin_runs_nothing(tmp_path: Path, how: str):
    folder, marker = write_prior(tmp_path / "p", binary=True), tmp_path / "marker"
    weights = folder / "unet" / "diffusion_pytorch_model.bin"
    if how == "pickle":
        weights.write_bytes(pickle.dumps(Evil(marker), protocol=2))
    elif how == "torch":
        torch.save(Evil(marker), weights)
    else:
        torch.save({**torch.load(weights, weights_only=True), "extra": Evil(marker)}, weights)
    refused(folder, weights.name, "nothing was run", load=True)
    assert not marker.exists()


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_renamed_safetensors(copy: Path, tmp_path: Path, how: str):
    marker = tmp_path / "marker"
    if how == "pickle":
        (copy / WEIGHTS).write_bytes(pickle.dumps(Evil(marker)))
    else:
        torch.save({"x": Evil(marker)}, copy / WEIGHTS)
    kind = "a pickle" if how == "pickle" else "a zip archive"
    refused(copy, WEIGHTS, f"is {kind}, not a safetensors file", load=True)
    assert not marker.exists()


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("damage", ["empty", "text", "half"])
def test_damaged_weights(tmp_path: Path, binary: bool, damage: str):
    folder = write_prior(tmp_path / "p", binary=binary)
    weights = open_prior(folder).weights
    data = weights.read_bytes()
    weights.write_bytes({"empty": b"", "text": b"hello " * 100, "half": data[: len(data) // 2]}[damage])
    refused(folder, weights.name, load=True)


@pytest.mark.parametrize("value", [[1, 2], {"a": {"b": torch.zeros(1)}}, {"a": 1}, torch.zeros(2)])
def test_a_bin_that_is_no_state_dict(tmp_path: Path, value: object):
    folder = write_prior(tmp_path / "p", binary=True)
    torch.save(value, open_prior(folder).weights)
    refused(folder, "flat state dict", load=True)


# ---- the schedule


def betas(kind: str, start: float, end: float, count: int) -> np.ndarray:
    """Published formulas: Ho et al. 2020 (linear), LDM (scaled_linear), Nichol & Dhariwal 2021 (squared cosine)."""
    if kind == "linear":
        return np.linspace(start, end, count)
    if kind == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, count) ** 2

    def bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - bar((i + 1) / count) / bar(i / count), 0.999) for i in range(count)])


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(("start", "end", "count"), [(1e-4, 0.02, 1000), (0.00085, 0.012, 400)])
def test_alpha_bar(copy: Path, kind: str, start: float, end: float, count: int):
    schedule(copy, beta_schedule=kind, beta_start=start, beta_end=end, num_train_timesteps=count)
    opened = open_prior(copy)
    alpha_bar = alpha_bar_of(opened)
    assert (alpha_bar.dtype, alpha_bar.shape, opened.training_steps) == (np.float64, (count,), count)
    np.testing.assert_allclose(alpha_bar, np.cumprod(1 - betas(kind, start, end, count)), rtol=1e-4)
    assert (np.diff(alpha_bar) < 0).all()


def test_trained_betas(copy: Path):
    schedule(copy, trained_betas=[0.1] * 1000)
    np.testing.assert_allclose(alpha_bar_of(open_prior(copy)), np.cumprod(np.full(1000, 0.9)), rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"rescale_betas_zero_snr": True}, "zero terminal SNR"),
        ({"beta_end": 1.0}, "alpha_bar"),
        ({"beta_start": -1.0}, "alpha_bar"),
        ({"beta_start": 0.0}, "alpha_bar"),
        ({"beta_schedule": "nonsense"}, "nonsense"),
    ],
)
def test_schedules_that_cannot_be_sampled(copy: Path, fields: dict[str, Any], part: str):
    schedule(copy, **fields)
    refused(copy, "scheduler_config.json", part, load=True)


# ---- the digest


def test_digest_is_of_what_decides_the_output(copy: Path, tmp_path: Path):
    digest = open_prior(copy).digest
    assert open_prior(Path(shutil.copytree(copy, tmp_path / "elsewhere"))).digest == digest
    unet(copy, _diffusers_version="9.9", _name_or_path="/home/someone")
    schedule(copy, clip_sample=True, _diffusers_version="9.9")
    assert open_prior(copy).digest == digest
    state = load_file(copy / WEIGHTS)
    state["conv_in.bias"][0] += 1e-3
    save_file(state, copy / WEIGHTS)
    other = open_prior(copy).digest
    assert other != digest
    schedule(copy, beta_end=0.03)
    third = open_prior(copy).digest
    assert third not in {digest, other}
    unet(copy, act_fn="gelu")
    assert open_prior(copy).digest not in {digest, other, third}


def test_flat_and_pipeline_of_one_model_share_a_digest(prior: Path, tmp_path: Path):
    assert open_prior(write_prior(tmp_path / "flat", flat=True)).digest == open_prior(prior).digest


@pytest.mark.parametrize("steps", [None, [1], "abc", 0, 10**13])
def test_an_unfit_number_of_training_steps_names_file_and_field(tmp_path: Path, steps: object):
    folder = write_prior(tmp_path / "p")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_train_timesteps": steps}))
    with pytest.raises(UsageError, match=r"scheduler_config\.json: num_train_timesteps"):
        open_prior(folder)


@pytest.mark.parametrize("channels", [[], [-8, 16], "many"])
def test_channels_that_no_network_has(tmp_path: Path, channels: object):
    folder = write_prior(tmp_path / "p")
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "block_out_channels": channels}))
    with pytest.raises(UsageError, match="not one that diffusers can build"):
        load_prior(open_prior(folder))


def test_attention_names_of_old_diffusers_are_understood(tmp_path: Path):
    from diffusers import UNet2DModel

    folder = write_prior(tmp_path / "p")
    file = folder / "unet" / "config.json"
    config = {k: v for k, v in json.loads(file.read_text()).items() if not k.startswith("_")}
    config["down_block_types"], config["up_block_types"] = (
        ["DownBlock2D", "AttnDownBlock2D"],
        ["AttnUpBlock2D", "UpBlock2D"],
    )
    config["attention_head_dim"] = None
    unet = UNet2DModel(**config)
    unet.save_pretrained(folder / "unet", safe_serialization=False)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    new = load_prior(open_prior(folder)).unet.state_dict()
    old = {}
    for name, tensor in unet.state_dict().items():
        renamed = name
        for current, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            renamed = renamed.replace(f".{current}.", f".{before}.")
        old[renamed] = tensor
    assert any(".query." in name for name in old)
    torch.save(old, folder / "unet" / "diffusion_pytorch_model.bin")
    loaded = load_prior(open_prior(folder)).unet.state_dict()
    assert all(torch.equal(new[name], loaded[name]) for name in new)


# ---- weights under other names, and in several files


def moved(folder: Path, name: str) -> Path:
    (folder / WEIGHTS).rename(folder / "unet" / name)
    return folder


def sharded(folder: Path, *, count: int = 3, variant: str = "") -> Path:
    """The same weights in ``count`` files and an index, as diffusers writes large models."""
    state = load_file(folder / WEIGHTS)
    stem, weight_map = f"diffusion_pytorch_model{variant}", {}
    for number in range(count):
        name = f"{stem}-{number + 1:05d}-of-{count:05d}.safetensors"
        part = {key: value for i, (key, value) in enumerate(sorted(state.items())) if i % count == number}
        save_file(part, folder / "unet" / name)
        weight_map |= dict.fromkeys(part, name)
    index = f"diffusion_pytorch_model.safetensors.index{variant}.json"
    (folder / "unet" / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / WEIGHTS).unlink()
    return folder


def same_output(folder: Path, other: Path) -> bool:
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.equal(load_prior(open_prior(folder))(x, 321), load_prior(open_prior(other))(x, 321))


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
def test_a_variant_of_the_weights(prior: Path, copy: Path, variant: str):
    opened = open_prior(moved(copy, f"diffusion_pytorch_model.{variant}.safetensors"))
    assert opened.weights.name == f"diffusion_pytorch_model.{variant}.safetensors"
    assert opened.digest == open_prior(prior).digest
    assert same_output(copy, prior)


def test_the_plain_weights_come_before_a_variant_and_two_variants_are_a_question(prior: Path, copy: Path):
    unet = copy / "unet"
    state = load_file(copy / WEIGHTS)
    for variant in ("fp16", "ema"):
        save_file(
            {key: value.half() for key, value in state.items()}, unet / f"diffusion_pytorch_model.{variant}.safetensors"
        )
    assert open_prior(copy).digest == open_prior(prior).digest
    (copy / WEIGHTS).unlink()
    refused(
        copy, "several variants", "diffusion_pytorch_model.ema.safetensors, diffusion_pytorch_model.fp16.safetensors"
    )


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_weights_in_several_files(prior: Path, copy: Path, staged: Path, tmp_path: Path, variant: str):
    opened = open_prior(sharded(copy, variant=variant))
    assert len(opened.files) == 3
    assert same_output(copy, prior)
    digest = opened.digest
    part = copy / "unet" / f"diffusion_pytorch_model{variant}-00002-of-00003.safetensors"
    state = load_file(part)
    state[min(state)] += 1
    save_file(state, part)
    assert open_prior(copy).digest != digest
    ran = zipbatch("purify", staged, "--prior", copy, "--store", tmp_path / "pur", "--steps", 2, "--device", "cpu")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("index", "part"),
    [
        ({}, "weight_map"),
        ({"weight_map": []}, "weight_map"),
        ({"weight_map": {}}, "weight_map"),
        ({"weight_map": {"a": "../../victim/model.safetensors"}}, "weight_map"),
        ({"weight_map": {"a": "/etc/passwd"}}, "weight_map"),
        ({"weight_map": {"a": 3}}, "weight_map"),
        ({"weight_map": {"a": "gone.safetensors"}}, "missing beside it: gone.safetensors"),
    ],
)
def test_indices_that_name_no_files_beside_them(copy: Path, index: dict[str, Any], part: str):
    sharded(copy)
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    refused(copy, part)


def test_a_tensor_in_two_files(copy: Path):
    sharded(copy)
    first, second = sorted((copy / "unet").glob("*-of-*"))[:2]
    save_file({**load_file(second), **dict(list(load_file(first).items())[:1])}, second)
    refused(copy, "holds tensors that another of its parts holds too", load=True)


def test_a_square_sample_size_in_a_list_is_one_number(prior: Path, copy: Path):
    unet(copy, sample_size=[8, 8])
    assert open_prior(copy).digest == open_prior(prior).digest
    assert same_output(copy, prior)
