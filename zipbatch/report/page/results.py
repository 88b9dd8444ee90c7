"""Results as commands print them with ``--json``, read and checked: the one place where pages know their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from zipbatch.errors import UsageError

SHARES = ("ca", "asr", "fpr", "pa", "ra", "collapsed")
Interval = tuple[float, float]


class _Against(BaseModel):
    """McNemar's test of one measure."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    p: float | None = None


class _Paired(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    against: str = ""
    ca: _Against | None = None
    asr: _Against | None = None


class EvaluationRow(BaseModel):
    """A row of ``evaluate``, or of a pipeline, whose rows have ``axes``, and over seeds ``n_seeds`` and deviations.

    ``raw`` is the row as it was read.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)
    victim: str | None
    data: str | None
    attack: str | None = None
    purifier: str | None = None
    purified: str | None = None
    version: str | None = None
    settings: str | None = None
    victim_stage: str | None = None
    axes: dict[str, str | None] = {}
    ca: float | None
    asr: float | None
    fpr: float | None = None
    pa: float | None = None
    ra: float | None = None
    collapsed: float | None = None
    n_ca: int = 0
    n_asr: int = 0
    n_fpr: int = 0
    n_pa: int = 0
    n_ra: int = 0
    n_collapsed: int = 0
    ca_ci95: Interval | None = None
    asr_ci95: Interval | None = None
    fpr_ci95: Interval | None = None
    pa_ci95: Interval | None = None
    ra_ci95: Interval | None = None
    collapsed_ci95: Interval | None = None
    ca_sd: float | None = None
    asr_sd: float | None = None
    fpr_sd: float | None = None
    pa_sd: float | None = None
    ra_sd: float | None = None
    collapsed_sd: float | None = None
    n_seeds: int | None = None
    seeds: tuple[int, ...] = ()
    seeds_of: tuple[str, ...] = ()
    findings: dict[str, int] = {}
    flip_rate: float | None = None
    n_flip: int = 0
    fled: dict[str, int] = {}
    der: float | None = None
    paired: _Paired | None = None
    psnr_clean_db: float | None = None
    psnr_poisoned_db: float | None = None
    ssim_clean: float | None = None
    ssim_poisoned: float | None = None
    calls_least: int | None = None
    calls_most: int | None = None
    seconds_per_image: float | None = None
    seconds_on: str | None = None
    n_quarantined: int = 0
    n_unlabelled: int = 0
    raw: dict[str, Any] = {}

    def share(self, name: str) -> float | None:
        """One of ``SHARES``."""
        found: float | None = getattr(self, name)
        return found

    def images(self, name: str) -> int:
        """Of how many images a share is."""
        found: int = getattr(self, f"n_{name}")
        return found

    def interval(self, name: str) -> Interval | None:
        """The 95 % interval of a share; over seeds a standard deviation either way."""
        value, spread = self.share(name), getattr(self, f"{name}_sd")
        if self.n_seeds and value is not None:
            return None if spread is None else (max(0.0, value - spread), min(1.0, value + spread))
        found: Interval | None = getattr(self, f"{name}_ci95")
        return found

    @property
    def defended(self) -> bool:
        """Whether it is about purified images."""
        return self.purifier is not None


@dataclass(frozen=True)
class Results:
    """What a results file holds: rows, those over seeds where there are any, and stages that failed, with why."""

    rows: tuple[EvaluationRow, ...]
    over_seeds: tuple[EvaluationRow, ...] = ()
    failed: Mapping[str, str] | None = None

    @property
    def shown(self) -> tuple[EvaluationRow, ...]:
        """The rows for a table: those over seeds, where there are any."""
        return self.over_seeds or self.rows


def read_results(document: object, where: str) -> Results:
    """What ``evaluate --json`` and ``run`` print and write.

    Raises:
        UsageError: it is something else; names the field.
    """
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise UsageError(f"{where}: holds no 'rows'; name a file that 'evaluate --json' or 'run' wrote")
    failed = document.get("failed") or {}
    if not isinstance(failed, dict):
        raise UsageError(f"{where}: 'failed' is no mapping of stages to reasons")
    return Results(
        read_rows(document["rows"], where),
        read_rows(document.get("over_seeds") or [], where, name="over_seeds"),
        {str(stage): str(reason) for stage, reason in failed.items()},
    )


def read_rows(rows: Sequence[object], where: str, *, name: str = "rows") -> tuple[EvaluationRow, ...]:
    """Rows of ``evaluate``.

    Raises:
        UsageError: a field is missing or of another type; names it.
    """
    return tuple(_row(row, f"{where}: {name}[{number}]") for number, row in enumerate(rows))


def _row(row: object, where: str) -> EvaluationRow:
    if not isinstance(row, dict):
        raise UsageError(f"{where}: is no row")
    try:
        return EvaluationRow.model_validate({**row, "raw": row})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}: {field}: {first['msg'].lower()}; is this a result of 'evaluate --json'?") from error
