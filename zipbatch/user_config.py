"""What a user need not type each time: ``ZIPBATCH_STORE``, ``ZIPBATCH_PRIOR``, and a ``zipbatch.toml`` here or above.

A flag wins over the environment, that over the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zipbatch.errors import UsageError

FILE_NAME = "zipbatch.toml"
VARIABLE = "ZIPBATCH_CONFIG"
NO_FILE = "none"
SETTINGS = {"store": "ZIPBATCH_STORE", "prior": "ZIPBATCH_PRIOR"}
"""Settings that stand at the top of the file, and their environment variables."""
COMMANDS = "commands"
MAX_BYTES = 1 << 16
_AS_THEY_ARE = ("embedded", "hub:")


@dataclass(frozen=True)
class UserDefault:
    """A value and where it comes from: an environment variable, or the file."""

    value: str
    source: str


@dataclass(frozen=True)
class UserDefaults:
    """Defaults of this user, here.

    Attributes:
        file: the ``zipbatch.toml`` in force; None where there is none.
        settings: those of ``SETTINGS`` that are set.
        commands: command (``purify``, ``store verify``) -> flag without dashes -> value, as the file has them.
    """

    file: Path | None = None
    settings: Mapping[str, UserDefault] = field(default_factory=dict)
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def user_defaults(environment: Mapping[str, str] = os.environ, here: Path | None = None) -> UserDefaults:
    """The defaults that hold in a folder.

    Args:
        environment: variables; ``ZIPBATCH_CONFIG`` names a file to take instead of one that is found, or is ``none``.
        here: the folder; the working directory where it is not given.

    Raises:
        UsageError: the file is not TOML, or has keys that mean nothing; names the file and the key.
    """
    file = _file(environment, here)
    values = {} if file is None else _read(file)
    settings = {}
    for name, variable in SETTINGS.items():
        if environment.get(variable):
            settings[name] = UserDefault(environment[variable], variable)
        elif name in values and file is not None:
            settings[name] = UserDefault(_beside(file, values[name]), str(file))
    return UserDefaults(file, settings, values.get(COMMANDS, {}))


def _file(environment: Mapping[str, str], here: Path | None) -> Path | None:
    named = environment.get(VARIABLE)
    if named == NO_FILE:
        return None
    if named:
        if not Path(named).is_file():
            raise UsageError(f"{VARIABLE}={named}: no such file; name a {FILE_NAME}, or {NO_FILE}")
        return Path(named)
    try:
        folder = (here or Path.cwd()).absolute()
    except FileNotFoundError:  # the working directory is gone
        return None
    return next((at / FILE_NAME for at in (folder, *folder.parents) if (at / FILE_NAME).is_file()), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"{file}: over {MAX_BYTES} bytes; that is no config")
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not readable as TOML: {error}") from error
    for name, value in values.items():
        if name not in SETTINGS and name != COMMANDS:
            raise UsageError(f"{file}: {name}: no such setting; there are: {', '.join(SETTINGS)} and [{COMMANDS}.NAME]")
        if name in SETTINGS and not (isinstance(value, str) and value):
            raise UsageError(f"{file}: {name} = {value!r}: must be a path or URL in quotes")
    commands = values.get(COMMANDS, {})
    if not isinstance(commands, dict) or not all(isinstance(table, dict) for table in commands.values()):
        raise UsageError(f"{file}: {COMMANDS}: must be tables, as in [{COMMANDS}.purify]")
    return values


def _beside(file: Path, text: str) -> str:
    """A relative path is meant from the file's folder, wherever the command is typed."""
    if "://" in text or text.startswith(_AS_THEY_ARE) or Path(text).expanduser().is_absolute():
        return text
    return str(file.parent / text)
