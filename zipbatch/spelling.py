"""How messages name a setting, so that each reader finds it spelled as they give it.

A message says ``‹resize='stretch'›`` where it speaks of a setting: a *reference*. Who shows the message spells it, the
command line as ``--resize stretch``, a pipeline as ``resize: stretch``, Python as ``resize="stretch"``. A reference
is plain text: it passes through other messages, workers and logs as it is, and can be read where nobody spells it.
Messages hold ``‹quarantine=True›`` and ``‹gpus N›``, with a word for a value that is the reader's to choose, as they
are; ``setting`` makes a reference of a value that is found at run time.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath

_REFERENCE = re.compile(r"‹([a-z][a-z0-9_]*)(?:=([^‹›]{1,5000})| ([^‹›]{1,100}))?›")
_TOLD = {"message", "reason"}
"""Attributes of errors that are text for people."""
_QUOTED = {"‹": "\\u2039", "›": "\\u203a"}


@dataclass(frozen=True)
class Setting:
    """A setting as a message names it.

    Attributes:
        name: of the field of a request.
        values: the value that is spoken of, alone in a tuple; empty where the setting is spoken of as such.
        blank: what stands for a value that is the reader's to choose: ``N``, ``FILE.csv``.
    """

    name: str
    values: tuple[object, ...] = ()
    blank: str | None = None


Spell = Callable[[Setting], str | None]
"""A setting as a reader gives it; None where it is not theirs to give."""


def setting(name: str, value: object) -> str:
    """A reference to a setting with a value.

    Args:
        name: of the field of a request.
        value: text, a number, a truth value, a path, or a list or mapping of these.
    """
    return f"‹{name}={_literal(value)}›"


def _literal(value: object) -> str:
    """A value as ``ast.literal_eval`` reads it, without the marks of references."""
    if isinstance(value, PathLike):
        value = fspath(value)
    text = repr(value if isinstance(value, str | int | float | list | dict) else str(value))
    return "".join(_QUOTED.get(letter, letter) for letter in text)


def spelled(text: str, spell: Spell) -> str:
    """Text whose references are spelled; those that ``spell`` leaves stay."""
    return _REFERENCE.sub(lambda found: _spelled(found, spell), text) if "‹" in text else text


def _spelled(found: re.Match[str], spell: Spell) -> str:
    name, literal, blank = found.groups()
    try:
        values = () if literal is None else (_value(literal),)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return found[0]  # no reference of ours
    said = spell(Setting(name, values, blank))
    return found[0] if said is None else said


def _value(literal: str) -> object:
    """What ``setting`` made a literal of.

    Raises:
        ValueError, TypeError, SyntaxError, MemoryError, RecursionError: it is nothing of that kind.
    """
    value = ast.literal_eval(literal)
    json.dumps(value)  # raises TypeError for bytes and the like
    return value


_readers: list[Spell] = []
"""How those spell settings to whom this process tells something, the outermost first."""


def as_read(text: str) -> str:
    """Text as those read it to whom it is told here; as it is where nobody has said how they spell settings."""
    for spell in reversed(_readers):
        text = spelled(text, spell)
    return text


@contextmanager
def readers_spell(spell: Spell) -> Iterator[None]:
    """While this lasts, what is told, and what errors that leave it say, is spelled so, before any around it spells.

    Raises:
        Exception: that of the work, its message spelled.
    """
    _readers.append(spell)
    try:
        yield
    except Exception as error:
        _respell(error, spell)
        raise
    finally:
        _readers.remove(spell)


def _respell(error: Exception, spell: Spell) -> None:
    """Spell what an error says, in its arguments and where it keeps that by name."""
    if any(isinstance(part, str) and "‹" in part for part in error.args):
        error.args = tuple(spelled(part, spell) if isinstance(part, str) else part for part in error.args)
    for name in _TOLD & vars(error).keys():
        if isinstance(said := getattr(error, name), str):
            setattr(error, name, spelled(said, spell))
