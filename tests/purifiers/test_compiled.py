"""A compiled network does what it does in eager mode, whatever the number of rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.making import purifier_spec, zipbatch
from tests.purifiers.test_zip import apart, keys, pictures
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.diffusion import static
from zipbatch.errors import UsageError
from zipbatch.purifiers import Resources, Zip
from zipbatch.purifiers.settings import ZipSettings
from zipbatch.stages.purify.build import build_purifier

CPU = torch.device("cpu")


class Rows(nn.Module):
    """Each row plus its timestep; keeps the shapes that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        assert not return_dict
        assert sample.is_contiguous()
        self.seen.append(len(sample))
        return (sample + timestep.view(-1, 1, 1, 1),)


@pytest.mark.parametrize(("batch", "calls"), [(1, 1), (31, 1), (32, 1), (33, 2), (80, 3)])
def test_one_shape_for_all_batches(batch: int, calls: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda unet, **_: unet)
    unet = Rows()
    x = torch.randn(batch, 3, 4, 4).to(memory_format=torch.channels_last)
    (out,) = static.Static(unet)(x, torch.arange(batch), return_dict=False)
    assert torch.equal(out, x + torch.arange(batch).view(-1, 1, 1, 1))
    assert unet.seen == [static.ROWS] * calls


@pytest.mark.slow
def test_compiled_pixels_are_the_same_within_a_level(prior: Path, monkeypatch: pytest.MonkeyPatch):
    """In float32; and a row does not know with whom it shares a batch."""
    monkeypatch.setattr(static, "ROWS", 4)
    tiny, settings = load_prior(open_prior(prior)), ZipSettings(steps=4, start_step=600)
    eager = Zip(settings, Resources(device=CPU, prior=tiny))
    compiled = Zip(settings, Resources(device=CPU, prior=tiny, compiled=True))
    made = compiled(pictures(6), keys(6))
    assert apart(made, eager(pictures(6), keys(6))) <= 1
    assert torch.equal(compiled(pictures(6)[3:5], keys(6)[3:5]), made[3:5])


def test_it_is_another_version(prior: Path):
    plain, compiled = (purifier_spec(method="zip", prior=prior, compile=how).identity for how in ("off", "on"))
    assert compiled == {**plain, "compile": "on"}


def test_without_a_network_there_is_nothing_to_compile(staged: Path, tmp_path: Path):
    ran = zipbatch("purify", staged, "--store", tmp_path / "pur", "--purifier", "jpeg", "--compile", "on")
    assert ran.code == 2
    assert "--compile on does not apply to the purifier jpeg" in ran.err


def test_a_machine_without_a_compiler_says_so(prior: Path, monkeypatch: pytest.MonkeyPatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler on each machine that works"):
        build_purifier(purifier_spec(method="zip", prior=prior, compile="on"), CPU)


def test_kernels_are_kept_in_the_cache_folder(prior: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Unless the user says where; nothing is compiled before the first image."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    build_purifier(purifier_spec(method="zip", prior=prior, compile="on"), CPU)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache / "kernels")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    build_purifier(purifier_spec(method="zip", prior=prior, compile="on"), CPU)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"


def test_gpus_do_not_compile(prior: Path):
    with pytest.raises(UsageError, match="‹compile='on'› is for CPUs"):
        build_purifier(purifier_spec(method="zip", prior=prior, compile="on"), torch.device("cuda"))
