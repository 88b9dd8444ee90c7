"""A class by its number or its name."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from zipbatch.config import ClassGiven, class_number
from zipbatch.errors import UsageError

NAMES = ["airplane", "automobile", "cat", "7"]
GIVEN = TypeAdapter(ClassGiven)


@pytest.mark.parametrize(("given", "number"), [(2, 2), ("2", 2), (" cat ", 2), ("automobile", 1), ("0", 0)])
def test_a_number_or_a_name(given: object, number: int):
    assert class_number(GIVEN.validate_python(given), NAMES, where="--target") == number


@pytest.mark.parametrize("given", [-1, "-1", "", " ", True, 1.5, None])
def test_what_is_neither(given: object):
    with pytest.raises(ValidationError):
        GIVEN.validate_python(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "Cat",
            "target Cat is not the name of a class (did you mean 'cat'?); there are: airplane, ",
        ),
        ("aeroplane", "did you mean 'airplane'"),
        ("zebra", "target zebra is not the name of a class; there are: airplane"),
        (7, "target 7 is not one of the 4 classes 0..3"),
    ],
)
def test_what_is_none_of_them_is_told_with_the_nearest(given: int | str, words: str):
    with pytest.raises(UsageError) as caught:
        class_number(given, NAMES, where=f"target {given}")
    assert words in str(caught.value)


def test_a_long_list_is_cut():
    with pytest.raises(UsageError) as caught:
        class_number("x", [f"class {number}" for number in range(1000)], where="target")
    assert str(caught.value).endswith("class 19, …")
