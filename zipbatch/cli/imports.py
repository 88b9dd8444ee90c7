"""``zipbatch import``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.request_options import options_of
from zipbatch.spelling import as_read
from zipbatch.stages.convert.request import ImportDatasetRequest, ImportVictimRequest


@click.group("import")
def imports() -> None:
    """Take over what other tools wrote: victims, priors, poisoned data. No code in their files is run."""


@imports.command()
@click.argument("file", type=click.Path(path_type=Path))
@options_of(ImportVictimRequest, first=("out",), without=("file",))
@JSON
def victim(file: Path, request: Callable[..., ImportVictimRequest], as_json: bool) -> None:
    """Make a victim folder of FILE, a classifier that another tool wrote.

    \b
    FILE is one of
      a state dict (ZIP's and BackdoorBox's ckpt.pth, torchvision, timm; .pth, .pt, .safetensors)
      BackdoorBench's record/NAME/attack_result.pt, or a defence's defense_result.pt
      an ONNX model (.onnx; needs pip install 'zipbatch[onnx]')

    What neither FILE nor a flag says is taken as is usual for its architecture, and told.

    \b
    Examples:
      zipbatch import victim ckpt.pth --image-size 32 --out victims/zip-badnets
      zipbatch import victim record/badnet/attack_result.pt --out victims/bb-badnet
      zipbatch import victim net.pth --arch torchvision:resnet18 --mean imagenet --out victims/theirs
    """
    from zipbatch.stages.convert.import_victim import import_victim

    done = import_victim(request(file=file))
    spec = done.spec
    if as_json:
        config = spec.model_dump(mode="json")
        found = {"out": str(done.path), "format": done.format, "config": config, "assumed": done.assumed}
        emit_json({**found, "reused": done.reused})
        return
    state = "already imported" if done.reused else "imported"
    click.echo(f"{done.path}: {state} ({done.format}: {spec.arch}, {spec.num_classes} classes, {spec.image_size} px)")
    for name, value in done.assumed.items():
        shown = f"mean {value['mean']}, std {value['std']}" if name == "normalisation" else value
        click.echo(f"  assumed: {name.replace('_', ' ')} {shown}; {_FLAGS[name]} says otherwise")


_FLAGS = {
    "image_size": "--image-size",
    "network_size": "another --image-size",
    "normalisation": "--mean",
    "in_front": "--mean",
    "channels": "--channel-order",
}


@imports.command()
@click.argument("record", type=click.Path(path_type=Path))
@options_of(ImportDatasetRequest, without=("record",))
@JSON
def dataset(record: Path, request: Callable[..., ImportDatasetRequest], as_json: bool) -> None:
    """Stage the poisoned test images of RECORD, a folder that BackdoorBench wrote (attack_result.pt, bd_test_dataset/).

    \b
    Example:
      zipbatch import dataset record/badnet --source cifar10/ --out shards/bb-badnet
      zipbatch import victim record/badnet --out victims/bb-badnet
      zipbatch evaluate victims/bb-badnet --data shards/bb-badnet
    """
    from zipbatch.stages.convert.import_dataset import import_dataset

    asked = request(record=record)
    staged, reused = import_dataset(asked)
    manifest = staged.manifest
    assert manifest is not None  # a staged dataset has one
    if as_json:
        emit_json({"out": str(asked.out), "reused": reused, "manifest": manifest.model_dump(mode="json")})
        return
    click.echo(f"{asked.out}: {'already staged' if reused else 'staged'} ({manifest.attack.source})")
    for split, counts in manifest.splits.items():
        click.echo(f"  {split:<14} {counts.samples:>8} images in {counts.shards} shards")


@imports.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.pt")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Prior folder to write.")
@click.option("--half", is_flag=True, help="Write float16 weights: half the size.  [default: as in the file]")
@click.option("--num-heads", type=click.IntRange(1), metavar="N", help="As many heads in each attention.")
@click.option("--head-channels", type=click.IntRange(1), metavar="N", help="Channels of a head.  [default: 64]")
@click.option(
    "--new-attention-order/--old-attention-order",
    default=None,
    help="Trained with use_new_attention_order.  [default: old]",
)
@click.option("--noise-schedule", type=click.Choice(["linear", "cosine"]), help="Of the betas.  [default: linear]")
@click.option("--diffusion-steps", type=click.IntRange(1), metavar="T", help="Training steps.  [default: 1000]")
@click.option("--predict-xstart/--predict-noise", default=None, help="The network's target.  [default: noise]")
@JSON
def prior(
    file: Path,
    out: Path,
    half: bool,
    num_heads: int | None,
    head_channels: int | None,
    new_attention_order: bool | None,
    noise_schedule: Literal["linear", "cosine"] | None,
    diffusion_steps: int | None,
    predict_xstart: bool | None,
    as_json: bool,
) -> None:
    """Convert one of OpenAI's guided-diffusion checkpoints to a diffusers folder.

    FILE.pt is an unconditional noise predictor such as 256x256_diffusion_uncond.pt, or one trained with that code for
    another domain. Nothing in it is run. Some flags of its training change what it computes and cannot be seen in its
    tensors: they are taken to be those of the published models and told; say which were others.

    \b
    Examples:
      zipbatch import prior 256x256_diffusion_uncond.pt --out priors/imagenet256 --half
      zipbatch import prior ema_0.9999_100000.pt --num-heads 4 --noise-schedule cosine --out priors/ours
    """
    from zipbatch.checkpoints.guided_flags import GuidedFlags
    from zipbatch.stages.convert.import_prior import import_prior

    if num_heads and head_channels:
        raise click.UsageError("--num-heads and --head-channels say the same; give one")
    flags = GuidedFlags(
        num_heads=num_heads,
        head_channels=head_channels,
        new_order=new_attention_order,
        noise_schedule=noise_schedule,
        diffusion_steps=diffusion_steps,
        predict_xstart=predict_xstart,
    )
    result = import_prior(file, out, half=half, flags=flags)
    assumed = {as_read(flag): value for flag, value in result.assumed.items()}
    if as_json:
        emit_json({**asdict(result), "path": str(result.path), "assumed": assumed})
        return
    state = "imported already" if result.reused else "imported"
    size = f"{result.image_size} px, {result.parameters / 1e6:.1f} M parameters, {result.dtype}"
    click.echo(f"{result.path}: {state}, {size}, source sha256 {result.source_sha256}")
    for flag, value in assumed.items():
        click.echo(f"  assumed: {value}; {flag} says otherwise")
