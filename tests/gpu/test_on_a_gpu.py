"""What only a GPU can show: pixels as on a CPU, memory that runs out, two workers on one card, speed.

``make gpu`` runs these and writes what they measure into a report.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from zipbatch import load_purifier
from zipbatch.datasets import open_dataset
from zipbatch.purifiers.settings import Precision
from zipbatch.shards import read_shard
from zipbatch.stages.assets import sample_source

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
pytest.importorskip("diffusers")
GIB = 1024**3
PRECISIONS = get_args(Precision)
EXACT = "float32"
Figure = Callable[[str, object], None]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Shipped test images, uint8 [64, 32, 32, 3], half of them with a white square in a corner."""
    shard = open_dataset([str(sample_source())]).split("test")[0]
    found = np.stack(
        [image for _, image in zip(range(64), (one.image() for one in read_shard(shard.path)), strict=False)]
    )
    found[::2, 28:31, 28:31] = 255
    return found


def purified(
    images: np.ndarray, preset: str, *, device: str, batch_size: int = 32, precision: str = EXACT
) -> np.ndarray:
    return load_purifier(preset, prior="embedded", device=device, batch_size=batch_size, precision=precision)(images)


def levels_apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.int16) - b)


@pytest.mark.parametrize("preset", ["balanced-v1", "fast", "paper", "ddnm"])
def test_float32_is_within_one_level_of_a_cpu(preset: str, pictures: np.ndarray, record_property: Figure):
    apart = levels_apart(purified(pictures, preset, device="cuda"), purified(pictures, preset, device="cpu"))
    record_property("levels_apart_at_most", int(apart.max()))
    record_property("share_that_differs", float((apart > 0).mean()))
    assert apart.max() <= 1


@pytest.mark.parametrize("preset", ["repaint", "balanced", "strong"])
def test_what_is_repainted_is_the_same_but_for_pixels_right_at_a_threshold(
    preset: str, pictures: np.ndarray, record_property: Figure
):
    apart = levels_apart(purified(pictures, preset, device="cuda"), purified(pictures, preset, device="cpu"))
    images = (apart.reshape(len(apart), -1).max(axis=1) > 1).mean()
    record_property("share_of_images_more_than_one_level_apart", float(images))
    assert images <= 0.05


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_is_near_float32(precision: str, pictures: np.ndarray, record_property: Figure):
    """At a preset without thresholds: within one level in float32, on average in the others."""
    exact = purified(pictures, "balanced-v1", device="cpu", precision=EXACT)
    apart = levels_apart(purified(pictures, "balanced-v1", device="cuda", precision=precision), exact)
    record_property("mean_levels_apart", float(apart.mean()))
    record_property("levels_apart_at_most", int(apart.max()))
    record_property("share_within_one_level", float((apart <= 1).mean()))
    assert apart.mean() <= 1
    assert precision != EXACT or apart.max() <= 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_bytes_again(precision: str, pictures: np.ndarray):
    first, again, smaller = (
        purified(pictures, "balanced", device="cuda", precision=precision, batch_size=batch) for batch in (32, 32, 8)
    )
    assert (first == again).all()
    assert levels_apart(first, smaller).mean() < 1


def test_running_out_of_memory_halves_the_batch_and_changes_nothing(
    pictures: np.ndarray, record_property: Figure, caplog: pytest.LogCaptureFixture
):
    many = np.concatenate([pictures] * 32)
    torch.cuda.empty_cache()
    expected = purified(many, "fast-v1", device="cuda", batch_size=64)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    free, _ = torch.cuda.mem_get_info()
    left = GIB // 2
    ballast = torch.empty(max(0, free - left), dtype=torch.uint8, device="cuda")
    try:
        with caplog.at_level(logging.WARNING):
            made = purified(many, "fast-v1", device="cuda", batch_size=len(many))
    finally:
        record_property("peak_beside_ballast_mib", (torch.cuda.max_memory_allocated() - ballast.nbytes) // 1024**2)
        del ballast
        torch.cuda.empty_cache()
    assert "out of GPU memory: going on with batches of" in caplog.text
    assert levels_apart(made, expected).max() <= 1


@pytest.mark.parametrize(("preset", "most"), [("balanced-v1", 3), ("balanced", 10)])
def test_how_often_the_host_waits(preset: str, most: int, pictures: np.ndarray, record_property: Figure):
    """CUDA's own count of what makes the host wait, beside that of the fake tensors."""
    purifier = load_purifier(preset, prior="embedded", device="cuda")
    purifier(pictures[:32])
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            purifier(pictures[:32])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(one.message) for one in seen)
    record_property("waits_a_batch", waits)
    assert 0 < waits <= most


def test_two_actors_share_one_gpu(pictures: np.ndarray):
    ray = pytest.importorskip("ray")
    expected = purified(pictures[:32], "balanced-v1", device="cuda")
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, configure_logging=False)
    try:
        ask = ray.remote(num_gpus=0.5, num_cpus=1)(_purified_by_an_actor)
        for made in ray.get([ask.remote(pictures[:32]) for _ in range(2)], timeout=240):
            assert (made == expected).all()
    finally:
        ray.shutdown()


def _purified_by_an_actor(images: np.ndarray) -> np.ndarray:
    return purified(images, "balanced-v1", device="cuda")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_how_many_images_a_second(precision: str, pictures: np.ndarray, record_property: Figure):
    """From arrays to arrays, for the batch that is best; a run beside reads and writes, too."""
    rates = {}
    for batch in (64, 256, 1024):
        many = np.concatenate([pictures] * (batch // len(pictures)) * 2)
        purifier = load_purifier("balanced-v1", prior="embedded", device="cuda", batch_size=batch, precision=precision)
        purifier(many)
        started = time.perf_counter()
        purifier(many)
        rates[batch] = round(len(many) / (time.perf_counter() - started), 1)
    record_property("images_per_s_by_batch", rates)
    assert min(rates.values()) > 0


def test_a_run_from_shards_to_a_store(tmp_path: Path, record_property: Figure):
    pytest.importorskip("webdataset")
    from tests.making import stage_sample, zipbatch

    staged = stage_sample(tmp_path / "staged", limit=96)
    given = ("--prior", "embedded", "--device", "cuda", "--json")
    first, second = (zipbatch("purify", staged, *given, "--store", tmp_path / name).json for name in ("one", "two"))
    record_property("images_per_s", second["samples_per_s"])
    assert first["version"] == second["version"]  # which names the bytes of every object
    assert first["samples"] == 192


def test_training_learns(tmp_path: Path):
    pytest.importorskip("webdataset")
    from tests.making import write_source, zipbatch

    source = write_source(tmp_path / "source")
    staged = tmp_path / "staged"
    assert zipbatch("poison", source, "--attack", "badnets", "--out", staged).code == 0
    ran = zipbatch("train", "victim", staged, "--out", tmp_path / "victim", "--epochs", 2, "--device", "cuda")
    assert ran.code == 0, ran.err
    ran = zipbatch("train", "prior", source, "--out", tmp_path / "prior", "--steps", 30, "--device", "cuda")
    assert ran.code == 0, ran.err
