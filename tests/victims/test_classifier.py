"""What any victim answers is checked before it is believed; a network is one classifier among others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zipbatch.victims import Classifier, Victim, checked_scores, top1


class Means:
    """Scores are the means of the channels. Remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def classify(self, images: np.ndarray) -> np.ndarray:
        self.shown.append(images)
        return images.mean(axis=(1, 2))


class Mode(nn.Module):
    """Scores are channel means; remembers whether it was in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        return x.mean(dim=(2, 3))


IMAGES = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (7, 3, 5, 4)).astype(np.uint8))
WANTED = IMAGES.float().mean(dim=(2, 3)).argmax(dim=1).tolist()


def test_batches_are_contiguous_images_in_order():
    means, ticks = Means(), []
    answers = top1(means, IMAGES, batch_size=3, classes=3, before_batch=lambda: ticks.append(len(means.shown)))
    assert (answers.tolist(), answers.dtype, ticks) == (WANTED, np.int64, [0, 1, 2])
    assert [batch.shape for batch in means.shown] == [(3, 5, 4, 3), (3, 5, 4, 3), (1, 5, 4, 3)]
    assert all(batch.flags["C_CONTIGUOUS"] and batch.dtype == np.uint8 for batch in means.shown)
    assert np.array_equal(np.concatenate(means.shown), IMAGES.permute(0, 2, 3, 1).numpy())


def test_a_network_is_a_classifier_and_keeps_its_mode():
    network = Mode()
    victim: Classifier = Victim(network).train()
    assert top1(victim, IMAGES, batch_size=4).tolist() == WANTED
    assert network.modes == [False, False]
    assert network.training
    scores = victim.classify(IMAGES.permute(0, 2, 3, 1).numpy())
    assert scores.dtype == np.float32
    assert np.allclose(scores, IMAGES.float().mean(dim=(2, 3)) / 255)


def test_no_images_no_answers():
    assert top1(Means(), IMAGES[:0]).tolist() == []


def test_raising_before_a_batch_stops():
    means = Means()

    def stop() -> None:
        if means.shown:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        top1(means, IMAGES, batch_size=2, before_batch=stop)
    assert len(means.shown) == 1


@pytest.mark.parametrize(
    ("scores", "dtype"),
    [
        (np.zeros((2, 3), np.float16), np.float16),
        (np.zeros((2, 3), np.int32), np.float64),
        ([[1, 2, 3], [4, 5, 6]], np.float64),
        ([[-np.inf, 0.0, np.inf]] * 2, np.float64),
    ],
)
def test_scores(scores: Any, dtype: Any):
    checked = checked_scores(scores, images=2, classes=3)
    assert checked.dtype == dtype
    assert np.array_equal(checked, np.asarray(scores))


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (np.zeros((3, 3)), r"2 images with an array of shape \(3, 3\)"),
        (np.zeros(2), r"shape \(2,\)"),
        (np.zeros((2, 3, 1)), r"shape \(2, 3, 1\)"),
        (np.zeros((2, 1)), "gave 1 score an image"),
        (np.zeros((2, 4)), "gave 4 scores an image where 3 are expected"),
        (np.array([[0, 1, 2], [0, np.nan, 2]]), "gave NaN for image 1 of 2"),
        (np.array([["a", "b", "c"]] * 2), "class scores are real numbers"),
        (np.zeros((2, 3), complex), "answered with complex128 values"),
        (np.array([[None, 1, 2]] * 2), "answered with object values"),
        (None, "answered with object values"),
    ],
)
def test_no_scores(scores: Any, words: str):
    with pytest.raises(ValueError, match=words):
        checked_scores(scores, images=2, classes=3)
