"""The ``zipbatch`` command and its exit codes."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from importlib import import_module
from types import FrameType

import click

from zipbatch import __version__
from zipbatch.errors import ZipbatchError

COMMANDS = {
    "demo": "zipbatch.cli.run:demo",
    "poison": "zipbatch.cli.poison:poison",
    "train": "zipbatch.cli.train:train",
    "import": "zipbatch.cli.imports:imports",
    "purify": "zipbatch.cli.purify:purify",
    "evaluate": "zipbatch.cli.evaluate:evaluate",
    "tune": "zipbatch.cli.tune:tune",
    "run": "zipbatch.cli.run:run",
    "store": "zipbatch.cli.store:store",
    "ls": "zipbatch.cli.ls:ls",
}
INTERRUPTED = 130
TERMINATED = 143


class _LazyGroup(click.Group):
    """Imports a command's module only when that command is used, so that ``--help`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@click.option("-v", "--verbose", count=True, help="Log more to stderr; twice for debugging.")
@click.option("-q", "--quiet", is_flag=True, help="Log errors only.")
def cli(verbose: int, quiet: bool) -> None:
    """Purify backdoored image shards offline (ZIP, NeurIPS 2023).

    \b
    Start here:  zipbatch demo
    """
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("zipbatch").setLevel(level)


_signals_seen: set[int] = set()


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Leave as for Ctrl-C (Ray lets no other exception through its waits), but remember why."""
    if number not in _signals_seen:  # one is enough: a second must not break the way out
        _signals_seen.add(number)
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line and leave with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run())


def _run() -> int:
    try:
        cli.main(prog_name="zipbatch", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ZipbatchError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        how, code = ("terminated", TERMINATED) if _signals_seen else ("interrupted", INTERRUPTED)
        return _fail(f"{how}; what is published stays valid, run the same command again to go on", code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(_os_error(error), 1)
    except Exception as error:  # the last boundary: a traceback for those who ask, one line for everyone else
        logging.getLogger("zipbatch").debug("internal error", exc_info=True)
        hint = "run again with -vv for the traceback, and please report it"
        return _fail(f"internal error: {type(error).__name__}: {error} ({hint})", 1)
    return 0


def _os_error(error: OSError) -> str:
    hints = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EROFS: "the file system is read-only; choose another place",
        errno.EACCES: "permission denied; choose another place or fix its permissions",
        errno.EPERM: "operation not permitted; choose another place or fix its permissions",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    }
    return f"{error.filename or 'I/O'}: {hints.get(error.errno or 0, error.strerror or str(error))}"


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    return code
