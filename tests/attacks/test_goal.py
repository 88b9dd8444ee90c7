"""What stamped images are to be taken for."""

from __future__ import annotations

import pytest

from zipbatch.attacks import Goal


@pytest.mark.parametrize("clean_label", [False, True])
def test_one_target_for_all(clean_label: bool):
    goal = Goal(classes=4, target=2, clean_label=clean_label)
    assert [goal.answer(original) for original in range(4)] == [2, 2, 2, 2]


@pytest.mark.parametrize("classes", [2, 4])
def test_all_to_all_is_the_next_class(classes: int):
    goal = Goal(classes=classes, target=None)
    answers = [goal.answer(original) for original in range(classes)]
    assert answers == [*range(1, classes), 0]
    assert all(answer != original for original, answer in enumerate(answers))
