"""What a pipeline's table says over its seeds: means and standard deviations."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from zipbatch.pipeline.config import SEED
from zipbatch.pipeline.rows import CombinedRow
from zipbatch.report.verdict import verdict
from zipbatch.results import PipelineRow, Result, SeedlessRow, SeedRow, dump


def rows_over_seeds(rows: Sequence[CombinedRow], *, stages: Sequence[str]) -> list[SeedRow | SeedlessRow]:
    """A row for each case, in order.

    It has the ``seeds`` that there are rows of, their number ``n_seeds``, each measure's mean under its own name and
    its standard deviation (n - 1; None of a single seed) as ``<measure>_sd``, the fewest images as ``n_<measure>``, and
    in ``findings`` how many seeds have which verdict. A measure that a seed lacks has no mean. Data and victims are
    named by their stage where each seed has its own. What does not depend on the seed is told as it is, with no seeds.
    ``seeds_of`` repeats ``stages``, those that took the seeds.
    """
    cases: dict[tuple[Any, ...], list[CombinedRow]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    return [_over(case, stages) for case in cases.values()]


def _over(case: Sequence[CombinedRow], stages: Sequence[str]) -> SeedRow | SeedlessRow:
    rows = [one.row for one in case]
    axes = {axis: value for axis, value in rows[0].axes.items() if axis != SEED}
    seeds = [int(seed) for row in rows if (seed := row.axes[SEED]) is not None]
    if not seeds:
        return SeedlessRow(**(dump(rows[0]) | {"axes": axes}), seeds=[], n_seeds=0, seeds_of=[])
    fields = _means(rows)
    names = {name: text for name, text in case[0].names.items() if fields.get(name) is None}
    if rows[0].has("victim_stage"):
        names["victim_stage"] = case[0].names["victim"]
    findings: Counter[str] = Counter(one.finding for row in rows if (one := verdict(row)) is not None)
    return SeedRow(
        axes=axes,
        seeds=seeds,
        n_seeds=len(seeds),
        seeds_of=list(stages),
        **(fields | names),
        findings=dict(findings),
    )


def _means(rows: Sequence[PipelineRow]) -> dict[str, Any]:
    """What the fields of rows come to over their seeds, but for their axes."""
    fields: dict[str, Any] = {}
    for name in dump(rows[0]):
        fields |= _field(name, [getattr(row, name) for row in rows])
    if fields.get("seconds_on") is None:  # several machines: their seconds have no mean
        fields |= {"seconds_per_image": None, "seconds_per_image_sd": None}
    return fields


def _field(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A field of rows, over their seeds: nothing of what can neither be averaged nor compared."""
    if any(isinstance(value, float) for value in values):
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        spread = statistics.stdev(known) if whole and len(known) > 1 else None
        return {name: statistics.fmean(known) if whole else None, f"{name}_sd": spread}
    if name.startswith("n_"):
        return {name: min(values)}
    if any(isinstance(value, dict | tuple | Result) for value in values):
        return {}
    return {name: values[0] if all(value == values[0] for value in values) else None}
