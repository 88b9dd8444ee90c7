"""What commands find, as frozen models: the one form from which tables, JSON, CSV, pages and pipelines are made."""

from zipbatch.results.auditing import AuditVerdict, FormRow, ImageAnswer, ImageRow
from zipbatch.results.base import Result, dump
from zipbatch.results.benchmark import Benchmark, Foretold
from zipbatch.results.evaluation import (
    NO_COST,
    Cost,
    Evaluation,
    EvaluationRow,
    Measured,
    Number,
    Paired,
    PairedCounts,
    ShareName,
)
from zipbatch.results.pipeline import PipelineResults, PipelineRow, RunAnswer, SeedlessRow, SeedRow
from zipbatch.results.tuning import (
    FitAndTuneAnswer,
    FitAnswer,
    FitReport,
    LearnedThresholds,
    PresetRow,
    StrengthRow,
    TuneReport,
    Undefended,
)

__all__ = [
    "NO_COST",
    "AuditVerdict",
    "Benchmark",
    "Cost",
    "Evaluation",
    "EvaluationRow",
    "FitAndTuneAnswer",
    "FitAnswer",
    "FitReport",
    "Foretold",
    "FormRow",
    "ImageAnswer",
    "ImageRow",
    "LearnedThresholds",
    "Measured",
    "Number",
    "Paired",
    "PairedCounts",
    "PipelineResults",
    "PipelineRow",
    "PresetRow",
    "Result",
    "RunAnswer",
    "SeedRow",
    "SeedlessRow",
    "ShareName",
    "StrengthRow",
    "TuneReport",
    "Undefended",
    "dump",
]
