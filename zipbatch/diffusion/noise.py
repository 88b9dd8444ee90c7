"""Counter-based noise: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

A value is a pure function of (run seed, sample key, step, pixel), so it does not depend on worker, batch, device,
retries or resume, and a whole batch is drawn at once on the device it is needed on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def noise_streams(seed: int, keys: Sequence[str], *, device: torch.device | str = "cpu") -> Tensor:
    """One 64-bit Philox key for each sample, from SHA-256 of the run seed and the sample key.

    Returns:
        int64 [B, 2], each entry a 32-bit word.
    """
    rows = []
    for key in keys:
        digest = hashlib.sha256(f"zipbatch noise 1\n{seed}\n{key}".encode(errors="surrogatepass")).digest()
        rows.append([int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")])
    return torch.tensor(rows, dtype=torch.int64).to(device, non_blocking=True)


def derived_seed(seed: int, *parts: object) -> int:
    """A seed for another purpose of the same run, so that its draws are independent."""
    text = "\n".join(map(str, ("zipbatch seed 1", seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four 32-bit words for each counter, all int64 tensors that broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIER[0], c0)
        high1, low1 = _multiply(_MULTIPLIER[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product; int64 wraps modulo 2**64, which keeps all 64 bits."""
    product = b * a
    return (product >> 32) & _MASK, product & _MASK


def standard_normal(streams: Tensor, *, step: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise for each stream at one step, by Box-Muller from two 32-bit words a pair.

    Args:
        streams: int64 [B, 2] of ``noise_streams``.
        step: counter of the step, 0 <= step < 2**32; the sampler uses the timestep t, and T for the start.
        shape: shape of one sample.

    Returns:
        float32 [B, *shape] on the device of ``streams``.
    """
    size = math.prod(shape)
    words = _words(streams, step, size)
    pairs = [_box_muller(words[0], words[1]), _box_muller(words[2], words[3])]
    flat = torch.stack([normal for pair in pairs for normal in pair], dim=-1).flatten(1)
    return flat[:, :size].reshape(-1, *shape)


def uniform_integers(streams: Tensor, *, bound: int, count: int) -> Tensor:
    """``count`` whole numbers of [0, bound) for each stream, each as likely to within bound / 2**32.

    Args:
        streams: int64 [B, 2] of ``noise_streams``.
        bound: 1 <= bound <= 2**31.
        count: how many for each stream.

    Returns:
        int64 [B, count] on the device of ``streams``: ``floor(word * bound / 2**32)`` of the words of step 0.
    """
    words = torch.stack(_words(streams, 0, count), dim=-1).flatten(1)[:, :count]
    return (words * bound) >> 32


def _words(streams: Tensor, step: int, size: int) -> tuple[Tensor, ...]:
    """The four words of each counter block, int64 [B, ceil(size / 4)] each."""
    block = torch.arange((size + 3) // 4, dtype=torch.int64, device=streams.device)[None]
    zero = torch.zeros_like(block)
    return philox((block, zero + step, zero, zero), (streams[:, :1], streams[:, 1:]))


def _box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two words -> two normals. In float64, so that rounding to float32 hides how devices differ in log and cos."""
    radius = torch.sqrt(-2 * torch.log((a.double() + 0.5) / 2**32))
    angle = 2 * math.pi * ((b.double() + 0.5) / 2**32)
    return (radius * torch.cos(angle)).float(), (radius * torch.sin(angle)).float()
