"""``zipbatch poison``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from zipbatch.cli.options import JSON, Number, emit_json, pairs
from zipbatch.cli.render import screen
from zipbatch.cli.run_context import report_options, run_context


@click.command()
@click.argument("source")
@click.option(
    "--attack",
    required=True,
    metavar="NAME",
    help="The attack; 'zipbatch ls attacks' lists them. python:FILE.py:FUNCTION is a function of yours, which is run.",
)
@click.option(
    "--profile",
    type=click.Choice(["standard", "zip-code", "backdoorbench"]),
    default="standard",
    show_default=True,
    help="Whose choices are the attack's defaults: the literature's, the ZIP reference code's or BackdoorBench's.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Staged dataset to write.")
@click.option("--image-size", type=click.IntRange(8), metavar="PX", help="Resize to PX x PX.  [default: the source's]")
@click.option(
    "--resize",
    type=click.Choice(["stretch", "center-crop"]),
    default="stretch",
    show_default=True,
    help="Squeeze the whole image, or cut its middle square out.",
)
@click.option("--target", type=click.IntRange(0), metavar="CLASS", help="Target class.  [default: the attack's]")
@click.option(
    "--target-mode",
    type=click.Choice(["all-to-one", "all-to-all"]),
    default="all-to-one",
    show_default=True,
    help="All-to-all takes each class for the next.",
)
@click.option(
    "--clean-label/--no-clean-label",
    default=None,
    help="Poison training images of the target class alone, labels true.  [default: the attack's]",
)
@click.option(
    "--poison-rate", type=Number(0, 1), metavar="SHARE", help="Share of train to poison.  [default: the attack's]"
)
@click.option(
    "--cover-rate",
    type=Number(0, 1),
    metavar="SHARE",
    help="Share of train to stamp with its true label kept.  [default: the attack's]",
)
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Attack parameter; repeats.")
@click.option(
    "--trigger-image",
    "trigger_images",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="The picture of patch, pattern, adaptive-blend and, in profile backdoorbench, blended; repeats for "
    "adaptive-patch; a folder of pictures for refool.",
)
@click.option(
    "--trigger-array",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="The array that lf adds, as numpy.save writes it (.npy).",
)
@click.option("--seed", type=click.IntRange(0), default=1234, show_default=True, help="Of trigger and poison indices.")
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="Source split to stage; repeats.  [default: all]"
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N images of each split.")
@click.option(
    "--skip-unreadable",
    is_flag=True,
    help="Stage the others where images cannot be read; counted and listed.  [default: list them and stop]",
)
@click.option("--samples-per-shard", type=click.IntRange(1), default=1000, show_default=True, metavar="N")
@report_options
@JSON
def poison(
    source: str,
    attack: str,
    profile: str,
    out: Path,
    image_size: int | None,
    resize: str,
    target: int | None,
    target_mode: Literal["all-to-one", "all-to-all"],
    clean_label: bool | None,
    poison_rate: float | None,
    cover_rate: float | None,
    params: tuple[str, ...],
    trigger_images: tuple[Path, ...],
    trigger_array: Path | None,
    seed: int,
    splits: tuple[str, ...],
    limit: int | None,
    skip_unreadable: bool,
    samples_per_shard: int,
    as_json: bool,
) -> None:
    """Stage SOURCE as shards, with a backdoor trigger on some of its images.

    SOURCE is an official archive of CIFAR-10, GTSRB or Imagenette, a folder of webdataset shards named <split>-*.tar
    (classes.txt optional) or an image-folder tree <split>/<class>/<image>. A bare path is recognised; cifar10:PATH,
    gtsrb:PATH, imagenette:PATH, wds:PATTERN and folder:PATH say which it is ('zipbatch ls datasets'). The split test
    yields test (clean) and test_poisoned (all stamped, or those of the source classes alone that an attack on such
    has); where there is none, val does. Splits go by their usual names
    (train, training; val, valid, validation, dev; test, testing). What lies there and was not taken is counted and
    named. Links to files are followed, links to folders within SOURCE too.

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
    from zipbatch.stages.assets import source_place
    from zipbatch.stages.poison import staging as stage

    request = stage.PoisonRequest(
        source=source_place(source),
        attack=attack,
        out=out,
        image_size=image_size,
        target=target,
        poison_rate=poison_rate,
        seed=seed,
        splits=splits,
        limit=limit,
        samples_per_shard=samples_per_shard,
        resize=resize,
        params=pairs(params, "--param"),
        profile=profile,
        clean_label=clean_label,
        target_mode=target_mode,
        trigger_image=trigger_images,
        trigger_array=trigger_array,
        cover_rate=cover_rate,
        skip_unreadable=skip_unreadable,
    )
    noted = run_context()
    noted.dataset = out.name
    with screen() as shown:
        what = f"staging {out.name}"
        shown.begin(what, f"{source} with {attack}")
        count = shown.counter(what, "images")

        def show(done: int, total: int | None) -> None:
            count(done, total)
            noted.count("images", done, total)

        result = stage.poison(request, on_progress=show)
    noted.nothing_to_do = result.reused
    manifest = result.dataset.manifest
    assert manifest is not None  # a staged dataset has one
    if as_json:
        left = {"not_taken": asdict(result.left.things), "strays": asdict(result.left.strays)}
        skipped = [message for _, _, message in result.skipped]
        value = {"out": str(out), "reused": result.reused, **left, "skipped_unreadable": skipped}
        emit_json(value | {"manifest": manifest.model_dump(mode="json")})
        return
    goal = f"target {manifest.attack.target}" if manifest.attack.target is not None else manifest.attack.target_mode
    click.echo(f"{out}: {'already staged' if result.reused else 'staged'} ({attack}, {goal})")
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
        click.echo(f"  {len(result.skipped)} images could not be read and were skipped: see {out / 'manifest.json'}")
