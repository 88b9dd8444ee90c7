"""``zipbatch schema``, and that what commands print is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.making import zipbatch
from zipbatch.cli.schema import schema
from zipbatch.results import Evaluation, ImageRow
from zipbatch.results.schema import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_says_what_fields_mean(kind: str):
    ran = zipbatch("schema", kind)
    assert ran.code == 0, ran.err
    assert ran.json["title"] == f"zipbatch {kind}"
    assert ran.json["$schema"].startswith("https://json-schema.org/")
    for name, model in {"itself": ran.json, **ran.json.get("$defs", {})}.items():
        assert model["description"], name
        assert all(field["description"] for field in model.get("properties", {}).values()), name


def test_units_are_told():
    row = zipbatch("schema", "evaluate").json["$defs"]["EvaluationRow"]["properties"]
    units = {name: row[name]["anyOf"][0]["unit"] for name in ("ca", "psnr_clean_db", "seconds_per_image")}
    assert units == {"ca": "share, 0 to 1", "psnr_clean_db": "dB", "seconds_per_image": "s an image"}


def test_the_command_knows_every_schema():
    assert tuple(schema.params[0].type.choices) == KINDS
    wrong = zipbatch("schema", "prices")
    assert wrong.code == 2
    assert "per-image" in wrong.err


def test_what_is_printed_fits(victim: Path, staged: Path, tmp_path: Path):
    ran = zipbatch("evaluate", victim, "--data", staged, "--json")
    assert ran.code == 0, ran.err
    assert len(Evaluation.model_validate(ran.json).rows) == 1
    assert list(ran.json["rows"][0]) == zipbatch("schema", "evaluate").json["$defs"]["EvaluationRow"]["required"] + [
        "calls_least",
        "calls_most",
        "seconds_per_image",
        "seconds_on",
        "purified_first",
        "purified_last",
    ]
    images = tmp_path / "images.jsonl"
    mine = tmp_path / "mine.py"
    mine.write_text("def scores(images):\n    return images.mean(axis=(1, 2))\n")
    named = f"python:{mine}:scores"
    audited = zipbatch("audit", named, "--data", staged, "--preset", "jpeg", "--per-image", images, "--json")
    assert audited.code in {0, 3, 4}, audited.err
    rows = TypeAdapter(list[ImageRow]).validate_python(list(map(json.loads, images.read_text().splitlines())))
    assert len(rows) == audited.json["images"]
    later = ["driven", "sureness", "sureness_needed", "answers", "reused", "asked_twice", "changed"]
    assert list(audited.json) == zipbatch("schema", "audit").json["required"] + later
