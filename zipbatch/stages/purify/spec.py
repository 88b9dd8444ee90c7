"""From what the user asks to a purifier's full identity, and from that to a working purifier."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from zipbatch.checkpoints import PriorFolder, Restorer, load_prior, open_prior, read_calibration, read_restorer
from zipbatch.config import DEFAULTS, Settings, find_config, read_config, validate
from zipbatch.errors import UsageError
from zipbatch.purifiers import (
    PURIFIERS,
    ChainSettings,
    PriorSettings,
    Purifier,
    RepaintSettings,
    Resources,
    RestoreSettings,
    SamplerSettings,
    Step,
)
from zipbatch.purifiers.base import Precision
from zipbatch.stages.purify.step_settings import is_of_step, with_step_settings
from zipbatch.storage import StoragePath

log = logging.getLogger(__name__)
DEFAULT_PRESET = DEFAULTS["purifiers"]
SINGLE_PRESET = "balanced-v1"
"""What single settings are of where no preset is named: they are ZIP's, and the default is a chain."""
CHAIN = "chain"
OutputSize = Literal["input", "prior"]
TILING = "shard order, last canvas repeats its own"


@dataclass(frozen=True)
class PurifierSpec:
    """Everything that decides how pixels change, resolved and checked. Small and picklable.

    ``libraries`` are those of the machine that resolved it; a worker with others refuses the work. ``output_size`` is
    what images that were resized to fit the prior come out with: the size they came with, or the prior's.
    ``keep_masks``: purified samples get what was repainted of them, too.
    """

    method: str
    settings: Settings
    seed: int
    precision: Precision
    resize: str | None
    prior: PriorFolder | None
    libraries: Mapping[str, str] = field(default_factory=dict)
    output_size: OutputSize = "input"
    keep_masks: bool = False
    restorer: Restorer | None = None

    def row_of(self, height: int, width: int) -> int:
        """Images of that size to a row of the network's batch; raises ``ValueError`` when they cannot be purified."""
        prior_size = None if self.prior is None else self.prior.image_size
        return PURIFIERS[self.method].row_of(self.settings, height, width, prior_size=prior_size)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The purifiers that it consists of, mostly one."""
        return _steps(self.method, self.settings)

    @property
    def needs_prior(self) -> bool:
        """Whether any of them needs one."""
        return any(step.kind.needs_prior for step in self.steps)

    @property
    def working_bytes(self) -> int:
        """The most that one of them takes in memory for each value of an image, without a prior."""
        return max(step.kind.working_bytes for step in self.steps)

    @property
    def passes(self) -> int:
        """Forward passes of the prior that progress counts an image by; 1 where there is no prior."""
        return 1 if self.prior is None else self.calls[1]

    @property
    def calls(self) -> tuple[int, int]:
        """Forward passes of the prior that an image takes, at least and at most."""
        if self.prior is None:
            return 0, 0
        steps, total = self.prior.training_steps, [0, 0]
        for step in self.steps:
            if isinstance(step.settings, PriorSettings):
                total[0] += step.draws * step.settings.least_calls(steps)
                total[1] += step.draws * step.settings.calls(steps)
        return total[0], total[1]

    @property
    def files(self) -> tuple[Path, ...]:
        """Files on this machine's disk that ``build_purifier`` reads."""
        folders = (self.prior, None if self.restorer is None else self.restorer.folder)
        return tuple(
            file for folder in folders if folder is not None for file in folder.files if isinstance(file, Path)
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides purified pixels and nothing else (DESIGN, "The store"): no paths, batch sizes or workers.

        Without its prior it lacks that prior's digest alone: so a pipeline knows a stage by it before a prior is there.
        """
        identity: dict[str, Any] = {
            "method": self.method,
            "algorithm_version": PURIFIERS[self.method].version,
            "settings": self._told,
            "resize": self.resize,
        }
        if self.resize is not None and self.output_size == "input":  # before there was a choice, it was the prior's
            identity["output_size"] = self.output_size
        if any(step.seeded for step in self.steps):
            identity["seed"] = self.seed
        if self.libraries:
            identity["libraries"] = dict(self.libraries)
        if self.needs_prior:
            identity |= {"precision": self.precision, "tiling": TILING}
        if self.keep_masks:
            identity["keep_masks"] = True
        if self.prior is not None:
            identity["prior_sha256"] = self.prior.digest
        return identity

    @property
    def _told(self) -> dict[str, Any]:
        """Its settings; those of a chain with what decides the pixels of each step."""
        if isinstance(self.settings, ChainSettings):
            return {"steps": [step.told for step in self.settings.steps]}
        return self.settings.model_dump(mode="json")


def _steps(method: str, settings: Settings) -> tuple[Step, ...]:
    return settings.steps if isinstance(settings, ChainSettings) else (Step(method=method, settings=settings, draws=1),)


def _libraries(method: str, settings: Settings) -> dict[str, str]:
    """Versions of those whose arithmetic decides pixels, of all steps."""
    return {name: version for step in _steps(method, settings) for name, version in step.kind.libraries.items()}


def chosen_purifier(
    *,
    preset: str | None = None,
    method: str | None = None,
    overrides: Mapping[str, object] | None = None,
    assigned: Mapping[str, object] | None = None,
) -> tuple[str, Settings]:
    """The purifier's name and its settings: a preset (or file), or a method's defaults, with single ones on top.

    Args and errors as in ``purifier_spec``; settings are not held against a prior yet.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    of_steps = {name: value for name, value in (assigned or {}).items() if is_of_step(name)}
    assigned = {name: value for name, value in (assigned or {}).items() if name not in of_steps}
    if preset is None and method is None and (given or assigned):
        preset = SINGLE_PRESET
        _tell(f"settings of zip are given, and no preset: taking {preset}, not {DEFAULT_PRESET}, which is a chain")
    method, values, where = _preset_or_method(preset, method)
    kind = PURIFIERS[method]
    _check_names(kind, method, given, assigned)
    validate(kind.settings_type, values, where=where)
    merged = {**values, **given, **assigned}
    settings = validate(kind.settings_type, merged, where="settings given as flags")
    if not of_steps:
        return method, settings
    merged["steps"] = _steps_with(of_steps, merged.get("steps", ChainSettings.DEFAULT_STEPS), method)
    return method, validate(kind.settings_type, merged, where="settings given as flags")


def _preset_or_method(preset: str | None, method: str | None) -> tuple[str, dict[str, object], str]:
    """A purifier's name, the settings that a preset has of it, and where both are from, for messages."""
    values: dict[str, object] = {}
    where = f"--purifier {method}"
    if preset is not None or method is None:
        file = find_config("purifiers", preset or DEFAULT_PRESET)
        values, where = read_config(file), str(file)
        chosen = str(values.pop("method", CHAIN if isinstance(values.get("steps"), list) else "zip"))
        if method is not None and method != chosen:
            raise UsageError(f"{file} is a preset of {chosen}, not of --purifier {method}")
        method = chosen
    if method not in PURIFIERS:
        raise UsageError(f"{where}: unknown purifier {method!r}; known: {', '.join(PURIFIERS)}")
    return method, values, where


def _steps_with(assigned: Mapping[str, object], steps: object, method: str) -> list[Mapping[str, object]]:
    """Steps, as they are written and found sound, with single settings written into them."""
    if method != CHAIN:
        name, value = next(iter(assigned.items()))
        raise UsageError(
            f"--set {name}={value}: the purifier {method} is no chain, so its settings have no step before them; "
            f"it has: {', '.join(PURIFIERS[method].settings_type.model_fields)}"
        )
    assert isinstance(steps, list | tuple)
    return with_step_settings(steps, assigned)


def purifier_spec(
    *,
    preset: str | None = None,
    method: str | None = None,
    overrides: Mapping[str, object] | None = None,
    assigned: Mapping[str, object] | None = None,
    prior: StoragePath | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    resize: str | None = None,
    output_size: OutputSize | None = None,
    keep_masks: bool = False,
) -> PurifierSpec:
    """Resolve a preset (or file), flags on top of it, and the prior.

    Args:
        preset: a name in ``configs/purifiers`` or a file; None for the method's defaults (no method: the default).
        method: a name in ``PURIFIERS``; None for the preset's.
        overrides: settings by name that replace the preset's; None leaves one as it is.
        assigned: the same of ``--set``, where None is a value; a chain's steps are set by ``NUMBER.NAME`` and
            ``METHOD.NAME``.
        prior: the diffusion model's folder.
        seed: of all that is random.
        precision: of the network's forward pass.
        resize: what to do with images that the prior does not fit.
        output_size: what those come out with; None for their own size, or the prior's where they are cropped.
        keep_masks: whether purified samples get what was repainted of them, too.

    Raises:
        UsageError: unknown preset or method, settings that do not fit or do not apply, no prior where one is needed.
    """
    asked = asked_purifier(
        preset=preset,
        method=method,
        overrides=overrides,
        assigned=assigned,
        seed=seed,
        precision=precision,
        resize=resize,
        output_size=output_size,
        keep_masks=keep_masks,
    )
    return with_prior(asked, prior)


def asked_purifier(
    *,
    preset: str | None = None,
    method: str | None = None,
    overrides: Mapping[str, object] | None = None,
    assigned: Mapping[str, object] | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    resize: str | None = None,
    output_size: OutputSize | None = None,
    keep_masks: bool = False,
) -> PurifierSpec:
    """``purifier_spec`` as far as it can be told before the prior is there; ``with_prior`` does the rest."""
    method, settings = chosen_purifier(preset=preset, method=method, overrides=overrides, assigned=assigned)
    size, libraries = _output_size(resize, output_size), _libraries(method, settings)
    spec = PurifierSpec(method, settings, seed, precision, resize, None, libraries, size, keep_masks)
    if keep_masks and not any(step.kind.masks for step in spec.steps):
        raise UsageError("--keep-masks is for purifiers that mask what they repaint: none of these does; take repaint")
    if resize is not None and not spec.needs_prior:
        raise UsageError(f"--resize does not apply to the purifier {method}: it takes images of any size")
    return spec


def with_prior(asked: PurifierSpec, prior: StoragePath | None) -> PurifierSpec:
    """The spec with its prior opened and its settings held against that; as it is where it needs none.

    Raises:
        UsageError: no prior where one is needed, one that is unfit, or settings that do not fit it.
    """
    if not asked.needs_prior:
        return asked
    if prior is None:
        raise UsageError(
            f"the purifier {asked.method} needs a diffusion model: --prior DIR, FILE.pt or hub:NAME "
            "(or --prior embedded)"
        )
    return with_opened(asked, opened_prior(prior))


def opened_prior(prior: StoragePath) -> PriorFolder:
    """A prior's folder or file; of one file it is told what cannot be seen in it.

    Raises:
        UsageError: there is none, or it is unfit.
    """
    folder = open_prior(prior)
    if folder.guided is not None:
        _tell(f"{prior}: taken for granted: {folder.guided.flags.told}; 'zipbatch import prior' takes others")
    return folder


def with_opened(asked: PurifierSpec, folder: PriorFolder) -> PurifierSpec:
    """As ``with_prior``, of a prior that is open."""
    if not asked.needs_prior:
        return asked
    restores = any(isinstance(step.settings, RestoreSettings) for step in asked.steps)
    restorer = read_restorer(folder) if restores else None
    return replace(asked, settings=_resolved(asked.settings, folder, restorer), prior=folder, restorer=restorer)


def check_steps(spec: PurifierSpec, prior: PriorFolder) -> None:
    """Hold a spec's steps against what a prior has learned, before anything is resolved.

    Raises:
        UsageError: a step needs a restorer that is not there.
        ValueError: a step asks about timesteps that the prior has not learned.
    """
    for step in spec.steps:
        if isinstance(step.settings, RestoreSettings):
            read_restorer(prior)
        elif isinstance(step.settings, SamplerSettings):
            step.settings.check_learned(prior.training_steps, prior.trained_below)


def _output_size(resize: str | None, asked: OutputSize | None) -> OutputSize:
    """What resized images come out with. A crop leaves pixels out, and those are never put back unpurified."""
    if resize is None and asked is not None:
        raise UsageError(
            f"--output-size {asked} is for images that are made to fit; give --resize, too, or leave it out"
        )
    if resize == "center-crop" and asked == "input":
        raise UsageError(
            "--resize center-crop purifies the middle square alone, so images of the input's size cannot come out: "
            "take --output-size prior for that square at the prior's size, or --resize stretch for whole images"
        )
    return asked or ("prior" if resize == "center-crop" else "input")


@lru_cache
def _tell(message: str) -> None:
    """Warn once, however often a prior is opened."""
    log.warning(message)


def _check_names(kind: type[Purifier], method: str, flags: Iterable[str], assigned: Mapping[str, object]) -> None:
    """Raises ``UsageError`` for a setting that the purifier does not have, or that is given twice."""
    known = kind.settings_type.model_fields
    for name in flags:
        flag = f"--{name.replace('_', '-')}"
        if method == CHAIN:
            raise UsageError(
                f"{flag} does not apply to a chain of purifiers, as several presets are: say it of a step, "
                f"--set zip.{name}=…, or take one purifier: --preset {SINGLE_PRESET}"
            )
        if name not in known:
            raise UsageError(f"{flag} does not apply to the purifier {method}")
        if name in assigned:
            raise UsageError(f"{flag} and --set {name}={assigned[name]} both set {name}; give one")
    for name, value in assigned.items():
        if name not in known:
            more = f"; of a step it is set by its number or method: --set 1.{name}={value}" if method == CHAIN else ""
            raise UsageError(
                f"--set {name}={value}: the purifier {method} has no such setting; it has: {', '.join(known)}{more}"
            )


def _resolved(settings: Settings, folder: PriorFolder, restorer: Restorer | None) -> Settings:
    """Settings held against the prior's schedule; null is T, a start above T is T: one behaviour, one identity."""
    if isinstance(settings, ChainSettings):
        return settings.with_each(lambda own: _resolved(own, folder, restorer))
    try:
        if isinstance(settings, RestoreSettings) and restorer is not None:
            return settings.taught(restorer.sha256, restorer.max_step)
        if not isinstance(settings, SamplerSettings):
            return settings
        if isinstance(settings, RepaintSettings) and settings.levels is None:
            settings = settings.calibrated(read_calibration(folder))
        steps, start_step = settings.grid(folder.training_steps)
        resolved = settings.model_copy(update={"steps": steps, "start_step": start_step})
        resolved.check_learned(folder.training_steps, folder.trained_below)
    except ValueError as error:
        raise UsageError(f"{folder.path}: {error}") from error
    return resolved


def uncalibrated(spec: PurifierSpec) -> Settings:
    """A spec's settings as a preset has them: without what comes with the prior's calibration, which may be another one
    by the time, or another prior's.
    """

    def bare(settings: Settings) -> Settings:
        if isinstance(settings, ChainSettings):
            return settings.with_each(bare)
        if not settings.LEARNED or spec.prior is None:
            return settings
        without = settings.model_copy(update=dict.fromkeys(settings.LEARNED))
        try:
            learned = _resolved(without, spec.prior, spec.restorer)
        except UsageError:
            return settings
        return without if learned == settings else settings

    return bare(spec.settings)


def build_purifier(
    spec: PurifierSpec,
    device: torch.device,
    *,
    heartbeat: Callable[[], None] = lambda: None,
    begin_pass: Callable[[], None] = lambda: None,
    keep_masks: Callable[[Sequence[str], torch.Tensor], None] = lambda _keys, _masks: None,
    local: Callable[[StoragePath], StoragePath] = lambda place: place,
) -> Purifier:
    """Load what the purifier needs onto ``device``.

    Args:
        spec: which purifier, and its settings.
        device: where it computes.
        tick: called between pieces of work, each forward pass of the prior among them.
        begin_pass: called before each forward pass of the prior.
        keep_masks: called with keys and what of their images is repainted, bool [N, H, W].
        local: where a file that ``spec`` names can be read on this machine.

    Raises:
        UsageError: the prior cannot be loaded, or this machine's libraries would make other pixels.
    """
    libraries = _libraries(spec.method, spec.settings)
    if libraries != spec.libraries:
        raise UsageError(
            f"{spec.method} depends on {_versions(spec.libraries)}, this worker has {_versions(libraries)}; "
            "install the same on all machines"
        )
    exact_on(device)
    asks_prior = any(isinstance(step.settings, SamplerSettings) for step in spec.steps)
    prior, restorer = (
        None if folder is None else load_prior(folder.read_through(local)).to(device)
        for folder in (spec.prior if asks_prior else None, None if spec.restorer is None else spec.restorer.folder)
    )
    resources = Resources(device, prior, spec.seed, spec.precision, heartbeat, begin_pass, keep_masks, restorer)
    return PURIFIERS[spec.method](spec.settings, resources)


def exact_on(device: torch.device) -> None:
    """Let float32 mean float32 on a GPU: TF32 keeps 10 bits, and results would differ between devices and runs."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True


def _versions(libraries: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in libraries.items()) or "none"
