"""Runs in Weights & Biases. WHERE is a project; WANDB_MODE=offline needs no network."""

from __future__ import annotations

import os
from collections.abc import Mapping

from zipbatch.tracking.base import TrackedRun, joined

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before it is imported

import wandb


class WandbTracker:
    """A run of the project ``zipbatch``, or of that which WHERE or WANDB_PROJECT says."""

    def __init__(self, run: TrackedRun, where: str | None) -> None:
        self._run = wandb.init(
            project=where or os.environ.get("WANDB_PROJECT", "zipbatch"),
            name=run.name,
            config={**run.settings, "zipbatch.run": run.id},
            settings=wandb.Settings(console="off", silent=True),
        )
        self._groups: set[str] = set()

    def progress(self, group: str, values: Mapping[str, float], step: int) -> None:
        """As of ``Tracker``. Each group has steps of its own, which wandb is told by a metric."""
        steps = joined(group, "step")
        if group not in self._groups:
            self._groups.add(group)
            for name in values:
                self._run.define_metric(joined(group, name), step_metric=steps)
        self._run.log({steps: step, **{joined(group, name): value for name, value in values.items()}})

    def final(self, values: Mapping[str, float]) -> None:
        """As of ``Tracker``."""
        self._run.summary.update(dict(values))

    def end(self, *, ok: bool) -> None:
        """As of ``Tracker``."""
        self._run.finish(exit_code=0 if ok else 1)
