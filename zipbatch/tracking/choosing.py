"""Which packages there are, and whether one is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from zipbatch.errors import UsageError
from zipbatch.tracking.base import TrackedRun, Tracker

TRACKERS: Mapping[str, str] = {
    "mlflow": "zipbatch.tracking.mlflow:MlflowTracker",
    "wandb": "zipbatch.tracking.wandb:WandbTracker",
    "tensorboard": "zipbatch.tracking.tensorboard:TensorBoardTracker",
}
"""Package, which is also the name of its extra -> its adapter, a function of the run and WHERE."""


@dataclass(frozen=True)
class Choice:
    """A package and where it is to write; None for where it writes by itself."""

    package: str
    where: str | None = None

    def load(self) -> Callable[[TrackedRun], Tracker]:
        """What begins a run there, which may ask a server. Imports the package, which takes seconds."""
        module, attribute = TRACKERS[self.package].split(":")
        begin = getattr(import_module(module), attribute)
        return lambda run: cast(Tracker, begin(run, self.where))


def choice_of(text: str) -> Choice:
    """``PACKAGE`` or ``PACKAGE:WHERE``, of a package that is installed.

    Raises:
        UsageError: it is not known, or not installed; names the extra.
    """
    package, _, where = text.partition(":")
    if package not in TRACKERS:
        raise UsageError(f"{text}: track with one of {', '.join(TRACKERS)}, as PACKAGE or PACKAGE:WHERE")
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a folder of results may be called so, too
        raise UsageError(f"track {package}: it is not installed; pip install 'zipbatch[{package}]'")
    return Choice(package, where or None)
