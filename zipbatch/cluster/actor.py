"""The Ray actor that holds a worker."""

from __future__ import annotations

import contextvars
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ray

from zipbatch import __version__
from zipbatch.cluster.guard import Answer, guarded
from zipbatch.cluster.types import Setup, WorkerContext
from zipbatch.errors import Cancelled, UsageError
from zipbatch.logs import KeptLines, LogSettings, configure
from zipbatch.memory import usual_share
from zipbatch.storage import StoragePath

Sent = Mapping[Path, "ray.ObjectRef[Any]"]
_CALL: contextvars.ContextVar[int] = contextvars.ContextVar("call")


class Heartbeat(NamedTuple):
    """How long ago a call last showed life, in seconds, and how far its task is, in units of its own."""

    idle_s: float
    done: int


class WorkerActor:
    """Holds one worker. It is built on first use, so that a restarted actor builds it anew by itself.

    Args:
        setup: builds the worker.
        device: ``auto``, ``cpu`` or ``cuda``.
        compute threads: computations at once.
        version: of the driver's zipbatch.
        logs: how the driver logs; lines go back to it with each answer.
        memory: bytes that images in its hands may take; None for the usual share.
        in_flight: tasks it is given at once.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        device: str,
        compute_threads: int,
        version: str,
        logs: LogSettings,
        memory: int | None = None,
        in_flight: int = 1,
    ) -> None:
        self._setup, self._device, self._compute_threads, self._version = setup, device, compute_threads, version
        self._memory, self._in_flight = memory, in_flight
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._built: Answer | None = None
        self._signs: dict[int, float] = {}
        self._far: dict[int, int] = {}
        self._lines = KeptLines(f"{socket.gethostname()}:{os.getpid()}")
        configure(logs, kept=self._lines)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the driver says when to stop, and where

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def ready(self, sent: Sent) -> Answer:
        """Build the worker; the error of a worker that cannot be built. Ray repeats the call until an actor is up.

        ``sent`` are files of the driver's machine, as references to their bytes; none where the disk is the driver's.
        """
        with self._lock:
            if self._built is None:
                self._built = guarded(self._build, sent)
            return Answer(error=self._built.error, exit_code=self._built.exit_code)

    def run(self, call: int, task: Any, sent: Sent) -> Answer:
        """Run one task; never raises for what happens in it. ``call`` tells it from others in ``heartbeats``."""
        ready: Answer = self.ready(sent)
        if ready.error is not None:
            return ready
        assert self._built is not None
        token = _CALL.set(call)
        self._signs[call] = time.monotonic()
        try:
            return replace(guarded(self._built.result, task), lines=self._lines.drain())
        finally:
            _CALL.reset(token)
            del self._signs[call]
            self._far.pop(call, None)

    def heartbeats(self) -> dict[int, Heartbeat]:
        """A sign of life of each call that runs."""
        now = time.monotonic()
        return {call: Heartbeat(now - seen, self._far.get(call, 0)) for call, seen in self._signs.copy().items()}

    def stop(self) -> None:
        """Let what runs come to its next safe point and go no further."""
        self._stopping.set()

    def _heartbeat(self) -> None:
        if self._stopping.is_set():
            raise Cancelled("the run is being stopped")
        call = _CALL.get(None)
        if call in self._signs:
            self._signs[call] = time.monotonic()

    def _progress(self, done: int) -> None:
        if (call := _CALL.get(None)) is not None:
            self._far[call] = done

    def _build(self, sent: Sent) -> Any:
        label = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "actor": ray.get_runtime_context().get_actor_id(),
        }
        if self._version != __version__:
            raise UsageError(
                f"{label['host']} has zipbatch {__version__}, this machine {self._version}; install the same everywhere"
            )
        with tempfile.TemporaryDirectory(prefix="zipbatch-") as folder:
            files: dict[StoragePath, Path] = {
                path: _written(ref, Path(folder) / str(i) / path.name) for i, (path, ref) in enumerate(sent.items())
            }
            context = WorkerContext(
                device=self._device,
                compute_threads=self._compute_threads,
                heartbeat=self._heartbeat,
                label=label,
                files=files,
                progress=self._progress,
                memory=self._memory or usual_share(self._compute_threads),
                in_flight=self._in_flight,
            )
            return self._setup(context)


def _written(ref: ray.ObjectRef[Any], path: Path) -> Path:
    """Bytes from the node's object store as a file, for readers that want one."""
    path.parent.mkdir()
    ray.get(ref).tofile(path)
    return path
