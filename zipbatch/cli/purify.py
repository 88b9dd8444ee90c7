"""``zipbatch purify``."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, get_args

import click

from zipbatch.cli.number import Number
from zipbatch.cli.options import JSON, cache_options, emit_json, worker_options
from zipbatch.cli.render import Screen, screen
from zipbatch.cli.request_options import options_of
from zipbatch.cli.run_context import LockPolicy, locked, report_options, run_context
from zipbatch.cli.spelling import flag
from zipbatch.spelling import spelled
from zipbatch.stages.purify.request import NetworkRequest, PurifyRequest

if TYPE_CHECKING:
    from zipbatch.cluster import WorkerRequest, Workers
    from zipbatch.report.progress import Progress
    from zipbatch.stages.purify.estimate import Estimate
    from zipbatch.stages.purify.plan import PurifyPlan
    from zipbatch.stages.purify.run import PurifySummary

log = logging.getLogger(__name__)
_UNKNOWN_TIME = (
    "not known: no earlier shard of this purifier in the store; 'zipbatch bench' with these settings measures it"
)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="STAGED|SHARDS…")
@options_of(
    PurifyRequest,
    first=("prior", "store", "name", "tag", "latest", "splits"),
    last=(*NetworkRequest.model_fields, "trust_mtime"),
)
@worker_options
@cache_options
@click.option("--max-hours", type=Number(0), metavar="H", help="Begin no shard after H hours.")
@click.option(
    "--lock",
    type=click.Choice(get_args(LockPolicy)),
    help="Let no two runs on this dataset and store overlap: the later one skips (exit 0), waits, or fails.",
)
@report_options
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it may take, and stop.")
@JSON
def purify(
    sources: tuple[str, ...],
    request: PurifyRequest,
    who: WorkerRequest,
    max_hours: float | None,
    lock: LockPolicy | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Purify shards into a versioned store.

    Give a staged dataset, or any webdataset tars: files, folders, brace patterns, on a disk or in an object store
    (s3://, gs://). What the store has already is not computed again, so the same command resumes a stopped run and
    does nothing when all is done.

    \b
    Examples:
      zipbatch purify shards/cifar10-badnets --prior embedded --store pur/ --workers 2 --tag nightly
      zipbatch purify shards/cifar10-badnets --prior embedded --store pur/ --limit 100
      zipbatch purify shards/cifar10-badnets --purifier jpeg --set quality=75 --store pur/ --tag jpeg75
      zipbatch purify shards/cifar10-badnets --prior embedded --preset balanced --set jpeg.quality=75 --store pur/
      zipbatch purify shards/cifar10-badnets --prior embedded --store pur/ --chain 'jpeg quality=60' \\
          --chain 'zip start_step=60 guidance_exponent=40'
      zipbatch purify 'incoming/day-{000..009}.tar' --prior priors/cifar10 --store pur/ --gpus 8
      zipbatch purify shards/imagenette-badnets --prior 256x256_diffusion_uncond.pt --preset fast \\
          --store pur/ --gpus 8
      zipbatch purify 's3://in/day-{000..009}.tar' --prior s3://models/prior --store s3://out/pur --gpus 8
      zipbatch purify shards/cifar10-badnets --prior hub:google/ddpm-cifar10-32 --preset fast --store pur/
      zipbatch -q purify incoming/ --prior priors/mine --store pur/ --gpus 8 --lock skip --max-hours 6 \\
          --summary /var/lib/zipbatch/purify.json --metrics /var/lib/node_exporter/zipbatch.prom
    """
    from zipbatch.stages.purify.job import opened_job
    from zipbatch.stages.purify.plan import plan_purify
    from zipbatch.stages.purify.publish import check_tagged

    job = opened_job(sources, request, who.resolve())
    if dry_run:
        run_context().unreported()
        _show_plan(plan_purify(job), as_json=as_json)
        return
    noted, root = run_context(), job.store.root
    noted.dataset, noted.store = job.dataset.name, str(root)
    stop_at = noted.stop_at(max_hours)
    with locked(lock, store=root, dataset=job.dataset.name, stop_at=stop_at) as mine:
        if not mine:
            return
        with screen() as shown:
            summary = _purified(plan_purify(job), stop_at, shown)
        _show_summary(summary, as_json=as_json)
        check_tagged(summary, job.dataset.name, job.tag)


def _purified(plan: PurifyPlan, stop_at: float | None, shown: Screen) -> PurifySummary:
    from zipbatch.stages.purify.run import purify as run

    noted, what = run_context(), f"purifying {plan.job.dataset.name}"
    shown.begin(what, _to_do(plan))

    def show(p: Progress) -> None:
        shown.show(p.shown(what))
        noted.failed, noted.counts = p.failed, p.counts

    summary = run(plan, on_progress=show, stop_at=stop_at)
    if summary.latest_left is not None:
        summary = replace(summary, latest_left=spelled(summary.latest_left, flag))
        log.warning("%s", summary.latest_left)
    noted.version, noted.tags = summary.version, summary.tags
    noted.latest_left, noted.tags_left = summary.latest_left, summary.tags_left
    noted.nothing_to_do = not summary.computed and not summary.new_version
    return summary


def _to_do(plan: PurifyPlan) -> str:
    """``3 shards, 180 images: 1 done before; about 2 minutes, as 4 shards before took``."""
    from zipbatch.stages.purify.estimate import estimate

    images = "" if plan.images is None else f", {plan.images} images"
    text = f"{len(plan.shards)} shards{images}: {len(plan.rows)} done before"
    if not plan.tasks:
        return text
    guess = estimate(plan)
    return f"{text}; {'no earlier run tells how long it takes' if guess is None else guess.text}"


