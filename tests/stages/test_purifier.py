"""What a purifier is asked to be, and what it then is called and known by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from zipbatch.config import list_configs
from zipbatch.errors import UsageError
from zipbatch.purifiers import PURIFIERS
from zipbatch.purifiers.jpeg import Jpeg
from zipbatch.stages.purifier import PurifierSpec, build_purifier, describe, purifier_spec

PLAIN = ["blur", "median", "bitdepth", "jpeg", "shrinkpad"]


def spec_of(method: str, prior: Path, **given: Any) -> PurifierSpec:
    return purifier_spec(method=method, prior=prior if PURIFIERS[method].needs_prior else None, **given)


@pytest.mark.parametrize("method", PURIFIERS)
def test_each_says_where_it_is_from(method: str):
    kind = PURIFIERS[method]
    assert "arXiv" in kind.source
    assert kind.__doc__
    assert all(field.description for field in kind.settings_type.model_fields.values())
    assert kind.needs_prior == (method not in PLAIN)


def test_each_baseline_has_a_preset():
    assert set(PURIFIERS) - {"zip"} <= set(list_configs("purifiers"))


@pytest.mark.parametrize("method", PURIFIERS)
def test_the_seed_is_known_by_those_that_draw(method: str, prior: Path):
    one, other = (spec_of(method, prior, seed=seed).identity for seed in (0, 1))
    assert (one != other) == PURIFIERS[method].seeded
    assert ("seed" in one) == PURIFIERS[method].seeded
    assert PURIFIERS[method].seeded == (method in {"zip", "ddnm", "diffpure", "shrinkpad"})


def test_what_zip_and_blur_are_known_by(prior: Path):
    """Exactly this: anything more or less would have every store compute anew."""
    identity = spec_of("zip", prior, seed=3).identity
    assert len(identity.pop("prior_sha256")) == 64
    settings = {
        "transforms": ["blur:2", "blur:1"],
        "guidance_exponent": 10.0,
        "steps": 20,
        "eta": 1.0,
        "start_step": 300,
    }
    assert identity == {
        "method": "zip",
        "algorithm_version": 1,
        "settings": settings,
        "resize": None,
        "seed": 3,
        "precision": "float32",
        "tiling": "shard order, last canvas repeats its own",
    }
    assert spec_of("blur", prior).identity == {
        "method": "blur",
        "algorithm_version": 1,
        "settings": {"transforms": ["blur:2"]},
        "resize": None,
    }


def test_jpeg_is_known_by_its_codec(prior: Path, monkeypatch: pytest.MonkeyPatch):
    """Another libjpeg gives another identity, and a worker that has another one than the plan refuses."""
    spec = spec_of("jpeg", prior)
    assert spec.identity["libraries"] == dict(Jpeg.libraries)
    build_purifier(spec, torch.device("cpu"))
    monkeypatch.setattr(Jpeg, "libraries", {"pillow": "99.0", "libjpeg": "turbo 9"})
    assert spec_of("jpeg", prior).identity != spec.identity
    with pytest.raises(UsageError, match=r"this worker has pillow 99\.0, libjpeg turbo 9; install the same"):
        build_purifier(spec, torch.device("cpu"))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("zip", "zip blur:2+blur:1 k=10 S=20 eta=1 t0=300"),
        ("ddnm", "ddnm blur:2 S=100 eta=0.85 t0=1000"),
        ("diffpure", "diffpure S=1000 eta=1 t0=100"),
        ("blur", "blur blur:2"),
        ("median", "median window=3"),
        ("bitdepth", "bitdepth bits=3"),
        ("jpeg", "jpeg quality=50"),
        ("shrinkpad", "shrinkpad pad=4"),
    ],
)
def test_one_line_for_each(method: str, expected: str, prior: Path):
    assert describe(spec_of(method, prior).identity) == expected


def test_a_line_does_not_depend_on_the_order_of_a_file():
    settings = {"start_step": 300, "eta": 0.5, "transforms": ["gray"], "steps": 20, "guidance_exponent": 10.0}
    assert describe({"method": "zip", "settings": settings}) == "zip gray k=10 S=20 eta=0.5 t0=300"


def test_one_behaviour_one_identity(prior: Path):
    """Null and anything above T are T."""
    whole = spec_of("diffpure", prior, assigned={"steps": None}).identity
    assert whole == spec_of("diffpure", prior, assigned={"steps": "1000"}).identity
    late = spec_of("zip", prior, overrides={"start_step": 5000}).identity
    assert late == spec_of("zip", prior, assigned={"start_step": None}).identity


def test_what_is_assigned_wins_over_the_preset(prior: Path):
    assigned = {"transforms": "blur:4, gray", "eta": "0", "start_step": None}
    spec = purifier_spec(preset="paper", assigned=assigned, prior=prior)
    settings = spec.identity["settings"]
    assert (settings["transforms"], settings["eta"], settings["start_step"]) == (["blur:4", "gray"], 0.0, 1000)
    assert settings["steps"] == 20


@pytest.mark.parametrize(
    ("method", "given", "named"),
    [
        ("jpeg", {"assigned": {"qualty": "3"}}, ["--set qualty=3", "jpeg", "it has: quality"]),
        ("jpeg", {"assigned": {"quality": "high"}}, ["quality = 'high'", "valid integer"]),
        ("jpeg", {"assigned": {"quality": "101"}}, ["quality = '101'", "less than or equal to 100"]),
        ("median", {"assigned": {"window": "4"}}, ["window = '4'", "odd"]),
        ("shrinkpad", {"assigned": {"pad": None}}, ["pad = None", "valid integer"]),
        ("zip", {"assigned": {"transforms": "blur:2,sharpen"}}, ["transforms.1 = 'sharpen'", "blur:N"]),
        ("zip", {"assigned": {"eta": "nan", "steps": "0"}}, ["eta = 'nan'", "steps = '0'"]),
        ("zip", {"assigned": {"steps": "5"}, "overrides": {"steps": 4}}, ["--steps", "--set steps=5", "give one"]),
        ("ddnm", {"overrides": {"guidance_exponent": 2.0}}, ["--guidance-exponent", "ddnm"]),
        ("ddnm", {"assigned": {"transforms": "blur:2,gray"}}, ["transforms", "at most 1"]),
        ("diffpure", {"assigned": {"steps": "1001"}}, ["steps must be in [1, 1000], got 1001"]),
    ],
)
def test_what_cannot_be_says_why(method: str, given: dict[str, Any], named: list[str], prior: Path):
    with pytest.raises(UsageError) as caught:
        spec_of(method, prior, **given)
    for part in named:
        assert part in str(caught.value)
