"""What a purifier is asked to be, and what it then is called and known by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.making import purifier_spec
from zipbatch.atomic import sha256_json
from zipbatch.config import find_config, list_configs, read_config
from zipbatch.errors import UsageError
from zipbatch.purifiers import PURIFIERS
from zipbatch.purifiers.jpeg import Jpeg
from zipbatch.stages.purify.build import build_purifier
from zipbatch.stages.purify.identity import describe, describe_settings
from zipbatch.stages.purify.request import PurifySettings
from zipbatch.stages.purify.resolve import asked_purifier
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.store import VersionHeader

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
    assert PURIFIERS[method].seeded == (
        method in {"zip", "repaint", "restore", "ddnm", "diffpure", "shrinkpad", "chain"}
    )


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
        ("jpeg", {"assigned": {"qualty": "3"}}, ["‹set={'qualty': '3'}›", "jpeg", "it has: quality"]),
        ("jpeg", {"assigned": {"quality": "high"}}, ["quality = 'high'", "valid integer"]),
        ("jpeg", {"assigned": {"quality": "101"}}, ["quality = '101'", "less than or equal to 100"]),
        ("median", {"assigned": {"window": "4"}}, ["window = '4'", "odd"]),
        ("shrinkpad", {"assigned": {"pad": None}}, ["pad = None", "valid integer"]),
        ("zip", {"assigned": {"transforms": "blur:2,sharpen"}}, ["transforms.1 = 'sharpen'", "blur:N"]),
        ("zip", {"assigned": {"eta": "nan", "steps": "0"}}, ["eta = 'nan'", "steps = '0'"]),
        (
            "zip",
            {"assigned": {"steps": "5"}, "overrides": {"steps": 4}},
            ["‹steps›", "‹set={'steps': '5'}›", "give one"],
        ),
        ("ddnm", {"overrides": {"guidance_exponent": 2.0}}, ["‹guidance_exponent›", "ddnm"]),
        ("ddnm", {"assigned": {"transforms": "blur:2,gray"}}, ["transforms", "at most 1"]),
        ("diffpure", {"assigned": {"steps": "1001"}}, ["steps must be in [1, 1000], got 1001"]),
    ],
)
def test_what_cannot_be_says_why(method: str, given: dict[str, Any], named: list[str], prior: Path):
    with pytest.raises(UsageError) as caught:
        spec_of(method, prior, **given)
    for part in named:
        assert part in str(caught.value)


LEARNED = {"levels", "seed_threshold", "region_threshold", "image_size"}
"""What comes with a prior's calibration, unless it is given."""


@pytest.mark.parametrize("preset", list_configs("purifiers"))
def test_a_preset_says_every_setting_itself(preset: str):
    """So that it means the same whatever the defaults of its purifier come to be."""
    values = read_config(find_config("purifiers", preset))
    assert set(values) == {"method", *PURIFIERS[str(values["method"])].settings_type.model_fields}
    for step in values.get("steps", []) if values["method"] == "chain" else []:  # type: ignore[attr-defined]
        assert set(step) == {"method", *PURIFIERS[step["method"]].settings_type.model_fields} - LEARNED


def test_a_method_and_its_own_preset_mean_the_same(prior: Path):
    for method in PURIFIERS:
        preset = "balanced-v1" if method == "zip" else method
        assert purifier_spec(preset=preset, prior=prior).identity == spec_of(method, prior).identity


KNOWN_BY = {
    "balanced": "2373b63b92a07cd5",
    "balanced-v1": "9efddb631c2aa627",
    "bitdepth": "5a4d537652bef216",
    "blur": "68775594d91243e2",
    "chain": "782efdbf128e2ef9",
    "ddnm": "428c78fe2ddea701",
    "diffpure": "18c86a92b5516a70",
    "fast": "782efdbf128e2ef9",
    "fast-v1": "404d8ff16af4ea4f",
    "jpeg": "ac12da29b41f4a60",
    "median": "d063cabd3e682c61",
    "paper": "6b2d03975a0ddba4",
    "shrinkpad": "e70245846016e6c3",
    "repaint": "393206b9cfb1e1e4",
    "restore": "93d43e4b57f7ff11",
    "strong": "78b58a870f8302ba",
    "strong-v1": "d7cc9ddf5a0ec8a1",
}


