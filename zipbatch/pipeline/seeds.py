"""The axis of seeds of a pipeline: which stages have it, and what runs once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zipbatch import atomic
from zipbatch.errors import UsageError
from zipbatch.pipeline.config import SEED
from zipbatch.stages.adapter import Instance

Inputs = Mapping[str, Sequence[Instance | str]]


def says_seed(fields: Mapping[str, object], path: Sequence[str]) -> bool:
    """Whether a stage's fields say a seed of its own, which may be none."""
    for name in path[:-1]:
        inner = fields.get(name)
        if not isinstance(inner, Mapping):
            return False
        fields = inner
    return path[-1] in fields


def with_seed(fields: Mapping[str, Any], path: Sequence[str], seed: int) -> dict[str, Any]:
    """A stage's fields with a seed, unless they say one by now: what they refer to may do so."""
    if len(path) == 1:
        return {path[0]: seed, **fields}
    inner = fields.get(path[0])
    if not isinstance(inner, Mapping | None):
        return dict(fields)  # its settings will be told to be unfit
    return {**fields, path[0]: with_seed(inner or {}, path[1:], seed)}


def once_for_all_seeds(instances: Sequence[Instance]) -> list[Instance]:
    """Instances of a stage, one for all seeds, which has no such axis, where all of them would make the same."""
    cases: dict[tuple[str, ...], list[Instance]] = {}
    for instance in instances:
        cases.setdefault(tuple(axes_but_seed(instance).values()), []).append(instance)
    return [one for case in cases.values() for one in ([_seedless(case[0])] if _are_same(case) else case)]


def _are_same(case: Sequence[Instance]) -> bool:
    return len({atomic.sha256_json(instance.identity) for instance in case}) == 1


def _seedless(instance: Instance) -> Instance:
    return replace(instance, axes=axes_but_seed(instance))


def axes_but_seed(instance: Instance) -> dict[str, str]:
    """Its other axes."""
    return {axis: value for axis, value in instance.axes.items() if axis != SEED}


def seeded_stages(instances: Sequence[Instance], path_of: Callable[[str], Sequence[str]]) -> list[str]:
    """The stages, in order, that take the seed of their axis as theirs.

    Args:
        instances: of a pipeline with seeds.
        path_of: kind of stage -> where among its fields its seed is said.
    """
    taken: dict[str, bool] = {}
    for instance in instances:
        draws_nothing = instance.identity["facts"].get(SEED, 0) is None
        if SEED in instance.axes and not draws_nothing:
            own = _said(instance.settings.model_dump(), path_of(instance.kind)) == int(instance.axes[SEED])
            taken[instance.stage] = taken.get(instance.stage, True) and own
    return [stage for stage, own in taken.items() if own]


def _said(fields: Any, path: Sequence[str]) -> object:
    for name in path:
        fields = fields.get(name) if isinstance(fields, Mapping) else None
    return fields if path else None


def check_trigger_known(inputs: Inputs, takes_seed: Callable[[str], bool], where: str) -> None:
    """A trigger may depend on the seed, so that only victims that were trained with the same seed know it.

    Args:
        inputs: of an evaluation.
        takes_seed: whether a stage has the pipeline's seeds by default, and not because its fields say so.
        where: the evaluation, for messages.

    Raises:
        UsageError: a victim was trained elsewhere, or on other seeds.
    """
    (data,) = inputs["data"]
    if not isinstance(data, Instance) or SEED not in data.axes or not takes_seed(data.stage):
        return
    for victim in inputs["victim"]:
        (lessons,) = victim.inputs.get("data", (None,)) if isinstance(victim, Instance) else (None,)
        if not (isinstance(lessons, Instance) and lessons.axes.get(SEED) == data.axes[SEED]):
            name = victim.stage if isinstance(victim, Instance) else victim
            raise UsageError(
                f"{where}: the victim {name} knows one trigger, but {data.stage} is staged with each of the seeds, on "
                f"which triggers may depend: give {data.stage} the seed that the victim was trained with (victims that "
                "ship: seed: 1234)"
            )
