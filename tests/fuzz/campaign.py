"""Ask a target about many damaged inputs, and watch what else it does."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import OURS, TARGETS

LIMIT_S = 10.0
LIMIT_MB = 1024
"""How much further the peak of memory may go while a campaign runs."""
_RUNS_CODE = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn"}
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate"}


class HungError(BaseException):
    """Not an ``Exception``, so that no parser takes it for its own."""


class EscapedError(BaseException):
    """The parser ran a program, or changed something outside of its folder."""


@dataclass
class Watch:
    """An audit hook that tells, while it is on, of programs that are run and of changes outside of ``folder``."""

    folder: str = ""
    found: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event in _RUNS_CODE:
            self.found.append(f"{event} {arguments[:1]}")
        elif (event in _CHANGES or (event == "open" and _writes(arguments))) and isinstance(arguments[0], str | bytes):
            place = str(Path(os.fsdecode(arguments[0])).absolute())
            if not place.startswith((self.folder, "/dev/", "/proc/")) and "__pycache__" not in place:
                self.found.append(f"{event} {place}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2] if len(arguments) > 2 else 0
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@dataclass(frozen=True)
class Finding:
    """An input that broke something, and how."""

    index: int
    data: bytes
    how: str


@dataclass
class Result:
    """What a campaign saw. ``accepted`` inputs were read, the others refused, by kind of error."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest_s: float = 0.0
    grown_mb: float = 0.0
    seconds: float = 0.0


_WATCH = Watch()
_HOOKED: list[bool] = []


@contextmanager
def _watched(folder: Path) -> Iterator[Watch]:
    if not _HOOKED:
        sys.addaudithook(_WATCH)
        _HOOKED.append(True)
    _WATCH.folder, _WATCH.found = str(folder), []
    try:
        yield _WATCH
    finally:
        _WATCH.folder = ""


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise HungError


def run(name: str, folder: Path, *, inputs: int, first: int = 0, seed: str = "zipbatch") -> Result:
    """Inputs ``first`` to ``first + inputs`` of a target, which depend on their number and ``seed`` alone.

    Each is read, or refused with an error of ours; anything else is a finding: another exception, more than ``LIMIT_S``
    seconds, a program that is run, a file that is written outside of ``folder``. ``folder`` is empty before.
    """
    target = TARGETS[name]
    result = Result(name)
    (folder / "seeds").mkdir(parents=True)
    (folder / "in").mkdir()
    seeds = target.seeds(folder / "seeds")
    ask = target.ask(folder / "in")
    for data in seeds:
        with _quietly(OURS + target.own_errors):
            ask(data)  # what is loaded when it is first used is loaded now
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    old = signal.signal(signal.SIGALRM, _hang)
    try:
        for index in range(first, first + inputs):
            data = mutated(random.Random(f"{seed}/{name}/{index}"), seeds, target.codecs)
            began = time.monotonic()
            how = _ask(ask, data, folder, OURS + target.own_errors, result)
            result.inputs += 1
            result.slowest_s = max(result.slowest_s, time.monotonic() - began)
            if how:
                result.findings.append(Finding(index, data, how))
    finally:
        signal.signal(signal.SIGALRM, old)
    result.seconds = time.monotonic() - started
    result.grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return result


@contextmanager
def _quietly(errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except errors:
        pass


def _ask(ask: Any, data: bytes, folder: Path, errors: tuple[type[Exception], ...], result: Result) -> str | None:
    """Ask once; what is wrong with what came of it."""
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    with _watched(folder) as watch:
        try:
            ask(data)
            result.accepted += 1
        except errors as error:
            result.refused[type(error).__name__] += 1
        except HungError:
            return f"over {LIMIT_S:g} s"
        except Exception as error:  # what a finding is
            where = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in where if "/zipbatch/" in frame.filename]
            at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
            return f"{type(error).__name__} at {at}: {str(error)[:150]}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if watch.found:
            return f"escaped: {watch.found[0]}"
    return None
