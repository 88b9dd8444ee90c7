"""Splits by their names."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from zipbatch.errors import UsageError


def check_splits(where: object, there: Collection[str], wanted: Iterable[str]) -> None:
    """Raises ``UsageError`` for a split that is wanted and not there; says what there is.

    Args:
        where: what lacks it, for the message.
        there: names of the splits that it has, in order.
        wanted: names that a user gave.
    """
    for split in wanted:
        if split not in there:
            raise UsageError(f"{where}: no split {split!r}; it has {', '.join(there)}")
