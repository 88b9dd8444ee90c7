"""``zipbatch adapt``."""

from __future__ import annotations

from pathlib import Path

import click

from zipbatch.cli.options import DEVICE, JSON, emit_json
from zipbatch.cli.render import screen

NONE = "none"


@click.command()
@click.argument("source")
@click.option(
    "--surrogate", required=True, metavar="VICTIM", help="Classifier to optimise against, a victim's folder: white box."
)
@click.option(
    "--through",
    default="balanced",
    show_default=True,
    metavar="PRESET|FILE",
    help="The defence to survive, as for 'zipbatch purify --preset'; 'none' for none, to compare with.",
)
@click.option("--prior", metavar="DIR|FILE.pt|URL|hub:NAME[@REV]", help="Its diffusion model; 'embedded' ships.")
@click.option("--target", type=click.IntRange(0), default=0, show_default=True, metavar="CLASS", help="Target class.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The trigger to write: FILE.png for a patch, FILE.npy for a pattern.",
)
@click.option("--patch-size", type=click.IntRange(1), metavar="PX", help="Optimise a patch of PX x PX pixels.")
@click.option(
    "--row", type=int, default=-1, show_default=True, metavar="N", help="Its upper row; below 0 from the far edge."
)
@click.option("--column", type=int, default=-1, show_default=True, metavar="N", help="Its left column; likewise.")
@click.option(
    "--epsilon",
    type=click.IntRange(1, 255),
    metavar="LEVELS",
    help="Optimise a pattern that adds or takes at most so many of 255 levels at each pixel.",
)
@click.option("--steps", type=click.IntRange(1), default=200, show_default=True, metavar="N", help="Optimiser steps.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, metavar="N", help="Images of each step."
)
@click.option(
    "--images", type=click.IntRange(1), default=512, show_default=True, metavar="N", help="Images to optimise on."
)
@click.option(
    "--held-out", type=click.IntRange(1), default=200, show_default=True, metavar="N", help="Others to measure it on."
)
@click.option(
    "--evade", is_flag=True, help="Also keep below what 'repaint' masks, whose score costs a pass there and back."
)
@click.option("--split", metavar="NAME", help="Split to take them from.  [default: the first of train, val, test]")
@click.option("--image-size", type=click.IntRange(8), metavar="PX", help="Resize to PX x PX.  [default: the source's]")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the start, the batches and the noise."
)
@DEVICE
@JSON
def adapt(
    source: str,
    surrogate: str,
    through: str,
    prior: str | None,
    target: int,
    out: Path,
    patch_size: int | None,
    row: int,
    column: int,
    epsilon: int | None,
    steps: int,
    batch_size: int,
    images: int,
    held_out: int,
    split: str | None,
    image_size: int | None,
    seed: int,
    evade: bool,
    device: str,
    as_json: bool,
) -> None:
    """Optimise a trigger that survives a defence, as an attacker would who knows it.

    SOURCE is as for 'zipbatch poison'; labels are not needed. The trigger is optimised on its images, so that the
    surrogate takes them for the target when they are stamped and purified, with other noise at each step. The surrogate
    stands for a classifier that the attacker does not have. Told is what it makes of images that were held out.

    \b
    Examples:
      zipbatch adapt cifar10/ --surrogate victims/mine --prior embedded --epsilon 16 --out trigger.npy
      zipbatch poison cifar10/ --attack lf --trigger-array trigger.npy --out shards/adaptive
      zipbatch adapt cifar10/ --surrogate victims/mine --prior embedded --patch-size 5 --out trigger.png
      zipbatch poison cifar10/ --attack patch --trigger-image trigger.png --out shards/adaptive-patch
    """
    from zipbatch.cluster import pick_device
    from zipbatch.datasets.source import open_source
    from zipbatch.report.units import share_text
    from zipbatch.stages.adapt.run import AdaptRequest
    from zipbatch.stages.adapt.run import adapt as run
    from zipbatch.stages.assets import prior_path, source_place
    from zipbatch.stages.evaluate.victims import find_victim
    from zipbatch.stages.purify.request import PurifierRequest
    from zipbatch.stages.purify.resolve import purifier_spec

    spec = None
    if through != NONE:
        spec = purifier_spec(PurifierRequest(preset=through, seed=seed), None if prior is None else prior_path(prior))
    request = AdaptRequest(
        source=open_source(source_place(source), (split,) if split else (), labelled=False),
        surrogate=find_victim(surrogate),
        through=spec,
        target=target,
        out=out,
        epsilon=epsilon,
        patch_size=patch_size,
        row=row,
        column=column,
        steps=steps,
        batch_size=batch_size,
        images=images,
        held_out=held_out,
        image_size=image_size,
        seed=seed,
        evade=evade,
    )
    with screen() as shown:
        shown.begin(f"optimising {out.name}", f"{steps} steps of {batch_size} images through {through}")
        result = run(request, device=pick_device(device), report=shown.show)
    if as_json:
        shares = {name: getattr(result, name) for name in ("stamped", "purified", "clean")}
        told = {name: {"value": share.value, "n": share.n, "ci95": share.interval()} for name, share in shares.items()}
        emit_json({"out": str(out), "target": target, "images": result.images, "split": result.split, **told})
        return
    click.echo(f"{out}: optimised on {result.images} images of split {result.split}")
    rows = {"stamped": result.stamped, "stamped and purified": result.purified, "clean and purified": result.clean}
    click.echo(f"of {result.stamped.n} others the surrogate takes for class {target}:")
    for name, share in rows.items():
        low, high = share.interval() or (0.0, 0.0)
        click.echo(f"  {name:<20} {share_text(share.value or 0.0)} ±{share_text((high - low) / 2)}")
