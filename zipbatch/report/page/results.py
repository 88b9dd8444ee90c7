"""Rows as a page sees them, whatever commands they came from; results files, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from zipbatch.errors import UsageError
from zipbatch.report.verdict import Verdict, over_seeds, verdict
from zipbatch.results import (
    Evaluation,
    EvaluationRow,
    Measured,
    Number,
    PipelineResults,
    PipelineRow,
    RunAnswer,
    SeedlessRow,
    SeedRow,
)
from zipbatch.results.evaluation import Numbers

Row = EvaluationRow | SeedRow
SHARES = ("ca", "asr", "fpr", "pa", "ra")


@dataclass(frozen=True)
class Shown:
    """A row of ``evaluate``, of a pipeline or over its seeds, for a page: what they have in common."""

    row: Row

    @property
    def axes(self) -> Mapping[str, str | None]:
        """What a row of a pipeline stands for; of others none."""
        return self.row.axes if isinstance(self.row, PipelineRow | SeedRow) else {}

    @property
    def victim_stage(self) -> str | None:
        """The stage that made the victim."""
        return self.row.victim_stage if isinstance(self.row, PipelineRow | SeedRow) else None

    @property
    def n_seeds(self) -> int | None:
        """Over how many seeds it is; None for a row of a pipeline without any."""
        return self.row.n_seeds if isinstance(self.row, SeedRow | SeedlessRow) else None

    @property
    def defended(self) -> bool:
        """Whether it is about purified images."""
        return self.row.purifier is not None

    @property
    def numbers(self) -> Numbers:
        """Its measures beside the shares."""
        return self.row.numbers

    @property
    def fled(self) -> Mapping[str, int]:
        """How many answers left each class."""
        return {} if isinstance(self.row, SeedRow) else self.row.fled

    @property
    def p_ca(self) -> float | None:
        """McNemar's p-value of CA against the first purified form."""
        pair = None if self.row.paired is None else self.row.paired.ca
        return None if pair is None else pair.p

    @property
    def verdict(self) -> Verdict | None:
        """What is left of the attack."""
        return over_seeds(self.row) if isinstance(self.row, SeedRow) else verdict(self.row)

    def share(self, name: str) -> Measured:
        """One of ``SHARES``."""
        return next(measured for known, measured in self.row.shares.items() if known == name)

    def ends(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a share; over seeds a standard deviation either way."""
        return ends_of(self.share(name))


def ends_of(measured: Measured | Number) -> tuple[float, float] | None:
    """The interval of a measure, where it has one."""
    if isinstance(measured, Measured) and measured.ci95 is not None:
        return measured.ci95
    if measured.value is None or measured.sd is None:
        return None
    return max(0.0, measured.value - measured.sd), min(1.0, measured.value + measured.sd)


@dataclass(frozen=True)
class Results:
    """What a results file holds: rows, those over seeds (None without seeds), and stages that failed, with why."""

    rows: Sequence[EvaluationRow]
    over_seeds: Sequence[SeedRow | SeedlessRow] | None
    failed: Mapping[str, str]

    @property
    def shown(self) -> list[Shown]:
        """The rows for a table: those over seeds, where there are any."""
        return shown_rows(self.over_seeds or self.rows)


def shown_rows(rows: Sequence[Row]) -> list[Shown]:
    """Rows for a page."""
    return [Shown(row) for row in rows]


def read_results(document: object, where: str) -> Results:
    """What ``zipbatch evaluate --json`` and ``run`` print and write.

    Raises:
        UsageError: it is something else; names the field.
    """
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise UsageError(
            f"{where}: holds no 'rows'; name a file that 'zipbatch evaluate --json' or 'zipbatch run' wrote"
        )
    try:
        if "ran" in document:
            answer = RunAnswer.model_validate(document)
            return Results(answer.rows, answer.over_seeds or None, answer.failed)
        if "failed" in document:
            kept = PipelineResults.model_validate(document)
            return Results(kept.rows, kept.over_seeds or None, kept.failed)
        return Results(Evaluation.model_validate(document).rows, None, {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        hint = "is this a result of 'zipbatch evaluate --json' or 'zipbatch run'?"
        raise UsageError(f"{where}: {field}: {first['msg'].lower()}; {hint}") from error
