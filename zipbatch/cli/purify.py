"""``zipbatch purify``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import click

from zipbatch.cli.options import (
    BATCH_SIZE,
    JSON,
    PRECISION,
    SEED,
    STORE,
    Number,
    WorkerFlags,
    cache_options,
    emit_json,
    pairs,
    progress_bar,
    worker_options,
)
from zipbatch.cli.running import LockPolicy, locked, report_options, running

if TYPE_CHECKING:
    from zipbatch.places import Place
    from zipbatch.stages.purify import PurifyProgress, PurifySummary
    from zipbatch.stages.purify_plan import PurifyPlan


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="STAGED|SHARDS…")
@click.option(
    "--prior",
    metavar="DIR|FILE.pt|URL|hub:NAME[@REV]",
    help="Diffusion model: a diffusers folder, an OpenAI checkpoint, one to fetch, or 'embedded'.",
)
@STORE
@click.option("--name", metavar="NAME", help="Name of the dataset in the store.  [default: the input folder's]")
@click.option("--tag", metavar="TAG", help="Tag to move to the result, beside 'latest'.")
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME",
    help="Split; repeats.  [default: test, test_poisoned; bare: all]",
)
@click.option(
    "--preset", metavar="NAME|FILE", help="Settings from configs/purifiers; flags override.  [default: balanced]"
)
@click.option("--purifier", "method", metavar="NAME", help="Method; 'zipbatch ls purifiers'.  [default: the preset's]")
@click.option("--transform", "transforms", multiple=True, metavar="T", help="blur:N or gray; repeats, averaged.")
@click.option("--guidance-exponent", type=float, metavar="K", help="The pull at step t is 1 - alpha_bar[t]^K.")
@click.option("--steps", type=int, metavar="S", help="Sampling steps over the whole schedule.")
@click.option("--eta", type=float, metavar="ETA", help="0 deterministic (DDIM) … 1 ancestral.")
@click.option("--start-step", type=int, metavar="T0", help="Start at the first step below T0; T is pure noise.")
@click.option(
    "--set",
    "assigned",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any setting of the purifier, as 'zipbatch ls purifiers' shows it; repeats. Lists by commas, null for none.",
)
@SEED
@PRECISION
@click.option("--resize", type=click.Choice(["stretch", "center-crop"]), help="Make images fit that do not.")
@click.option(
    "--quarantine",
    is_flag=True,
    help="Set samples that cannot be read aside, untouched, and go on.  [default: they fail their shard]",
)
@BATCH_SIZE
@worker_options
@cache_options
@click.option("--max-hours", type=Number(0), metavar="H", help="Begin no shard after H hours.")
@click.option(
    "--lock",
    type=click.Choice(get_args(LockPolicy)),
    help="Let no two runs on this dataset and store overlap: the later one skips (exit 0), waits, or fails.",
)
@report_options
@click.option("--dry-run", is_flag=True, help="Print the resolved plan and stop.")
@JSON
def purify(
    sources: tuple[str, ...],
    prior: str | None,
    store: Place,
    name: str | None,
    tag: str | None,
    splits: tuple[str, ...],
    preset: str | None,
    method: str | None,
    transforms: tuple[str, ...],
    guidance_exponent: float | None,
    steps: int | None,
    eta: float | None,
    start_step: int | None,
    assigned: tuple[str, ...],
    seed: int,
    precision: str,
    resize: str | None,
    quarantine: bool,
    batch_size: int,
    who: WorkerFlags,
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
      zipbatch purify shards/cifar10-badnets --purifier jpeg --set quality=75 --store pur/ --tag jpeg75
      zipbatch purify 'incoming/day-{000..009}.tar' --prior priors/cifar10 --store pur/ --gpus 8
      zipbatch purify shards/imagenette-badnets --prior 256x256_diffusion_uncond.pt --store pur/ --gpus 8
      zipbatch purify 's3://in/day-{000..009}.tar' --prior s3://models/prior --store s3://out/pur --gpus 8
      zipbatch purify shards/cifar10-badnets --prior hub:google/ddpm-cifar10-32 --store pur/
      zipbatch -q purify incoming/ --prior priors/mine --store pur/ --gpus 8 --lock skip --max-hours 6 \\
          --summary /var/lib/zipbatch/purify.json --metrics /var/lib/node_exporter/zipbatch.prom
    """
    from zipbatch.shards import open_dataset
    from zipbatch.stages.assets import prior_path
    from zipbatch.stages.purifier import purifier_spec
    from zipbatch.stages.purify_plan import PurifyRequest, plan_purify
    from zipbatch.store import Store

    overrides = {
        "transforms": transforms or None,
        "guidance_exponent": guidance_exponent,
        "steps": steps,
        "eta": eta,
        "start_step": start_step,
    }
    folder = prior_path(prior) if prior else None
    spec = purifier_spec(
        preset=preset,
        method=method,
        overrides=overrides,
        assigned={key: None if text == "null" else text for key, text in pairs(assigned, "--set").items()},
        prior=folder,
        seed=seed,
        precision="bfloat16" if precision == "bfloat16" else "float32",
        resize=resize,
    )
    dataset = open_dataset(sources, name=name)
    request = PurifyRequest(dataset, spec, Store(store), who.resolve(), splits, tag, batch_size, quarantine)
    if dry_run:
        running().unreported()
        _show_plan(plan_purify(request), as_json=as_json)
        return
    noted, root = running(), request.store.root
    noted.dataset, noted.store = dataset.name, str(root)
    stop_at = noted.stop_at(max_hours)
    with locked(lock, store=root, dataset=dataset.name, stop_at=stop_at) as mine:
        if mine:
            _show_summary(_purified(plan_purify(request), stop_at), as_json=as_json)


