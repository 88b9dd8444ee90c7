"""``zipbatch run``: stages chained, each for every choice of the axes it depends on, each skipped when it is done."""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zipbatch import atomic, places
from zipbatch.config import PipelineConfig, references, resolved, validate
from zipbatch.errors import UsageError, WorkFailed, ZipbatchError
from zipbatch.stages.assets import prior_path, source_place, victim_path
from zipbatch.stages.fingerprint import Fingerprints
from zipbatch.stages.pipeline_instance import Input, Instance, Place
from zipbatch.stages.pipeline_kinds import KINDS, Report, read_rows, sheet_file
from zipbatch.stages.source import source_paths

log = logging.getLogger(__name__)
_IDS = ".ids"
_NAMED: Mapping[str, Callable[[str], str]] = {
    "source": source_place,
    "prior": lambda text: str(prior_path(text)),
    "victim": lambda text: str(victim_path(text)),
}
"""Inputs for which names stand beside paths."""


@dataclass(frozen=True)
class PipelinePlan:
    """Every instance, makers before users."""

    place: Place
    axes: tuple[str, ...]
    instances: tuple[Instance, ...]
    fingerprints: Fingerprints

    def state(self, instance: Instance) -> str:
        """``done``, or why it is to be run."""
        if KINDS[instance.kind].is_done(instance, self.place):
            return "done"
        for maker in instance.makers:
            if not KINDS[maker.kind].is_done(maker, self.place):
                return f"after {maker.label}"
        return _why(instance, self.place)


@dataclass(frozen=True)
class PipelineResult:
    """Combined rows of the evaluations, the contact sheets that they made, and the reason of each stage that failed."""

    rows: list[dict[str, Any]]
    sheets: tuple[Path, ...]
    ran: int
    skipped: int
    failed: dict[str, str]

    def raise_failures(self) -> None:
        """Raise ``WorkFailed`` with every failed stage and its reason, if there is one."""
        if self.failed:
            lines = [f"  {label}: {reason}" for label, reason in self.failed.items()]
            total = self.ran + self.skipped + len(self.failed)
            raise WorkFailed("\n".join([f"{len(self.failed)} of {total} stages failed", *lines]))


def plan_pipeline(config: PipelineConfig, place: Place, values: Mapping[str, Any], *, where: str) -> PipelinePlan:
    """Expand and check a pipeline, without writing anything.

    Args:
        config: the pipeline.
        place: where it keeps its results.
        values: variables that override the file's.
        where: the file, for messages.

    Raises:
        UsageError: unknown names, stages that need each other, settings or inputs that do not fit; names the stage.
    """
    if unknown := sorted(set(values) - set(config.vars)):
        raise UsageError(f"{where}: no variable {unknown[0]!r}; there are: {', '.join(config.vars) or 'none'}")
    fingerprints = Fingerprints(place.out / _IDS / "inputs.json")
    expansion = _Expansion(config, {**config.vars, **values}, fingerprints, where)
    instances = tuple(instance for stage in _order(config, where) for instance in expansion.expand(stage))
    return PipelinePlan(place, tuple(config.matrix), instances, fingerprints)


def run_pipeline(plan: PipelinePlan, *, report: Report) -> PipelineResult:
    """Run what is not done. What a failed stage makes is missing to its users alone; the others go on.

    A full disk and the like end the run; every other failure is told at the end, beside the rows of what is done.
    """
    plan.fingerprints.save()
    failed: dict[str, str] = {}
    ran = skipped = 0
    for instance in plan.instances:
        kind = KINDS[instance.kind]
        if kind.is_done(instance, plan.place):
            skipped += 1
            continue
        if lacking := [item.label for item in instance.makers if item.label in failed]:
            failed[instance.label] = f"not run without {lacking[0]}"
            continue
        try:
            made = _make(instance, plan.place, report)
        except OSError:
            raise
        except ZipbatchError as error:
            failed[instance.label] = str(error)
        except Exception as error:  # one stage's own mistake must not stop the others
            log.debug("%s failed", instance.label, exc_info=True)
            failed[instance.label] = f"{type(error).__name__}: {error} (-vv: the traceback)"
        else:
            ran, skipped = ran + made, skipped + (not made)
    rows = combined_rows(plan)
    atomic.write_json(plan.place.out / "results.json", {"rows": rows, "failed": failed})
    sheets = [sheet_file(i, plan.place) for i in plan.instances if i.kind == "evaluate"]
    return PipelineResult(rows, tuple(sheet for sheet in sheets if sheet.is_file()), ran, skipped, failed)


