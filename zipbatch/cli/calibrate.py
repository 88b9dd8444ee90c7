"""``zipbatch calibrate``."""

from __future__ import annotations

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.request_options import options_of
from zipbatch.stages.train.request import CalibrateRequest


@click.command()
@click.argument("prior", metavar="PRIOR")
@click.argument("source")
@options_of(CalibrateRequest)
@JSON
def calibrate(prior: str, source: str, request: CalibrateRequest, as_json: bool) -> None:
    """Learn from clean images what PRIOR, a folder, makes of such: then 'repaint' can tell what sticks out.

    SOURCE is as for 'zipbatch poison'; labels are not needed. What is learned goes into PRIOR/calibration.json. Images
    that carry a trigger teach that triggers are usual: take images that you trust.

    \b
    Example:
      zipbatch calibrate priors/mine photos/ --limit 2000
      zipbatch purify 'incoming/*.tar' --prior priors/mine --store pur/
    """
    from zipbatch.report.progress import Part, Progress
    from zipbatch.stages.train.calibration import calibrate as run
    from zipbatch.stages.train.inputs import opened_source, own_prior

    folder = own_prior(prior, otherwise=" and is calibrated; to calibrate it anew, copy it first")
    opened = opened_source(source, request, split=request.split)
    with screen() as shown:
        what = f"calibrating {folder.path.name}"
        shown.begin(what, f"{prior} on {source}")

        def show(done: int, total: int) -> None:
            shown.show(Progress(what=what, parts=(Part("images", done, total),)))

        done = run(folder, opened, request, on_progress=show)
    if as_json:
        emit_json({"file": str(done.file), "images": done.images, "split": done.split, **done.calibration.model_dump()})
        return
    learned = done.calibration
    levels = ", ".join(f"{level:.3g} at {t}" for t, level in zip(learned.residual_steps, learned.levels, strict=True))
    click.echo(f"{done.file}: from {done.images} images of split {done.split}; mean residuals {levels}")
