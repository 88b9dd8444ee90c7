"""Options of ``zipbatch tune --fit``, and what they are resolved to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from zipbatch.cli.number import Number
from zipbatch.cli.render import Screen, screen
from zipbatch.config import DEFAULTS, list_configs
from zipbatch.errors import UsageError

if TYPE_CHECKING:
    from zipbatch.cluster import Workers
    from zipbatch.datasets import ShardDataset
    from zipbatch.datasets.source import Source
    from zipbatch.purifiers.base import Precision
    from zipbatch.stages.tune.fit import Candidate, FitPlan, FitResult
    from zipbatch.store import Store
    from zipbatch.victims import VictimSource

MAX_LOSS = 0.1
_Command = Callable[..., None]


@dataclass(frozen=True)
class FitFlags:
    """``--fit`` and the flags that go with it."""

    fit: str | None
    fit_split: str | None
    fit_limit: int
    max_loss: float
    image_size: int | None
    resize: str | None
    calibrate: bool
    train_minutes: float | None
    train_preset: str


_OPTIONS = (
    click.option(
        "--fit",
        metavar="SOURCE",
        help="Clean images of yours, as for 'zipbatch poison', without labels, too: choose the preset that they can "
        "afford.",
    ),
    click.option("--fit-split", metavar="NAME", help="Split of SOURCE.  [default: the first of test, val, train]"),
    click.option(
        "--fit-limit", type=click.IntRange(1), default=500, show_default=True, metavar="N", help="Clean images at most."
    ),
    click.option(
        "--max-loss",
        type=Number(0, 1),
        default=MAX_LOSS,
        show_default=True,
        metavar="SHARE",
        help="Share of answers on clean images that purifying may change; of accuracy it costs no more, mostly a half "
        "or less.",
    ),
    click.option(
        "--image-size",
        type=click.IntRange(8),
        metavar="PX",
        help="Stretch clean images to PX x PX.  [default: what VICTIM takes, else the source's]",
    ),
    click.option(
        "--resize",
        type=click.Choice(["stretch"]),
        help="Make images fit that neither equal nor tile the prior's size, as in purify.",
    ),
    click.option(
        "--calibrate",
        is_flag=True,
        help="Learn thresholds from the clean images, too, where the prior has its own for their size.",
    ),
    click.option(
        "--train-minutes",
        type=Number(0, min_open=True),
        metavar="MIN",
        help="Train a prior on SOURCE first, in the folder --prior, MIN minutes at most; a rerun goes on.",
    ),
    click.option(
        "--train-preset",
        default=DEFAULTS["priors"],
        show_default=True,
        metavar="NAME|FILE",
        help="Settings of that training, from configs/priors.",
    ),
)


def fit_options(command: _Command) -> _Command:
    """The flags of ``--fit``; the command gets them as ``flags``, a ``FitFlags``."""

    @wraps(command)
    def gathered(**given: Any) -> None:
        names = [field.name for field in fields(FitFlags)]
        if given["fit"] is None and (stray := _given(names)):
            raise UsageError(f"{stray[0]} goes with --fit, which names clean images; without it, leave it out")
        flags = FitFlags(**{name: given.pop(name) for name in names})
        command(flags=flags, **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def only_with_data() -> None:
    """Raises ``UsageError`` for a flag about suspect images, where there are none."""
    if stray := _given(["exponents", "splits", "shards", "limit"]):
        fit = {"--split": "; of --fit it is --fit-split", "--limit": "; of --fit it is --fit-limit or --max-loss"}
        raise UsageError(f"{stray[0]} goes with --data, which names suspect images{fit.get(stray[0], '')}")


def _given(names: list[str]) -> list[str]:
    """The flags of these parameters that the user gave."""
    context = click.get_current_context()
    given = [name for name in names if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    return [option.opts[0] for option in context.command.params if option.name in given]


@dataclass(frozen=True)
class ToFit:
    """What a preset is to be fitted to, beside the clean images.

    ``suspects`` are those that its strength is then tuned on, None for no tuning; ``prior`` and ``presets`` are as the
    user names them; purified images are kept in ``store``, with None nowhere.
    """

    victim: VictimSource
    suspects: ShardDataset | None
    prior: str
    presets: tuple[str, ...]
    store: Store | None
    workers: Workers
    batch_size: int
    seed: int
    bfloat16: bool


def fitted(flags: FitFlags, wanted: ToFit) -> FitResult:
    """Train a prior where one is to be trained, and choose a preset.

    Raises:
        UsageError: something does not fit; most is told before any work.
    """
    from zipbatch.stages.tune.fit import candidates, fit
    from zipbatch.stages.tune.sweep import check_strength

    precision: Precision = "bfloat16" if wanted.bfloat16 else "float32"
    asked = candidates(wanted.presets, seed=wanted.seed, precision=precision, resize=flags.resize)
    if wanted.suspects is not None:
        for one in asked:
            check_strength(one.spec)
    with screen() as shown:
        shown.begin(f"fitting for {wanted.victim.name}", f"{len(asked)} presets, clean images of {flags.fit}")
        last = None if flags.train_minutes is None else _train(flags, wanted, asked, shown)
        return fit(_plan(flags, wanted, asked, last), report=shown.show)


def _plan(flags: FitFlags, wanted: ToFit, asked: tuple[Candidate, ...], last: int | None) -> FitPlan:
    from zipbatch.datasets.clean_images import held_out_split
    from zipbatch.stages.assets import prior_path
    from zipbatch.stages.purify.resolve import opened_prior
    from zipbatch.stages.tune.fit import FitRequest, plan_fit

    source = _source(flags, wanted, (flags.fit_split,) if flags.fit_split else ())
    request = FitRequest(
        wanted.victim,
        source,
        held_out_split(source),
        opened_prior(prior_path(wanted.prior)).pinned(),
        asked,
        last=last,
        limit=flags.fit_limit,
        max_loss=flags.max_loss,
        relearn=flags.calibrate,
        store=wanted.store,
        workers=wanted.workers,
        batch_size=wanted.batch_size,
    )
    plan = plan_fit(request)
    manifest = None if wanted.suspects is None else wanted.suspects.manifest
    if manifest is not None and manifest.image_size != plan.size:
        raise UsageError(
            f"--data: images of {manifest.image_size} px, those of --fit have {plan.size}; fit to images of their size "
            f"(--image-size {manifest.image_size})"
        )
    return plan


def _source(flags: FitFlags, wanted: ToFit, splits: tuple[str, ...]) -> Source:
    """The clean images, of the size that the victim is asked at."""
    from zipbatch.datasets.source import open_source
    from zipbatch.stages.assets import source_place
    from zipbatch.stages.tune.fit import sized

    assert flags.fit is not None
    return sized(open_source(source_place(flags.fit), splits, labelled=False), wanted.victim, flags.image_size)


def _train(flags: FitFlags, wanted: ToFit, asked: tuple[Candidate, ...], shown: Screen) -> int | None:
    """Train a prior, or go on with it, or find it done; how many images at the end of the split were left out of it."""
    from zipbatch.cluster import pick_device
    from zipbatch.config import PriorConfig, find_config, load_config
    from zipbatch.stages.assets import EMBEDDED
    from zipbatch.stages.train.denoising import DenoisingProgress, held_out_of
    from zipbatch.stages.train.prior import train_prior
    from zipbatch.stages.tune.fit import check_trainable

    if wanted.prior == EMBEDDED or ":" in wanted.prior:
        raise UsageError(f"--prior {wanted.prior}: --train-minutes trains one in a folder of this machine; name that")
    overrides = {"minutes": flags.train_minutes}
    config = load_config(find_config("priors", flags.train_preset), PriorConfig, overrides)
    check_trainable(asked, config)
    source = _source(flags, wanted, ())
    last, what = held_out_of(source, config, flags.fit_split), f"training {wanted.prior}"

    def show(progress: DenoisingProgress) -> None:
        shown.show(progress.shown(what))

    train_prior(source, Path(wanted.prior), config, device=pick_device(wanted.workers.device), on_progress=show)
    return last


def say_what_to_do(result: FitResult, prior: str, out: Path | None) -> None:
    """The command that purifies as was chosen."""
    chosen = result.chosen
    if out is None and (result.keeps_thresholds or chosen.preset not in list_configs("purifiers")):
        click.echo("name --out FILE.yaml to keep the choice, with its thresholds")
        return
    preset = out or chosen.preset
    with_prior = f" --prior {prior}" if chosen.spec.needs_prior else ""
    resize = f" --resize {chosen.spec.asked.resize}" if chosen.spec.asked.resize else ""
    click.echo(f"next: zipbatch purify SHARDS{with_prior} --preset {preset}{resize} --store DIR")
