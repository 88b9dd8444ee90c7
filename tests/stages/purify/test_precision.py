"""What ``--precision`` comes to: decided when work is planned, in the identity, held to by workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.making import purifier_spec, zipbatch
from zipbatch.cluster import Workers
from zipbatch.diffusion import Prior
from zipbatch.errors import UsageError
from zipbatch.stages.purify import precision
from zipbatch.stages.purify.build import build_purifier
from zipbatch.stages.purify.precision import check_precision, decided, decided_on
from zipbatch.stages.purify.request import PurifySettings
from zipbatch.stages.purify.resolve import purifier_spec as resolved
from zipbatch.stages.purify.spec import PurifierSpec

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ZIP: tuple[object, ...] = ("--purifier", "zip", "--set", "steps=4", "--set", "start_step=600")


def spec_of(prior: Path, **asked: Any) -> PurifierSpec:
    return purifier_spec(method="zip", prior=prior, **asked)


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The kinds of devices that have bfloat16 in hardware."""
    kinds: set[str] = set()
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: device.type in kinds)
    monkeypatch.setattr(precision, "_named", lambda device: device.type.upper())
    return kinds


@pytest.mark.parametrize(("kinds", "expected"), [((), "float32"), (("cpu",), "bfloat16"), (("cuda",), "float32")])
def test_auto_is_what_the_machine_has(prior: Path, has: set[str], kinds: tuple[str, ...], expected: str):
    has.update(kinds)
    for workers in (Workers(), Workers(workers=2, device="cpu")):
        assert decided(spec_of(prior), workers).identity["precision"] == expected


@pytest.mark.parametrize("kinds", [(), ("cpu", "cuda")])
@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (Workers(gpus=2, address="head:6379"), "bfloat16"),
        (Workers(workers=2, address="head:6379", device="cpu"), "float32"),
        (Workers(gpus=2, address="head:6379", device="cpu"), "float32"),
    ],
)
def test_of_a_cluster_it_does_not_depend_on_the_driver(
    prior: Path, has: set[str], kinds: tuple[str, ...], workers: Workers, expected: str
):
    has.update(kinds)
    assert decided(spec_of(prior), workers).precision == expected


def test_a_worker_without_what_was_decided_refuses(prior: Path, has: set[str]):
    has.add("cpu")
    spec = decided(spec_of(prior), Workers())
    has.clear()
    with pytest.raises(UsageError, match="‹precision='auto'› is bfloat16 for these workers, and this one's CPU has"):
        build_purifier(spec, CPU)
    build_purifier(decided(spec_of(prior), Workers()), CPU)
    build_purifier(spec_of(prior, precision="bfloat16"), CPU)  # asked for by name: emulated


@pytest.mark.parametrize(
    ("asked", "device", "message"),
    [
        ("tf32", CPU, "‹precision=.tf32.› is for GPUs; on a CPU take float32 or bfloat16"),
        ("float16", CPU, "‹precision=.float16.› is for GPUs"),
        ("tf32", CUDA, r"‹precision=.tf32.›: needs compute capability 8\.0, not a CUDA"),
        ("float16", CUDA, None),
        ("bfloat16", CUDA, None),
    ],
)
def test_what_a_device_cannot(prior: Path, has: set[str], asked: str, device: torch.device, message: str | None):
    assert not has
    if message is None:
        check_precision(spec_of(prior, precision=asked), device)
        return
    with pytest.raises(UsageError, match=message):
        check_precision(spec_of(prior, precision=asked), device)


def test_a_purifier_without_a_prior_has_none(has: set[str]):
    has.add("cpu")
    spec = decided_on(purifier_spec(method="jpeg", precision="tf32"), CPU)
    assert "precision" not in spec.identity


def test_a_pipeline_is_the_same_on_every_machine(prior: Path, has: set[str]):
    has.add("cpu")
    assert resolved(PurifySettings(preset="fast"), prior).identity["precision"] == "float32"


def test_a_wrong_precision_is_told_before_any_work(staged: Path, prior: Path, tmp_path: Path):
    ran = zipbatch("purify", staged, "--store", tmp_path / "pur", "--prior", prior, "--precision", "tf32", *ZIP)
    assert ran.code == 2
    assert "--precision tf32 is for GPUs" in ran.err
    assert not (tmp_path / "pur").exists()


def test_another_precision_is_another_version(staged: Path, prior: Path, tmp_path: Path):
    asked = ("purify", staged, "--store", tmp_path, "--prior", prior, *ZIP, "--json")
    by_itself, named, other = (
        zipbatch(*asked, *flags).json for flags in ((), ("--precision", "float32"), ("--precision", "bfloat16"))
    )
    assert (named["version"], named["computed"]) == (by_itself["version"], 0)
    assert other["version"] != named["version"]
    assert "precision=bfloat16" in zipbatch("store", "ls", "--store", tmp_path, "--wide").out


def test_images_that_overflow_are_counted(staged: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The answer of a network in few bits is infinite for the second image of each batch."""
    forward = Prior.forward

    def overflowing(self: Prior, x_t: Tensor, t: int | Tensor) -> Tensor:
        out = forward(self, x_t, t)
        if self.dtype == torch.bfloat16 and len(out) == 4:
            out[1] = torch.inf
        return out

    asked = ("purify", staged, "--store", tmp_path, "--prior", prior, *ZIP)
    exact = zipbatch(*asked, "--precision", "float32", "--json").json
    monkeypatch.setattr(Prior, "forward", overflowing)
    ran = zipbatch(*asked, "--precision", "bfloat16", "--batch-size", 4)
    assert "6 images were not finite in that precision, and were done again in float32" in ran.out
    records = [json.loads(file.read_text()) for file in (tmp_path / "tasks").rglob("*.json")]
    assert sorted(record.get("in_float32", 0) for record in records) == [0] * exact["shards"] + [1] * exact["shards"]
    assert zipbatch(*asked, "--precision", "bfloat16", "--batch-size", 4, "--json").json["in_float32"] == 0
