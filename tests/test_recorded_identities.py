"""What is made keeps its name from release to release: identities of purifiers and names of a pipeline's stages.

``recorded/identities.json`` holds a digest of each, as releases before this test made them. Versions of libraries are
left out: they are this machine's. A digest that differs means that every store and pipeline out there would compute
anew; where pixels really change, the purifier's or attack's version is raised, and its digest is recorded anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.making import purifier_spec
from zipbatch.attacks import ATTACKS
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.stages.assets import embedded_prior

RECORDED: dict[str, str] = json.loads((Path(__file__).parent / "recorded" / "identities.json").read_text())
CHAIN = {"steps": [{"method": "jpeg", "quality": "40..80"}, {"method": "zip", "start_step": 60}]}
PURIFIERS: list[dict[str, Any]] = [
    *(
        {"preset": preset, **extra}
        for preset in ("balanced", "balanced-v1", "fast", "strong", "paper", "repaint", "ddnm", "diffpure")
        for extra in (
            {},
            {"seed": 3},
            {"resize": "stretch"},
            {"resize": "center-crop"},
            {"resize": "stretch", "output_size": "prior"},
            {"precision": "bfloat16"},
        )
    ),
    *({"preset": preset} for preset in ("blur", "bitdepth", "jpeg", "median", "shrinkpad")),
    {"preset": "balanced", "keep_masks": True},
    {"overrides": {"transforms": ["blur:2", "gray"]}},
    {"overrides": {"guidance_exponent": 30.0, "steps": 10}},
    {"method": "zip", "overrides": {"eta": 0.5, "start_step": 300}},
    {"method": "jpeg", "assigned": {"quality": "75"}},
    {"preset": "balanced", "assigned": {"jpeg.quality": "75"}},
    {"method": "chain", "assigned": CHAIN},
]
STAGES: list[tuple[str, dict[str, Any]]] = [
    ("purify", {}),
    ("purify", {"preset": "fast", "seed": 3}),
    ("purify", {"purifier": "blur", "set": {"transforms": ["blur:2"]}, "splits": ["test"]}),
    ("purify", {"preset": "repaint", "keep_masks": True}),
    ("purify", {"quarantine": True, "other_images": "keep", "batch_size": 7, "preset": "jpeg"}),
    ("purify", {"resize": "stretch", "precision": "bfloat16"}),
    ("purify", {"resize": "center-crop"}),
    ("evaluate", {}),
    ("evaluate", {"sheet": True}),
    ("train victim", {"preset": "resnet18"}),
    ("train victim", {"preset": "resnet20-embedded", "set": {"epochs": 3, "seed": 4}}),
    ("train prior", {"preset": "small32"}),
    ("train prior", {"preset": "small32", "set": {"max_step": 300, "min_snr": 5}}),
    *(("poison", {"attack": attack}) for attack in ATTACKS if attack not in {"lf", "patch", "pattern", "refool"}),
    ("poison", {"attack": "badnets", "profile": "zip-code"}),
    ("poison", {"attack": "badnets", "profile": "backdoorbench"}),
    ("poison", {"attack": "wanet", "profile": "zip-code"}),
    ("poison", {"attack": "blended", "target_mode": "all-to-all"}),
    ("poison", {"attack": "tact", "params": {"source_classes": [1, 9]}, "cover_rate": 0.01}),
    (
        "poison",
        {
            "attack": "badnets",
            "params": {"patch_size": 3},
            "target": 2,
            "poison_rate": 0.1,
            "splits": ["train", "test"],
            "limit": 9,
            "image_size": 32,
            "skip_unreadable": True,
            "seed": 7,
            "samples_per_shard": 10,
            "resize": "center-crop",
            "clean_label": True,
        },
    ),
]


def digest(value: dict[str, Any]) -> str:
    plain = {name: part for name, part in value.items() if name != "libraries"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def named(case: object) -> str:
    return json.dumps(case, sort_keys=True)


@pytest.mark.parametrize("given", PURIFIERS, ids=named)
def test_identity_of_a_purifier(given: dict[str, Any]):
    assert digest(purifier_spec(prior=embedded_prior(), **given).identity) == RECORDED[named(given)]


@pytest.mark.parametrize(("kind", "given"), STAGES, ids=named)
def test_what_a_stage_is_known_by(kind: str, given: dict[str, Any]):
    known = STAGE_TYPES[kind]
    assert digest(known.decides(known.settings.model_validate(given))) == RECORDED[named([kind, given])]


def test_every_record_is_of_a_case():
    assert set(RECORDED) == {*map(named, PURIFIERS), *(named([kind, given]) for kind, given in STAGES)}
