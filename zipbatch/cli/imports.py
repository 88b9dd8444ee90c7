"""``zipbatch import``."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from zipbatch.cli.options import JSON, emit_json

if TYPE_CHECKING:
    from zipbatch.victims import Normalisation


@click.group("import")
def imports() -> None:
    """Take over what other tools wrote: victims, priors, poisoned data. No code in their files is run."""


@imports.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Victim folder to write.")
@click.option(
    "--arch",
    metavar="NAME",
    help="resnet20, resnet18 to resnet152, preactresnet18, vgg11 to vgg19, vgg11_bn to vgg19_bn (CIFAR's), "
    "torchvision:NAME or timm:NAME.  [default: told from the file]",
)
@click.option("--num-classes", type=click.IntRange(2), metavar="N", help="Where the file leaves it open.")
@click.option("--image-size", type=click.IntRange(1), metavar="PX", help="Side of the images that it takes.")
@click.option(
    "--mean",
    metavar="R,G,B|NAME",
    help="Subtracted from pixels in [0, 1]; NAME (none, half, imagenet, cifar10, cifar100, tiny) says mean and std.",
)
@click.option("--std", metavar="R,G,B|NAME", help="Divided by, after that.  [default: of the same NAME]")
@click.option("--channel-order", type=click.Choice(["rgb", "bgr"]), help="bgr for victims trained on cv2.imread.")
@JSON
def victim(
    file: Path,
    out: Path,
    arch: str | None,
    num_classes: int | None,
    image_size: int | None,
    mean: str | None,
    std: str | None,
    channel_order: str | None,
    as_json: bool,
) -> None:
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
    from zipbatch.stages.convert.import_victim import ImportVictimRequest, import_victim

    request = ImportVictimRequest(
        file=file,
        out=out,
        arch=arch,
        num_classes=num_classes,
        image_size=image_size,
        normalisation=_normalisation(mean, std),
        channels=None if channel_order is None else "BGR" if channel_order == "bgr" else "RGB",
    )
    done = import_victim(request)
    spec = done.spec
    if as_json:
        config = spec.model_dump(mode="json")
        found = {"out": str(out), "format": done.format, "config": config, "assumed": done.assumed}
        emit_json({**found, "reused": done.reused})
        return
    state = "already imported" if done.reused else "imported"
    click.echo(f"{out}: {state} ({done.format}: {spec.arch}, {spec.num_classes} classes, {spec.image_size} px)")
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


def _normalisation(mean: str | None, std: str | None) -> Normalisation | None:
    from zipbatch.victims import NORMALISATIONS, Normalisation

    if mean is None:
        if std is not None:
            raise click.UsageError("--std needs --mean")
        return None
    if std is None and mean not in NORMALISATIONS:
        raise click.UsageError(f"--mean {mean} needs --std; only a NAME ({', '.join(NORMALISATIONS)}) says both")
    means = NORMALISATIONS[mean].mean if mean in NORMALISATIONS else _three(mean, "--mean")
    text = mean if std is None else std
    stds = NORMALISATIONS[text].std if text in NORMALISATIONS else _three(text, "--std")
    if min(stds) <= 0:
        raise click.UsageError(f"--std {text}: must be above 0")
    return Normalisation(means, stds)


def _three(text: str, flag: str) -> tuple[float, float, float]:
    from zipbatch.victims import NORMALISATIONS

    try:
        red, green, blue = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        red = green = blue = math.nan
    if not all(map(math.isfinite, (red, green, blue))):
        known = ", ".join(NORMALISATIONS)
        raise click.UsageError(f"{flag} {text}: is neither three numbers (0.5,0.5,0.5) nor a name ({known})")
    return red, green, blue


@imports.command()
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Staged dataset to write.")
@click.option(
    "--source",
    metavar="SOURCE",
    help="Clean test images in the dataset's own order, as for 'zipbatch poison': adds the split test.",
)
@click.option("--samples-per-shard", type=click.IntRange(1), default=1000, show_default=True, metavar="N")
@JSON
def dataset(record: Path, out: Path, source: str | None, samples_per_shard: int, as_json: bool) -> None:
    """Stage the poisoned test images of RECORD, a folder that BackdoorBench wrote (attack_result.pt, bd_test_dataset/).

    \b
    Example:
      zipbatch import dataset record/badnet --source cifar10/ --out shards/bb-badnet
      zipbatch import victim record/badnet --out victims/bb-badnet
      zipbatch evaluate victims/bb-badnet --data shards/bb-badnet
    """
    from zipbatch.stages.convert.import_dataset import ImportDatasetRequest, import_dataset

    staged, reused = import_dataset(
        ImportDatasetRequest(record=record, out=out, source=source, samples_per_shard=samples_per_shard)
    )
    manifest = staged.manifest
    assert manifest is not None  # a staged dataset has one
    if as_json:
        emit_json({"out": str(out), "reused": reused, "manifest": manifest.model_dump(mode="json")})
        return
    click.echo(f"{out}: {'already staged' if reused else 'staged'} ({manifest.attack.source})")
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
    flags = GuidedFlags(num_heads, head_channels, new_attention_order, noise_schedule, diffusion_steps, predict_xstart)
    result = import_prior(file, out, half=half, flags=flags)
    if as_json:
        emit_json({**asdict(result), "path": str(result.path)})
        return
    state = "imported already" if result.reused else "imported"
    size = f"{result.image_size} px, {result.parameters / 1e6:.1f} M parameters, {result.dtype}"
    click.echo(f"{result.path}: {state}, {size}, source sha256 {result.source_sha256}")
    for flag, value in result.assumed.items():
        click.echo(f"  assumed: {value}; {flag} says otherwise")