def _make(instance: Instance, place: Place, report: Report) -> bool:
    """Run a stage, unless another run of the pipeline, which had it in hand, has made it meanwhile."""
    kind, ids = KINDS[instance.kind], _id_file(instance, place)
    instance.path(place).parent.mkdir(parents=True, exist_ok=True)
    ids.parent.mkdir(parents=True, exist_ok=True)
    with ids.with_suffix(".lock").open("wb") as lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"{instance.label}: waiting for another run", 0.0, "")
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        if kind.is_done(instance, place):
            return False
        report(instance.label, 0.0, "")
        atomic.write_json(ids, dict(instance.identity))
        kind.run(instance, place, report)
        return True


def combined_rows(plan: PipelinePlan) -> list[dict[str, Any]]:
    """One row for each victim without a defence and for each of its purified versions, with the axes that made it.

    Evaluations that are not there yet are left out. What several of them say of a victim without a defence is one row.
    """
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, str, str]] = set()
    for instance in plan.instances:
        if instance.kind != "evaluate" or not KINDS[instance.kind].is_done(instance, plan.place):
            continue
        forms: list[Instance | str | None] = [None, *instance.inputs["purified"]]
        cases = itertools.product(instance.inputs["victim"], forms)
        for (victim, form), row in zip(cases, read_rows(instance, plan.place), strict=True):
            axes = _axes_of_row(instance, victim, form)
            named = {"axes": {axis: axes.get(axis) for axis in plan.axes}, **row}
            if isinstance(victim, Instance):
                named["victim_stage"] = victim.label
            key = (str(row["data"]), str(row["victim"]), json.dumps(named["axes"]))
            if form is None and key in seen:
                continue
            seen.add(key)
            rows.append(named)
    return rows


def _axes_of_row(instance: Instance, victim: Instance | str, form: Instance | str | None) -> dict[str, str]:
    """The axes that a row stands for: those of its makers, without a form none that are its forms' alone."""
    if isinstance(form, Instance):
        return {**form.axes, **instance.axes, **(victim.axes if isinstance(victim, Instance) else {})}
    of_forms = {axis for item in instance.inputs["purified"] if isinstance(item, Instance) for axis in item.axes}
    makers = [item for item in (instance.one("data"), victim) if isinstance(item, Instance)]
    kept = {axis: value for maker in makers for axis, value in maker.axes.items()}
    return kept | {axis: value for axis, value in instance.axes.items() if axis not in of_forms - set(kept)}


class _Expansion:
    """Turns stages into instances; keeps those of the stages before."""

    def __init__(self, config: PipelineConfig, values: Mapping[str, Any], prints: Fingerprints, where: str) -> None:
        self._config, self._values, self._prints, self._where = config, values, prints, where
        self._made: dict[str, list[Instance]] = {}

    def expand(self, stage: str) -> list[Instance]:
        """The instances of a stage whose inputs are expanded already."""
        axes = self._axes_of(stage)
        choices = itertools.product(*(self._config.matrix[axis] for axis in axes))
        self._made[stage] = [self._instance(stage, dict(zip(axes, choice, strict=True))) for choice in choices]
        return self._made[stage]

    def _axes_of(self, stage: str) -> list[str]:
        """The axes that a stage names itself or through its inputs, unless ``per`` says them."""
        fields = self._config.stages[stage]
        named = references({key: value for key, value in fields.items() if key != "per"})
        axes = {axis for name in named & set(self._made) for instance in self._made[name] for axis in instance.axes}
        axes |= named & set(self._config.matrix)
        if "per" in fields:
            per = fields["per"]
            if not isinstance(per, list) or not all(isinstance(axis, str) and axis in axes for axis in per):
                raise UsageError(f"{self._where}: {stage}: per = {per!r}: a list out of {', '.join(sorted(axes))}")
            axes = set(per)
        return [axis for axis in self._config.matrix if axis in axes]

    def _instance(self, stage: str, axes: dict[str, str]) -> Instance:
        where = f"{self._where}: {stage}"
        fields = {key: value for key, value in self._config.stages[stage].items() if key not in {"run", "per"}}
        kind_name = str(self._config.stages[stage].get("run"))
        kind = KINDS[kind_name]
        try:
            values = resolved(fields, lambda name: self._lookup(name, axes, where))
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
        assert isinstance(values, dict)
        given = {name: values.pop(name, None) for name in kind.inputs}
        settings = validate(kind.settings, values, where=where)
        try:
            facts = kind.facts(settings)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        rules = {name: (rule, rule.needed(settings)) for name, rule in kind.inputs.items()}
        inputs = {
            name: self._input(name, given[name], rule, where, required=bool(needed)) if needed is not False else ()
            for name, (rule, needed) in rules.items()
        }
        identity = {
            "run": kind_name,
            "facts": facts,
            "inputs": {name: [self._identity_of(name, item, where) for item in made] for name, made in inputs.items()},
        }
        return Instance(stage, kind_name, axes, settings, inputs, atomic.sha256_json(identity)[:8], identity)

    def _lookup(self, reference: str, axes: Mapping[str, str], where: str) -> object:
        name, _, field = reference.partition(".")
        if field and name not in axes:
            raise UsageError(f"{where}: ${{{reference}}}: only axes have fields")
        if name in self._made:
            return [
                i for i in self._made[name] if all(i.axes.get(axis, value) == value for axis, value in axes.items())
            ]
        if name in self._values:
            return self._values[name]
        if name in self._config.matrix and name not in axes:
            raise UsageError(f"{where}: ${{{reference}}}: {name} is not in its 'per'")
        if name not in axes:
            names = sorted({*self._values, *self._config.matrix, *self._config.stages})
            raise UsageError(f"{where}: nothing is named {name!r} here; there are: {', '.join(names)}")
        case = self._config.matrix[name][axes[name]]
        if not field:
            return axes[name] if isinstance(case, dict) else case
        if not isinstance(case, dict) or field not in case:
            raise UsageError(f"{where}: {name} = {axes[name]} has no field {field!r}")
        return case[field]

    def _input(
        self, name: str, given: object, rule: Input, where: str, *, required: bool
    ) -> tuple[Instance | str, ...]:
        items = _flat(given)
        if not items and required:
            raise UsageError(f"{where}: needs {name!r}{self._hint(where.rpartition(': ')[2], name)}")
        if len(items) > 1 and not rule.many:
            raise UsageError(f"{where}: {name} is one, not {len(items)}; does it miss an axis?")
        return tuple(_checked(item, name, rule, where) for item in items)

    def _hint(self, stage: str, name: str) -> str:
        """How to give what is missing, where a variable stands for it."""
        empty = [n for n in references(self._config.stages[stage].get(name)) if n in self._values]
        return f": give --var {empty[0]}=…" if empty else ""

    def _identity_of(self, name: str, item: Instance | str, where: str) -> object:
        if isinstance(item, Instance):
            return item.id
        if name != "source":
            return self._prints.of(Path(item), where)
        kind, paths = source_paths(item)
        return [kind, *([path.name, self._prints.of(path, where)] for path in paths)]


