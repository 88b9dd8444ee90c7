"""The demo on a few images, and its assets."""

from __future__ import annotations

import json
from pathlib import Path

from tests.making import zipbatch
from tests.report.test_page import Tree, cells
from zipbatch.checkpoints import load_prior, load_victim, open_prior, open_victim
from zipbatch.datasets import open_dataset
from zipbatch.stages.assets import embedded_prior, embedded_victim, sample_source
from zipbatch.stages.train.data import load_split


def test_demo_compares_no_defence_blur_and_zip(tmp_path: Path):
    ran = zipbatch("demo", "--out", tmp_path / "demo", "--limit", 24, "--json")
    assert ran.code == 0, ran.err
    rows = ran.json["rows"]
    assert [(row["axes"]["attack"], row["purifier"]) for row in rows] == [
        (attack, purifier) for attack in ("badnets", "white-corner", "blended") for purifier in (None, "blur", "chain")
    ]
    assert all(row["n_ca"] == row["n_pa"] == 24 for row in rows)
    for sheet in ran.json["sheets"]:
        assert Path(sheet).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "demo" / "results.json").read_text())["rows"] == rows

    report = tmp_path / "demo.html"
    again = zipbatch("demo", "--out", tmp_path / "demo", "--limit", 24, "--json", "--report", report)
    assert again.json["rows"] == rows
    html = report.read_text("utf-8")
    assert [float(cell[3]["data-value"] or "nan") for cell in cells(html)] == [row["ca"] for row in rows]
    assert {"Pictures, badnets", "Pictures, white-corner", "Pictures, blended"} <= set(Tree(html).text)
    assert len(html.encode()) < 5_000_000
    versions = zipbatch("store", "ls", "--store", tmp_path / "demo" / "pur", "--json").json["versions"]
    assert len(versions) == 6
    assert zipbatch("store", "verify", "--store", tmp_path / "demo" / "pur").code == 0
    # The attacks share the clean split: 4 splits x 2 purifiers, one shard each.
    assert len(list((tmp_path / "demo" / "pur" / "objects").glob("??/*.tar"))) == 8


def test_embedded_assets_are_what_they_claim():
    sample = open_dataset([str(sample_source())])
    data = load_split(sample.split("test"))
    assert tuple(data.images.shape) == (1000, 3, 32, 32)
    assert sorted(data.labels.unique().tolist()) == list(range(10))
    assert load_prior(open_prior(embedded_prior())).image_size == 32
    grids = {"wanet": 4, "wanet-256": 256}
    for name in ("badnets", "blended", "physicalba", "wanet", "wanet-256", "white-corner"):
        folder = open_victim(embedded_victim(name))
        load_victim(folder)
        assert list(folder.spec.classes) == sample.classes
        manifest = json.loads((folder.path / "manifest.json").read_text())
        attack = manifest["trained_on"]["attack"]
        assert attack["name"] == ("badnets" if name == "white-corner" else name.removesuffix("-256"))
        assert attack["params"].get("grid_size") == grids.get(name)
        assert manifest["ca"]["value"] >= 0.85
    files = [file for file in sample_source().parent.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 20e6
