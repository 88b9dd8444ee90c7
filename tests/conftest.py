"""Fixtures that many tests share; the expensive ones are made once a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.object_store import S3Server

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks lose more by waiting for each other than they gain
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # the same on every machine: no CPU has bfloat16 of its own
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["ZIPBATCH_CONFIG"] = "none"  # nothing of whoever runs the tests decides them
os.environ.pop("ZIPBATCH_STORE", None)
os.environ.pop("ZIPBATCH_PRIOR", None)

from tests.making import write_prior, write_source, write_victim, zipbatch
from zipbatch.storage import StoragePath


def pytest_configure(config: pytest.Config) -> None:
    """Where pytest-xdist is missing, so is its marker."""
    config.addinivalue_line("markers", "xdist_group(name): tests that run in one process")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes: files whole, for their fixtures; those with Ray in one, which begins first.

    Two clusters at once would fight for two cores.
    """
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny prior for 16 px images."""
    return write_prior(tmp_path_factory.mktemp("priors") / "tiny", taught=True)


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained victim for 16 px images of three classes."""
    return write_victim(tmp_path_factory.mktemp("victims") / "untrained")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 train and 12 test images of three classes, in shards."""
    return write_source(tmp_path_factory.mktemp("sources") / "tiny")


@pytest.fixture(scope="session")
def staged(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source staged with BadNets, test splits in three shards of four."""
    out = tmp_path_factory.mktemp("staged") / "tiny-badnets"
    ran = zipbatch("poison", source, "--attack", "badnets", "--out", out, "--samples-per-shard", 4)
    assert ran.code == 0, ran.err
    return out


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Copies of remote files go here, never to the cache of whoever runs the tests; nor do tests use their account."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith(("AWS_", "ZIPBATCH_"))]:
            patch.delenv(variable)
        patch.setenv("ZIPBATCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server with one bucket, which the environment points to."""
    from tests.object_store import BUCKET, SECRET, S3Path, S3Server

    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIA-test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        server.client().create_bucket(Bucket=BUCKET)
        S3Path.server = server
        yield server
    server.stop()


@pytest.fixture(params=["disk", "s3"])
def pur(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePath:
    """Where a store may be: a folder, or a prefix in S3. Nothing is there yet."""
    if request.param == "disk":
        return tmp_path / "pur"
    request.getfixturevalue("s3")
    from tests.object_store import S3Path

    return S3Path.fresh()