def _checked(item: object, name: str, rule: Input, where: str) -> Instance | str:
    if isinstance(item, Instance) and item.kind in rule.kinds:
        return item
    if isinstance(item, int) and not isinstance(item, bool):
        item = str(item)  # a folder named 2024, which YAML takes for a number
    if isinstance(item, str) and rule.path:
        if isinstance(places.place(item), places.Url):
            raise UsageError(f"{where}: {name} = {item}: a pipeline reads this machine's files; copy it here first")
        return _NAMED[name](item) if name in _NAMED else item
    allowed = [*(f"a stage that runs {kind!r}" for kind in rule.kinds), *(["a path"] if rule.path else [])]
    got = f"{item.stage}, which runs {item.kind!r}" if isinstance(item, Instance) else repr(item)
    raise UsageError(f"{where}: {name} must be {' or '.join(allowed)}, got {got}")


def _order(config: PipelineConfig, where: str) -> Iterator[str]:
    """Stages, makers before users, otherwise as in the file."""
    for stage, fields in config.stages.items():
        if not isinstance(fields.get("run"), str) or fields["run"] not in KINDS:
            raise UsageError(f"{where}: {stage}: run = {fields.get('run')!r}: must be one of {', '.join(KINDS)}")
    open_, done = list(config.stages), set[str]()
    while open_:
        ready = next((s for s in open_ if references(config.stages[s]) & set(config.stages) <= done), None)
        if ready is None:
            raise UsageError(f"{where}: stages that need each other: {', '.join(open_)}")
        yield ready
        open_.remove(ready)
        done.add(ready)


def _flat(given: object) -> list[object]:
    if given is None:
        return []
    if isinstance(given, list | tuple):
        return [item for part in given for item in _flat(part)]
    return [given]


def _id_file(instance: Instance, place: Place) -> Path:
    return place.out / _IDS / instance.stage / f"{instance.slug}.json"


def _why(instance: Instance, place: Place) -> str:
    """What differs from the last time this stage was run for these axes."""
    stem = instance.slug.removesuffix(instance.id)
    folder = _id_file(instance, place).parent
    known = sorted(folder.glob(f"{stem}{'?' * 8}.json"), key=lambda file: file.stat().st_mtime)
    if not known:
        return "not run yet"
    if known[-1] == _id_file(instance, place):
        return "not finished"
    try:
        before = json.loads(known[-1].read_bytes())
    except ValueError:
        return "not run yet"
    if not isinstance(before, dict):
        return "not run yet"
    changes = [part for side in ("facts", "inputs") for part in _changes(before.get(side), instance.identity[side])]
    return f"changed: {', '.join(changes)}"


def _changes(before: object, now: object, name: str = "") -> list[str]:
    """Names of what differs, mappings taken apart."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [name]
    known = sorted({*before, *now})
    inner = {key: f"{name}.{key}" if name else key for key in known}
    return [found for key in known for found in _changes(before.get(key), now.get(key), inner[key])]
