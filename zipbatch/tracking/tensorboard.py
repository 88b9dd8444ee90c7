"""Event files for TensorBoard. WHERE is a folder; else it is ``runs``, here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from zipbatch.tracking.base import TrackedRun, joined


class TensorBoardTracker:
    """A folder ``<WHERE>/<name>-<run>`` with the events of one run."""

    def __init__(self, run: TrackedRun, where: str | None) -> None:
        self._writer = SummaryWriter(str(Path(where or "runs") / f"{run.name}-{run.id}"))
        rows = "".join(f"| {name} | `{value}` |\n" for name, value in run.settings.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def progress(self, group: str, values: Mapping[str, float], step: int) -> None:
        """As of ``Tracker``."""
        for name, value in values.items():
            self._writer.add_scalar(joined(group, name), value, step)

    def final(self, values: Mapping[str, float]) -> None:
        """As of ``Tracker``."""
        for name, value in values.items():
            self._writer.add_scalar(joined("final", name), value, 0)

    def end(self, *, ok: bool) -> None:
        """As of ``Tracker``."""
        self._writer.add_text("outcome", "done" if ok else "failed")
        self._writer.close()
