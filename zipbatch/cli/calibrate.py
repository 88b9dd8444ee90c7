"""``zipbatch calibrate``."""

from __future__ import annotations

import click

from zipbatch.cli.options import DEVICE, JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.errors import UsageError


@click.command()
@click.argument("prior", metavar="PRIOR")
@click.argument("source")
@click.option("--split", metavar="NAME", help="Split to learn from.  [default: the first of test, val, train]")
@click.option("--limit", type=click.IntRange(1), default=4000, show_default=True, metavar="N", help="Images at most.")
@click.option("--image-size", type=click.IntRange(8), metavar="PX", help="Resize to PX x PX.  [default: the source's]")
@click.option(
    "--residual-steps",
    default="100,300,500",
    show_default=True,
    metavar="T,…",
    help="Timesteps to measure at, as 'repaint' has them.",
)
@DEVICE
@JSON
def calibrate(
    prior: str,
    source: str,
    split: str | None,
    limit: int,
    image_size: int | None,
    residual_steps: str,
    device: str,
    as_json: bool,
) -> None:
    """Learn from clean images what PRIOR, a folder, makes of such: then 'repaint' can tell what sticks out.

    SOURCE is as for 'zipbatch poison'; labels are not needed. What is learned goes into PRIOR/calibration.json. Images
    that carry a trigger teach that triggers are usual: take images that you trust.

    \b
    Example:
      zipbatch calibrate priors/mine photos/ --limit 2000
      zipbatch purify 'incoming/*.tar' --prior priors/mine --store pur/
    """
    from zipbatch.checkpoints import open_prior
    from zipbatch.cluster import pick_device
    from zipbatch.config import validate
    from zipbatch.datasets.source import open_source
    from zipbatch.purifiers import RepaintSettings
    from zipbatch.report.progress import Part, Progress
    from zipbatch.stages.assets import embedded_prior, prior_path, source_place
    from zipbatch.stages.train.calibration import calibrate as run

    folder = open_prior(prior_path(prior))
    if folder.path == embedded_prior():
        raise UsageError(f"{folder.path}: ships with zipbatch and is calibrated; to calibrate it anew, copy it first")
    settings = validate(RepaintSettings, {"residual_steps": residual_steps}, where="--residual-steps")
    opened = open_source(source_place(source), (split,) if split else (), labelled=False)
    with screen() as shown:
        what = f"calibrating {folder.path.name}"
        shown.begin(what, f"{prior} on {source}")

        def show(done: int, total: int) -> None:
            shown.show(Progress(what, (Part("images", done, total),)))

        done = run(
            folder,
            opened,
            device=pick_device(device),
            image_size=image_size,
            limit=limit,
            settings=settings,
            on_progress=show,
        )
    if as_json:
        emit_json({"file": str(done.file), "images": done.images, "split": done.split, **done.calibration.model_dump()})
        return
    learned = done.calibration
    levels = ", ".join(f"{level:.3g} at {t}" for t, level in zip(learned.residual_steps, learned.levels, strict=True))
    click.echo(f"{done.file}: from {done.images} images of split {done.split}; mean residuals {levels}")
