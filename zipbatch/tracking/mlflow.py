"""Runs in MLflow. WHERE is a tracking URI; else MLFLOW_TRACKING_URI and MLflow's own default say it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping

from zipbatch.tracking.base import TrackedRun, joined

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before it is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

for library in ("mlflow", "alembic"):
    logging.getLogger(library).setLevel(logging.WARNING)

EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
_AT_ONCE = 100
"""Parameters that a server takes in one request."""


class MlflowTracker:
    """A run of the experiment ``zipbatch``, or of that which MLFLOW_EXPERIMENT_NAME says."""

    def __init__(self, run: TrackedRun, where: str | None) -> None:
        self._client = MlflowClient(tracking_uri=where)
        name = os.environ.get(EXPERIMENT, "zipbatch")
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        tags = {"zipbatch.run": run.id}
        self._run = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        params = [Param(name, str(value)) for name, value in run.settings.items()]
        for start in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._run, params=params[start : start + _AT_ONCE])

    def progress(self, group: str, values: Mapping[str, float], step: int) -> None:
        """As of ``Tracker``."""
        self._log({joined(group, name): value for name, value in values.items()}, step)

    def final(self, values: Mapping[str, float]) -> None:
        """As of ``Tracker``."""
        self._log(values, 0)

    def end(self, *, ok: bool) -> None:
        """As of ``Tracker``."""
        self._client.set_terminated(self._run, "FINISHED" if ok else "FAILED")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value in values.items()]
        for start in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[start : start + _AT_ONCE])
