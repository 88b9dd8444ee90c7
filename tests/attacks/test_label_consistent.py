"""Label-consistent: a checkerboard in every corner, nothing elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.attacks.test_patch import images
from zipbatch.attacks.label_consistent import LabelConsistent, LabelConsistentSettings


def test_four_corners_seen_from_their_own_corner():
    attack, clean = LabelConsistent(), images()
    stamped = stamp(attack, clean, attack.make_trigger(32, seed=0))
    board = np.array([[255, 0, 255], [0, 255, 0], [255, 0, 255]])[None, :, :, None]
    for rows in (slice(0, 3), slice(29, 32)):
        for columns in (slice(0, 3), slice(29, 32)):
            assert (stamped[:, rows, columns] == board).all()
            stamped[:, rows, columns] = clean[:, rows, columns]
    assert np.array_equal(stamped, clean)


def test_even_corners_have_white_at_the_corner_itself():
    attack = LabelConsistent(LabelConsistentSettings(patch_size=2, alpha=0.5))
    stamped = stamp(attack, np.zeros((1, 9, 9, 3), np.uint8), attack.make_trigger(9, seed=0))
    assert stamped[0, :, :, 0][[0, 0, 1, 1], [0, 1, 0, 1]].tolist() == [128, 0, 0, 128]
    assert stamped[0, :, :, 0][[8, 8, 7, 7], [8, 7, 8, 7]].tolist() == [128, 0, 0, 128]
    assert np.count_nonzero(stamped[0, :, :, 0]) == 8


def test_corners_that_do_not_fit():
    with pytest.raises(ValueError, match="four corners of 5 px do not fit into 9 px"):
        LabelConsistent(LabelConsistentSettings(patch_size=5)).make_trigger(9, seed=0)
