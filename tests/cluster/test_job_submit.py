"""``ray job submit -- zipbatch purify …`` does what ``zipbatch purify`` does, and ends as it does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.making import files_below, zipbatch

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("--steps", 3, "--transform", "blur:2", "--device", "cpu")


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The dashboard of a cluster with two logical GPUs, which takes jobs."""
    pytest.importorskip("aiohttp_cors", reason="jobs need pip install 'ray[default]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        head = {"num_cpus": 2, "num_gpus": 2, "include_dashboard": True, "dashboard_port": port}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield f"http://127.0.0.1:{port}"
        cluster.shutdown()


def submit(dashboard: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    ray = Path(sys.executable).with_name("ray")
    entry = [sys.executable, "-m", "zipbatch", *map(str, arguments)]
    command = [str(ray), "job", "submit", "--address", dashboard, "--", *entry]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ, check=False)


def test_a_job_makes_what_the_command_makes(dashboard: str, staged: Path, prior: Path, tmp_path: Path):
    job, here = tmp_path / "job", tmp_path / "here"
    ran = submit(dashboard, "purify", staged, "--prior", prior, "--store", job, "--gpus", 2, *SETTINGS, "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert '"computed": 6' in ran.stdout
    assert zipbatch("purify", staged, "--prior", prior, "--store", here, *SETTINGS).code == 0
    for folder in ("objects", "tags"):
        assert files_below(job / folder).keys() == files_below(here / folder).keys()
    assert files_below(job / "objects") == files_below(here / "objects")


def test_a_job_that_fails_says_so(dashboard: str, staged: Path, prior: Path, tmp_path: Path):
    ran = submit(dashboard, "purify", staged, "--prior", prior, "--store", tmp_path / "pur", "--gpus", 5, *SETTINGS)
    assert ran.returncode != 0
    assert "2 GPUs" in ran.stdout or "2 GPU" in ran.stdout, ran.stdout
    assert "exit code 2" in ran.stdout + ran.stderr
    assert not (tmp_path / "pur" / "versions").exists()
