"""A class as people say it: its number, or its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated

from pydantic import BeforeValidator

from zipbatch.errors import UsageError

_NAMED = 20
"""Classes that a message lists."""
_WHOLE = re.compile(r"[+-]?[0-9]+")


def _number_or_name(value: object) -> object:
    """A class by its number, 0 or more, or by its name; a text of digits is a number."""
    if isinstance(value, str):
        value = value.strip()
        value = int(value) if _WHOLE.fullmatch(value) else value
    if isinstance(value, bool) or value == "" or (isinstance(value, int) and value < 0):
        raise ValueError("a class is a number of 0 or more, or a name")
    return value


AS_CLASS = BeforeValidator(_number_or_name)
ClassGiven = Annotated[int | str, AS_CLASS]
"""A setting that is a class, until the names of the classes are known (``class_number``)."""


def class_number(given: int | str, names: Sequence[str], *, where: str) -> int:
    """The number of a class that is given by number or name.

    Args:
        given: as the user says it.
        names: of the classes, by their number.
        where: the setting with its value, for messages.

    Raises:
        UsageError: it is none of them; says what there is, and the nearest.
    """
    if isinstance(given, int):
        if not 0 <= given < len(names):
            raise UsageError(f"{where} is not one of the {len(names)} classes 0..{len(names) - 1}")
        return given
    if given in names:
        return names.index(given)
    known = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    folded = {name.casefold(): name for name in names}
    near = get_close_matches(given.casefold(), folded, n=1)
    nearest = f" (did you mean {folded[near[0]]!r}?)" if near else ""
    raise UsageError(f"{where} is not the name of a class{nearest}; there are: {known}")
