"""Philox against the published vectors; noise is normal and belongs to its key and step alone."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zipbatch.diffusion import noise_streams, standard_normal, uniform_integers
from zipbatch.diffusion.noise import _box_muller, philox

WORD = 2**32
words = st.integers(0, WORD - 1)


def philox_by_hand(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 on Python's whole numbers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [second // WORD ^ c[1] ^ k[0], second % WORD, first // WORD ^ c[3] ^ k[1], first % WORD]
        k = [(k[0] + 0x9E3779B9) % WORD, (k[1] + 0xBB67AE85) % WORD]
    return c


def philox_words(counter: list[int], key: list[int]) -> list[int]:
    tensors = [torch.tensor([word], dtype=torch.int64) for word in (*counter, *key)]
    return [int(word) for word in philox(tuple(tensors[:4]), tuple(tensors[4:]))]  # type: ignore[arg-type]


def normal_by_hand(seed: int, key: str, step: int, count: int) -> list[float]:
    """The first ``count`` values of a key's noise, one counter at a time."""
    digest = hashlib.sha256(f"zipbatch noise 1\n{seed}\n{key}".encode()).digest()
    stream = [int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")]
    values: list[float] = []
    for block in range(-(-count // 4)):
        drawn = [(word + 0.5) / WORD for word in philox_by_hand([block, step, 0, 0], stream)]
        for a, b in (drawn[:2], drawn[2:]):
            radius = math.sqrt(-2 * math.log(a))
            values += [radius * math.cos(2 * math.pi * b), radius * math.sin(2 * math.pi * b)]
    return values[:count]


# Salmon et al. 2011, known answers distributed with Random123 for philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers(counter: str, key: str, expected: str):
    counter_words, key_words, answer = ([int(word, 16) for word in text.split()] for text in (counter, key, expected))
    assert philox_words(counter_words, key_words) == answer
    assert philox_by_hand(counter_words, key_words) == answer


@settings(max_examples=50)
@given(st.lists(words, min_size=4, max_size=4), st.lists(words, min_size=2, max_size=2))
def test_philox_equals_whole_numbers(counter: list[int], key: list[int]):
    assert philox_words(counter, key) == philox_by_hand(counter, key)


@pytest.mark.parametrize(("seed", "key", "step"), [(0, "test_0000", 950), (2**40, "a/ö", 1000), (7, "", 0)])
def test_noise_from_first_principles(seed: int, key: str, step: int):
    got = standard_normal(noise_streams(seed, [key]), step=step, shape=(3, 3, 3))
    assert got.dtype == torch.float32
    assert got.shape == (1, 3, 3, 3)
    assert got.flatten().tolist() == pytest.approx(normal_by_hand(seed, key, step, 27), abs=1e-6)


def test_noise_is_standard_normal():
    x = standard_normal(noise_streams(1, [f"k{i}" for i in range(40)]), step=3, shape=(5000,)).double()
    n = x.numel()
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96 / n)
    flat = np.sort(x.flatten().numpy())
    phi = torch.special.ndtr(torch.from_numpy(flat)).numpy()
    assert np.abs(phi - (np.arange(n) + 0.5) / n).max() < 2.2 / math.sqrt(n)  # Kolmogorov-Smirnov, p about 1e-4


def test_extreme_words_give_finite_noise():
    """0 is no logarithm of nothing: the largest value is sqrt(2 ln 2^33), the smallest next to nothing."""
    low, high = torch.tensor([0, 0]), torch.tensor([WORD - 1, WORD - 1])
    assert _box_muller(low, low)[0].tolist() == pytest.approx([math.sqrt(66 * math.log(2))] * 2, abs=1e-6)
    assert _box_muller(high, low)[0].tolist() == pytest.approx([2**-16] * 2, rel=1e-3)


def test_noise_is_uncorrelated():
    streams = noise_streams(1, ["a", "b"])
    (a, b), (later, _) = (standard_normal(streams, step=step, shape=(40_000,)).double() for step in (10, 11))
    pairs = [(a, b), (a, later), *((a[:-lag], a[lag:]) for lag in (1, 2, 3, 4))]
    for first, second in pairs:
        assert abs((first * second).mean()) < 5 / math.sqrt(len(first))
        assert abs(((first**2 - 1) * (second**2 - 1)).mean()) < 5 * 2 / math.sqrt(len(first))


def test_noise_does_not_depend_on_the_batch():
    shape = (3, 8, 8)
    together = standard_normal(noise_streams(5, ["a", "b", "c"]), step=50, shape=shape)
    other_order = standard_normal(noise_streams(5, ["c", "x", "a"]), step=50, shape=shape)
    alone = standard_normal(noise_streams(5, ["b"]), step=50, shape=shape)
    assert torch.equal(together[0], other_order[2])
    assert torch.equal(together[2], other_order[0])
    assert torch.equal(together[1], alone[0])


@pytest.mark.parametrize(
    ("seed", "key", "step"), [(6, "a", 50), (5, "b", 50), (5, "a", 51), (5, "A", 50), (5, "a ", 50), (-5, "a", 50)]
)
def test_seed_key_and_step_each_matter(seed: int, key: str, step: int):
    base = standard_normal(noise_streams(5, ["a"]), step=50, shape=(64,))
    other = standard_normal(noise_streams(seed, [key]), step=step, shape=(64,))
    assert not (base == other).any()


def test_seed_and_key_do_not_run_into_each_other():
    assert not torch.equal(noise_streams(1, ["1a"]), noise_streams(11, ["a"]))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8])
def test_any_size_is_a_beginning_of_a_longer_one(size: int):
    streams = noise_streams(5, ["a", "b"])
    short, long = (standard_normal(streams, step=0, shape=(n,)) for n in (size, 12))
    assert torch.equal(short, long[:, :size])


@pytest.mark.parametrize(("bound", "count"), [(5, 2), (1, 3), (2**31, 6), (25, 9)])
def test_whole_numbers_from_first_principles(bound: int, count: int):
    streams = noise_streams(4, ["a", "test_0000"])
    expected = []
    for stream in streams.tolist():
        drawn = [word for block in range(3) for word in philox_by_hand([block, 0, 0, 0], stream)]
        expected.append([word * bound // WORD for word in drawn[:count]])
    assert uniform_integers(streams, bound=bound, count=count).tolist() == expected


def test_whole_numbers_are_uniform():
    drawn = uniform_integers(noise_streams(1, [f"k{i}" for i in range(100)]), bound=7, count=500)
    counts = torch.bincount(drawn.flatten(), minlength=7).double()
    assert counts.shape == (7,)
    assert ((counts - 50_000 / 7) ** 2 / (50_000 / 7)).sum() < 27.9  # chi squared, 6 degrees of freedom, p = 1e-4


def test_global_generator_stays():
    state = torch.get_rng_state()
    standard_normal(noise_streams(5, ["a"]), step=0, shape=(4,))
    assert torch.equal(state, torch.get_rng_state())
