"""The strength rule: simulated victims of which everything is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from zipbatch.metrics import judge, weakest_sufficient

CLASSES = 10
Ints = npt.NDArray[np.int64]


def simulated(
    *,
    clean: int,
    triggered: int,
    left: list[float],
    drift: list[float],
    target: int = 3,
    seed: int = 0,
) -> tuple[Ints, Ints, list[float]]:
    """Answers [N] without a defence and [R, N] after it, and the attack success rate of each rung.

    ``left[r]``: share of triggered images still taken for the target at rung r; ``drift[r]``: share of all images that
    go wrong there. An image that goes wrong, or is freed, at a rung stays so at all stronger ones.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, clean + triggered)
    stamped = np.arange(clean + triggered) >= clean
    undefended = np.where(stamped, target, truth)
    breaks_at, wrong = rng.random(len(truth)), (truth + rng.integers(1, CLASSES, len(truth))) % CLASSES
    frees_at = rng.random(len(truth))
    rungs = []
    for share, gone in zip(left, drift, strict=True):
        own = np.where(breaks_at < gone, wrong, truth)
        rungs.append(np.where(stamped & (frees_at < share), target, own))
    other = stamped & (truth != target)
    success = [float((answers == target)[other].mean()) if other.any() else 0.0 for answers in rungs]
    return undefended, np.stack(rungs), success


LEFT = [0.9, 0.4, 0.08, 0.003, 0.0]
DRIFT = [0.01, 0.03, 0.05, 0.08, 0.15]


@pytest.mark.parametrize("triggered", [60, 100, 300, 1000, 5000])
def test_the_attack_success_is_estimated_without_labels(triggered: int):
    undefended, rungs, success = simulated(clean=1000, triggered=triggered, left=LEFT, drift=DRIFT)
    found = judge(undefended, rungs, classes=CLASSES)
    assert found.suspect == 3
    assert found.triggered == pytest.approx(0.9 * triggered, rel=0.2)  # a tenth of them belong to the class anyway
    for rung, share in zip(found.rungs, success, strict=True):
        assert rung.residual == pytest.approx(share, abs=0.03 if triggered >= 300 else 0.1)
    if triggered >= 300:
        assert weakest_sufficient(found, limit=0.03) == 3
        assert weakest_sufficient(found, limit=0.2) == 2


@pytest.mark.parametrize("seed", range(20))
def test_drift_alone_is_no_attack(seed: int):
    undefended, rungs, _ = simulated(clean=1000, triggered=0, left=LEFT, drift=[0.02, 0.05, 0.1, 0.2, 0.3], seed=seed)
    found = judge(undefended, rungs, classes=CLASSES)
    assert (found.suspect, found.triggered) == (None, 0.0)
    assert weakest_sufficient(found, limit=0.02) is None
    assert [rung.residual for rung in found.rungs] == [None] * 5
    agreement = [rung.agreement for rung in found.rungs]
    assert agreement == sorted(agreement, reverse=True)
    assert agreement[0] == pytest.approx(0.98, abs=0.02)


def test_an_attack_that_the_strongest_rung_leaves_is_not_seen():
    undefended, rungs, _ = simulated(clean=1000, triggered=500, left=[1.0, 1.0, 1.0], drift=[0.01, 0.02, 0.03])
    assert judge(undefended, rungs, classes=CLASSES).suspect is None


def test_a_strength_that_lets_the_attack_back_in_is_not_chosen():
    """The rule wants every rung from the chosen one on to suffice, also where the residual is not monotone."""
    undefended, rungs, _ = simulated(
        clean=1000, triggered=500, left=[0.0, 0.5, 0.0, 0.0], drift=[0.01, 0.02, 0.03, 0.04]
    )
    found = judge(undefended, rungs, classes=CLASSES)
    assert weakest_sufficient(found, limit=0.02) == 2


def test_two_classes():
    undefended = np.array([0] * 60 + [1] * 50)
    freed = np.array([0] * 20 + [1] * 40 + [1] * 49 + [0])
    found = judge(undefended, freed[None], classes=2)
    assert found.suspect == 0
    assert found.triggered == pytest.approx(40, abs=2)
    assert found.rungs[0].residual == 0.0


def test_no_images():
    found = judge(np.empty(0, np.int64), np.empty((2, 0), np.int64), classes=3)
    assert found.suspect is None
    assert found.rungs[0].agreement == 0.0


@pytest.mark.parametrize(
    ("undefended", "rungs", "classes", "words"),
    [
        (np.zeros(3, np.int64), np.zeros((2, 4), np.int64), 3, "answers \\[R, N\\]"),
        (np.zeros(3, np.int64), np.zeros((0, 3), np.int64), 3, "answers \\[R, N\\]"),
        (np.zeros(3, np.int64), np.zeros(3, np.int64), 3, "answers \\[R, N\\]"),
        (np.zeros(3, np.int64), np.zeros((1, 3), np.int64), 1, "two classes"),
    ],
)
def test_what_does_not_fit_is_refused(undefended: Ints, rungs: Ints, classes: int, words: str):
    with pytest.raises(ValueError, match=words):
        judge(undefended, rungs, classes=classes)
