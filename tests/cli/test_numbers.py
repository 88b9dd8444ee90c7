"""No option of any command takes NaN or infinity for a number."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from tests.making import zipbatch
from zipbatch.cli.main import cli
from zipbatch.cli.options import Number

SETTINGS = {"guidance_exponent", "eta"}
"""Settings of a purifier: they are judged with all others of its settings at once."""
PURIFYING = {"purify": ("anything", "--store", "anywhere"), "bench": ("--prior", "embedded")}


def options(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Option]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from options(command, *path, name)
            continue
        yield from (((*path, name), option) for option in command.params if isinstance(option, click.Option))


NUMBERS = [
    pytest.param(path, option, id=f"{' '.join(path)} {option.opts[-1]}")
    for path, option in options(cli)
    if isinstance(option.type, click.FloatRange | click.types.FloatParamType)
]


def test_there_are_some():
    assert len(NUMBERS) > 8


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "NaN", "Infinity", "1e999"])
@pytest.mark.parametrize(("path", "option"), NUMBERS)
def test_a_number_is_finite(path: tuple[str, ...], option: click.Option, text: str):
    if path[0] in PURIFYING and option.name in SETTINGS:
        ran = zipbatch(*path, *PURIFYING[path[0]], option.opts[-1], text)
        assert (ran.code, ran.out) == (2, "")
        assert str(option.name) in ran.err
        return
    assert isinstance(option.type, Number)
    with pytest.raises(click.BadParameter, match=r"finite|not in the range"):
        option.type.convert(text, option, None)


@pytest.mark.parametrize("hours", ["nan", "inf", "-1"])
def test_the_command_says_so(hours: str):
    ran = zipbatch("purify", "anything", "--store", "anywhere", "--max-hours", hours)
    assert (ran.code, ran.out) == (2, "")
    assert "--max-hours" in ran.err
    assert hours in ran.err
