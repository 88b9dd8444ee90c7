"""Poison rates, cover rates and parameters as axes and settings of a pipeline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tests.making import Ran, write_images, zipbatch
from tests.stages.poison.test_poison import samples_of
from zipbatch.datasets import open_dataset

PIPELINE: dict[str, Any] = {
    "matrix": {"rate": [0, 0.001, 0.25, None], "cover": [0, 0.5]},
    "stages": {
        "shards": {
            "run": "poison",
            "source": "${source}",
            "attack": "badnets",
            "poison_rate": "${rate}",
            "cover_rate": "${cover}",
        }
    },
    "vars": {"source": None},
}


def run(folder: Path, pipeline: dict[str, Any], source: Path, *options: object) -> Ran:
    (folder / "p.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    return zipbatch("run", folder / "p.yaml", "--var", f"source={source}", "--out", folder / "out", *options)


def counted(folder: Path) -> Counter[str]:
    """Poisoned, cover and clean training images of a staged dataset."""
    rows = [s.metadata() for s in samples_of(open_dataset([str(folder)]), "train")]
    return Counter("cover" if row.get("cover") else "poisoned" if row["poisoned"] else "clean" for row in rows)


def test_rates_are_axes_and_none_is_one_of_them(source: Path, tmp_path: Path):
    """0 poisons nothing, no rate at all is the attack's own (.05 of 24 images is one)."""
    ran = run(tmp_path, PIPELINE, source, "--json")
    assert ran.code == 0, ran.err
    found = {folder.name.rpartition("-")[0]: counted(folder) for folder in (tmp_path / "out" / "shards").iterdir()}
    assert len(found) == 8
    poisoned = {"0": 0, "0.001": 0, "0.25": 6, "none": 1}
    for name, counts in found.items():
        rate, cover = name.lower().split("-")
        assert (counts["poisoned"], counts["cover"]) == (poisoned[rate], 12 if cover == "0.5" else 0)
    again = run(tmp_path, PIPELINE, source, "--dry-run")
    assert {line.split()[0] for line in again.out.splitlines()} == {"skip"}


def test_lists_are_parameters_and_pictures(source: Path, tmp_path: Path):
    pool = write_images(tmp_path / "pool", "a.png", "b.png")
    pipeline = {
        "vars": {"source": None},
        "stages": {
            "tact": {
                "run": "poison",
                "source": "${source}",
                "attack": "tact",
                "params": {"source_classes": [1, 2], "cover_classes": [0]},
                "target": 0,
            },
            "refool": {
                "run": "poison",
                "source": "${source}",
                "attack": "refool",
                "trigger_image": [str(pool / "a.png"), str(pool / "b.png")],
            },
        },
    }
    assert run(tmp_path, pipeline, source).code == 0
    staged = open_dataset([str(next((tmp_path / "out" / "tact").iterdir()))])
    assert staged.manifest is not None
    assert staged.manifest.attack.source_classes == (1, 2)
    assert {s.original_label() for s in samples_of(staged, "test_poisoned")} == {1, 2}
    write_images(pool, "b.png", "a.png")  # each has the other's content now
    again = run(tmp_path, pipeline, source, "--dry-run")
    assert sorted(line.split()[:2] for line in again.out.splitlines()) == [["run", "refool"], ["skip", "tact"]]
