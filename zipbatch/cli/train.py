"""``zipbatch train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from zipbatch.cli.number import Number
from zipbatch.cli.options import DEVICE, JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.config import DEFAULTS
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath, storage_path


@click.group()
def train() -> None:
    """Train a model of your own."""


@train.command()
@click.argument("staged")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Victim folder to write.")
@click.option(
    "--preset",
    default=DEFAULTS["victims"],
    show_default=True,
    metavar="NAME|FILE",
    help="Settings from configs/victims; flags override them.",
)
@click.option("--purified", metavar="NAME[@TAG]", help="Train on the purified form of the train split; needs --store.")
@click.option("--store", type=storage_path, metavar="DIR|URL", help="The store of the purified version.")
@click.option("--start", metavar="VICTIM", help="Begin with the weights of this victim's folder, or embedded:ATTACK.")
@click.option("--arch", metavar="NAME", help="resnet20, resnet18, resnet34 or torchvision:NAME.")
@click.option("--epochs", type=click.IntRange(1), metavar="N")
@click.option("--minutes", type=Number(0, min_open=True), metavar="MIN", help="Stop after MIN minutes at most.")
@click.option("--batch-size", type=click.IntRange(2), metavar="N")
@click.option("--lr", type=Number(0, min_open=True), metavar="RATE", help="Peak learning rate (cosine decay).")
@click.option("--augment/--no-augment", default=None, help="Random crops and flips.")
@click.option("--seed", type=click.IntRange(0), metavar="N")
@DEVICE
@JSON
def victim(
    staged: str,
    out: Path,
    preset: str,
    purified: str | None,
    store: StoragePath | None,
    start: str | None,
    arch: str | None,
    epochs: int | None,
    minutes: float | None,
    batch_size: int | None,
    lr: float | None,
    augment: bool | None,
    seed: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Train a victim classifier on the train split of STAGED, or on its purified form.

    A run that was stopped goes on from its last epoch when the same command is given again.

    \b
    Examples:
      zipbatch train victim shards/cifar10-badnets --out victims/badnets --arch resnet20 --epochs 30
      zipbatch purify shards/cifar10-badnets --split train --prior embedded --store pur/ --tag train
      zipbatch train victim shards/cifar10-badnets --purified cifar10-badnets@train --store pur/ --out victims/cleaned
      zipbatch train victim shards/cifar10-sig --start victims/clean --lr 0.05 --epochs 5 --out victims/sig
    """
    from zipbatch.checkpoints import open_victim
    from zipbatch.cluster import pick_device
    from zipbatch.config import VictimConfig, find_config, load_config
    from zipbatch.datasets import open_dataset
    from zipbatch.stages.assets import victim_path
    from zipbatch.stages.evaluate.run import with_purified
    from zipbatch.stages.train.victim import TrainProgress, train_victim
    from zipbatch.store import Store

    overrides = {
        "arch": arch,
        "epochs": epochs,
        "minutes": minutes,
        "batch_size": batch_size,
        "lr": lr,
        "augment": augment,
        "seed": seed,
    }
    config = load_config(find_config("victims", preset), VictimConfig, overrides)
    dataset = open_dataset([staged])
    if (purified is None) != (store is None):
        raise click.UsageError("--purified and --store go together: which version, and where is it?")
    if purified is not None and store is not None:
        dataset = with_purified(dataset, Store(store).versions.read(purified), Store(store), split="train")
    with screen() as shown:
        what, images = f"training {out.name}", sum(shard.samples or 0 for shard in dataset.split("train"))
        shown.begin(what, f"{config.arch} on {images} images, {_limits(config.epochs, 'epochs', config.minutes)}")

        def show(p: TrainProgress) -> None:
            shown.show(p.shown(what))

        begin = None if start is None else open_victim(victim_path(start))
        result = train_victim(dataset, out, config, device=pick_device(device), start=begin, on_progress=show)
    shares = {"ca": result.ca, "asr": result.asr}
    if as_json:
        values = {name: None if s is None else s.value for name, s in shares.items()}
        emit_json({"out": str(out), "epochs": result.epochs, "reused": result.reused, **values})
        return
    measures = ", ".join(f"{k.upper()} {s.value:.3f} (n={s.n})" for k, s in shares.items() if s and s.value is not None)
    click.echo(f"{out}: {'already trained' if result.reused else 'trained'}, {result.epochs} epochs, {measures}")