@pytest.mark.parametrize("preset", list_configs("purifiers"))
def test_what_each_preset_is_known_by(preset: str, prior: Path):
    """Less its prior, its restorer and its codec. Another digest would have every store compute anew what it holds."""
    identity = purifier_spec(preset=preset, prior=prior).identity
    identity["settings"].pop("weights", None)
    kept = {name: value for name, value in identity.items() if name not in {"prior_sha256", "libraries"}}
    assert sha256_json(kept)[:16] == KNOWN_BY[preset]


def test_only_a_new_size_of_what_comes_out_is_a_new_identity(prior: Path):
    """What 'resize: stretch' and 'center-crop' meant before there was a choice is the prior's size."""

    def known_by(**given: Any) -> dict[str, Any]:
        return purifier_spec(prior=prior, **given).identity

    plain = known_by()
    assert known_by(resize="stretch", output_size="prior") == {**plain, "resize": "stretch"}
    assert known_by(resize="center-crop") == known_by(resize="center-crop", output_size="prior")
    assert known_by(resize="center-crop") == {**plain, "resize": "center-crop"}
    assert known_by(resize="stretch") == {**plain, "resize": "stretch", "output_size": "input"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"resize": "center-crop", "output_size": "input"}, ["‹output_size='prior'›", "‹resize='stretch'›"]),
        ({"output_size": "input"}, ["‹output_size='input'›", "‹resize›"]),
    ],
)
def test_sizes_that_cannot_come_out(given: dict[str, Any], words: list[str], prior: Path):
    with pytest.raises(UsageError) as caught:
        purifier_spec(prior=prior, **given)
    assert all(word in str(caught.value) for word in words)


def header_of(identity: dict[str, Any]) -> VersionHeader:
    return VersionHeader(
        dataset="d", version="v", purifier=identity, prior_sha256=None, seed=None, counts={}, quarantined=0,
        parent=None, started="2026-01-31T03:00:00+00:00", zipbatch="0",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "repaint > jpeg quality=60 > zip k=100 t0=60"),
        ({"preset": "balanced-v1"}, "zip"),
        ({"preset": "paper"}, "zip blur:2+gray k=1 t0=1000"),
        ({"preset": "fast-v1", "seed": 3}, "zip k=14 t0=150 seed=3"),
        (
            {"preset": "balanced-v1", "resize": "stretch", "precision": "bfloat16"},
            "zip resize=stretch output_size=input precision=bfloat16",
        ),
        ({"method": "jpeg"}, "jpeg"),
        ({"method": "jpeg", "assigned": {"quality": 75}}, "jpeg quality=75"),
    ],
)
def test_a_version_is_described_by_what_is_not_default(given: dict[str, Any], expected: str, prior: Path):
    assert describe_settings(header_of(purifier_spec(prior=prior, **given).identity)) == expected


def test_a_purifier_that_nobody_knows_is_described_whole():
    identity = {"method": "theirs", "settings": {"strength": 2}}
    assert describe_settings(header_of(identity)) == "theirs strength=2"


class MorePurifySettings(PurifySettings):
    a_new_one: int = 0


def test_a_setting_that_the_request_gains_is_in_the_identity_unless_it_is_at_its_default():
    plain = asked_purifier(PurifySettings(purifier="blur")).identity
    assert asked_purifier(MorePurifySettings(purifier="blur")).identity == plain
    assert asked_purifier(MorePurifySettings(purifier="blur", a_new_one=1)).identity == {**plain, "a_new_one": 1}


def test_what_decides_no_pixels_is_not_in_the_identity():
    plain = asked_purifier(PurifySettings(purifier="blur")).identity
    asked = PurifySettings(purifier="blur", quarantine=True, other_images="keep", splits=("test",), batch_size=3)
    assert asked_purifier(asked).identity == plain
