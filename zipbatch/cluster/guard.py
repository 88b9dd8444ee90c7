"""Turn whatever happens inside a worker into a small picklable answer."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zipbatch import memory
from zipbatch.errors import Cancelled, UsageError, WorkFailed, ZipbatchError
from zipbatch.logs import Line

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``result``, or ``error`` with the ``exit_code`` it would have as a command; ``lines`` were logged meanwhile.

    ``full``: the error is that a disk has no more room.
    """

    result: Any = None
    error: str | None = None
    exit_code: int = 1
    lines: tuple[Line, ...] = ()
    full: bool = False

    def failure(self) -> UsageError | WorkFailed:
        """The error, for whoever cannot go on without the result."""
        kind = UsageError if self.exit_code == UsageError.exit_code else WorkFailed
        return kind(self.error)


def guarded(function: Callable[..., Any], *arguments: Any) -> Answer:
    """Call ``function``; an exception becomes an error that is reported, never retried."""
    try:
        return Answer(result=function(*arguments))
    except Cancelled:
        raise
    except ZipbatchError as error:
        return Answer(error=str(error), exit_code=error.exit_code)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        hint = "; free some space and run again" if full else ""
        return Answer(error=f"{error.filename or 'I/O'}: {error.strerror or error}{hint}", full=full)
    except Exception as error:  # the boundary of a worker: one bad shard must not stop the others
        if memory.is_lacking(error):
            return Answer(error=f"out of memory ({error or 'no more of it'}); {memory.NEXT_STEP}")
        log.exception("worker failed")
        return Answer(error=f"internal error: {type(error).__name__}: {error} (please report it)")
