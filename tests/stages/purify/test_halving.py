"""Work that runs out of GPU memory goes on in smaller pieces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.making import picture, write_prior
from zipbatch.checkpoints import open_prior
from zipbatch.datasets.clean_images import stacked
from zipbatch.errors import WorkFailed
from zipbatch.purifiers import DiffusionSampler
from zipbatch.stages.purify.halving import Halving
from zipbatch.stages.train.calibration import measured


def at_most(count: int, seen: list[int], total: int) -> Callable[[slice], range]:
    """Work on ``total`` images that fails beyond ``count`` at once."""

    def work(piece: slice) -> range:
        done = range(total)[piece]
        if len(done) > count:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(done))
        return done

    return work


@pytest.mark.parametrize(("unit", "sizes"), [(1, [4, 4, 2]), (2, [4, 4, 2])])
def test_every_image_is_worked_on_once(unit: int, sizes: list[int]):
    seen: list[int] = []
    undone: list[slice] = []
    halving = Halving(8)
    pieces = list(halving.pieces(10, at_most(4, seen, 10), images_per_row=unit, undo=undone.append))
    assert [number for piece in pieces for number in piece] == list(range(10))
    assert seen == sizes
    assert len(undone) == unit
    assert list(halving.pieces(3, at_most(4, seen, 3), images_per_row=unit)) == [range(3)]


def test_a_single_row_that_does_not_fit_is_an_error():
    with pytest.raises(WorkFailed, match="single row"):
        list(Halving(4).pieces(3, at_most(0, [], 3)))


def test_two_that_do_not_fit_at_once_work_one_after_the_other():
    """Each fits when it is alone: nothing is halved."""
    both, halving, working = threading.Barrier(2, timeout=10), Halving(4), threading.Semaphore(1)

    def work(piece: slice) -> int:
        if not both.broken:
            both.wait()  # both have begun
            both.abort()
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert working.acquire(blocking=False), "two at once"
        time.sleep(0.02)
        working.release()
        return len(range(4)[piece])

    def late(piece: slice) -> int:
        try:
            return work(piece)
        except threading.BrokenBarrierError as error:
            raise torch.OutOfMemoryError("CUDA out of memory") from error

    with ThreadPoolExecutor(2) as pool:
        done = [future.result() for future in [pool.submit(lambda: list(halving.pieces(4, late))) for _ in range(2)]]
    assert done == [[4], [4]]


def test_calibration_halves_and_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prior = open_prior(write_prior(tmp_path / "prior", calibrated=False))
    pixels, keys = stacked([picture(i) for i in range(90)]), [str(i) for i in range(90)]
    whole = measured(prior, pixels, keys, device=torch.device("cpu"))
    sizes: list[int] = []
    residuals = DiffusionSampler.residuals

    def scarce(self: DiffusionSampler, images: Tensor, *arguments: object) -> list[Tensor]:
        sizes.append(len(images))
        if len(images) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return residuals(self, images, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DiffusionSampler, "residuals", scarce)
    told: list[int] = []
    halved = measured(prior, pixels, keys, device=torch.device("cpu"), on_progress=lambda done, _: told.append(done))
    assert sizes[:3] == [32, 16, 8]
    assert (set(sizes[2:-1]), told[-1]) == ({8}, 90)
    assert halved.levels == pytest.approx(whole.levels, rel=1e-4)
    assert halved.scores == pytest.approx(whole.scores, rel=1e-2)
