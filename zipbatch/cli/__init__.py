"""The command line: parse, call one function, map errors to exit codes."""

from zipbatch.cli.main import main

__all__ = ["main"]
