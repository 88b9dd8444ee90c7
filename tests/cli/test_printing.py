"""Nothing that is in data, or that another tool says of it, reaches a terminal or a log raw."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

import pytest

from tests.making import sample, write_shard, write_source, zipbatch
from zipbatch.cli.printing import Printable
from zipbatch.errors import DataError, printable
from zipbatch.logs import LogSettings, configure, settings

NASTY = [
    *(chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))),
    *"\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\ud800\udc9b\udfff\U000e0041",
]
ATTACK = "\x1b[2J\x1b]0;owned\x07\r\u202e\x9b31m"


def is_clean(text: str) -> bool:
    return not any(char in text for char in NASTY)


def test_printable_escapes_as_json_does():
    for char in NASTY:
        shown = printable(f"a{char}b")
        assert is_clean(shown), hex(ord(char))
        assert json.loads(f'"{shown}"') == f"a{char}b"
    kept = "tab\tline\nä 日本 ✓ 😀 \\u001b"
    assert printable(kept) == kept
    assert printable("\udca0\udcff") == "\udca0\udcff"  # bytes of a file's name, which stdout prints as they are


def test_names_in_errors_stay_on_their_line():
    assert str(DataError("a\nerror: forged.tar", "is bad", key="x\ny")) == "a\\nerror: forged.tar: key 'x\\ny': is bad"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_class_names(tmp_path: Path, form: tuple[str, ...]):
    """What is printed is clean, and JSON says the name as it is."""
    name = f"b{ATTACK}"
    source = write_source(tmp_path / "src", counts={"test": 6})
    (source / "classes.txt").write_bytes(f"ant\nbee\n{name.replace(chr(13), '')}\n".encode())
    ran = zipbatch("poison", source, "--attack", "badnets", "--target", 2, "--out", tmp_path / "out", *form)
    assert ran.code == 0, ran.err
    assert is_clean(ran.out + ran.err)
    if form:
        assert ran.json


@pytest.mark.parametrize("style", ["text", "json"])
def test_errors_and_logs(tmp_path: Path, style: str):
    ran = zipbatch(
        "--log-format", style, "-v", "import", "victim", tmp_path / f"no{ATTACK}.pth", "--out", tmp_path / "v"
    )
    assert ran.code == 2
    assert is_clean(ran.err)
    assert "\\u001b[2J" in ran.err
    before, stream = settings(), io.StringIO()
    try:
        configure(LogSettings(style="json" if style == "json" else "text"), stream)
        logging.getLogger("zipbatch.x").warning("server says %s", ATTACK)
    finally:
        configure(before)
    assert is_clean(stream.getvalue())
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\rb", "a\u202eb"])
def test_shard_names(tmp_path: Path, name: str):
    write_shard(tmp_path / "in" / f"{name}.tar", [sample("k", 0, seed=1)])
    ran = zipbatch("purify", tmp_path / "in", "--purifier", "blur", "--store", tmp_path / "pur")
    assert (ran.code, ran.out) == (2, "")
    assert is_clean(ran.err)
    assert "unprintable" in ran.err
    assert ran.err.count("\n") == 1


def test_colours_are_for_terminals():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = "\x1b[1;31mred\x1b[0m \x1b[2J"
    for inner, shown in ((Terminal(), "\x1b[1;31mred\x1b[0m \\u001b[2J"), (io.StringIO(), None)):
        Printable(inner).write(text)
        assert inner.getvalue() == shown or (shown is None and not re.search("\x1b", inner.getvalue()))