def _show_summary(summary: PurifySummary, *, as_json: bool) -> None:
    from zipbatch.store.headers import trial_text

    if as_json:
        emit_json(asdict(summary))
        return
    rate = f", {summary.samples_per_s:g} images/s" if summary.computed else ""
    click.echo(f"{summary.reference}: version {summary.version}{'' if summary.new_version else ' (unchanged)'}")
    click.echo(
        f"  {summary.shards} shards, {summary.samples} images: {summary.computed} computed, {summary.reused} reused, "
        f"{summary.seconds:g} s{rate}"
    )
    if summary.trial is not None:
        click.echo(f"  a trial: {trial_text(summary.trial, summary.counts)}")
    if summary.quarantined:
        click.echo(f"  {summary.quarantined} more images quarantined: see 'zipbatch store show {summary.reference}'")
    if summary.in_float32:
        click.echo(f"  {summary.in_float32} images were not finite in that precision, and were done again in float32")
    if summary.other_images:
        click.echo(f"  {summary.other_images} images beside the samples' own kept as they are, not purified")


def _show_plan(plan: PurifyPlan, *, as_json: bool) -> None:
    from zipbatch.report.columns import Look, pairs_text
    from zipbatch.stages.purify.estimate import estimate

    job, guess = plan.job, estimate(plan)
    sizes = plan.input_bytes()
    value: dict[str, Any] = {
        "dataset": job.dataset.name,
        "shards": len(plan.shards),
        "reused": len(plan.rows),
        "to_compute": plan.to_compute,
        "to_look_at": plan.doubted,
        "of_unknown_digest": sum(task.sha256 is None for task in plan.tasks),
        "purifier": plan.identity,
        "store": str(job.store.root),
        "tag": job.tag,
        "latest": {None: "auto", True: "moves", False: "stays"}[job.latest],
        "quarantine": job.quarantine,
        "other_images": "keep" if job.keep_others else "refuse",
        "batch_size": job.settings.batch_size,
        "workers": asdict(job.workers),
        "parent": plan.parent,
        "images": plan.images,
        "images_to_compute": plan.images_left,
        "bytes": sizes,
        "estimated_seconds": None if guess is None else round(guess.seconds, 1),
        **({} if plan.trial is None else {"trial": plan.trial}),
    }
    if as_json:
        emit_json(value)
        return
    click.echo(f"would purify {job.dataset.name} into {job.store.root}")
    click.echo(pairs_text(_plan_for_people(plan, sizes, guess), Look()), nl=False)


def _plan_for_people(plan: PurifyPlan, size: int, guess: Estimate | None) -> dict[str, str]:
    from zipbatch.report.units import plain_text, size_text
    from zipbatch.stages.purify.choose import named_preset
    from zipbatch.stages.purify.identity import describe, preset_text

    job, left = plan.job, plan.images_left
    preset = named_preset(job.settings)
    unknown = sum(task.sha256 is None for task in plan.tasks)
    new = f" ({unknown} never seen: looked up when they are read)" if unknown else ""
    images = "not counted: no manifest says" if plan.images is None else f"{plan.images}, {left} of them to compute"
    others = {k: v for k, v in plan.identity.items() if k not in {"method", "settings"} and v is not None}
    looked = f", {plan.doubted} to be read: done before, but touched since" if plan.doubted else ""
    time = "nothing to compute" if not plan.to_compute else _UNKNOWN_TIME
    return {
        **_trial(plan),
        "shards": f"{len(plan.shards)}, {size_text(size)}: {len(plan.rows)} done before, "
        f"{plan.to_compute} to compute{new}{looked}",
        "images": images,
        "time": time if guess is None or not plan.to_compute else guess.text,
        "purifier": describe(plan.identity),
        **({} if preset is None else {"preset": preset_text(preset)}),
        **{name.replace("_", " "): plain_text(entry) for name, entry in others.items()},
        "workers": _workers_text(job.workers),
        "batch": f"{job.settings.batch_size} images",
        "tag": ", ".join(_tags(plan)) or "none",
        "parent": plan.parent or "none",
        "unreadable": "set aside (--quarantine)" if job.quarantine else "fail their shard",
    }


def _trial(plan: PurifyPlan) -> dict[str, str]:
    """What a trial would take."""
    from zipbatch.stages.purify.trial import shards_by_split

    if plan.trial is None:
        return {}
    taken = shards_by_split(plan.shards)
    return {"trial": ", ".join(f"{taken[split]} of {total} shards of {split}" for split, total in plan.trial.items())}


def _workers_text(workers: Workers) -> str:
    if not workers.uses_ray:
        return f"this process, device {workers.device}"
    kind = f"{workers.gpus} on a GPU each" if workers.gpus else f"{workers.workers} on CPU cores"
    return f"{kind}, at least {workers.required}{f', on {workers.address}' if workers.address else ''}"


def _tags(plan: PurifyPlan) -> tuple[str, ...]:
    """The tags that the run would move, as things stand."""
    from zipbatch.stages.purify.publish import tags_to_move

    job = plan.job
    versions, dataset = job.store.versions, job.dataset.name
    return tags_to_move(versions, dataset, identity=plan.identity, tag=job.tag, latest=job.latest)[0]
