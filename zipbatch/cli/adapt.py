"""``zipbatch adapt``."""

from __future__ import annotations

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.request_options import options_of
from zipbatch.stages.adapt.request import AdaptRequest


@click.command()
@click.argument("source")
@options_of(AdaptRequest)
@JSON
def adapt(source: str, request: AdaptRequest, as_json: bool) -> None:
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
    from zipbatch.report.units import share_text
    from zipbatch.stages.adapt.job import opened_job
    from zipbatch.stages.adapt.run import adapt as run

    job = opened_job(source, request)
    out, target = request.out, job.target
    with screen() as shown:
        what = f"{request.steps} steps of {request.batch_size} images through {request.through}"
        shown.begin(f"optimising {out.name}", what)
        result = run(job, report=shown.show)
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
