"""``zipbatch purify``."""

from __future__ import annotations

import logging
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from zipbatch.cli.options import (
    BATCH_SIZE,
    JSON,
    LATEST,
    PRECISION,
    SEED,
    STORE,
    TRUST_MTIME,
    Number,
    WorkerFlags,
    cache_options,
    emit_json,
    pairs,
    worker_options,
)
from zipbatch.cli.render import Screen, screen
from zipbatch.cli.run_context import LockPolicy, locked, report_options, run_context

if TYPE_CHECKING:
    from zipbatch.cluster import Workers
    from zipbatch.stages.purify.estimate import Estimate
    from zipbatch.stages.purify.plan import PurifyPlan
    from zipbatch.stages.purify.run import PurifyProgress, PurifySummary
    from zipbatch.stages.purify.spec import OutputSize
    from zipbatch.storage import StoragePath

log = logging.getLogger(__name__)


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
@LATEST
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
@click.option(
    "--transform",
    "transforms",
    multiple=True,
    metavar="T",
    help="gray, blur:N, blur:N@mean, blur:N@key, gauss:S or dct:N; repeats, averaged.",
)
@click.option("--guidance-exponent", type=float, metavar="K", help="The pull at step t is 1 - alpha_bar[t]^K.")
@click.option("--steps", type=int, metavar="S", help="Sampling steps over the whole schedule.")
@click.option("--eta", type=float, metavar="ETA", help="0 deterministic (DDIM) … 1 ancestral.")
@click.option("--start-step", type=int, metavar="T0", help="Start at the first step below T0; T is pure noise.")
@click.option(
    "--set",
    "assigned",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any setting of the purifier, as 'zipbatch ls purifiers' shows it; repeats. Lists by commas, null for none. "
    "Of a chain's step by its number, 2.quality=70, or by its method where that occurs once, zip.guidance_exponent=40.",
)
@click.option(
    "--chain",
    multiple=True,
    metavar="'METHOD NAME=VALUE…'",
    help="A purifier with its settings, after that of the --chain before. A range, quality=40..80, is drawn for each "
    "image; draws=K takes the mean of K.",
)
@SEED
@PRECISION
@click.option(
    "--resize",
    type=click.Choice(["stretch", "center-crop"]),
    help="Make images fit that do not: whole, or the middle square alone.",
)
@click.option(
    "--output-size",
    type=click.Choice(["input", "prior"]),
    help="Size that resized images come out with.  [default: input; with center-crop: prior]",
)
@click.option(
    "--keep-masks",
    is_flag=True,
    help="Add what was repainted to each purified sample, white in KEY.mask.png (purifier repaint).",
)
@click.option(
    "--quarantine",
    is_flag=True,
    help="Set samples that cannot be read aside, untouched, and go on.  [default: they fail their shard]",
)
@click.option(
    "--other-images",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    show_default=True,
    help="Images beside a sample's own (1.mask.png beside 1.jpg; 1.5.jpg is one, too): keep passes them on untouched.",
)
@TRUST_MTIME
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
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it may take, and stop.")
@JSON
def purify(
    sources: tuple[str, ...],
    prior: str | None,
    store: StoragePath,
    name: str | None,
    tag: str | None,
    latest: bool | None,
    splits: tuple[str, ...],
    preset: str | None,
    method: str | None,
    transforms: tuple[str, ...],
    guidance_exponent: float | None,
    steps: int | None,
    eta: float | None,
    start_step: int | None,
    assigned: tuple[str, ...],
    chain: tuple[str, ...],
    seed: int,
    precision: str,
    resize: str | None,
    output_size: OutputSize | None,
    keep_masks: bool,
    quarantine: bool,
    other_images: Literal["refuse", "keep"],
    trust_mtime: bool,
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
    from zipbatch.datasets import open_dataset
    from zipbatch.stages.assets import prior_path
    from zipbatch.stages.purify.plan import PurifyRequest, plan_purify
    from zipbatch.stages.purify.publish import check_tagged
    from zipbatch.stages.purify.spec import DEFAULT_PRESET, purifier_spec
    from zipbatch.store import Store

    overrides = {
        "transforms": transforms or None,
        "guidance_exponent": guidance_exponent,
        "steps": steps,
        "eta": eta,
        "start_step": start_step,
    }
    if chain and (preset or method):
        raise click.UsageError("--chain names the purifiers itself; leave --preset and --purifier out")
    folder = prior_path(prior) if prior else None
    settings: dict[str, object] = {
        key: None if text == "null" else text for key, text in pairs(assigned, "--set").items()
    }
    spec = purifier_spec(
        preset=preset,
        method="chain" if chain else method,
        overrides=overrides,
        assigned=settings | ({"steps": [_step(text) for text in chain]} if chain else {}),
        prior=folder,
        seed=seed,
        precision="bfloat16" if precision == "bfloat16" else "float32",
        resize=resize,
        output_size=output_size,
        keep_masks=keep_masks,
    )
    dataset = open_dataset(sources, name=name)
    request = PurifyRequest(
        dataset,
        spec,
        Store(store),
        who.resolve(),
        splits,
        tag,
        batch_size,
        quarantine,
        latest=latest,
        trust_mtime=trust_mtime,
        keep=other_images == "keep",
    )
    if dry_run:
        run_context().unreported()
        about = preset if preset or method or chain else DEFAULT_PRESET
        _show_plan(plan_purify(request), as_json=as_json, preset=about)
        return
    noted, root = run_context(), request.store.root
    noted.dataset, noted.store = dataset.name, str(root)
    stop_at = noted.stop_at(max_hours)
    with locked(lock, store=root, dataset=dataset.name, stop_at=stop_at) as mine:
        if not mine:
            return
        with screen() as shown:
            summary = _purified(plan_purify(request), stop_at, shown)
        _show_summary(summary, as_json=as_json)
        check_tagged(summary, dataset.name, tag)


def _step(text: str) -> dict[str, object]:
    """``jpeg quality=60`` as a step of a chain."""
    try:
        method, *given = shlex.split(text)
    except ValueError as error:
        raise click.UsageError(
            f"--chain {text!r}: name a purifier and its settings, as in 'jpeg quality=60'"
        ) from error
    values: dict[str, object] = dict(pairs(tuple(given), f"--chain '{text}'"))
    return {"method": method, **{name: None if value == "null" else value for name, value in values.items()}}


def _purified(plan: PurifyPlan, stop_at: float | None, shown: Screen) -> PurifySummary:
    from zipbatch.report.run import Counts
    from zipbatch.stages.purify.run import purify as run

    noted, what = run_context(), f"purifying {plan.request.dataset.name}"
    shown.begin(what, _to_do(plan))

    def show(p: PurifyProgress) -> None:
        shown.show(p.shown(what))
        computed = p.shards_done - p.reused - len(p.failed)
        noted.failed = p.failed
        noted.counts = Counts("shards", p.shards, computed, p.reused, len(p.failed), p.samples_whole, p.quarantined)

    summary = run(plan, on_progress=show, stop_at=stop_at)
    noted.version, noted.tags = summary.version, summary.tags
    noted.latest_left, noted.tags_left = summary.latest_left, summary.tags_left
    if summary.latest_left is not None:
        log.warning("%s", summary.latest_left)
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
    if summary.other_images:
        click.echo(f"  {summary.other_images} images beside the samples' own kept as they are, not purified")


def _show_plan(plan: PurifyPlan, *, as_json: bool, preset: str | None) -> None:
    from zipbatch.report.columns import Look, pairs_text
    from zipbatch.stages.purify.estimate import estimate

    request, guess = plan.request, estimate(plan)
    sizes = plan.input_bytes()
    value: dict[str, Any] = {
        "dataset": request.dataset.name,
        "shards": len(plan.shards),
        "reused": len(plan.rows),
        "to_compute": plan.to_compute,
        "to_look_at": plan.doubted,
        "of_unknown_digest": sum(task.sha256 is None for task in plan.tasks),
        "purifier": plan.identity,
        "store": str(request.store.root),
        "tag": request.tag,
        "latest": {None: "auto", True: "moves", False: "stays"}[request.latest],
        "quarantine": request.quarantine,
        "other_images": "keep" if request.keep else "refuse",
        "batch_size": request.batch_size,
        "workers": asdict(request.workers),
        "parent": plan.parent,
        "images": plan.images,
        "images_to_compute": plan.images_left,
        "bytes": sizes,
        "estimated_seconds": None if guess is None else round(guess.seconds, 1),
    }
    if as_json:
        emit_json(value)
        return
    click.echo(f"would purify {request.dataset.name} into {request.store.root}")
    click.echo(pairs_text(_plan_for_people(plan, preset, sizes, guess), Look()), nl=False)


def _plan_for_people(plan: PurifyPlan, preset: str | None, size: int, guess: Estimate | None) -> dict[str, str]:
    from zipbatch.report.tables import plain_text
    from zipbatch.report.units import size_text
    from zipbatch.stages.purify.identity import describe, preset_text

    request, left = plan.request, plan.images_left
    unknown = sum(task.sha256 is None for task in plan.tasks)
    new = f" ({unknown} never seen: looked up when they are read)" if unknown else ""
    images = "not counted: no manifest says" if plan.images is None else f"{plan.images}, {left} of them to compute"
    others = {k: v for k, v in plan.identity.items() if k not in {"method", "settings"} and v is not None}
    looked = f", {plan.doubted} to be read: done before, but touched since" if plan.doubted else ""
    time = "nothing to compute" if not plan.to_compute else "not known: no earlier shard of this purifier in the store"
    return {
        "shards": f"{len(plan.shards)}, {size_text(size)}: {len(plan.rows)} done before, "
        f"{plan.to_compute} to compute{new}{looked}",
        "images": images,
        "time": time if guess is None or not plan.to_compute else guess.text,
        "purifier": describe(plan.identity),
        **({} if preset is None else {"preset": preset_text(preset)}),
        **{name.replace("_", " "): plain_text(entry) for name, entry in others.items()},
        "workers": _workers_text(request.workers),
        "batch": f"{request.batch_size} images",
        "tag": ", ".join(_tags(plan)) or "none",
        "parent": plan.parent or "none",
        "unreadable": "set aside (--quarantine)" if request.quarantine else "fail their shard",
    }


def _workers_text(workers: Workers) -> str:
    if not workers.uses_ray:
        return f"this process, device {workers.device}"
    kind = f"{workers.gpus} on a GPU each" if workers.gpus else f"{workers.workers} on CPU cores"
    return f"{kind}, at least {workers.required}{f', on {workers.address}' if workers.address else ''}"


def _tags(plan: PurifyPlan) -> tuple[str, ...]:
    """The tags that the run would move, as things stand."""
    from zipbatch.stages.purify.publish import tags_to_move
    from zipbatch.store import Versions

    request = plan.request
    versions, dataset = Versions(request.store), request.dataset.name
    return tags_to_move(versions, dataset, identity=plan.identity, tag=request.tag, latest=request.latest)[0]
