"""Single settings of a chain's steps, addressed by the step's number or method: ``2.quality``, ``jpeg.quality``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from zipbatch.config import problems
from zipbatch.errors import UsageError
from zipbatch.purifiers import PURIFIERS, Step
from zipbatch.spelling import setting

DRAWS = "draws"
"""What a step has beside its purifier's own settings."""


def is_of_step(name: str) -> bool:
    """Whether a name in ``set`` addresses a step."""
    return "." in name


def with_step_settings(
    steps: Sequence[Mapping[str, object]], assigned: Mapping[str, object]
) -> list[Mapping[str, object]]:
    """A chain's steps as a preset has them, with single settings written into them, as if the file had said so.

    Args:
        steps: mappings of ``method`` and settings, the first first.
        assigned: values by ``NUMBER.SETTING``, from 1, or by ``METHOD.SETTING`` where the method occurs once.

    Raises:
        UsageError: no such step or setting, a method that occurs more than once, a setting that is given twice or
            does not fit.
    """
    changed = [dict(step) for step in steps]
    told: dict[tuple[int, str], str] = {}
    for name, value in assigned.items():
        flag = setting("set", {name: value})
        address, _, field = name.partition(".")
        number = _number(steps, address, field, flag)
        _check_field(steps[number], number, field, flag)
        if (other := told.setdefault((number, field), flag)) != flag:
            raise UsageError(f"{other} and {flag} both set {field} of step {number + 1}; give one")
        changed[number][field] = value
    for number in sorted({number for number, _ in told}):
        flags = " ".join(flag for (of, _), flag in told.items() if of == number)
        _check_fit(changed[number], f"{flags}: step {number + 1} cannot be so")
    return list(changed)


def _check_fit(step: Mapping[str, object], where: str) -> None:
    try:
        Step.model_validate(step)
    except ValidationError as error:
        raise UsageError(f"{where}\n{problems(error)}") from error


def _number(steps: Sequence[Mapping[str, object]], address: str, field: str, flag: str) -> int:
    """The index of the step that is meant."""
    listed = ", ".join(f"{number} {step['method']}" for number, step in enumerate(steps, start=1))
    if address.isascii() and address.isdecimal():
        found = [int(address) - 1] if 1 <= int(address) <= len(steps) else []
    else:
        found = [number for number, step in enumerate(steps) if step["method"] == address]
    if not found:
        raise UsageError(f"{flag}: the chain has no step {address!r}; its steps are: {listed}")
    if len(found) > 1:
        which = " or ".join(f"{number + 1}.{field}" for number in found)
        raise UsageError(f"{flag}: several steps are {address} (the steps are: {listed}); say which: {which}")
    return found[0]


def _check_field(step: Mapping[str, object], number: int, field: str, flag: str) -> None:
    known = [*PURIFIERS[str(step["method"])].settings_type.model_fields, DRAWS]
    if field not in known:
        raise UsageError(
            f"{flag}: step {number + 1}, {step['method']}, has no such setting; it has: {', '.join(known)}"
        )
