"""Large photos on slow purifiers: a run that is to stop does so between two images, wherever it is with them."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.making import purifier_spec, sample, write_shard
from zipbatch.cluster import WorkerContext
from zipbatch.purifiers import PURIFIERS
from zipbatch.purifiers.base import Resources
from zipbatch.purifiers.median import _STRIP_VALUES
from zipbatch.shards import Sample
from zipbatch.stages.purify.worker import PurifySetup, PurifyTask
from zipbatch.store import Store

SLOW = ("jpeg", "median", "shrinkpad")
WORK = "work"


@pytest.mark.parametrize("method", SLOW)
def test_few_images_without_a_look_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str):
    seen: dict[int, list[str]] = defaultdict(list)

    def note(what: str) -> None:
        seen[threading.get_ident()].append(what)

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        def work(*arguments: Any) -> Any:
            note(WORK)
            return call(*arguments)

        return work

    for name in ("image", "with_image"):
        monkeypatch.setattr(Sample, name, noted(getattr(Sample, name)))
    spec = purifier_spec(method=method)
    store = Store(tmp_path / "pur")
    store.prepare()
    shard = write_shard(tmp_path / "a.tar", [sample(f"k{i}", 0, seed=i) for i in range(7)])
    worker = PurifySetup(spec=spec, store=store.root, batch_size=4)(
        WorkerContext(device="cpu", compute_threads=1, heartbeat=lambda: note("tick"), label={})
    )
    worker(PurifyTask("a.tar", shard, None))
    told = list(seen.values())
    assert sum(line.count(WORK) for line in told) == 14
    in_a_row = [len(list(same)) for line in told for what, same in itertools.groupby(line) if what == WORK]
    assert max(in_a_row) <= 2, "one is read, and the one before it is written"
    assert sum(line.count("tick") for line in told) >= 7 * 3 + 2, "each is read, purified and written"


@pytest.mark.parametrize("method", SLOW)
def test_each_image_of_a_batch_is_purified_by_itself(method: str):
    ticks: list[int] = []
    purifier = PURIFIERS[method](
        PURIFIERS[method].settings_type(), Resources(device=torch.device("cpu"), heartbeat=lambda: ticks.append(1))
    )
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.integers(0, 256, (5, 3, 24, 40)).astype(np.uint8))
    keys = [str(i) for i in range(5)]
    together = purifier(images, keys)
    assert len(ticks) == 5
    assert torch.equal(together, torch.cat([purifier(images[i : i + 1], keys[i : i + 1]) for i in range(5)]))


@pytest.mark.parametrize("window", [3, 7])
@pytest.mark.parametrize("strip", [1, 5, 64])
def test_strips_of_an_image_fit_together(monkeypatch: pytest.MonkeyPatch, window: int, strip: int):
    median = PURIFIERS["median"]
    images = torch.from_numpy(np.random.default_rng(4).integers(0, 256, (1, 3, 23, 31)).astype(np.uint8))
    ticks: list[int] = []
    resources = Resources(device=torch.device("cpu"), heartbeat=lambda: ticks.append(1))
    purifier = median(median.settings_type(window=window), resources)
    whole = purifier(images, ["a"])
    assert len(ticks) == 1
    monkeypatch.setattr("zipbatch.purifiers.median._STRIP_VALUES", strip * 31 * window**2)
    assert torch.equal(purifier(images, ["a"]), whole)
    assert len(ticks) == 1 + -(-23 // strip)


def test_a_strip_is_a_small_part_of_a_photo():
    assert _STRIP_VALUES * 6 < 3000 * 4000 * 9