@train.command()
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Prior folder to write.")
@click.option(
    "--preset",
    default=DEFAULTS["priors"],
    show_default=True,
    metavar="NAME|FILE",
    help="Settings from configs/priors; flags override them.",
)
@click.option("--image-size", type=click.IntRange(8), metavar="PX", help="Stretch images to PX x PX.  [default: as is]")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Optimizer steps.")
@click.option("--minutes", type=Number(0, min_open=True), metavar="MIN", help="Stop after MIN minutes at most.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N")
@click.option("--lr", type=Number(0, min_open=True), metavar="RATE", help="Peak learning rate (cosine decay).")
@click.option("--seed", type=click.IntRange(0), metavar="N")
@DEVICE
@JSON
def prior(
    source: str,
    out: Path,
    preset: str,
    image_size: int | None,
    steps: int | None,
    minutes: float | None,
    batch_size: int | None,
    lr: float | None,
    seed: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Train a diffusion prior on the train split of SOURCE; its test or val split measures it, never trains it.

    SOURCE is as for 'zipbatch poison'; labels are not needed. A run that was stopped goes on from its checkpoint when
    the same command is given again.

    \b
    Example:
      zipbatch train prior cifar10:cifar-10-python.tar.gz --out priors/cifar10 --minutes 60
    """
    from zipbatch.cluster import pick_device
    from zipbatch.config import PriorConfig, find_config, load_config
    from zipbatch.datasets.source import open_source
    from zipbatch.stages.assets import source_place
    from zipbatch.stages.train.denoising import DenoisingProgress
    from zipbatch.stages.train.prior import train_prior

    overrides = {"steps": steps, "minutes": minutes, "batch_size": batch_size, "lr": lr, "seed": seed}
    config = load_config(find_config("priors", preset), PriorConfig, overrides)
    opened = replace(open_source(source_place(source), (), labelled=False), size=image_size)
    with screen() as shown:
        what = f"training {out.name}"
        shown.begin(what, f"a prior on {source}, {_limits(config.steps, 'steps', config.minutes)}")

        def show(p: DenoisingProgress) -> None:
            shown.show(p.shown(what))

        result = train_prior(opened, out, config, device=pick_device(device), on_progress=show)
    if as_json:
        emit_json({"out": str(out), "steps": result.steps, "held_out": result.held_out, "reused": result.reused})
        return
    state = "already trained" if result.reused else "trained"
    click.echo(f"{out}: {state}, {result.steps} steps, held-out eps-MSE {result.held_out:.4f}, {out / 'samples.png'}")


@train.command()
@click.argument("prior", metavar="PRIOR")
@click.argument("source")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Optimizer steps.  [default: 6000]")
@click.option("--minutes", type=Number(0, min_open=True), metavar="MIN", help="Stop after MIN minutes at most.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="[default: 32]")
@click.option("--lr", type=Number(0, min_open=True), metavar="RATE", help="Peak learning rate (cosine decay).")
@click.option(
    "--max-step",
    type=click.IntRange(2),
    metavar="T",
    help="Learn at the timesteps below.  [default: 150, or what the prior has]",
)
@click.option(
    "--held-out", type=click.IntRange(1), metavar="N", help="Images that measure it, at most.  [default: 512]"
)
@click.option("--image-size", type=click.IntRange(8), metavar="PX", help="Stretch images to PX x PX.  [default: as is]")
@click.option(
    "--plain", type=Number(0, 1), metavar="SHARE", help="Images that are compressed and noised alone.  [default: 0.5]"
)
@click.option("--seed", type=click.IntRange(0), metavar="N")
@DEVICE
@JSON
def restorer(
    prior: str,
    source: str,
    steps: int | None,
    minutes: float | None,
    batch_size: int | None,
    lr: float | None,
    max_step: int | None,
    held_out: int | None,
    image_size: int | None,
    plain: float | None,
    seed: int | None,
    device: str,
    as_json: bool,
) -> None:
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
    from zipbatch.checkpoints import open_prior
    from zipbatch.cluster import pick_device
    from zipbatch.config import RestorerConfig, validate
    from zipbatch.datasets.source import open_source
    from zipbatch.stages.assets import embedded_prior, prior_path, source_place
    from zipbatch.stages.train.denoising import DenoisingProgress
    from zipbatch.stages.train.restorer import train_restorer

    folder = open_prior(prior_path(prior))
    if folder.path == embedded_prior():
        raise UsageError(f"{folder.path}: ships with zipbatch; copy it first, and teach the copy")
    given = {"steps": steps, "minutes": minutes, "batch_size": batch_size, "lr": lr, "plain": plain, "seed": seed}
    given |= {
        "max_step": max_step or min(RestorerConfig.model_validate({}).max_step, folder.trained_below),
        "held_out": held_out,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    config = validate(RestorerConfig, asked, where="settings given as flags")
    opened = replace(open_source(source_place(source), (), labelled=False), size=image_size)
    with screen() as shown:
        what = f"training the restorer of {folder.path.name}"
        shown.begin(what, f"on {source}, {_limits(config.steps, 'steps', config.minutes)}")

        def show(p: DenoisingProgress) -> None:
            shown.show(p.shown(what))

        result = train_restorer(folder, opened, config, device=pick_device(device), on_progress=show)
    errors = {"held_out": result.held_out, "before": result.before}
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
