"""Join a Ray cluster or start an embedded one, and leave it, with signals and stderr in our own hands.

Ray takes SIGTERM for itself, starts processes that live as long as the thread that started them, may wait a quarter of
an hour for a cluster that is not there, and writes to file descriptor 2. So it starts and ends in a thread of its
own, for which this one waits in steps that a signal interrupts; what it writes becomes log lines.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import ray

from zipbatch.cluster.types import Workers
from zipbatch.errors import UsageError, WorkFailed, ZipbatchError
from zipbatch.spelling import setting

log = logging.getLogger(__name__)
START_S = 120.0
"""How long an embedded cluster may take to start, or a running one to let us in."""
PROBE_S = 5.0
STEP_S = 0.2
LEAVE_S = 20.0
_OBJECT_STORE_BYTES = 100 * 1024**2
_HOST_PORT = re.compile(r"(?:ray://)?(?P<host>[^/\s]+):(?P<port>\d{1,5})")
_WITHOUT = "‹workers=0› does without Ray"


@contextmanager
def connected(workers: Workers) -> Iterator[None]:
    """Be on the cluster of ``workers.address``, or on an embedded one, within.

    Raises:
        UsageError: the address is none, nobody answers there, or the cluster does not let us in.
        WorkFailed: an embedded cluster cannot be started here.
    """
    if workers.address is not None:
        _probe(workers.address)
    session = _Session(_options(workers))
    with _own_stderr(session) as said, redirect_stdout(sys.stderr):
        try:
            session.start()
        except Exception as error:
            raise _told(workers, error, said) from error
        finally:
            session.end_unless_up()
        try:
            yield
        finally:
            session.leave()


def _options(workers: Workers) -> dict[str, Any]:
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if workers.address is not None:
        return {"address": workers.address, **common}
    embedded = {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    return {**embedded, "num_cpus": max(workers.workers, 1), "num_gpus": workers.gpus or 0, **common}


class _Session:
    """Ray, as long as its thread lives. The thread is a daemon: a run stopped while Ray starts does not wait for
    it, and the processes that it had started end with it.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._error: BaseException | None = None
        self._up, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)

    @property
    def ended(self) -> bool:
        """Whether Ray is neither there nor on its way."""
        return not self._thread.is_alive()

    def start(self) -> None:
        """Raises what ``ray.init`` raises, or ``TimeoutError`` after ``START_S``."""
        self._thread.start()
        until = time.monotonic() + START_S
        while not self._up.wait(STEP_S):
            if time.monotonic() > until:
                raise TimeoutError(f"no answer within {START_S:g} s")
        if self._error is not None:
            raise self._error

    def end_unless_up(self) -> None:
        """After a start that failed or was given up: end the processes that Ray has below this one. The kernel would
        end its own children with this process, but their agents take a minute to see that.
        """
        if not self._up.is_set() or self._error is not None:
            for pid in _below(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def leave(self) -> None:
        """End Ray, or stop waiting for it after ``LEAVE_S``."""
        self._leave.set()
        until = time.monotonic() + LEAVE_S
        while not self.ended and time.monotonic() < until:
            self._thread.join(STEP_S)

    def _run(self) -> None:
        try:
            ray.init(**self._options)
        except BaseException as error:  # noqa: BLE001 (told to the thread that waits)
            self._error = error
        finally:
            self._up.set()
        if self._error is None:
            self._leave.wait()
        try:
            ray.shutdown()
        except Exception as error:  # noqa: BLE001 (the work is done)
            log.info("Ray did not end in order: %s", error)


def _below(pid: int) -> set[int]:
    """Ray's processes that were started by this one, and all that are below them; as far as ``/proc`` tells."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    wanted = {child for child, parent in parents.items() if parent == pid and _is_rays(child)}
    while more := {child for child, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    return wanted


def _is_rays(pid: int) -> bool:
    try:
        return str(Path(ray.__file__).parent) in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return False


def _probe(address: str) -> None:
    """Whether anybody listens at an address, before Ray waits for it.

    Raises:
        UsageError: nobody does, or it is no address of a cluster.
    """
    if address in {"auto", "local"}:
        return
    named = _named(address)
    if address.startswith(("http://", "https://")):
        raise UsageError(
            f"{named}: is the address of a dashboard, which 'ray job submit' takes; name the cluster's own HOST:PORT, "
            "as 'ray start --head' prints it"
        )
    if (match := _HOST_PORT.fullmatch(address)) is None or not 0 < int(match["port"]) < 65536:
        raise UsageError(f"{named}: is no HOST:PORT of a Ray cluster, as 'ray start --head' prints it")
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=PROBE_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"{named}: nobody answers there ({reason}); is the cluster up, and its port open from here? Without "
            "‹address› and RAY_ADDRESS an embedded Ray is started"
        ) from error


def _named(address: str) -> str:
    """The address and where it comes from."""
    if os.environ.get("RAY_ADDRESS") == address:
        return f"RAY_ADDRESS {address}"
    return setting("address", address)


def _told(workers: Workers, error: BaseException, said: deque[str]) -> ZipbatchError:
    """What a start-up error means to whoever typed the command."""
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    heard = f" (Ray said: {said[-1]})" if said else ""
    if workers.address is not None:
        return UsageError(
            f"{_named(workers.address)}: cannot join a Ray cluster there: {first_line}{heard} (if it asks for a token, "
            "give this machine the same one: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH)"
        )
    if "AF_UNIX" in first_line:
        folder = next((os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "/tmp")  # noqa: S108
        return WorkFailed(
            f"{folder}: too long a path for Ray's sockets, which may have 107 bytes; set RAY_TMPDIR to a shorter one. "
            f"{_WITHOUT}"
        )
    if isinstance(error, PermissionError):
        return WorkFailed(
            f"{error.filename or 'Ray'}: Ray may not write there ({error.strerror}); let RAY_TMPDIR or HOME be a "
            f"folder that can be written. {_WITHOUT}"
        )
    return WorkFailed(f"Ray could not be started here: {first_line}{heard}; {_WITHOUT}")


@contextmanager
def _own_stderr(session: _Session) -> Iterator[deque[str]]:
    """Turn what is written to file descriptor 2 into log lines of level INFO; the last of them, for when all fails.
    It stays so for a session that does not end.

    Python's own stderr must lie elsewhere (``cli.main`` sees to it), or our log would come back to us: then, as under
    a caller who has not done so, nothing is turned.
    """
    said: deque[str] = deque(maxlen=20)
    if not _stderr_is_elsewhere():
        yield said
        return
    kept, (read_end, write_end) = os.dup(2), os.pipe()
    os.dup2(write_end, 2)
    os.close(write_end)
    reader = threading.Thread(target=_read_lines, args=(read_end, said), name="stderr of Ray", daemon=True)
    reader.start()
    try:
        yield said
    finally:
        if session.ended:
            os.dup2(kept, 2)
        os.close(kept)
        reader.join(1)  # a process of Ray's that is slow to end may hold the other end for longer


def _stderr_is_elsewhere() -> bool:
    for stream in (sys.stderr, *(getattr(handler, "stream", None) for handler in logging.getLogger().handlers)):
        try:
            if stream is not None and stream.fileno() == 2:
                return False
        except (OSError, ValueError, AttributeError):
            continue  # not a file at all
    return True


def _read_lines(descriptor: int, said: deque[str]) -> None:
    with os.fdopen(descriptor, errors="replace") as stream:
        for line in stream:
            if text := line.rstrip():
                said.append(text)
                logging.getLogger("zipbatch.ray").info("%s", text)
