"""The strength rule: simulated victims of which everything is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from zipbatch.metrics import Candidate, Judgement, choose_candidate, judge
from zipbatch.metrics.strength import SURE

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
    """Answers [N] without a defence and [R, N] after it, and the attack success rate of each candidate.

    ``left[r]``: share of triggered images still taken for the target at candidate r;
    ``drift[r]``: share of all images that
    go wrong there. An image that goes wrong, or is freed, at a candidate stays so at all stronger ones.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, clean + triggered)
    stamped = np.arange(clean + triggered) >= clean
    undefended = np.where(stamped, target, truth)
    breaks_at, wrong = rng.random(len(truth)), (truth + rng.integers(1, CLASSES, len(truth))) % CLASSES
    frees_at = rng.random(len(truth))
    candidates = []
    for share, gone in zip(left, drift, strict=True):
        own = np.where(breaks_at < gone, wrong, truth)
        candidates.append(np.where(stamped & (frees_at < share), target, own))
    other = stamped & (truth != target)
    success = [float((answers == target)[other].mean()) if other.any() else 0.0 for answers in candidates]
    return undefended, np.stack(candidates), success


LEFT = [0.9, 0.4, 0.08, 0.003, 0.0]
DRIFT = [0.01, 0.03, 0.05, 0.08, 0.15]


@pytest.mark.parametrize("triggered", [60, 100, 300, 1000, 5000])
def test_the_attack_success_is_estimated_without_labels(triggered: int):
    undefended, candidates, success = simulated(clean=1000, triggered=triggered, left=LEFT, drift=DRIFT)
    found = judge(undefended, candidates, classes=CLASSES)
    assert found.suspect == 3
    assert found.triggered == pytest.approx(0.9 * triggered, rel=0.2)  # a tenth of them belong to the class anyway
    for candidate, share in zip(found.candidates, success, strict=True):
        assert candidate.residual == pytest.approx(share, abs=0.03 if triggered >= 300 else 0.1)
    if triggered >= 300:
        assert choose_candidate(found, own=0, limit=0.03) == 3
        assert choose_candidate(found, own=0, limit=0.2) == 2


@pytest.mark.parametrize("seed", range(20))
def test_drift_alone_is_no_attack(seed: int):
    undefended, candidates, _ = simulated(
        clean=1000, triggered=0, left=LEFT, drift=[0.02, 0.05, 0.1, 0.2, 0.3], seed=seed
    )
    found = judge(undefended, candidates, classes=CLASSES)
    assert (found.suspect, found.triggered) == (None, 0.0)
    assert [choose_candidate(found, own=own, limit=0.02) for own in range(5)] == [0, 1, 2, 3, 4]
    assert [candidate.residual for candidate in found.candidates] == [None] * 5
    agreement = [candidate.agreement for candidate in found.candidates]
    assert agreement == sorted(agreement, reverse=True)
    assert agreement[0] == pytest.approx(0.98, abs=0.02)


def test_an_attack_that_the_strongest_rung_leaves_is_not_seen():
    undefended, candidates, _ = simulated(clean=1000, triggered=500, left=[1.0, 1.0, 1.0], drift=[0.01, 0.02, 0.03])
    assert judge(undefended, candidates, classes=CLASSES).suspect is None


def test_images_of_one_class_alone():
    """All of them triggered: nearly all leave. None triggered: some drift."""
    undefended, candidates, _ = simulated(clean=0, triggered=100, left=LEFT, drift=DRIFT)
    assert judge(undefended, candidates, classes=CLASSES).suspect == 3
    drifted = np.where(np.arange(100) < 15, np.arange(100) % CLASSES, 3)
    assert judge(np.full(100, 3), drifted[None], classes=CLASSES).suspect is None


def test_drift_to_a_neighbour_is_no_attack():
    """One class of ten is mostly taken for its neighbour once it is blurred, the others stay what they are."""
    undefended = np.repeat(np.arange(CLASSES), 100)
    blurred = undefended.copy()
    blurred[300:370] = 5
    assert judge(undefended, blurred[None], classes=CLASSES).suspect is None


def test_one_image_of_a_rare_class_hides_nothing():
    undefended, candidates, _ = simulated(clean=1000, triggered=100, left=LEFT, drift=DRIFT)
    rare = np.array([CLASSES])
    gone = np.concatenate([candidates, np.zeros((len(candidates), 1), np.int64)], axis=1)
    assert judge(np.concatenate([undefended, rare]), gone, classes=CLASSES + 1).suspect == 3


def judged(*residuals: tuple[float, float]) -> Judgement:
    return Judgement(
        suspect=3, triggered=500.0, candidates=tuple(Candidate(0.9, value, upper) for value, upper in residuals)
    )


@pytest.mark.parametrize(
    ("residuals", "own", "chosen"),
    [
        ([(0.5, 0.6), (0.1, 0.2), (0.01, 0.03), (0.0, 0.01)], 0, 2),  # stronger until the estimate is within the limit
        ([(0.5, 0.6), (0.1, 0.2), (0.01, 0.03), (0.0, 0.01)], 2, 2),
        ([(0.5, 0.6), (0.01, 0.03), (0.0, 0.01), (0.0, 0.01)], 3, 2),  # weaker while it is so for certain
        ([(0.0, 0.01), (0.5, 0.6), (0.0, 0.01), (0.0, 0.01)], 0, 2),  # not one that lets the attack back in
        ([(0.0, 0.01), (0.0, 0.01), (0.0, 0.01), (0.0, 0.01)], 2, 0),
        ([(0.5, 0.6), (0.5, 0.6), (0.5, 0.6), (0.5, 0.6)], 1, 3),  # nothing suffices: the strongest
    ],
)
def test_stronger_on_an_estimate_weaker_on_certainty(residuals: list[tuple[float, float]], own: int, chosen: int):
    assert choose_candidate(judged(*residuals), own=own, limit=0.02) == chosen


