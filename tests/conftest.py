"""Fixtures that many tests share; the expensive ones are made once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks lose more by waiting for each other than they gain
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from tests.making import write_prior, write_source, write_victim, zipbatch


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny prior for 16 px images."""
    return write_prior(tmp_path_factory.mktemp("priors") / "tiny")


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
