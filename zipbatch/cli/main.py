"""The ``zipbatch`` command and its exit codes."""

from __future__ import annotations

import codecs
import errno
import io
import logging
import os
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO, cast, get_args

import click

from zipbatch import __version__, memory
from zipbatch.cli.lazy import LazyGroup, Listed
from zipbatch.cli.printing import Printable
from zipbatch.cli.run_context import RunContext
from zipbatch.cli.signals import Stop
from zipbatch.cli.spelling import flag
from zipbatch.cli.user_defaults import default_map
from zipbatch.errors import ZipbatchError, printable
from zipbatch.logs import LogSettings, Style, configure, only_log_lines, settings
from zipbatch.spelling import as_read, readers_spell
from zipbatch.user_config import user_defaults

if TYPE_CHECKING:
    from zipbatch.report.run import Ending

COMMANDS = {
    "demo": Listed("zipbatch.cli.run:demo", "Poison, purify and evaluate on an embedded sample."),
    "poison": Listed("zipbatch.cli.poison:poison", "Stage a dataset as shards, with a backdoor trigger."),
    "train": Listed("zipbatch.cli.train:train", "Train a victim, a prior or its restorer."),
    "calibrate": Listed("zipbatch.cli.calibrate:calibrate", "Learn what a prior makes of clean images."),
    "import": Listed("zipbatch.cli.imports:imports", "Take over victims, priors and data of other tools."),
    "purify": Listed("zipbatch.cli.purify:purify", "Purify shards into a versioned store."),
    "evaluate": Listed("zipbatch.cli.evaluate:evaluate", "Measure victims on suspect and purified shards."),
    "audit": Listed("zipbatch.cli.audit:audit", "Is a classifier backdoored, and by which images?"),
    "tune": Listed("zipbatch.cli.tune:tune", "Choose how to purify, from a victim's answers alone."),
    "adapt": Listed("zipbatch.cli.adapt:adapt", "Optimise a trigger that survives a defence."),
    "run": Listed("zipbatch.cli.run:run", "Run a pipeline: stages over a matrix, one table."),
    "report": Listed("zipbatch.cli.report:report", "Make pages, tables and figures from results."),
    "store": Listed("zipbatch.cli.store:store", "Look into a store of purified shards, or add to it."),
    "ls": Listed("zipbatch.cli.ls:ls", "List attacks, datasets, purifiers, presets, pipelines."),
    "schema": Listed("zipbatch.cli.schema:schema", "Print the JSON schema of a command's results."),
    "config": Listed("zipbatch.cli.config:config", "Show your defaults, and where each comes from."),
    "bench": Listed("zipbatch.cli.bench:bench", "How fast is this machine, how long will a run take?"),
    "doctor": Listed("zipbatch.cli.doctor:doctor", "Is this machine fit for the work? What to do if not."),
}
_WITHOUT_DEFAULTS = {None, "config", "demo", "ls", "schema"}
STYLES = get_args(Style)
_STYLE_VARIABLE = "ZIPBATCH_LOG_FORMAT"
_GO_ON = "what is published stays valid, run the same command again to go on"
_AWAY = "the file system does not answer; look after its mount, then run the same command again"
_PRINTED = "zipbatch-printed"
log = logging.getLogger(__name__)


def _set_style(_context: click.Context, _option: click.Parameter, style: Style) -> None:
    """Log in that style from here on, so that a mistake later in the command line is told in it too."""
    configure(replace(settings(), style=style))


@click.group(
    cls=LazyGroup, listed=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__)
@click.option("-v", "--verbose", count=True, help="Log more to stderr; twice for debugging.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing at all unless something fails: for cron.")
@click.option(
    "--log-format",
    type=click.Choice(STYLES),
    default="text",
    show_default=True,
    envvar=_STYLE_VARIABLE,
    show_envvar=True,
    is_eager=True,
    expose_value=False,
    callback=_set_style,
    help="What goes to stderr: text, or JSON lines and nothing else.",
)
@click.pass_obj
def cli(run: RunContext, verbose: int, quiet: bool) -> None:
    """Purify backdoored image shards offline (ZIP, NeurIPS 2023).

    \b
    Start here:  zipbatch demo
    """
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    configure(replace(settings(), level=level))
    context = click.get_current_context()
    if quiet or settings().style == "json":
        context.with_resource(only_log_lines())
    if quiet:
        run.held_back = io.StringIO()
        context.with_resource(redirect_stdout(run.held_back))
    log.info("run %s: %s", run.run, context.invoked_subcommand)
    if context.invoked_subcommand not in _WITHOUT_DEFAULTS:
        context.default_map = default_map(user_defaults(), cli, context, str(context.invoked_subcommand))


@dataclass(frozen=True, kw_only=True)
class _End:
    """How a command ended, and what there is to say of it."""

    code: int = 0
    error: str | None = None
    shown: click.ClickException | None = None
    outcome: Ending | None = None


