"""PSNR against numpy, SSIM where its value is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from zipbatch.metrics import Fidelity, fidelity

fidelity_module = sys.modules[fidelity.__module__]


def random_images(seed: int, count: int = 3, size: int = 16) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, size, size)).astype(np.uint8))


def test_psnr_is_the_mean_over_images():
    clean = random_images(0)
    noise = np.random.default_rng(1).integers(-9, 10, clean.shape) * np.array([1, 2, 4])[:, None, None, None]
    other = torch.from_numpy((clean.numpy() + noise).clip(0, 255).astype(np.uint8))
    a, b = clean.numpy().astype(float), other.numpy().astype(float)
    each = [10 * np.log10(255**2 / np.mean((a[i] - b[i]) ** 2)) for i in range(3)]
    measured = fidelity(other, clean)
    assert measured.n == 3
    assert measured.psnr_db == pytest.approx(np.mean(each), abs=1e-4)
    assert max(each) - min(each) > 5


def test_identical_images():
    clean = random_images(0)
    assert fidelity(clean, clean).ssim == pytest.approx(1, abs=1e-6)
    assert fidelity(clean, clean).psnr_db == pytest.approx(100)


def test_black_against_white():
    black = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert fidelity(black, 255 - black).psnr_db == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(100, 120), (0, 255), (10, 11)])
def test_ssim_of_flat_images(a: int, b: int):
    """Without structure only Wang et al.'s luminance term is left, with C1 = (0.01 * 255)^2."""
    flat = [torch.full((2, 3, 16, 16), level, dtype=torch.uint8) for level in (a, b)]
    c1 = (0.01 * 255) ** 2
    assert fidelity(*flat).ssim == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-3)  # float32 variances


def test_ssim_falls_with_noise():
    clean = torch.arange(256, dtype=torch.int64).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, 16, 16)))
    values = [
        fidelity((clean + strength * noise).clamp(0, 255).to(torch.uint8), clean.to(torch.uint8)).ssim
        for strength in (0, 5, 20, 80)
    ]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


def test_sums_add_up():
    clean, other = random_images(0, 5), random_images(1, 5)
    whole = fidelity(other, clean)
    parts = fidelity(other[:2], clean[:2]) + fidelity(other[2:], clean[2:])
    assert parts.n == whole.n == 5
    assert parts.psnr_sum_db == pytest.approx(whole.psnr_sum_db, abs=1e-4)
    assert parts.ssim_sum == pytest.approx(whole.ssim_sum, abs=1e-5)
    alone = [fidelity(other[i : i + 1], clean[i : i + 1]) for i in range(5)]
    assert whole.psnr_db == pytest.approx(np.mean([one.psnr_db for one in alone]), abs=1e-4)
    assert whole.ssim == pytest.approx(np.mean([one.ssim for one in alone]), abs=1e-5)


def test_nothing_measured():
    assert (Fidelity().psnr_db, Fidelity().ssim) == (None, None)


def test_shapes_must_match():
    with pytest.raises(ValueError, match="shapes differ"):
        fidelity(random_images(0, 2), random_images(0, 3))


def test_images_smaller_than_the_window():
    assert fidelity(random_images(0, size=11), random_images(1, size=11)).n == 3
    with pytest.raises(ValueError, match="11 px or more"):
        fidelity(random_images(0, size=10), random_images(1, size=10))


def test_the_order_in_which_shards_arrive_changes_no_digit():
    clean = random_images(0, count=24)
    noise = np.random.default_rng(5).integers(-40, 41, clean.shape) * np.linspace(0, 3, 24)[:, None, None, None]
    other = torch.from_numpy((clean.numpy() + noise).clip(0, 255).astype(np.uint8))
    parts = [fidelity(other[rows], clean[rows]) for rows in torch.split(torch.arange(24), 1)]
    rng, seen = np.random.default_rng(6), set()
    for _ in range(20):
        total = sum((parts[i] for i in rng.permutation(24)), Fidelity())
        seen.add((total.psnr_db, total.ssim, total.n))
    assert len(seen) == 1


def test_large_images_are_measured_strip_by_strip(monkeypatch: pytest.MonkeyPatch):
    """Some at once, or a few rows of one: the sums are the same to what float32 holds."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (5, 3, 60, 47), generator=generator, dtype=torch.uint8)
    other = (image.float() + 20 * torch.randn(image.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    whole = fidelity(image, other)
    for at_once, strip in ((60 * 47 * 2, 1), (60 * 47 - 1, 47 * 7), (60 * 47 - 1, 1)):
        monkeypatch.setattr(fidelity_module, "_AT_ONCE", at_once)
        monkeypatch.setattr(fidelity_module, "_STRIP", strip)
        parts = fidelity(image, other)
        assert (parts.n, parts.psnr_db) == (5, pytest.approx(whole.psnr_db, rel=1e-12))
        assert parts.ssim == pytest.approx(whole.ssim, abs=1e-6)
