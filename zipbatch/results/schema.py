"""JSON schemas of results, with the meaning and unit of each field."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from zipbatch.results.auditing import AuditVerdict, ImageAnswer, ImageRow
from zipbatch.results.benchmark import Benchmark
from zipbatch.results.evaluation import Evaluation
from zipbatch.results.pipeline import RunAnswer
from zipbatch.results.tuning import FitAndTuneAnswer, FitAnswer, TuneReport

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_KINDS: dict[str, tuple[str, Any]] = {
    "evaluate": ("What 'zipbatch evaluate --json' prints.", Evaluation),
    "tune": ("What 'zipbatch tune --json' prints.", TuneReport | FitAnswer | FitAndTuneAnswer),
    "audit": ("What 'zipbatch audit --json' prints.", AuditVerdict),
    "bench": ("What 'zipbatch bench --json' prints.", Benchmark),
    "run": ("What 'zipbatch run --json' prints.", RunAnswer),
    "evaluate-per-image": (
        "A line of what 'zipbatch evaluate --per-image FILE.jsonl' writes.",
        ImageAnswer,
    ),
    "per-image": ("A line of what 'zipbatch audit --per-image FILE.jsonl' writes.", ImageRow),
}
KINDS = tuple(_KINDS)


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of one of ``KINDS``; numbers have their ``unit``."""
    about, model = _KINDS[kind]
    found = TypeAdapter(model).json_schema()
    return {"$schema": _DIALECT, "title": f"zipbatch {kind}", "description": about, **_but_names(found)}


def _but_names(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in {"title", "description"}}
