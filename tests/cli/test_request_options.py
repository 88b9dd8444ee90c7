"""Options of a command come from its request: names, limits, defaults and help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import Field

from zipbatch.cli.request_options import options_of
from zipbatch.config import Option, Request


class Order(Request):
    size: Annotated[int, Field(ge=1, le=9), Option("How large.", metavar="N")] = 3
    share: Annotated[float | None, Field(gt=0), Option("How much.", default="all")] = None
    kind: Annotated[Literal["red", "blue"], Option("Which.")] = "red"
    names: Annotated[tuple[str, ...], Option("Who; repeats.", flag="name")] = ()
    set: Annotated[dict[str, Any], Option("Settings.", metavar="NAME=VALUE")] = Field(default_factory=dict)
    params: Annotated[dict[str, str], Option(flag="param")] = Field(default_factory=dict)
    weights: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Option("Of each; repeats.", flag="weight")] = ()
    quick: Annotated[bool, Option("In haste.")] = False
    move: Annotated[bool | None, Option("Or don't.")] = None
    out: Annotated[Path, Option("Where to.", metavar="DIR")]


def order(*typed: str, model: type[Request] = Order, defaults: dict[str, Any] | None = None, **settings: Any) -> Any:
    seen: list[Any] = []

    @click.command()
    @options_of(model, **settings)
    def command(**given: Any) -> None:
        seen.append(given[settings.get("name", "request")])

    result = CliRunner().invoke(command, typed, default_map=defaults)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return seen[0] if seen else result.output


def test_defaults_are_those_of_the_request():
    assert order("--out", "x") == Order(out=Path("x"))


def test_every_kind_of_value():
    typed = "--size 9 --share .5 --kind blue --name a --name b --set x=1 --set y=null --param z=null --quick --no-move"
    assert order(*typed.split(), "--weight", "2", "--weight", ".5", "--out", "x") == Order(
        size=9,
        share=0.5,
        kind="blue",
        names=("a", "b"),
        set={"x": "1", "y": None},
        params={"z": "null"},
        weights=(2, 0.5),
        quick=True,
        move=False,
        out=Path("x"),
    )


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--size", "10"], "'--size': 10 is not in the range 1<=x<=9"),
        (["--share", "0"], "'--share': 0.0 is not in the range x>0"),
        (["--share", "nan"], "'--share': 'nan' is not a finite number"),
        (["--weight", "0"], "'--weight': 0.0 is not in the range x>0"),
        (["--kind", "green"], "'--kind': 'green' is not one of 'red', 'blue'"),
        ([], "Missing option '--out'"),
    ],
)
def test_limits(typed: list[str], told: str):
    assert told in order(*typed, *(["--out", "x"] if typed else []))


def test_help_says_default_and_limits_once():
    text = re.sub(r"\s+", " ", order("--help"))
    for line in (
        "--size N How large. [default: 3; 1<=x<=9]",
        "How much. [default: all] [x>0]",
        "--kind [red|blue] Which. [default: red]",
        "--name TEXT Who; repeats.",
        "--quick In haste.",
        "--move / --no-move Or don't.",
        "--out DIR Where to. [required]",
    ):
        assert line in text, text


def test_what_the_command_finds_out_itself_is_no_option():
    made = order("--size", "2", without=("out",))
    assert made(out=Path("there")) == Order(size=2, out=Path("there"))
    assert "--out" not in order("--help", without=("out",))


def test_first_fields_are_listed_first_and_last_ones_last():
    text = order("--help", first=("out", "kind"), last=("share", "size"))
    assert text.index("--out") < text.index("--kind") < text.index("--name") < text.index("--share")
    assert text.index("--move") < text.index("--share") < text.index("--size")


def test_the_request_says_what_was_given():
    """A flag at its default is given, too."""
    typed = ("--size", "3", "--name", "a", "--out", "x", "--quick")
    assert order(*typed).given("quick", "names", "kind", "size") == ["quick", "names", "size"]
    assert order("--out", "x").model_fields_set == {"out"}


def test_a_command_may_call_it_something_else():
    assert order("--out", "x", name="wanted") == Order(out=Path("x"))


class Recipe(Request):
    heat: Annotated[int, Field(ge=1), Option("Of the oven.", metavar="C")] = 200
    fan: Annotated[bool, Option("With air.")] = False
    minutes: Annotated[float | None, Field(gt=0), Option(metavar="MIN")] = None
    sugar: int = 3


class OverPreset(Request):
    set: Annotated[dict[str, Any], Option(settings_of=Recipe, default="the preset's")] = Field(default_factory=dict)


class Plain(Request):
    set: Annotated[dict[str, Any], Option(settings_of=Recipe)] = Field(default_factory=dict)


def test_settings_of_a_model_that_are_given_and_no_others_get_into_the_mapping():
    assert order(model=OverPreset) == OverPreset()
    assert order("--heat", "200", "--no-fan", model=OverPreset).set == {"heat": 200, "fan": False}
    assert order("--fan", "--minutes", ".5", model=Plain).set == {"fan": True, "minutes": 0.5}


def test_a_users_defaults_count_as_given():
    assert order(model=OverPreset, defaults={"heat": 90}).set == {"heat": 90}
    assert order("--heat", "80", model=OverPreset, defaults={"heat": 90}).set == {"heat": 80}


def test_limits_of_settings_of_a_model():
    assert "'--heat': 0 is not in the range x>=1" in order("--heat", "0", model=OverPreset)
    assert "'--minutes': 0.0 is not in the range x>0" in order("--minutes", "0", model=OverPreset)


def test_a_setting_of_a_model_without_an_option_has_no_flag():
    assert "No such option '--sugar'" in order("--sugar", "1", model=OverPreset)


def test_help_of_settings_of_a_model_says_whose_default_holds():
    over, own = (re.sub(r"\s+", " ", order("--help", model=model)) for model in (OverPreset, Plain))
    assert "--heat C Of the oven. [default: the preset's] [x>=1]" in over
    assert "--fan / --no-fan With air. [default: the preset's]" in over
    assert "--heat C Of the oven. [default: 200] [x>=1]" in own
    assert "--minutes MIN [x>0]" in own