def main() -> None:
    """Run the command line and leave with its exit code."""
    _open_missing_streams()
    _leave_descriptor_2_to_libraries()
    _print_what_can_be_printed()
    run = RunContext()
    stop = Stop(lambda code: _end(run, _End(code=code, error=f"stopped at once; {run.left()}{_GO_ON}")))
    stop.install()
    code = _run(run, stop)
    _leave(code, at_once=stop.came or "ray" in sys.modules)


def _leave(code: int, *, at_once: bool) -> None:
    """End the process with this code, also where nobody reads what is printed any more.

    At once where Ray was, whose library may wait for somebody who does not answer, or abort, as the interpreter ends;
    and after a signal: the interpreter remembers one that reached it within ``exec`` (of a dataclass, say), and
    under ``python -m`` would end by SIGINT, whatever code we leave with.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if at_once:
        os._exit(code)
    sys.exit(code)


def _run(run: RunContext | None = None, stop: Stop | None = None) -> int:
    run = run or RunContext()
    style = os.environ.get(_STYLE_VARIABLE, "text")
    configure(LogSettings(style="json" if style == "json" else "text", run=run.run))
    with readers_spell(flag), redirect_stdout(Printable(sys.stdout)):
        return _end(run, _carried_out(run, stop or Stop()))


def _carried_out(run: RunContext, stop: Stop) -> _End:
    try:
        answer = cli.main(prog_name="zipbatch", standalone_mode=False, obj=run)
        return _End(code=answer, outcome="done") if isinstance(answer, int) and answer else _End()
    except click.ClickException as error:
        return _End(code=error.exit_code, error=as_read(error.format_message()), shown=error)
    except ZipbatchError as error:
        return _End(code=error.exit_code, error=as_read(str(error)), outcome=error.outcome)
    except (KeyboardInterrupt, click.Abort):
        return _End(code=stop.code, error=f"{stop.how}; {run.left()}{_GO_ON}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _End(code=1)
    except OSError as error:
        return _End(code=1, error=_os_error(error))
    except Exception as error:  # the last boundary: a traceback for those who ask, one line for everyone else
        if memory.is_lacking(error):
            return _End(code=1, error=f"out of memory ({error or 'no more of it'}); {memory.NEXT_STEP}")
        log.debug("internal error", exc_info=True)
        hint = "run again with -vv for the traceback, and please report it"
        return _End(code=1, error=f"internal error: {type(error).__name__}: {error} ({hint})")


def _end(run: RunContext, end: _End) -> int:
    """Say why a run failed, and write what it was to leave; its exit code."""
    with suppress(OSError):  # nobody listens any more: the reports are all the more wanted
        if end.error is not None:
            _tell(end.error, end.shown)
        if end.code and run.held_back is not None:
            click.echo(run.held_back.getvalue(), nl=False)
    try:
        run.write_reports(end.code, end.error, outcome=end.outcome)
    except OSError as error:
        with suppress(OSError):
            _tell(f"the report of the run could not be written: {_os_error(error)}")
        return end.code or 1
    return end.code


def _tell(error: str, shown: click.ClickException | None = None) -> None:
    if settings().style == "json":
        log.error("%s", error)
    elif shown is not None:
        shown.show(cast(TextIO, Printable(sys.stderr)))
    else:
        click.echo(printable(f"error: {error}"), err=True)


def _open_missing_streams() -> None:
    """Put /dev/null where the caller closed a standard stream: the next file opened would else get what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _leave_descriptor_2_to_libraries() -> None:
    """Print to a copy of stderr, so that what compiled libraries write past Python can be turned aside (Ray's does)."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.flush()
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr = os.fdopen(os.dup(sys.stderr.fileno()), "w", 1, encoding=encoding, errors=errors)


def _print_what_can_be_printed() -> None:
    """Print file names that are not UTF-8 as the bytes they are, and a question mark for what the terminal's encoding
    lacks: no run ends over how its result is shown. Files are UTF-8 whatever the locale.
    """
    codecs.register_error(_PRINTED, _printed)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PRINTED)


def _printed(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = ord(error.object[error.start])
    return bytes([letter - 0xDC00]) if 0xDC80 <= letter <= 0xDCFF else b"?", error.start + 1


def _os_error(error: OSError) -> str:
    hints = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EIO: _AWAY,
        errno.ESTALE: _AWAY,
        errno.ENOTCONN: _AWAY,
        errno.ETIMEDOUT: _AWAY,
        errno.EROFS: "the file system is read-only; choose another place",
        errno.EACCES: "permission denied; choose another place or fix its permissions",
        errno.EPERM: "operation not permitted; choose another place or fix its permissions",
        errno.EFBIG: "larger than a file may be here (ulimit -f); raise the limit and run the same command again",
        errno.ENOMEM: f"out of memory; {memory.NEXT_STEP}",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    }
    return f"{error.filename or 'I/O'}: {hints.get(error.errno or 0, error.strerror or str(error))}"
