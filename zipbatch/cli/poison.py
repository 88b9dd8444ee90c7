"""``zipbatch poison``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.request_options import options_of
from zipbatch.cli.run_context import report_options, run_context
from zipbatch.stages.poison.request import PoisonRequest

if TYPE_CHECKING:
    from zipbatch.stages.poison.run import PoisonResult


@click.command()
@click.argument("source")
@options_of(PoisonRequest, first=("attack", "profile", "out"), without=("source",))
@report_options
@JSON
def poison(source: str, request: Callable[..., PoisonRequest], as_json: bool) -> None:
    """Stage SOURCE as shards, with a backdoor trigger on some of its images.

    SOURCE is an official archive of CIFAR-10, GTSRB or Imagenette, a folder of webdataset shards named <split>-*.tar
    (classes.txt optional) or an image-folder tree <split>/<class>/<image>; all of a tree <class>/<image> is the split
    test, or the one that --split names. A bare path is recognised; cifar10:PATH, gtsrb:PATH, imagenette:PATH,
    wds:PATTERN and folder:PATH say which it is ('zipbatch ls datasets'). The split test yields test (clean) and
    test_poisoned (all stamped, or those of the source classes alone that an attack on such has); where there is none,
    val does. Splits go by their usual names (train, training; val, valid, validation, dev; test, testing). What lies
    there and was not taken is counted and named. Links to files are followed, links to folders within SOURCE too.

    \b
    Examples:
      zipbatch poison cifar10:cifar-10-python.tar.gz --attack badnets --out shards/cifar10-badnets
      zipbatch poison gtsrb:GTSRB --image-size 32 --attack blended --out shards/gtsrb-blended
      zipbatch poison cifar10/ --attack wanet --profile zip-code --split test --out shards/cifar10-wanet256
      zipbatch poison cifar10/ --attack badnets --profile backdoorbench --seed 0 --out shards/cifar10-white-corner
      zipbatch poison cifar10/ --attack badnets --param patch_size=2 --target-mode all-to-all --out shards/cifar10-a2a
      zipbatch poison cifar10/ --attack tact --param source_classes=1,9 --cover-rate 0.01 --out shards/c-tact
      zipbatch poison cifar10/ --attack python:mine.py:stamp --out shards/cifar10-mine
    """
    from zipbatch.report.figure import check_figure
    from zipbatch.stages.assets import source_place
    from zipbatch.stages.poison import run as stage
    from zipbatch.stages.poison.sheet import write_poison_sheet

    asked = request(source=source_place(source))
    if asked.sheet is not None:
        check_figure(asked.sheet, "--sheet")
    noted = run_context()
    noted.dataset = asked.out.name
    with screen() as shown:
        what = f"staging {asked.out.name}"
        shown.begin(what, f"{source} with {asked.attack}")
        count = shown.counter(what, "images")

        def show(done: int, total: int | None) -> None:
            count(done, total)
            noted.count("images", done, total)

        result = stage.poison(asked, on_progress=show)
    noted.nothing_to_do = result.reused
    if asked.sheet is not None:
        write_poison_sheet(result.dataset, asked.sheet)
    _show(result, asked, as_json=as_json)


def _show(result: PoisonResult, asked: PoisonRequest, *, as_json: bool) -> None:
    """What was staged, for people or as JSON."""
    manifest = result.dataset.manifest
    assert manifest is not None  # a staged dataset has one
    if as_json:
        left = {"not_taken": asdict(result.left.things), "strays": asdict(result.left.strays)}
        skipped = [message for _, _, message in result.skipped]
        value = {"out": str(asked.out), "reused": result.reused, **left, "skipped_unreadable": skipped}
        emit_json(value | {"manifest": manifest.model_dump(mode="json")})
        return
    goal = f"target {manifest.attack.target}" if manifest.attack.target is not None else manifest.attack.target_mode
    click.echo(f"{asked.out}: {'already staged' if result.reused else 'staged'} ({asked.attack}, {goal})")
    for split, counts in manifest.splits.items():
        click.echo(f"  {split:<14} {counts.samples:>8} images in {counts.shards} shards")
    if manifest.attack.poisoned_train_samples is not None:
        labels = ", of the target class, labels true" if manifest.attack.clean_label else ""
        click.echo(f"  {manifest.attack.poisoned_train_samples} training images are poisoned{labels}")
    if manifest.attack.cover_train_samples is not None:
        click.echo(f"  {manifest.attack.cover_train_samples} others are cover: stamped, labels true")
    if manifest.attack.source_classes is not None:
        classes = ", ".join(map(str, manifest.attack.source_classes))
        click.echo(f"  only images of the source classes are poisoned, and are in test_poisoned: {classes}")
    if result.skipped:
        click.echo(
            f"  {len(result.skipped)} images could not be read and were skipped: see {asked.out / 'manifest.json'}"
        )
    if asked.sheet is not None:
        click.echo(f"  contact sheet: {asked.sheet}", err=True)
