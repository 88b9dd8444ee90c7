"""Log lines: text for people or JSON for machines, the same in a run's first process and in its workers."""

from __future__ import annotations

import io
import json
import logging
import secrets
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from zipbatch.errors import printable
from zipbatch.spelling import as_read

Style = Literal["text", "json"]
Line = dict[str, Any]
"""What a worker sends of a log record: the attributes that ``logging.makeLogRecord`` takes."""

FIELDS = ("shard", "seconds", "samples", "worker", "progress")
"""What ``extra=`` of a log call may add to a line."""

PROGRESS = "zipbatch.progress"
"""The logger that says how far a run has got: heard unless only errors are wanted."""

_KEPT_LINES = 1000


@dataclass(frozen=True)
class LogSettings:
    """How a process logs; picklable. ``run`` is the id of the run, which every JSON line carries."""

    style: Style = "text"
    level: int = logging.WARNING
    run: str = ""


def new_run_id() -> str:
    """An id that sorts by time, to the second in UTC, and ends in chance: ``20260131T030000Z-1f9a3c7e``."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def utc(seconds: float) -> str:
    """Seconds since 1970 as ``2026-01-31T03:00:00.123Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(logging.Formatter):
    """A record as one line of ASCII JSON."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        """``time level logger message run``, those of ``FIELDS`` that the record has, and a traceback if there is."""
        line: Line = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": as_read(record.getMessage()),
            "run": self._run,
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info and record.exc_text is None:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["traceback"] = record.exc_text
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """A record as a line for people; how far a run has got is told plainly, with the time."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._plain = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """``10:35:02 message`` of ``PROGRESS``, ``LEVEL logger: message`` of all others."""
        line = self._plain.format(record) if record.name == PROGRESS else super().format(record)
        return as_read(line)


class _Printable(logging.StreamHandler[TextIO]):
    """Writes no control characters, whatever a line repeats."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


_settings = LogSettings()
_handlers: list[logging.Handler] = []


def settings() -> LogSettings:
    """How this process logs; what its workers should be given."""
    return _settings


def configure(wanted: LogSettings, stream: TextIO | None = None, *, kept: KeptLines | None = None) -> None:
    """Log as ``wanted`` to ``stream`` (stderr as it is now), and into ``kept`` as well. Replaces an earlier setting."""
    global _settings  # noqa: PLW0603  logging itself is one for a process
    root = logging.getLogger()
    handler = _Printable(stream)
    handler.setFormatter(JsonLines(wanted.run) if wanted.style == "json" else TextLines())
    for old in _handlers:
        root.removeHandler(old)
    _handlers[:] = [handler] if kept is None else [handler, kept]
    for new in _handlers:
        root.addHandler(new)
    _settings = wanted
    root.setLevel(max(wanted.level, logging.WARNING))
    logging.getLogger("zipbatch").setLevel(wanted.level)
    logging.getLogger(PROGRESS).setLevel(
        min(logging.INFO, wanted.level) if wanted.level < logging.ERROR else wanted.level
    )
    logging.captureWarnings(wanted.style == "json" or wanted.level > logging.WARNING)
    logging.raiseExceptions = False  # stderr may be closed: that must not end a run


class KeptLines(logging.Handler):
    """A worker's last lines, to be sent with its next answer."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker
        self._lines: deque[Line] = deque(maxlen=_KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what can be sent: text and numbers."""
        line: Line = {name: getattr(record, name) for name in ("name", "levelno", "levelname", "created")}
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        text = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._lines.append({"worker": self._worker, **line, "msg": record.getMessage(), "exc_text": text})

    def drain(self) -> tuple[Line, ...]:
        """The lines since the last call."""
        lines: list[Line] = []
        while self._lines:
            lines.append(self._lines.popleft())
        return tuple(lines)


def log_lines(lines: Iterable[Line]) -> None:
    """Log what a worker has sent, as if it had happened here."""
    for line in lines:
        logging.getLogger(line["name"]).handle(logging.makeLogRecord(line))


class LoggedStream(io.TextIOBase):
    """A text stream whose lines become log records: for whatever prints to stderr when only JSON belongs there."""

    def __init__(self) -> None:
        self._log = logging.getLogger("stderr")
        self._parts = threading.local()

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str) -> int:
        """Log the lines that are whole; the rest waits for its end."""
        *lines, self._parts.rest = (getattr(self._parts, "rest", "") + text).split("\n")
        for line in lines:
            if line.strip():
                self._log.warning("%s", line.rstrip())
        return len(text)


@contextmanager
def only_log_lines() -> Iterator[None]:
    """Turn what is printed to stderr into log lines, warnings all. Logging must go to the real stderr already."""
    real = sys.stderr
    sys.stderr = LoggedStream()
    try:
        yield
    finally:
        sys.stderr = real