def _purified(plan: PurifyPlan, stop_at: float | None) -> PurifySummary:
    from zipbatch.report.run import Counts
    from zipbatch.stages.purify import purify as run

    noted = running()
    with progress_bar("shards") as bar:
        task = bar.add_task(f"purifying {plan.request.dataset.name}", total=len(plan.shards), note="")

        def show(p: PurifyProgress) -> None:
            bar.update(task, completed=p.shards_done, note=f"{p.samples_per_s:.1f} images/s")
            computed = p.shards_done - p.reused - len(p.failed)
            noted.failed = p.failed
            noted.counts = Counts("shards", p.shards, computed, p.reused, len(p.failed), p.samples_whole, p.quarantined)

        summary = run(plan, on_progress=show, stop_at=stop_at)
    noted.version, noted.tags = summary.version, summary.tags
    noted.nothing_to_do = not summary.computed and not summary.new_version
    return summary


def _show_summary(summary: PurifySummary, *, as_json: bool) -> None:
    if as_json:
        emit_json(asdict(summary))
        return
    rate = f", {summary.samples_per_s:g} images/s" if summary.computed else ""
    click.echo(f"{summary.reference}: version {summary.version}{'' if summary.new_version else ' (unchanged)'}")
    click.echo(
        f"  {summary.shards} shards, {summary.samples} images: {summary.computed} computed, {summary.reused} reused, "
        f"{summary.seconds:g} s{rate}"
    )
    if summary.quarantined:
        click.echo(f"  {summary.quarantined} more images quarantined: see 'zipbatch store show {summary.reference}'")


def _show_plan(plan: PurifyPlan, *, as_json: bool) -> None:
    request = plan.request
    unknown = sum(task.sha256 is None for task in plan.tasks)
    value: dict[str, Any] = {
        "dataset": request.dataset.name,
        "shards": len(plan.shards),
        "reused": len(plan.rows),
        "to_compute": len(plan.tasks),
        "of_unknown_digest": unknown,
        "purifier": plan.identity,
        "store": str(request.store.root),
        "tag": request.tag,
        "quarantine": request.quarantine,
        "batch_size": request.batch_size,
        "workers": asdict(request.workers),
        "parent": plan.parent,
    }
    if as_json:
        emit_json(value)
        return
    for key, entry in value.items():
        click.echo(f"{key}: {entry}")
