"""A purifier with everything that decides what it does to pixels, and how a store knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zipbatch.checkpoints import PriorFolder, Restorer
from zipbatch.config import Settings
from zipbatch.purifiers import PURIFIERS, ChainSettings, PriorSettings, Step
from zipbatch.purifiers.settings import Precision
from zipbatch.stages.purify.request import AUTO, OutputSize, PurifierRequest

TILING = "shard order, last canvas repeats its own"


@dataclass(frozen=True, kw_only=True)
class PurifierSpec:
    """Everything that decides how pixels change, resolved and checked. Small and picklable.

    Attributes:
        method: the purifier, a name in ``PURIFIERS``.
        settings: its own, wherever they come from.
        asked: the request, for all that is no setting of the purifier itself.
        prior: the diffusion model, where one is needed and is there already.
        libraries: those of the machine that resolved it; a worker with others refuses the work.
        restorer: what was learned beside the prior, where a step asks for it.
        auto: what the precision ``auto`` is; float32 until it is decided for workers (``precision.decided``), as where
            the same is to come out on every machine: in pipelines.
    """

    method: str
    settings: Settings
    asked: PurifierRequest = PurifierRequest()
    prior: PriorFolder | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    restorer: Restorer | None = None
    auto: Precision = "float32"

    @property
    def precision(self) -> Precision:
        """Of the prior's forward passes."""
        return self.auto if self.asked.precision == AUTO else self.asked.precision

    @property
    def output_size(self) -> OutputSize:
        """What images that were resized to fit the prior come out with. A crop leaves pixels out, and those are never
        put back unpurified.
        """
        return self.asked.output_size or ("prior" if self.asked.resize == "center-crop" else "input")

    def images_per_row(self, height: int, width: int) -> int:
        """Images of that size to a row of the network's batch; raises ``ValueError`` when they cannot be purified."""
        prior_size = None if self.prior is None else self.prior.image_size
        return PURIFIERS[self.method].images_per_row(self.settings, height, width, prior_size=prior_size)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The purifiers that it consists of, mostly one."""
        return steps_of(self.method, self.settings)

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

        What decides pixels as it was asked for is taken from the request, what is told in a way of its own is named
        here. Without its prior it lacks that prior's digest alone: so a pipeline knows a stage by it before a prior is
        there.
        """
        identity: dict[str, Any] = {
            "method": self.method,
            "algorithm_version": PURIFIERS[self.method].version,
            "settings": self._told,
            "resize": self.asked.resize,
        }
        if self.asked.resize is not None and self.output_size == "input":  # before there was a choice: the prior's
            identity["output_size"] = self.output_size
        if any(step.seeded for step in self.steps):
            identity["seed"] = self.asked.seed
        if self.libraries:
            identity["libraries"] = dict(self.libraries)
        if self.needs_prior:
            identity |= {"precision": self.precision, "tiling": TILING}
        if self.prior is not None:
            identity["prior_sha256"] = self.prior.digest
        return self.asked.decisive("result") | identity

    @property
    def _told(self) -> dict[str, Any]:
        """Its settings; those of a chain with what decides the pixels of each step."""
        if isinstance(self.settings, ChainSettings):
            return {"steps": [step.told for step in self.settings.steps]}
        return self.settings.model_dump(mode="json")


def steps_of(method: str, settings: Settings) -> tuple[Step, ...]:
    """The purifiers that one consists of, mostly one."""
    return settings.steps if isinstance(settings, ChainSettings) else (Step(method=method, settings=settings, draws=1),)


def libraries_of(method: str, settings: Settings) -> dict[str, str]:
    """Versions of those whose arithmetic decides pixels, of all steps."""
    return {name: version for step in steps_of(method, settings) for name, version in step.kind.libraries.items()}
