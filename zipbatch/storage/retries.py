"""How long object stores are waited for, and what is told of those that fail: the URL, and never a credential."""

from __future__ import annotations

import errno
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from zipbatch.errors import UsageError, WorkFailed

T = TypeVar("T")
_LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE}
_PASSING_CODES = {"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"}
_PASSING_STATUS = {408, 409, 429}
_WAIT_LIMIT_S = 15.0


class UnreachableError(WorkFailed):
    """An object store gave no usable answer, for as long as there was patience for it."""


class RefusedError(UsageError):
    """An object store answered that it will not; ``code`` is its reason, such as ``PreconditionFailed``."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class RetryPolicy:
    """How long an operation may take: each try ``timeout_s`` without a byte, between tries twice as long each time."""

    tries: int = 5
    timeout_s: float = 60.0
    first_wait_s: float = 0.5

    @classmethod
    def from_environment(cls) -> RetryPolicy:
        """``ZIPBATCH_REMOTE_TRIES`` and ``ZIPBATCH_REMOTE_TIMEOUT`` (seconds), or the defaults.

        Raises:
            UsageError: one of them is no positive number.
        """
        return cls(
            tries=math.ceil(positive("ZIPBATCH_REMOTE_TRIES", cls.tries)),
            timeout_s=positive("ZIPBATCH_REMOTE_TIMEOUT", cls.timeout_s),
        )

    def wait(self, attempt: int) -> None:
        """Wait before the given repetition, from 1 on; a random part keeps many workers from coming back at once."""
        time.sleep(min(_WAIT_LIMIT_S, self.first_wait_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1))


def positive(variable: str, default: float) -> float:
    """A positive number from the environment.

    Raises:
        UsageError: it is something else.
    """
    text = os.environ.get(variable, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0
    if not 0 < value < 1e12:
        raise UsageError(f"{variable}={text}: must be a number above 0")
    return value


def with_retries(url: str, call: Callable[[], T], policy: RetryPolicy) -> T:
    """The result of ``call``; what may pass is tried again.

    Raises:
        FileNotFoundError: there is no such object.
        RefusedError: the answer was no.
        UnreachableError: it failed as often as patience allows.
    """
    attempt = 1
    while True:
        try:
            return call()
        except Exception as error:  # every client library has errors of its own
            if isinstance(error, OSError) and (error.errno in _LOCAL or _is_local(error)):
                raise
            if (final := _final(url, error)) is not None:
                raise final from error
            if attempt == policy.tries:
                raise UnreachableError(
                    f"{url}: cannot be reached: {_reason(error)}, {attempt} tries; check the network and the "
                    "endpoint, then run the same command again"
                ) from error
        policy.wait(attempt)
        attempt += 1


def _is_local(error: OSError) -> bool:
    return error.filename is not None and not isinstance(error, FileNotFoundError) and Path(error.filename).exists()


def _final(url: str, error: Exception) -> Exception | None:
    """What to tell of an error that another try would not mend; None when it might. Never the server's own words."""
    code, status = _code(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        return not_there(url)
    why = _refusal(error, code, status)
    return None if why is None else RefusedError(f"{url}: {why}", code)


def _refusal(error: Exception, code: str, status: int | None) -> str | None:
    if "Credential" in type(error).__name__:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, PermissionError) or status in {401, 403}:
        because = f" ({code})" if code else ""
        return f"access denied{because}; check the credentials in the environment: they must read, write and list there"
    if code in _PASSING_CODES or status in _PASSING_STATUS:
        return None
    if status is not None and (300 <= status < 500 or status == 501):
        return f"refused ({code or status})"
    if isinstance(error, NotImplementedError | ImportError | ValueError | TypeError | KeyError):
        return f"cannot be used ({type(error).__name__})"
    return None


def _code(error: BaseException) -> tuple[str, int | None]:
    """The server's error code and HTTP status, as botocore keeps them in the error or its cause."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return str(response.get("Error", {}).get("Code", "")), status if isinstance(status, int) else None
    return "", None


def _reason(error: Exception) -> str:
    code, status = _code(error)
    if status is not None:
        return f"it answers {status} {code}".rstrip()
    return "no answer in time" if "Timeout" in type(error).__name__ else type(error).__name__


def not_there(url: str) -> FileNotFoundError:
    """The error for an object that is missing."""
    return FileNotFoundError(errno.ENOENT, "there is no such object", url)
