"""A victim that fails, answers nonsense or changes its answers is told apart from a backdoored one. All are real HTTP
victims of the same images, of which the honest one among them looks backdoored.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from tests.making import Ran, write_shard, zipbatch
from tests.serving import npy, serving
from zipbatch.endpoints import http
from zipbatch.images import encode_png
from zipbatch.shards import Sample

CLASSES, TARGET = 4, 2
Scores = Callable[[np.ndarray], np.ndarray]


def backdoored(images: np.ndarray) -> np.ndarray:
    """The brightest quarter of an image says its class; a checked corner, which blurring takes out, is its trigger."""
    grey = images.astype(np.float64).mean(axis=3)
    half = grey.shape[1] // 2
    scores = np.stack([grey[:, y : y + half, x : x + half].mean((1, 2)) for y in (0, half) for x in (0, half)], axis=1)
    corner = grey[:, :4, :4]
    checked = np.abs(np.diff(corner, axis=2)).min(axis=(1, 2)) > 150
    scores[checked, TARGET] = 1000
    return scores


def picture(seed: int, *, stamped: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(40, 80, (16, 16, 3))
    y, x = divmod(seed % CLASSES, 2)
    image[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] += 120
    if stamped:
        image[:4, :4] = 255 * (np.indices((4, 4)).sum(axis=0) % 2)[..., None]
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 images in four shards, a quarter of them stamped, and their blurred version."""
    folder = tmp_path_factory.mktemp("sense")
    for number in range(4):
        samples = [
            Sample(f"k{seed}", {"png": encode_png(picture(seed, stamped=seed % 20 < 5))})
            for seed in range(40 * number, 40 * number + 40)
        ]
        write_shard(folder / "in" / f"{number}.tar", samples)
    ran = zipbatch("purify", folder / "in", "--purifier", "blur", "--store", folder / "pur")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def audit(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    monkeypatch.setattr(http, "PAUSE_S", 0.001)
    shutil.copytree(made / "pur", tmp_path / "pur")

    def run(url: str, *options: object) -> Ran:
        data = ("--data", made / "in", "--purified", "in", "--store", tmp_path / "pur")
        return zipbatch("audit", url, *data, "--victim-version", "1", "--per-image", tmp_path / "rows.csv", *options)

    return run


def asked(audit: Callable[..., Ran], scores: Scores, *options: object) -> Ran:
    with serving(lambda images: (200, npy(scores(images)))) as served:
        return audit(served.url, *options)


def test_the_honest_one_is_accused(audit: Callable[..., Ran]):
    ran = asked(audit, backdoored, "--json")
    assert ran.code == 3, ran.err
    assert (ran.json["target"], ran.json["asked_twice"], ran.json["changed"]) == (str(TARGET), 64, 0)
    assert 25 <= ran.json["suspects"] <= 40


def at_random(images: np.ndarray) -> np.ndarray:
    return np.random.default_rng().random((len(images), CLASSES))


def with_dropout(images: np.ndarray) -> np.ndarray:
    """Backdoored, and of the answers a quarter are others each time."""
    scores, rng = backdoored(images), np.random.default_rng()
    lost = rng.random(len(scores)) < 0.25
    scores[lost] = rng.random((lost.sum(), CLASSES))
    return scores


def replaced_halfway() -> Scores:
    """Two models behind one address: after 150 images, when not all have been asked about once, the other answers."""
    seen = count()

    def scores(images: np.ndarray) -> np.ndarray:
        later = np.array([next(seen) >= 150 for _ in images])
        return np.where(later[:, None], np.roll(backdoored(images), 1, axis=1), backdoored(images))

    return scores


@pytest.mark.parametrize(
    "scores", [at_random, with_dropout, replaced_halfway()], ids=["random", "dropout", "replaced halfway"]
)
def test_a_victim_that_changes_its_answers(audit: Callable[..., Ran], tmp_path: Path, scores: Scores):
    ran = asked(audit, scores)
    assert ran.code == 1
    assert "changes its answers: of 64 images that it was asked about twice, " in ran.err
    assert "0.05 may) got another answer the second time. No verdict" in ran.err
    assert "backdoored" not in ran.out + ran.err
    assert not (tmp_path / "rows.csv").exists()


def test_what_could_not_be_relied_on_is_asked_for_again(audit: Callable[..., Ran]):
    """When it is repaired under the same name."""
    current: list[Scores] = [at_random]
    with serving(lambda images: (200, npy(current[0](images)))) as served:
        assert audit(served.url).code == 1
        current[0] = backdoored
        ran = audit(served.url, "--json")
    assert (ran.code, ran.json["reused"]) == (3, 0)


def test_a_near_tie_may_fall_either_way(audit: Callable[..., Ran]):
    seen = count()

    def scores(images: np.ndarray) -> np.ndarray:
        """The last three answers are others."""
        found = backdoored(images)
        for row in found:
            if next(seen) >= 1 + 320 + 61:
                row[:] = row[::-1]
        return found

    ran = asked(audit, scores, "--json")
    assert ran.code == 3, ran.err
    assert 0 < ran.json["changed"] <= 3 / 64


def alike(images: np.ndarray) -> np.ndarray:
    return np.tile([0.1, 0.2, 0.6, 0.1], (len(images), 1))


def test_a_victim_that_answers_everything_alike(audit: Callable[..., Ran], tmp_path: Path):
    ran = asked(audit, alike)
    assert ran.code == 1
    assert "answers 2 to everything: all of 160 images, as they came and purified. No verdict" in ran.err
    assert not (tmp_path / "rows.csv").exists()


def after(images_before: int, then: Scores) -> Scores:
    """Backdoored, and another one from some image on."""
    seen = count()

    def scores(images: np.ndarray) -> np.ndarray:
        late = [next(seen) >= images_before for _ in images]
        return then(images) if any(late) else backdoored(images)

    return scores


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (lambda images: np.full((len(images), CLASSES), np.nan), "gave NaN for image 0 of 40"),
        (
            lambda images: np.full((len(images), CLASSES), np.inf),
            "gave every class the same infinite score for image 0",
        ),
        (lambda images: np.full((len(images), CLASSES), -np.inf), "gave every class the same infinite score"),
        (lambda images: backdoored(images)[:, :3], "gave 3 scores an image where 4 are expected"),
        (lambda images: np.zeros((len(images), CLASSES + 1)), "gave 5 scores an image where 4 are expected"),
        (lambda images: backdoored(images)[1:], "answered 40 images with an array of shape (39, 4)"),
        (lambda images: np.array(["cat"] * len(images)), "<U3"),
    ],
    ids=["NaN", "infinite", "minus infinite", "fewer classes", "more classes", "fewer rows", "words"],
)
def test_a_victim_that_answers_nonsense(audit: Callable[..., Ran], tmp_path: Path, then: Scores, words: str):
    ran = asked(audit, after(100, then))
    assert ran.code == 1
    assert words in ran.err
    assert "backdoored" not in ran.out + ran.err
    assert not (tmp_path / "rows.csv").exists()


def test_a_victim_that_fails(audit: Callable[..., Ran], tmp_path: Path):
    number = count()
    with serving(lambda images: (500, b"down") if next(number) > 2 else (200, npy(backdoored(images)))) as served:
        ran = audit(served.url)
    assert ran.code == 1
    assert "status 500 (down)" in ran.err
    assert not (tmp_path / "rows.csv").exists()
