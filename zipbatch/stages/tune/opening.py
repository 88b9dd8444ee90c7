"""From what ``tune`` is asked to its jobs: what a request names, opened, a prior trained first where that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zipbatch.cluster import Workers, pick_device
from zipbatch.config import PriorConfig, find_config, load_config
from zipbatch.datasets import ShardDataset
from zipbatch.datasets.clean_images import held_out_split
from zipbatch.datasets.source import Source, open_source
from zipbatch.errors import UsageError
from zipbatch.spelling import setting
from zipbatch.stages.assets import EMBEDDED, prior_path, source_place
from zipbatch.stages.evaluate.answers import Report
from zipbatch.stages.evaluate.suspects import opened_suspects
from zipbatch.stages.evaluate.victims import find_victim
from zipbatch.stages.purify.resolve import opened_prior, purifier_spec
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.train.prior import train_prior
from zipbatch.stages.train.source_images import held_out_of
from zipbatch.stages.tune.candidates import Candidate, check_trainable
from zipbatch.stages.tune.fit_plan import FitJob, FitPlan, plan_fit, sized
from zipbatch.stages.tune.request import TuneRequest
from zipbatch.stages.tune.sweep import TuneJob, candidates_around
from zipbatch.storage import storage_path
from zipbatch.store import Store
from zipbatch.victims import VictimSource


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a request names, whatever is done with it.

    Attributes:
        victim: whose answers count.
        suspects: images that a strength is tuned on; None for no tuning.
        store: where purified images are kept; None for as long as the run.
        workers: who does the work.
    """

    victim: VictimSource
    suspects: ShardDataset | None
    store: Store | None
    workers: Workers


def opened(request: TuneRequest, workers: Workers) -> Opened:
    """Open the victim, the suspect images and the store.

    Raises:
        UsageError: one is not there, or is no such thing.
    """
    return Opened(
        victim=find_victim(request.victim),
        suspects=opened_suspects(request, purpose="tune") if request.data else None,
        store=None if request.store is None else Store(storage_path(request.store)),
        workers=workers,
    )


def own_purifier(request: TuneRequest) -> PurifierSpec:
    """The preset whose strength is tuned, where none is fitted.

    Raises:
        UsageError: no such preset or prior, or they do not fit.
    """
    return purifier_spec(request.purifier(request.preset), prior_path(request.prior))


def tune_job(request: TuneRequest, named: Opened, middle: PurifierSpec) -> TuneJob | None:
    """A purifier to be tuned on the suspects; None where there are none.

    Raises:
        UsageError: it has no strength, or an exponent cannot be.
    """
    if named.suspects is None or named.store is None:
        return None
    candidates, own = candidates_around(middle, request.exponents)
    return TuneJob(
        victim=named.victim,
        dataset=named.suspects,
        data_label=" ".join(request.data),
        candidates=candidates,
        own=own,
        store=named.store,
        limit=request.limit,
        workers=named.workers,
        batch_size=request.batch_size,
    )


def fit_plan(
    request: TuneRequest, clean: str, named: Opened, candidates: Sequence[Candidate], report: Report
) -> FitPlan:
    """The choice among presets, planned on the images ``clean``; a prior is trained first where that is asked.

    Raises:
        UsageError: something does not fit; most is told before any work.
        DataError: an image cannot be read.
    """
    last = None if request.train_minutes is None else _trained(request, clean, named, candidates, report)
    source = _clean_images(request, clean, named, (request.fit_split,) if request.fit_split else ())
    plan = plan_fit(
        FitJob(
            victim=named.victim,
            source=source,
            split=held_out_split(source),
            prior=opened_prior(prior_path(request.prior)).pinned(),
            candidates=tuple(candidates),
            last=last,
            limit=request.fit_limit,
            max_loss=request.max_loss,
            relearn=request.calibrate,
            store=named.store,
            workers=named.workers,
            batch_size=request.batch_size,
        )
    )
    manifest = None if named.suspects is None else named.suspects.manifest
    if manifest is not None and manifest.image_size != plan.size:
        raise UsageError(
            f"‹data›: images of {manifest.image_size} px, those of ‹fit› have {plan.size}; fit to images of their size "
            f"({setting('image_size', manifest.image_size)})"
        )
    return plan


def _clean_images(request: TuneRequest, clean: str, named: Opened, splits: tuple[str, ...]) -> Source:
    """The clean images, of the size that the victim is asked at."""
    return sized(open_source(source_place(clean), splits, labelled=False), named.victim, request.image_size)


def _trained(
    request: TuneRequest, clean: str, named: Opened, candidates: Sequence[Candidate], report: Report
) -> int | None:
    """Train a prior, or go on with it, or find it done; how many images at the end of the split were left out of it."""
    if request.prior == EMBEDDED or ":" in request.prior:
        raise UsageError(
            f"{setting('prior', request.prior)}: ‹train_minutes› trains one in a folder of this machine; name that"
        )
    overrides = {"minutes": request.train_minutes}
    config = load_config(find_config("priors", request.train_preset), PriorConfig, overrides)
    check_trainable(candidates, config)
    source = _clean_images(request, clean, named, ())
    last, what = held_out_of(source, config, request.fit_split), f"training {request.prior}"
    device = pick_device(named.workers.device)
    train_prior(source, Path(request.prior), config, device=device, on_progress=lambda p: report(p.shown(what)))
    return last
