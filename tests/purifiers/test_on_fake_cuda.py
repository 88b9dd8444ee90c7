"""What would run on a GPU, run without one (``tests/fake_cuda.py``): devices, waiting, operators, memory.

A batch is on the device from its pixels' copy there to its purified pixels' copy back, and the host waits for it at
places that are listed here. Of a chain each step is a batch of its own, and what is done to pictures by Pillow (jpeg)
is done on the CPU between them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import torch

from tests.checkpoints.test_guided import published
from tests.fake_cuda import CUDA, Watch, fake_cuda
from tests.making import IMAGE_SIZE, purifier_spec
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.diffusion import Prior
from zipbatch.purifiers import Purifier, Resources
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler
from zipbatch.purifiers.jpeg import Jpeg
from zipbatch.purifiers.settings import SamplerSettings
from zipbatch.stages.assets import embedded_prior
from zipbatch.stages.purify.build import build_purifier
from zipbatch.stages.purify.request import Precision
from zipbatch.stages.purify.spec import PurifierSpec

END = ["purifiers.base.check_finite", "pixels.to_u8", "purifiers.diffusion_sampler.paint"]
"""Where the host waits for a batch: is it finite, and what are its pixels."""
REPAINT = [
    "diffusion.residual._connected",
    "diffusion.residual.filled",
    "purifiers.repaint.sample",
    "purifiers.base.check_finite",
]
"""Where else it does for repaint: which pixels hang together, and whether there are any to paint anew."""
FEW = {"ddnm": {"steps": 3}, "diffpure": {"start_step": 3}, "paper": {"steps": 3}}
"""Of steps that are all alike a few will do."""


@pytest.fixture(autouse=True)
def fake_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def through_jpeg(self: Jpeg, images: torch.Tensor, keys: list[str]) -> torch.Tensor:
        assert images.device.type == "cpu"
        return torch.empty_like(images)

    monkeypatch.setattr(Jpeg, "__call__", through_jpeg)


def watched(spec: PurifierSpec, *, batch: int = 4, size: int = IMAGE_SIZE) -> Watch:
    """What a batch of fake images does on the device."""
    with fake_cuda():
        purifier = build_purifier(spec, CUDA)
        return run(purifier, batch=batch, size=size)


def run(purifier: Purifier, *, batch: int, size: int) -> Watch:
    pixels = torch.zeros(batch, 3, size, size, dtype=torch.uint8)
    with Watch() as watch:
        made = purifier(pixels, [f"key {i}" for i in range(batch)])
    assert (made.shape, made.dtype, made.device.type) == (pixels.shape, torch.uint8, "cpu")
    return watch


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("preset", ["balanced-v1", "fast-v1", "paper", "ddnm", "diffpure", "restore"])
def test_the_host_waits_for_a_batch_at_its_end_alone(prior: Path, preset: str, precision: str):
    spec = purifier_spec(prior=prior, preset=preset, precision=precision, overrides=FEW.get(preset))
    assert watched(spec).waits == Counter(END)


@pytest.mark.parametrize("transform", ["blur:2", "gray", "blur:4@mean", "blur:2@key", "gauss:1", "dct:2"])
def test_it_waits_for_no_transform(prior: Path, transform: str):
    spec = purifier_spec(prior=prior, preset="fast-v1", overrides={"transforms": (transform,)})
    assert watched(spec).waits == Counter(END)


@pytest.mark.parametrize("predicts", ["v_prediction", "sample"])
def test_it_waits_for_no_prediction(prior: Path, predicts: str, monkeypatch: pytest.MonkeyPatch):
    loaded = Prior.__init__
    monkeypatch.setattr(
        Prior, "__init__", lambda self, *args, **given: loaded(self, *args, **{**given, "predicts": predicts})
    )
    assert watched(purifier_spec(prior=prior, preset="fast-v1")).waits == Counter(END)


@pytest.mark.parametrize(("preset", "steps"), [("repaint", 1), ("balanced", 2), ("strong", 2)])
def test_where_it_waits_for_repaint(prior: Path, preset: str, steps: int):
    waits = watched(purifier_spec(prior=prior, preset=preset)).waits
    assert waits == Counter(REPAINT) + Counter(END * steps)


def test_images_that_share_a_canvas(prior: Path):
    spec = purifier_spec(prior=prior, preset="fast-v1")
    assert watched(spec, size=IMAGE_SIZE // 2).waits == Counter(END)


def test_how_many_operators_a_batch_of_balanced_launches():
    """With something to repaint in every image; the bound is what docs/performance.md tells."""
    watch = watched(purifier_spec(prior=embedded_prior(), preset="balanced"), batch=32, size=32)
    assert watch.operators <= 2757
    assert watch.noise <= 1374


def test_mixed_devices_and_reading_too_early_are_found():
    """What the tests above would not see otherwise."""
    with fake_cuda(), Watch() as watch:
        there = torch.zeros(3, device=CUDA)
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.zeros(3)
        assert not watch.waits
        there.cpu()
        there.nonzero()
        bool(there.any())
        there.copy_(torch.zeros(3))
        assert watch.waits.total() == 4
        with pytest.raises(AssertionError, match="not have arrived"):
            there.to("cpu", non_blocking=True)


def test_memory_at_the_size_of_the_published_prior():
    """552.8 M parameters at 256 px in float32, and what an image takes beside them while the network works on it."""
    from diffusers import UNet2DModel

    alpha_bar = load_prior(open_prior(embedded_prior())).alpha_bar
    with fake_cuda(), CUDA:
        unet = UNet2DModel(**published().config).eval().requires_grad_(False)
        network = Prior(unet, in_channels=3, out_channels=6, sample_size=256, alpha_bar=alpha_bar)
        sampler = DiffusionSampler(SamplerSettings(steps=1), Resources(device=CUDA, prior=network))
        weights = sum(parameter.nbytes for parameter in unet.parameters())
        peaks = {}
        for batch in (1, 2):
            y = torch.empty(batch, 3, 256, 256)
            with torch.inference_mode(), Watch() as watch:
                sampler.predict(y, 500)
            peaks[batch] = watch.peak
    gib = 1024**3
    assert weights / gib == pytest.approx(2.06, abs=0.01)
    assert peaks[1] / gib == pytest.approx(0.6, abs=0.05)
    assert peaks[2] / peaks[1] == pytest.approx(2, abs=0.01)
