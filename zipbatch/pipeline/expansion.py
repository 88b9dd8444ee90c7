"""From a pipeline's stages, references and matrix to its instances: every stage for every choice of its axes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from zipbatch import atomic, storage
from zipbatch.checkpoints import open_prior, open_victim
from zipbatch.config import validate
from zipbatch.errors import UsageError
from zipbatch.pipeline.config import SEED, PipelineConfig, references, resolved
from zipbatch.pipeline.file_digests import Fingerprints
from zipbatch.pipeline.identity import identity_of
from zipbatch.pipeline.seeds import check_trigger_known, once_for_all_seeds, says_seed, with_seed
from zipbatch.pipeline.spelling import key_of
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.spelling import readers_spell, setting
from zipbatch.stages.adapter import Input, Instance
from zipbatch.stages.assets import prior_path, source_place, victim_path
from zipbatch.stages.convert.adapter import checkpoint_place

_NAMED: Mapping[str, Callable[[str], str]] = {
    "source": source_place,
    "prior": lambda text: str(prior_path(text)),
    "victim": lambda text: str(victim_path(text)),
    "start": lambda text: str(victim_path(text)),
    "file": checkpoint_place,
}
"""Inputs for which names stand beside paths."""
_OPENED: Mapping[str, Callable[[storage.StoragePath], object]] = {
    "prior": open_prior,
    "victim": open_victim,
    "start": open_victim,
}
"""What is to be told of an unfit file before anything is run, not when its stage is."""


def expanded(
    config: PipelineConfig, values: Mapping[str, object], prints: Fingerprints, where: str
) -> tuple[Instance, ...]:
    """Every instance, makers before users.

    Args:
        config: the pipeline.
        values: its variables.
        prints: digests of what its stages read.
        where: its file, for messages.

    Raises:
        UsageError: unknown names, stages that need each other, settings or inputs that do not fit; names the stage.
    """
    expansion = _Expansion(config, values, prints, where)
    instances = tuple(instance for stage in _order(config, where) for instance in expansion.expand(stage))
    if config.seeds and not any(SEED in instance.axes for instance in instances):
        raise UsageError(f"{where}: seeds: no stage comes out otherwise with another seed; leave seeds out")
    return instances


class _Expansion:
    """Turns stages into instances; keeps those of the stages before."""

    def __init__(self, config: PipelineConfig, values: Mapping[str, object], prints: Fingerprints, where: str) -> None:
        self._config, self._values, self._prints, self._where = config, values, prints, where
        self._made: dict[str, list[Instance]] = {}
        self._fit: set[tuple[str, storage.StoragePath]] = set()

    def expand(self, stage: str) -> list[Instance]:
        """The instances of a stage whose inputs are expanded already."""
        axes = self._axes_of(stage)
        with readers_spell(key_of(str(self._config.stages[stage]["run"]))):
            choices = itertools.product(*(self._config.axes[axis] for axis in axes))
            made = [self._instance(stage, dict(zip(axes, choice, strict=True))) for choice in choices]
        self._made[stage] = once_for_all_seeds(made) if self._config.seeds else made
        return self._made[stage]

    def _axes_of(self, stage: str) -> list[str]:
        """The axes that a stage names itself or through its inputs, unless ``per`` says them."""
        fields = self._config.stages[stage]
        named = references({key: value for key, value in fields.items() if key != "per"})
        axes = {axis for name in named & set(self._made) for instance in self._made[name] for axis in instance.axes}
        axes |= named & set(self._config.axes)
        if self._takes_seed(stage):
            axes.add(SEED)
        if "per" in fields:
            per = fields["per"]
            if not isinstance(per, list) or not all(isinstance(axis, str) and axis in axes for axis in per):
                raise UsageError(f"{self._where}: {stage}: per = {per!r}: a list out of {', '.join(sorted(axes))}")
            axes = {*per, *(axes & {SEED} if self._config.seeds else ())}
        return [axis for axis in self._config.axes if axis in axes]

    def _takes_seed(self, stage: str) -> bool:
        """Whether the pipeline's seeds are this stage's."""
        fields = self._config.stages[stage]
        path = STAGE_TYPES[fields["run"]].seed
        return bool(self._config.seeds and path) and not says_seed(fields, path)

    def _instance(self, stage: str, axes: dict[str, str]) -> Instance:
        where = f"{self._where}: {stage}"
        fields = {key: value for key, value in self._config.stages[stage].items() if key not in {"run", "per"}}
        kind_name = str(self._config.stages[stage].get("run"))
        kind = STAGE_TYPES[kind_name]
        try:
            values = resolved(fields, lambda name: self._lookup(name, axes, where))
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
        assert isinstance(values, dict)
        if self._takes_seed(stage):
            values = with_seed(values, kind.seed, int(axes[SEED]))
        given = {name: values.pop(name, None) for name in kind.inputs}
        settings = validate(kind.settings, values, where=where)
        try:
            facts = kind.decides(settings)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        rules = {name: (rule, rule.needed(settings)) for name, rule in kind.inputs.items()}
        inputs = {
            name: self._input(name, given[name], rule, where, required=bool(needed)) if needed is not False else ()
            for name, (rule, needed) in rules.items()
        }
        self._check_inputs(inputs, where)
        if self._config.seeds and kind_name == "evaluate":
            check_trigger_known(inputs, self._takes_seed, where)
        identity = identity_of(kind_name, facts, inputs, self._prints, where)
        return Instance(
            stage=stage,
            kind=kind_name,
            axes=axes,
            settings=settings,
            inputs=inputs,
            id=atomic.sha256_json(identity)[:8],
            identity=identity,
        )

    def _check_inputs(self, inputs: Mapping[str, Sequence[Instance | str]], where: str) -> None:
        """Open what can be opened, each once."""
        named = [(name, item) for name, made in inputs.items() if name in _OPENED for item in made]
        for name, at in {
            (name, storage.storage_path(item)) for name, item in named if isinstance(item, str)
        } - self._fit:
            self._prints.of(at, where)  # says that it is not there
            try:
                _OPENED[name](at)
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from error
            self._fit.add((name, at))

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
        if name in self._config.axes and name not in axes:
            raise UsageError(f"{where}: ${{{reference}}}: {name} is not in its 'per'")
        if name not in axes:
            names = sorted({*self._values, *self._config.axes, *self._config.stages})
            raise UsageError(f"{where}: nothing is named {name!r} here; there are: {', '.join(names)}")
        case = self._config.axes[name][axes[name]]
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
        return f": give {setting('values', {empty[0]: '…'})}" if empty else ""


def _checked(item: object, name: str, rule: Input, where: str) -> Instance | str:
    if isinstance(item, Instance) and item.kind in rule.kinds:
        return item
    if isinstance(item, int) and not isinstance(item, bool):
        item = str(item)  # a folder named 2024, which YAML takes for a number
    if isinstance(item, str) and rule.path:
        if name == "source" and isinstance(storage.storage_path(item), storage.Url):
            told = "a source is read from this machine's disks; copy it here first"
            raise UsageError(f"{where}: {name} = {item}: {told}")
        return _NAMED[name](item) if name in _NAMED else item
    allowed = [*(f"a stage that runs {kind!r}" for kind in rule.kinds), *(["a path"] if rule.path else [])]
    got = f"{item.stage}, which runs {item.kind!r}" if isinstance(item, Instance) else repr(item)
    raise UsageError(f"{where}: {name} must be {' or '.join(allowed)}, got {got}")


def _order(config: PipelineConfig, where: str) -> Iterator[str]:
    """Stages, makers before users, otherwise as in the file."""
    for stage, fields in config.stages.items():
        if not isinstance(fields.get("run"), str) or fields["run"] not in STAGE_TYPES:
            raise UsageError(f"{where}: {stage}: run = {fields.get('run')!r}: must be one of {', '.join(STAGE_TYPES)}")
    names = list(config.stages)
    order = TopologicalSorter({stage: references(config.stages[stage]) & set(names) for stage in names})
    try:
        order.prepare()
    except CycleError as error:
        raise UsageError(f"{where}: stages that need each other: {', '.join(dict.fromkeys(error.args[1]))}") from error
    ready: set[str] = set()
    while order.is_active():
        ready |= set(order.get_ready())
        stage = min(ready, key=names.index)
        yield stage
        ready.remove(stage)
        order.done(stage)


def _flat(given: object) -> list[object]:
    if given is None:
        return []
    if isinstance(given, list | tuple):
        return [item for part in given for item in _flat(part)]
    return [given]
