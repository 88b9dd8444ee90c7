"""The errors users see. Each message names the file, key or field, and the next step."""

from __future__ import annotations


class ZipbatchError(Exception):
    """An error with a message for the user and an exit code for the shell."""

    exit_code = 1


class UsageError(ZipbatchError):
    """The request cannot be carried out as asked: a flag, a config, a missing or unfit input. Exit 2."""

    exit_code = 2


class DataError(ZipbatchError):
    """Data is not what it claims to be. Exit 1: the rest of a run goes on.

    Args:
        where: file or shard.
        reason: what is wrong with it.
        key: sample key, when one sample is to blame.
    """

    def __init__(self, where: object, reason: str, *, key: str | None = None) -> None:
        self.where, self.reason, self.key = str(where), reason, key
        super().__init__(f"{where}: key {key!r}: {reason}" if key is not None else f"{where}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_data_error, (self.where, self.reason, self.key))


def _rebuild_data_error(where: str, reason: str, key: str | None) -> DataError:
    return DataError(where, reason, key=key)


class WorkFailed(ZipbatchError):
    """Some work of a run failed; what was published stays valid and a rerun finishes the rest. Exit 1."""


class TimeIsUp(WorkFailed):
    """A run used up the time it was given and stopped in order, its work unfinished. Exit 1."""


class Cancelled(ZipbatchError):
    """The run was interrupted and stopped at a safe point. Exit 130."""

    exit_code = 130
