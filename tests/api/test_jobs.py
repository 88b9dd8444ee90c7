"""Jobs as calls: what the command line makes, with typed results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import zipbatch
from tests.making import zipbatch as run
from zipbatch.errors import DataError, UsageError


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
    ],
)
def test_what_cannot_be_is_a_usage_error(made: Path, call, told: str):
    with pytest.raises(UsageError, match=told):
        call(made)


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
