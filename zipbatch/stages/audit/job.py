"""An audit request, opened: its victim, images, purifiers and store."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zipbatch.cluster import Workers
from zipbatch.config import DEFAULTS
from zipbatch.datasets import ShardDataset
from zipbatch.endpoints import HttpVictim, PythonVictim
from zipbatch.errors import UsageError
from zipbatch.spelling import setting
from zipbatch.stages.assets import prior_path
from zipbatch.stages.audit.request import AuditRequest
from zipbatch.stages.evaluate.suspects import opened_suspects
from zipbatch.stages.evaluate.victims import find_victim
from zipbatch.stages.purify.resolve import asked_purifier, with_prior
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.storage import storage_path
from zipbatch.store import Store
from zipbatch.victims import VictimSource


@dataclass(frozen=True, kw_only=True)
class AuditJob:
    """Whom to audit on which images, all of ``dataset``.

    Attributes:
        purified: versions that exist in the store, ``NAME[@TAG]``, weakest first; else there are ``purifiers``.
        purifiers: with which to purify the images, by name, weakest first.
        share: of images with the trigger which must not be missed for nothing to be found, 0 to 1.
        store: of the versions, or where purified images are kept, and where answers are; None for as long as the audit
            takes.
        workers: who does the work.
        batch_size: of the network.
    """

    victim: VictimSource
    dataset: ShardDataset
    data_label: str
    purified: tuple[str, ...] = ()
    purifiers: tuple[tuple[str, PurifierSpec], ...] = ()
    share: float = 0.1
    store: Store | None = None
    workers: Workers = Workers()
    batch_size: int = 32

    @property
    def forms(self) -> tuple[str, ...]:
        """What the user calls the ways in which images are purified."""
        return self.purified or tuple(name for name, _ in self.purifiers)


def opened_job(request: AuditRequest, workers: Workers) -> AuditJob:
    """Open what a request names.

    Raises:
        UsageError: a victim, images, a prior or a preset that are not there or do not fit.
    """
    purifiers = () if request.purified else _purifiers(request)
    return AuditJob(
        victim=_victim(request),
        dataset=opened_suspects(request, purpose="audit"),
        data_label=" ".join(request.data),
        purified=request.purified,
        purifiers=purifiers,
        share=request.share,
        store=None if request.store is None else Store(storage_path(request.store)),
        workers=workers,
        batch_size=request.batch_size,
    )


def _victim(request: AuditRequest) -> VictimSource:
    victim = find_victim(request.victim)
    if request.victim_version is None:
        return victim
    if isinstance(victim, HttpVictim | PythonVictim):
        return replace(victim, version=request.victim_version)
    raise UsageError(f"‹victim_version›: {victim.label} is a folder, whose weights tell which they are; leave it out")


def _purifiers(request: AuditRequest) -> tuple[tuple[str, PurifierSpec], ...]:
    where = None if request.prior is None else prior_path(request.prior)
    names = dict.fromkeys(request.presets or (DEFAULTS["purifiers"],))
    asked = {name: asked_purifier(request.purifier(name)) for name in names}
    if where is not None and not any(spec.needs_prior for spec in asked.values()):
        raise UsageError(f"{setting('prior', request.prior)}: no preset that is asked for needs one; leave it out")
    return tuple((name, with_prior(spec, where if spec.needs_prior else None)) for name, spec in asked.items())