def test_three_classes():
    """Two of them lose a twentieth, the target loses half of what it was taken for."""
    undefended = np.repeat([0, 1, 2], [200, 100, 100])
    freed = np.repeat([0, 1, 2, 1, 0, 2, 0], [100, 50, 50, 95, 5, 95, 5])
    found = judge(undefended, freed[None], classes=3)
    assert found.suspect == 0
    assert found.triggered == pytest.approx(95, abs=3)
    assert found.candidates[0].residual == 0.0


def test_no_images():
    found = judge(np.empty(0, np.int64), np.empty((2, 0), np.int64), classes=3)
    assert found.suspect is None
    assert found.candidates[0].agreement == 0.0


@pytest.mark.parametrize(
    ("undefended", "candidates", "classes", "words"),
    [
        (np.zeros(3, np.int64), np.zeros((2, 4), np.int64), 3, "answers \\[R, N\\]"),
        (np.zeros(3, np.int64), np.zeros((0, 3), np.int64), 3, "answers \\[R, N\\]"),
        (np.zeros(3, np.int64), np.zeros(3, np.int64), 3, "answers \\[R, N\\]"),
        (np.zeros(3, np.int64), np.zeros((1, 3), np.int64), 1, "two classes"),
    ],
)
def test_what_does_not_fit_is_refused(undefended: Ints, candidates: Ints, classes: int, words: str):
    with pytest.raises(ValueError, match=words):
        judge(undefended, candidates, classes=classes)


def sure_of(undefended: Ints, candidates: Ints, *, fleeing: float, others: float) -> npt.NDArray[np.float64]:
    """Shares of answers, about ``fleeing`` on images that leave class 3 and about ``others`` on the rest."""
    flees = (undefended == 3) & (candidates[-1] != 3)
    return np.clip(np.where(flees, fleeing, others) + np.random.default_rng(1).normal(0, 0.03, len(undefended)), 0, 1)


@pytest.mark.parametrize("triggered", [60, 300])
def test_a_class_is_no_suspect_unless_the_victim_is_sure_of_its_images(triggered: int):
    undefended, candidates, _ = simulated(clean=1000, triggered=triggered, left=LEFT, drift=DRIFT)
    known = judge(undefended, candidates, classes=CLASSES)
    sure = judge(
        undefended,
        candidates,
        classes=CLASSES,
        shares=sure_of(undefended, candidates, fleeing=0.95, others=0.95),
    )
    assert (sure.suspect, sure.driven, sure.candidates, sure.triggered) == (3, None, known.candidates, known.triggered)
    assert sure.sureness is not None
    assert sure.sureness > SURE
    unsure = judge(
        undefended, candidates, classes=CLASSES, shares=sure_of(undefended, candidates, fleeing=0.7, others=0.95)
    )
    assert (unsure.suspect, unsure.driven, unsure.triggered, unsure.sigmas) == (None, 3, 0.0, known.sigmas)
    assert unsure.sureness is not None
    assert unsure.sureness < 0.1
    assert all(candidate.residual is None for candidate in unsure.candidates)


def test_images_that_merely_drift_do_not_make_the_victim_unsure():
    """They flee beside the triggered ones, and nobody is ever sure of them."""
    undefended, candidates, _ = simulated(clean=1000, triggered=60, left=[0.0], drift=[0.15])
    shares = np.full(len(undefended), 0.95)
    shares[:1000][candidates[0, :1000] != undefended[:1000]] = 0.5
    found = judge(undefended, candidates, classes=CLASSES, shares=shares)
    assert found.suspect == 3


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_victim_that_tells_answers_alone_is_judged_by_them(value: float):
    """Scores of 0 and 1 say nothing of how sure it is."""
    undefended, candidates, _ = simulated(clean=1000, triggered=100, left=LEFT, drift=DRIFT)
    found = judge(undefended, candidates, classes=CLASSES, shares=np.full(len(undefended), value))
    assert (found.suspect, found.sureness) == (3, 0.5)


def test_where_all_images_are_triggered_there_is_nothing_to_hold_them_against():
    undefended, candidates, _ = simulated(clean=20, triggered=500, left=LEFT, drift=DRIFT)
    shares = sure_of(undefended, candidates, fleeing=0.7, others=0.95)
    found = judge(undefended, candidates, classes=CLASSES, shares=shares)
    assert (found.suspect, found.driven, found.sureness) == (3, None, None)


def test_how_sure_is_told_only_of_a_class_that_stands_out():
    undefended, candidates, _ = simulated(clean=1000, triggered=0, left=LEFT, drift=DRIFT)
    found = judge(undefended, candidates, classes=CLASSES, shares=np.full(len(undefended), 0.5))
    assert (found.suspect, found.driven, found.sureness) == (None, None, None)
    with pytest.raises(ValueError, match="need a share for each"):
        judge(undefended, candidates, classes=CLASSES, shares=np.zeros(3))
