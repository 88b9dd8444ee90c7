"""``purify --keep-masks``: what was repainted, beside each purified image, and in the sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.making import files_below, sample, write_shard, zipbatch
from zipbatch.images import decode
from zipbatch.shards import read_shard
from zipbatch.store import Store

REPAINT = ("--purifier", "repaint", "--set", "seed_share=0.02")


def objects(store: Path) -> list:
    return [s for shard in sorted((store / "objects").rglob("*.tar")) for s in read_shard(shard)]


def test_masks_lie_beside_what_they_are_of(staged: Path, prior: Path, tmp_path: Path):
    flags = (staged, "--prior", prior, *REPAINT)
    with_masks = zipbatch("purify", *flags, "--store", tmp_path / "with", "--keep-masks", "--json")
    without = zipbatch("purify", *flags, "--store", tmp_path / "without", "--json")
    assert (with_masks.code, without.code) == (0, 0), with_masks.err
    assert with_masks.json["version"] != without.json["version"]
    kept, plain = (
        {(s.key, s.label(), s.stamped()): s for s in objects(tmp_path / name)} for name in ("with", "without")
    )
    assert kept.keys() == plain.keys()
    shares = []
    for key, one in kept.items():
        assert one.members["png"] == plain[key].members["png"], "pixels are the same"
        assert set(one.members) - set(plain[key].members) == {"mask.png"}
        mask = decode(one.members["mask.png"], "png")
        assert set(np.unique(mask)) <= {0, 255}
        assert mask.shape == (16, 16, 3)
        shares.append((mask > 0).mean())
    assert 0 < np.mean(shares) < 1
    version = Store(tmp_path / "with").versions.read(staged.name)
    assert version.header.purifier["keep_masks"] is True
    assert "keep_masks" not in Store(tmp_path / "without").versions.read(staged.name).header.purifier


@pytest.mark.ray
def test_same_bytes_for_any_number_of_workers(staged: Path, prior: Path, tmp_path: Path):
    for name, workers in (("none", 0), ("two", 2)):
        ran = zipbatch(
            *("purify", staged, "--prior", prior, "--store", tmp_path / name, "--keep-masks"),
            *("--workers", workers, "--device", "cpu"),
        )
        assert ran.code == 0, ran.err
    assert files_below(tmp_path / "none" / "objects") == files_below(tmp_path / "two" / "objects")


def test_a_mask_has_the_size_that_its_image_comes_out_with(prior: Path, tmp_path: Path):
    write_shard(tmp_path / "in" / "a.tar", [sample(f"k{i}", 1, seed=i, size=24) for i in range(6)])
    ran = zipbatch(
        *("purify", tmp_path / "in", "--prior", prior, "--store", tmp_path / "pur", "--keep-masks", *REPAINT),
        *("--resize", "stretch"),
    )
    assert ran.code == 0, ran.err
    assert {decode(s.members["mask.png"], "png").shape for s in objects(tmp_path / "pur")} == {(24, 24, 3)}


def test_the_sheet_shows_them(staged: Path, prior: Path, victim: Path, tmp_path: Path):
    assert zipbatch("purify", staged, "--prior", prior, "--store", tmp_path / "pur", "--keep-masks", *REPAINT).code == 0
    sizes = {}
    for name, more in (("masks", ()), ("plain", ("--tag", "plain"))):
        if more:
            ran = zipbatch("purify", staged, "--prior", prior, "--store", tmp_path / "pur", *REPAINT, *more)
            assert ran.code == 0, ran.err
        tag = f"{staged.name}@{'plain' if more else 'latest'}"
        sheet = tmp_path / f"{name}.png"
        ran = zipbatch(
            "evaluate", victim, "--data", staged, "--purified", tag, "--store", tmp_path / "pur", "--sheet", sheet
        )
        assert ran.code == 0, ran.err
        sizes[name] = decode(sheet.read_bytes(), "png").shape[1]
    assert sizes["masks"] > sizes["plain"], "a column more"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--purifier", "jpeg"), "take repaint"),
        (("--preset", "fast"), "take repaint"),
    ],
)
def test_only_where_something_is_masked(staged: Path, prior: Path, tmp_path: Path, flags: tuple, words: str):
    ran = zipbatch("purify", staged, "--prior", prior, "--store", tmp_path / "pur", "--keep-masks", *flags)
    assert (ran.code, words in ran.err) == (2, True), ran.err


def test_a_mask_of_ones_own_is_not_replaced(prior: Path, tmp_path: Path):
    own = sample("k0", 1, seed=0)
    write_shard(tmp_path / "in" / "a.tar", [own.with_member("mask.png", own.members["png"]), sample("k1", 1, seed=1)])
    flags = ("purify", tmp_path / "in", "--prior", prior, "--store", tmp_path / "pur", "--other-images", "keep")
    ran = zipbatch(*flags, "--keep-masks")
    assert ran.code == 1
    assert "'k0'" in ran.err
    assert "mask.png of its own" in ran.err
    assert zipbatch(*flags).code == 0


def test_as_a_stage_of_a_pipeline(source: Path, prior: Path, tmp_path: Path):
    (tmp_path / "p.yaml").write_text(
        json.dumps(
            {
                "stages": {
                    "shards": {"run": "poison", "source": str(source), "attack": "badnets", "splits": ["test"]},
                    "purified": {
                        "run": "purify",
                        "data": "${shards}",
                        "prior": str(prior),
                        "purifier": "repaint",
                        "set": {"seed_share": 0.02},
                        "keep_masks": True,
                    },
                }
            }
        )
    )
    ran = zipbatch("run", tmp_path / "p.yaml", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    found = [s for shard in (tmp_path / "out").rglob("objects/*/*.tar") for s in read_shard(shard)]
    assert found and all("mask.png" in s.members for s in found)
