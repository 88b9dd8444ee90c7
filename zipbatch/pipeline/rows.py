"""The table of a pipeline: the rows of its evaluations under the axes that they stand for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zipbatch.errors import DataError, UsageError
from zipbatch.pipeline.config import SEED
from zipbatch.pipeline.seeds import axes_but_seed
from zipbatch.results import NO_COST, Cost, EvaluationRow, PipelineRow, dump
from zipbatch.stages.adapter import Instance, Workspace
from zipbatch.stages.evaluate.adapter import read_rows
from zipbatch.stages.purify.cost import cost_of

Maker = Instance | str | None


@dataclass(frozen=True)
class CombinedRow:
    """A row as ``evaluate`` told it, with its ``axes``.

    Attributes:
        row: what it says.
        case: what it has in common with the rows of the same case for other seeds.
        names: what makes its data and its victim, without a seed.
    """

    row: PipelineRow
    case: tuple[Any, ...]
    names: Mapping[str, str]


def combined_rows(
    done: Sequence[Instance], axes: Sequence[str], workspace: Workspace, *, planned: Sequence[Instance], seeds: bool
) -> list[CombinedRow]:
    """One row for each victim without a defence and for each of its purified versions, with the axes that made it.

    What several evaluations say of a victim without a defence is one row. With seeds, so is what those for several
    seeds say of something that does not depend on them.

    Args:
        done: the evaluations that are there.
        axes: of the pipeline, in order.
        workspace: where their results are.
        planned: all instances of the pipeline.
        seeds: whether one of the axes is that of the pipeline's seeds.
    """
    rows: list[CombinedRow] = []
    seen: set[tuple[str, ...]] = set()
    for instance in done:
        siblings = _siblings(instance, planned) if seeds else []
        for (number, victim, form), row in zip(_cases(instance), read_rows(instance, workspace), strict=True):
            own = _axes_of_row(instance, victim, form)
            if siblings:
                own = _with_or_without_seed(own, instance, siblings, number)
            named = _under_axes(_with_cost(row, workspace), {axis: own.get(axis) for axis in axes}, victim)
            key = (row.data, row.victim, str(row.purified), json.dumps(named.axes))
            if key in seen and (form is None or seeds):
                continue
            seen.add(key)
            case = (instance.stage, number, *(own.get(axis) for axis in axes if axis != SEED))
            rows.append(CombinedRow(named, case, _names(instance.one("data"), victim)))
    return rows


def _under_axes(row: EvaluationRow, axes: dict[str, str | None], victim: Instance | str) -> PipelineRow:
    made: dict[str, Any] = {"victim_stage": victim.label} if isinstance(victim, Instance) else {}
    return PipelineRow(axes=axes, **dump(row), **made)


def _with_cost(row: EvaluationRow, workspace: Workspace) -> EvaluationRow:
    """A row, also of an evaluation that was done before rows told what purification took."""
    if row.has("calls_most"):
        return row
    return row.model_copy(update=dump(NO_COST if row.purified is None else _cost(row, row.purified, workspace)))


def _cost(row: EvaluationRow, purified: str, workspace: Workspace) -> Cost:
    try:
        version = workspace.store.versions.read(f"{purified.partition('@')[0]}@{row.version}")
    except (UsageError, DataError):
        return NO_COST
    return cost_of(version, workspace.store, {listed.shard for listed in version.rows})


def _cases(instance: Instance) -> Iterator[tuple[int, Instance | str, Maker]]:
    """Number, victim and purified form of each row of an evaluation."""
    forms: list[Maker] = [None, *instance.inputs["purified"]]
    for number, (victim, form) in enumerate(itertools.product(instance.inputs["victim"], forms)):
        yield number, victim, form


def _siblings(instance: Instance, planned: Sequence[Instance]) -> list[Instance]:
    """The same evaluation for other seeds; none where it is one for all."""
    if SEED not in instance.axes:
        return []
    axes = axes_but_seed(instance)
    return [other for other in planned if other.stage == instance.stage and axes_but_seed(other) == axes]


def _with_or_without_seed(
    axes: dict[str, str], instance: Instance, siblings: Sequence[Instance], number: int
) -> dict[str, str]:
    """The axes of a row, with its seed only where that matters to it."""
    if _depends_on_seed(instance, siblings, number):
        return {**axes, SEED: instance.axes[SEED]}
    return {axis: value for axis, value in axes.items() if axis != SEED}


def _depends_on_seed(instance: Instance, siblings: Sequence[Instance], number: int) -> bool:
    """Whether a row of an evaluation is of other things than that row of its siblings."""
    return len({tuple(map(_name, _makers(one, number))) for one in (instance, *siblings)}) > 1


def _makers(instance: Instance, number: int) -> tuple[Maker, ...]:
    _, victim, form = next(itertools.islice(_cases(instance), number, None))
    return instance.one("data"), victim, form


def _name(maker: Maker) -> str:
    return f"{maker.stage}/{maker.slug}" if isinstance(maker, Instance) else str(maker)


def _names(data: Maker, victim: Maker) -> dict[str, str]:
    """By field of a row; of those that a stage makes."""
    makers = {"data": data, "victim": victim}
    return {name: _label(maker) for name, maker in makers.items() if isinstance(maker, Instance)}


def _label(maker: Instance) -> str:
    values = axes_but_seed(maker).values()
    return f"{maker.stage}[{', '.join(values)}]" if values else maker.stage


def _axes_of_row(instance: Instance, victim: Instance | str, form: Maker) -> dict[str, str]:
    """The axes that a row stands for: those of its makers, without a form none that are its forms' alone."""
    if isinstance(form, Instance):
        return {**form.axes, **instance.axes, **(victim.axes if isinstance(victim, Instance) else {})}
    of_forms = {axis for item in instance.inputs["purified"] if isinstance(item, Instance) for axis in item.axes}
    makers = [item for item in (instance.one("data"), victim) if isinstance(item, Instance)]
    kept = {axis: value for maker in makers for axis, value in maker.axes.items()}
    return kept | {axis: value for axis, value in instance.axes.items() if axis not in of_forms - set(kept)}
