"""Log lines: what a line holds, what a worker sends, and what becomes of text that is printed."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest

from zipbatch.logs import (
    JsonLines,
    KeptLines,
    LogSettings,
    configure,
    log_lines,
    new_run_id,
    only_log_lines,
    settings,
    utc,
)

log = logging.getLogger("zipbatch.tests")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Logging as JSON lines at INFO, and put back afterwards."""
    before, raises = settings(), logging.raiseExceptions
    stream = io.StringIO()
    configure(LogSettings("json", logging.INFO, run="r1"), stream)
    yield stream
    configure(before)
    logging.raiseExceptions = raises


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_message_run_and_what_extra_adds(stream: io.StringIO):
    log.info("%s: %.1f s", "a.tar", 2.0, extra={"shard": "a.tar", "seconds": 2.0, "samples": 7, "other": "no"})
    (line,) = lines(stream)
    when = line.pop("time")
    assert line == {
        "level": "info",
        "logger": "zipbatch.tests",
        "message": "a.tar: 2.0 s",
        "run": "r1",
        "shard": "a.tar",
        "seconds": 2.0,
        "samples": 7,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)


def test_time_is_utc_to_the_millisecond():
    assert utc(0.1234) == "1970-01-01T00:00:00.123Z"
    record = logging.makeLogRecord({"created": 1_000_000_000.5, "msg": "x", "levelname": "ERROR"})
    assert json.loads(JsonLines("r").format(record))["time"] == "2001-09-09T01:46:40.500Z"


@pytest.mark.parametrize("text", ["two\nlines", "a\u2028b", "ü\x1b[31m", "lone \udc80", "\x00"], ids=ascii)
def test_whatever_the_text_a_record_is_one_line_of_ascii(text: str):
    """Formatted, not logged: pytest would repeat what is logged in its report, which has to be UTF-8."""
    line = JsonLines("r").format(logging.makeLogRecord({"msg": text, "levelname": "WARNING"}))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["message"] == text


def test_a_traceback_is_part_of_its_line(stream: io.StringIO):
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception("failed")
    (line,) = lines(stream)
    assert "ZeroDivisionError: division by zero" in line["traceback"]


def test_a_run_id_sorts_by_time_and_is_never_the_same():
    ids = [new_run_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}", run) for run in ids)
    assert [run[:16] for run in ids] == sorted(run[:16] for run in ids)
    datetime.strptime(ids[0][:16], "%Y%m%dT%H%M%SZ")


def test_what_a_worker_kept_is_logged_with_its_name_and_the_time_it_happened(stream: io.StringIO):
    kept = KeptLines("node-a:17")
    log.addHandler(kept)
    try:
        log.warning("going on with batches of %d", 8, extra={"shard": "a.tar", "other": object()})
        log.error("broken", exc_info=ValueError("why"))
    finally:
        log.removeHandler(kept)
    here = lines(stream)
    stream.truncate(0)
    stream.seek(0)
    log_lines(pickle.loads(pickle.dumps(kept.drain())))
    assert kept.drain() == ()
    assert lines(stream) == [{**line, "worker": "node-a:17"} for line in here]
    assert "ValueError: why" in lines(stream)[1]["traceback"]


def test_a_worker_keeps_its_last_lines_only():
    kept = KeptLines("w")
    for number in range(5000):
        kept.emit(logging.makeLogRecord({"msg": str(number)}))
    sent = kept.drain()
    assert [sent[0]["msg"], sent[-1]["msg"], len(sent)] == ["4000", "4999", 1000]


def test_printed_text_and_warnings_become_lines(stream: io.StringIO):
    real = sys.stderr
    with only_log_lines():
        print("half a ", end="", file=sys.stderr)  # noqa: T201
        print("line\n\nand another", file=sys.stderr)  # noqa: T201
        assert not sys.stderr.isatty()
        warnings.warn("old", stacklevel=1)
    assert sys.stderr is real
    messages = [line["message"] for line in lines(stream)]
    assert messages[:2] == ["half a line", "and another"]
    assert "UserWarning: old" in messages[2]


def test_a_quiet_process_logs_errors_alone():
    before, stream = settings(), io.StringIO()
    try:
        configure(LogSettings("text", logging.ERROR), stream)
        log.warning("no")
        logging.getLogger("other").warning("no")
        with only_log_lines():
            print("no", file=sys.stderr)  # noqa: T201
        log.error("yes")
    finally:
        configure(before)
    assert stream.getvalue() == "ERROR zipbatch.tests: yes\n"


def test_a_broken_stream_ends_nothing():
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    before = settings()
    try:
        configure(LogSettings("json"), Broken())
        with only_log_lines():
            log.error("unheard")
    finally:
        configure(before)
