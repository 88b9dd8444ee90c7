"""Rates of a machine's parts, of works whose speed is known."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.making import sample, write_shard
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.shards import read_shard
from zipbatch.stages.bench import rates
from zipbatch.stages.bench.pictures import Pictures

CPU = torch.device("cpu")


def test_work_is_counted_on_every_thread():
    rate = rates.per_s(lambda: time.sleep(0.02), device=CPU, threads=3, seconds=0.2)
    assert 60 < rate <= 150


def network(pass_s: float, row_s: float):
    """One that takes so long for a pass, and for each of its rows beside."""

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        time.sleep(pass_s + row_s * len(x))
        return x

    return predict


def found(predict, **given) -> dict[int, float]:
    fixed = {"device": CPU, "threads": 1, "most_rows": 64, "seconds": 0.05}
    return rates.network_rates(predict, 2, **{**fixed, **given})


def test_a_batch_grows_while_that_makes_it_faster():
    by_rows = found(network(0.01, 0.0), most_rows=8)
    assert list(by_rows) == [1, 2, 4, 8]
    assert rates.best_rows(by_rows) == 8


def test_it_stops_growing_where_it_is_no_faster():
    by_rows = found(network(0.0, 0.002))
    assert max(by_rows) < 64
    assert rates.best_rows({1: 10.0, 2: 18.0, 4: 18.2, 8: 18.3}) == 2


def test_it_stops_growing_when_memory_runs_out():
    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        time.sleep(0.01)
        return x

    assert list(found(predict)) == [1, 2]


def test_operations_of_a_pass_and_of_matrices(prior: Path):
    assert rates.flop_of(load_prior(open_prior(prior)), CPU) > 1000
    assert rates.matrix_rate(CPU, torch.float32, threads=1, seconds=0.01) > 1e8


def test_pictures_are_taken_round_and_round_each_under_its_own_key(tmp_path: Path):
    write_shard(tmp_path / "in" / "test-000000.tar", [sample(str(i), 0, seed=i) for i in range(3)])
    shards = Pictures(str(tmp_path / "in"), 99).write(tmp_path / "out", shards=2, samples=4)
    samples = [one for shard in shards for one in read_shard(shard)]
    assert len({one.key for one in samples}) == 8
    assert (samples[0].image() == samples[3].image()).all()
    assert (samples[0].image() != samples[1].image()).any()


def test_shipped_pictures_get_the_size_that_is_asked_for(tmp_path: Path):
    (shard,) = Pictures(None, 48).write(tmp_path / "out", shards=1, samples=2)
    assert {one.image().shape for one in read_shard(shard)} == {(48, 48, 3)}
    assert all(rate > 0 for rate in rates.picture_rates([shard], seconds=0.01))


def test_an_empty_source_is_an_error_that_names_it(tmp_path: Path):
    from zipbatch.errors import ZipbatchError

    write_shard(tmp_path / "in" / "test-000000.tar", [])
    with pytest.raises(ZipbatchError, match="in"):
        Pictures(str(tmp_path / "in"), 16).write(tmp_path / "out", shards=1, samples=1)
