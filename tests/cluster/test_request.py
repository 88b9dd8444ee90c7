"""Who is asked to work, held against this machine."""

from __future__ import annotations

import pytest

from zipbatch.cluster import WorkerRequest, Workers
from zipbatch.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (WorkerRequest(gpus=1, workers=1), "‹gpus› and ‹workers› exclude each other"),
        (WorkerRequest(address="127.0.0.1:1"), "‹address› needs ‹gpus N› or ‹workers N›"),
        (WorkerRequest(workers=0, address="127.0.0.1:1"), "‹address› needs ‹gpus N› or ‹workers N›"),
        (WorkerRequest(gpus=999), r"‹gpus=999›: this machine has \d+ CUDA devices"),
        (WorkerRequest(workers=2, at_least=3), "‹at_least=3›: that is more workers"),
        (WorkerRequest(workers=2, device="cuda"), "‹device=.cuda.› goes with ‹gpus N›"),
    ],
)
def test_contradicting_requests_are_refused(asked: WorkerRequest, message: str):
    with pytest.raises(UsageError, match=message):
        asked.resolve()


def test_what_is_asked_becomes_workers():
    assert WorkerRequest(device="cpu").resolve() == Workers(device="cpu")
    asked = WorkerRequest(workers=2, at_least=1, stall_minutes=2, memory_gb=0.5)
    assert asked.resolve() == Workers(workers=2, device="cpu", at_least=1, stall_s=120, memory=500_000_000)


def test_a_cluster_that_the_environment_names_is_joined_by_actors_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    assert WorkerRequest(workers=1).resolve().address == "there:6379"
    assert WorkerRequest(device="cpu").resolve().address is None
