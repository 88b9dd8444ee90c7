"""The errors users see. Each message names the file, key or field, and the next step."""

from __future__ import annotations

import json
import re
from typing import ClassVar, Literal

_UNSEEN = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"
    "\\ud800-\\udc9f\\udd00-\\udfff\\U000e0000-\\U000e007f]"
)
"""What moves a terminal's cursor, changes its state or turns text around, and halves of characters; but for those that
stand for the bytes A0 to FF of file names that are not UTF-8, which are printed as they are.
"""


def printable(text: str) -> str:
    """Text as it may be shown: control characters but newline and tab as JSON writes them, ``\\u001b``.

    Names in data and what others' tools say could else rewrite a terminal or a log. JSON stays the same JSON.
    """
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


class ZipbatchError(Exception):
    """An error with a message for the user and an exit code for the shell.

    ``outcome`` is what reports call an end by it, where the exit code does not say that.
    """

    exit_code = 1
    outcome: ClassVar[Literal["not tagged", "time is up"] | None] = None


class UsageError(ZipbatchError):
    """The request cannot be carried out as asked: a setting, a config, a missing or unfit input. Exit 2."""

    exit_code = 2


class DataError(ZipbatchError):
    """Data is not what it claims to be. Exit 1: the rest of a run goes on.

    Args:
        where: file or shard.
        reason: what is wrong with it.
        key: sample key, when one sample is to blame.
    """

    def __init__(self, where: object, reason: str, *, key: str | None = None) -> None:
        where = str(where).replace("\n", "\\n")
        self.where, self.reason, self.key = where, reason, key
        super().__init__(f"{where}: key {key!r}: {reason}" if key is not None else f"{where}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_data_error, (self.where, self.reason, self.key))


def _rebuild_data_error(where: str, reason: str, key: str | None) -> DataError:
    return DataError(where, reason, key=key)


class WorkFailed(ZipbatchError):
    """Some work of a run failed; what was published stays valid and a rerun finishes the rest. Exit 1."""


class NotTaggedError(WorkFailed):
    """A version was published, but the tag that was to point to it stays where a later run moved it. Exit 1."""

    outcome = "not tagged"


class TimeIsUp(WorkFailed):
    """A run used up the time it was given and stopped in order, its work unfinished. Exit 1."""

    outcome = "time is up"


class Cancelled(ZipbatchError):
    """The run was interrupted and stopped at a safe point. Exit 130."""

    exit_code = 130
