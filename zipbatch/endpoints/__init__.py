"""Victims that are no files: an HTTP endpoint, a Python function. Black boxes in earnest."""

from zipbatch.endpoints.http import HttpVictim
from zipbatch.endpoints.python import NamedFunction, PythonVictim

__all__ = ["HttpVictim", "NamedFunction", "PythonVictim"]
