"""The audit's rule: simulated victims of which everything is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.metrics.test_strength import CLASSES, DRIFT, LEFT, simulated
from zipbatch.metrics import audit, judge

Ints = npt.NDArray[np.int64]


def auroc(scores: npt.NDArray[np.float64], stamped: npt.NDArray[np.bool_]) -> float:
    ahead = scores[stamped][:, None] - scores[~stamped][None]
    return float((np.sign(ahead) + 1).mean() / 2)


@pytest.mark.parametrize("triggered", [60, 300, 1000])
def test_a_backdoor_and_its_images_are_found(triggered: int):
    undefended, forms, _ = simulated(clean=1000, triggered=triggered, left=LEFT, drift=DRIFT)
    found = audit(undefended, forms, classes=CLASSES, share=0.1)
    assert (found.finding, found.judgement.suspect) == ("backdoored", 3)
    assert set(undefended[found.suspects]) == {3}
    left = np.arange(1000, 1000 + triggered)[(forms[-1, 1000:] != 3)]
    assert found.suspects[left].mean() > 0.85  # some drift back or need a strong form
    assert found.suspects[:1000].mean() < 0.02
    stamped = np.arange(len(undefended)) >= 1000
    assert auroc(found.scores, stamped) > 0.93  # a tenth of the stamped images are of the target anyway
    assert found.flip_rate == pytest.approx((forms[-1] != undefended).mean())


def test_its_verdict_is_that_of_tune():
    for seed in range(5):
        undefended, forms, _ = simulated(clean=500, triggered=30, left=LEFT, drift=DRIFT, seed=seed)
        found = audit(undefended, forms, classes=CLASSES, share=0.1)
        assert found.judgement == judge(undefended, forms, classes=CLASSES)


@pytest.mark.parametrize("seed", range(10))
def test_clean_images_accuse_nobody(seed: int):
    undefended, forms, _ = simulated(clean=1000, triggered=0, left=LEFT, drift=DRIFT, seed=seed)
    found = audit(undefended, forms, classes=CLASSES, share=0.1)
    assert (found.finding, found.judgement.suspect, found.suspects.sum()) == ("nothing found", None, 0)
    assert found.least <= 100
    assert found.judgement.sigmas < 5


def test_so_many_triggered_images_as_it_says_are_found():
    """What is told beside 'nothing found' is held against samples that have just so many."""
    undefended, forms, _ = simulated(clean=1000, triggered=0, left=[0.0], drift=[0.05])
    least = audit(undefended, forms, classes=CLASSES, share=0.1).least
    verdicts = []
    for seed in range(20):
        undefended, forms, _ = simulated(clean=1000 - least, triggered=least, left=[0.0], drift=[0.05], seed=seed)
        verdicts.append(audit(undefended, forms, classes=CLASSES, share=0.1).finding)
    assert verdicts.count("backdoored") >= 19


@pytest.mark.parametrize("images", [0, 1, 40])
def test_few_images_cannot_tell(images: int):
    undefended, forms, _ = simulated(clean=images, triggered=0, left=[0.0], drift=[0.05])
    found = audit(undefended, forms, classes=CLASSES, share=0.1)
    assert found.finding == "too few images"
    assert found.least > 0.1 * images
    assert len(found.scores) == len(found.moved) == len(found.suspects) == images


def test_a_victim_that_answers_at_random_is_not_called_backdoored():
    rng = np.random.default_rng(0)
    undefended, forms = rng.integers(0, CLASSES, 1000), rng.integers(0, CLASSES, (2, 1000))
    assert audit(undefended, forms, classes=CLASSES, share=0.1).finding == "too few images"


def test_a_victim_that_always_says_the_same_tells_nothing():
    undefended = np.full(300, 4)
    found = audit(undefended, undefended[None], classes=CLASSES, share=0.1)
    assert (found.finding, found.flip_rate) == ("too few images", 0.0)


def test_a_form_that_moves_an_image_never_lowers_its_score():
    undefended, forms, _ = simulated(clean=1000, triggered=200, left=LEFT, drift=DRIFT)
    found = audit(undefended, forms, classes=CLASSES, share=0.1)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    changed = forms != undefended
    assert (found.moved == changed.sum(axis=0)).all()
    assert (found.scores[found.moved == 0] == 0).all()
    for index in range(CLASSES):
        of_class = np.flatnonzero(undefended == index)
        for one in of_class[:20]:
            more = of_class[(changed[:, of_class] >= changed[:, [one]]).all(axis=0)]
            assert (found.scores[more] >= found.scores[one] - 1e-12).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="answers \\[R, N\\]"):
        audit(np.zeros(3, np.int64), np.zeros((0, 3), np.int64), classes=3, share=0.1)


def test_images_that_are_driven_are_suspects_and_the_victim_is_not():
    undefended, forms, _ = simulated(clean=1000, triggered=100, left=[0.0], drift=[0.05])
    flees = (undefended == 3) & (forms[0] != 3)
    found = audit(undefended, forms, classes=CLASSES, share=0.1, shares=np.where(flees, 0.6, 0.9))
    assert (found.finding, found.judgement.suspect, found.judgement.driven) == ("manipulated images", None, 3)
    assert (found.suspects == flees).all()
    surely = audit(undefended, forms, classes=CLASSES, share=0.1, shares=np.full(len(undefended), 0.9))
    assert (surely.finding, surely.suspects.sum()) == ("backdoored", flees.sum())
    assert (surely.scores == found.scores).all()
