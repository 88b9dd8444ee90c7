"""Jobs as calls: what the command line makes, with typed results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import zipbatch
from tests.making import zipbatch as run
from zipbatch.errors import DataError, UsageError
from zipbatch.results import Result, dump

PIPELINE = """
vars: {limit: null}
stages:
  shards: {run: poison, source: embedded, attack: badnets, limit: "${limit}"}
  purified: {run: purify, data: "${shards}", preset: jpeg}
  result: {run: evaluate, victim: "embedded:badnets", data: "${shards}", purified: "${purified}"}
"""


def plain(rows: Sequence[Result]) -> list[dict]:
    """As JSON has them."""
    return json.loads(json.dumps([dump(row) for row in rows]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A staged dataset and its purified version, by calls alone."""
    folder = tmp_path_factory.mktemp("api")
    result = zipbatch.poison("embedded", attack="badnets", out=folder / "sample", limit=30, samples_per_shard=10)
    assert not result.reused
    seen: list[int] = []
    summary = zipbatch.purify(
        folder / "sample",
        store=folder / "pur",
        preset="jpeg",
        tag="nightly",
        on_progress=lambda progress: seen.append(progress.part("shards").done),
    )
    assert (summary.reference, summary.shards, summary.samples, summary.computed) == ("sample@nightly", 6, 60, 6)
    assert (seen[0], seen[-1]) == (0, 6)
    return folder


def test_the_command_line_finds_it_done(made: Path):
    staged = run(
        "poison", "embedded", "--attack", "badnets", "--limit", 30, "--samples-per-shard", 10, "--out", made / "sample"
    )
    assert "already staged" in staged.out
    ran = run("purify", made / "sample", "--preset", "jpeg", "--store", made / "pur", "--tag", "nightly", "--json")
    assert (ran.json["computed"], ran.json["new_version"]) == (0, False)


def test_a_version_is_an_iterable_of_samples(made: Path):
    version = zipbatch.open_version(made / "pur", "sample@nightly")
    samples = list(version)
    assert len(samples) == len(version) == 60
    assert {one.split for one in samples} == {"test", "test_poisoned"}
    assert version.header.purifier["method"] == "jpeg"
    one = samples[-1]
    assert (one.image.shape, one.image.dtype) == ((32, 32, 3), np.uint8)
    assert (one.label, one.metadata["poisoned"]) == (one.metadata["label"], True)
    assert len(list(zipbatch.open_version(made / "pur", "sample", ["test"]))) == 30


@pytest.mark.parametrize("workers", [0, 2])
def test_a_version_is_a_torch_dataset_whose_workers_share_it(made: Path, workers: int):
    version = zipbatch.open_version(made / "pur", "sample@nightly", ["test"])
    loader = DataLoader(version, batch_size=None, num_workers=workers)
    assert sorted(one.key for one in loader) == sorted(one.key for one in version)


def test_a_damaged_object_is_told(made: Path, tmp_path: Path):
    zipbatch.purify(made / "sample", store=tmp_path / "pur", preset="bitdepth", splits=["test"])
    path = next((tmp_path / "pur" / "objects").rglob("*.tar"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="its bytes are not those its name says"):
        list(zipbatch.open_version(tmp_path / "pur", "sample"))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda made: zipbatch.open_version(made / "pur", "nosuch"), "nosuch"),
        (
            lambda made: zipbatch.open_version(made / "pur", "sample", ["val"]),
            "no split 'val'; it has test, ",
        ),
        (lambda made: zipbatch.open_version(made / "nowhere", "sample"), "nowhere"),
        (lambda made: zipbatch.purify(made / "sample", store=made / "pur", presett="jpeg"), "presett"),
        (lambda made: zipbatch.purify(made / "sample", store=made / "pur", preset="fast"), "needs a diffusion model"),
        (lambda made: zipbatch.poison("embedded", attack="nosuch", out=made / "x"), "unknown attack 'nosuch'"),
        (lambda made: zipbatch.poison("embedded", attack="badnets", out=made / "x", limit=0), "limit = 0"),
        (lambda made: zipbatch.evaluate("embedded:nosuch", data=made / "sample"), "embedded:nosuch: no such victim"),
        (lambda made: zipbatch.audit("embedded:badnets", data=made / "sample"), "purified"),
        (lambda made: zipbatch.run("nosuch"), "nosuch"),
        (lambda made: zipbatch.run("demo", prior="x"), "no setting 'prior'"),
        (lambda made: zipbatch.purify(made / "sample", store=made / "pur", preset="jpeg", gpus=0), "gpus = 0"),
    ],
)
def test_what_cannot_be_is_a_usage_error(made: Path, call, told: str):
    with pytest.raises(UsageError, match=told):
        call(made)


def test_rows_of_an_evaluation_are_those_of_the_command_line(made: Path):
    arguments = {"data": made / "sample", "purified": "sample@nightly", "store": made / "pur"}
    rows = zipbatch.evaluate("embedded:badnets", **arguments)
    flags = ("--data", made / "sample", "--purified", "sample@nightly", "--store", made / "pur")
    typed = run("evaluate", "embedded:badnets", *flags, "--json").json["rows"]
    assert plain(rows) == typed
    assert rows[0].asr is not None and rows[0].purified is None


def test_an_audit_has_a_verdict_and_a_row_for_each_image(made: Path):
    found = zipbatch.audit("embedded:badnets", data=[made / "sample"], purified="sample@nightly", store=made / "pur")
    flags = ("--data", made / "sample", "--purified", "sample@nightly", "--store", made / "pur")
    typed = run("audit", "embedded:badnets", *flags, "--json").json
    assert dump(found.verdict) | {"reused": typed["answers"]} == typed  # its answers are kept
    assert len(found.images) == 60


def test_a_strength_is_tuned(made: Path):
    arguments = {"prior": "embedded", "presets": ["fast"], "shards": 1, "splits": ["test"], "exponents": [9.0]}
    chosen = zipbatch.tune("embedded:badnets", data=made / "sample", store=made / "pur", **arguments)
    flags = ("--prior", "embedded", "--preset", "fast", "--shards", 1, "--split", "test", "--guidance-exponent", 9)
    typed = run("tune", "embedded:badnets", "--data", made / "sample", "--store", made / "pur", *flags, "--json").json
    assert plain([chosen.answer]) == [typed]
    assert chosen.settings["method"] == "chain"


def test_a_pipeline(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(PIPELINE)
    seen: list[str] = []
    where = {"out": tmp_path / "out", "values": {"limit": 8}}
    done = zipbatch.run(tmp_path / "mine.yaml", **where, on_progress=lambda one: seen.append(one.what))
    done.raise_failures()
    assert (len(done.rows), done.ran, done.skipped) == (2, 3, 0)
    assert seen
    again = zipbatch.run(tmp_path / "mine.yaml", **where)
    assert (again.ran, again.skipped) == (0, 3)
    typed = run("run", tmp_path / "mine.yaml", "--var", "limit=8", "--out", tmp_path / "out", "--json").json
    assert typed["rows"] == plain(again.rows)


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys, zipbatch; dir(zipbatch); print(sorted(m for m in sys.modules if m in {'torch', 'numpy', 'ray'}))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_every_name_is_there():
    assert all(getattr(zipbatch, name) is not None for name in zipbatch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        zipbatch.nosuch  # noqa: B018
