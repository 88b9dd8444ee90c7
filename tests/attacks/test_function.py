"""A function of one's own as the attack: what it is given, and what it may return."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.attacks.test_patch import images
from zipbatch.attacks import FunctionAttack, FunctionSettings, attack_params


def attack_of(call: Callable[[np.ndarray], object]) -> FunctionAttack:
    return FunctionAttack(FunctionSettings(function="mine.py:stamp", sha256="ab" * 32), call)


def test_it_is_called_with_a_copy_and_known_by_its_digest():
    def inverted(given: np.ndarray) -> np.ndarray:
        given[:] = 255 - given
        return given

    attack, clean = attack_of(inverted), images()
    before = clean.copy()
    assert np.array_equal(stamp(attack, clean, attack.make_trigger(32, seed=1)), 255 - before)
    assert np.array_equal(clean, before)
    assert attack_params(attack) == {"function": "mine.py:stamp", "sha256": "ab" * 32}


@pytest.mark.parametrize(
    ("call", "got"),
    [
        (lambda given: given[:1], r"uint8 \(1, 32, 32, 3\)"),
        (lambda given: given.astype(np.float32), r"float32 \(3, 32, 32, 3\)"),
        (lambda given: given.tolist(), "a list"),
        (lambda _: None, "a NoneType"),
    ],
)
def test_anything_else_is_an_error(call: Callable[[np.ndarray], object], got: str):
    attack = attack_of(call)
    with pytest.raises(ValueError, match=rf"must return a uint8 array of \(3, 32, 32, 3\).*got {got}"):
        stamp(attack, images(), attack.make_trigger(32, seed=1))
