"""``zipbatch train``."""

from __future__ import annotations

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.request_options import options_of
from zipbatch.cli.track_option import TRACK, both, tracked
from zipbatch.stages.train.request import PriorRequest, RestorerRequest, VictimRequest


@click.group()
def train() -> None:
    """Train a model of your own."""


@train.command()
@click.argument("staged")
@options_of(VictimRequest, first=("out", "preset", "image_size", "resize", "purified", "store", "start"))
@TRACK
@JSON
def victim(staged: str, request: VictimRequest, as_json: bool) -> None:
    """Train a victim classifier on the train split of STAGED, or on its purified form.

    A run that was stopped goes on from its last epoch when the same command is given again.

    \b
    Examples:
      zipbatch train victim shards/cifar10-badnets --out victims/badnets --arch resnet20 --epochs 30
      zipbatch purify shards/cifar10-badnets --split train --prior embedded --store pur/ --tag train
      zipbatch train victim shards/cifar10-badnets --purified cifar10-badnets@train --store pur/ --out victims/cleaned
      zipbatch train victim shards/cifar10-badnets --image-size 16 --out victims/badnets-16px
      zipbatch train victim shards/cifar10-sig --start victims/clean --lr 0.05 --epochs 5 --out victims/sig
    """
    from zipbatch.cluster import pick_device
    from zipbatch.stages.train.inputs import opened_start, staged_images
    from zipbatch.stages.train.victim import train_victim

    config, out = request.config(), request.out
    dataset = staged_images(staged, request)
    with screen() as shown, tracked(out.name, config.model_dump(mode="json")) as following:
        what, images = f"training {out.name}", sum(shard.samples or 0 for shard in dataset.split("train"))
        shown.begin(what, f"{config.arch} on {images} images, {_limits(config.epochs, 'epochs', config.minutes)}")

        start, device = opened_start(request), pick_device(request.device)
        told = both(shown.of(what), following.progress)
        result = train_victim(dataset, out, config, device=device, resized=request, start=start, on_progress=told)
        shares = {"ca": result.ca, "asr": result.asr}
        values = {name: None if s is None else s.value for name, s in shares.items()}
        following.final({**values, "epochs": result.epochs})
    if as_json:
        emit_json({"out": str(out), "epochs": result.epochs, "reused": result.reused, **values})
        return
    measures = ", ".join(f"{k.upper()} {s.value:.3f} (n={s.n})" for k, s in shares.items() if s and s.value is not None)
    click.echo(f"{out}: {'already trained' if result.reused else 'trained'}, {result.epochs} epochs, {measures}")


@train.command()
@click.argument("source")
@options_of(PriorRequest, first=("out", "preset", "image_size", "resize"))
@TRACK
@JSON
def prior(source: str, request: PriorRequest, as_json: bool) -> None:
    """Train a diffusion prior on the train split of SOURCE; its test or val split measures it, never trains it.

    SOURCE is as for 'zipbatch poison'; labels are not needed. A run that was stopped goes on from its checkpoint when
    the same command is given again.

    \b
    Examples:
      zipbatch train prior cifar10:cifar-10-python.tar.gz --out priors/cifar10 --minutes 60
      zipbatch train prior photos/ --image-size 64 --resize center-crop --out priors/photos --minutes 60
    """
    from zipbatch.cluster import pick_device
    from zipbatch.stages.train.inputs import opened_source
    from zipbatch.stages.train.prior import train_prior

    config, out = request.config(), request.out
    opened = opened_source(source, request)
    with screen() as shown, tracked(out.name, config.model_dump(mode="json")) as following:
        what = f"training {out.name}"
        shown.begin(what, f"a prior on {source}, {_limits(config.steps, 'steps', config.minutes)}")

        told = both(shown.of(what), following.progress)
        result = train_prior(opened, out, config, device=pick_device(request.device), on_progress=told)
        following.final({"held_out": result.held_out, "steps": result.steps})
    if as_json:
        emit_json({"out": str(out), "steps": result.steps, "held_out": result.held_out, "reused": result.reused})
        return
    state = "already trained" if result.reused else "trained"
    click.echo(f"{out}: {state}, {result.steps} steps, held-out eps-MSE {result.held_out:.4f}, {out / 'samples.png'}")


@train.command()
@click.argument("prior", metavar="PRIOR")
@click.argument("source")
@options_of(RestorerRequest)
@TRACK
@JSON
def restorer(prior: str, source: str, request: RestorerRequest, as_json: bool) -> None:
    """Teach PRIOR, a folder, to undo damage in one call: then 'restore' can be a step of a preset.

    It learns from clean images of SOURCE (as for 'zipbatch poison'; labels are not needed), which get patches, pictures
    mixed in and warps, drawn anew each time, and are compressed and noised. What it learns goes into
    PRIOR/restorer.safetensors; the prior itself stays as it is. A run that was stopped goes on from its checkpoint when
    the same command is given again.

    \b
    Example:
      zipbatch train restorer priors/mine photos/ --minutes 60
      zipbatch purify 'incoming/*.tar' --prior priors/mine --chain 'jpeg quality=60' --chain restore --store pur/
    """
    from zipbatch.cluster import pick_device
    from zipbatch.stages.train.inputs import opened_source, own_prior
    from zipbatch.stages.train.restorer import train_restorer

    folder = own_prior(prior, otherwise="; copy it first, and teach the copy")
    config = request.config(folder.trained_below)
    opened = opened_source(source, request)
    name = f"restorer of {folder.path.name}"
    with screen() as shown, tracked(name, config.model_dump(mode="json")) as following:
        what = f"training the {name}"
        shown.begin(what, f"on {source}, {_limits(config.steps, 'steps', config.minutes)}")

        told = both(shown.of(what), following.progress)
        result = train_restorer(folder, opened, config, device=pick_device(request.device), on_progress=told)
        errors = {"held_out": result.held_out, "before": result.before}
        following.final({**errors, "steps": result.steps})
    if as_json:
        emit_json({"file": str(result.path), "steps": result.steps, "reused": result.reused, **errors})
        return
    state = "already trained" if result.reused else "trained"
    click.echo(
        f"{result.path}: {state}, {result.steps} steps, held-out error {result.held_out:.4f} (of the damaged images "
        f"{result.before:.4f}), {result.path.with_name('restorer.png')}"
    )


def _limits(count: int, unit: str, minutes: float | None) -> str:
    return f"{count} {unit}" + ("" if minutes is None else f" or {minutes:g} minutes")
