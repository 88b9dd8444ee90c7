"""``zipbatch adapt``: the trigger of an attacker who knows the defence, optimised through it against a classifier."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zipbatch import atomic, images
from zipbatch.attacks.optimise import Alarm, Everywhere, Form, Square, optimised
from zipbatch.datasets.clean_images import some_images, spaced, stacked
from zipbatch.errors import UsageError
from zipbatch.memory import check_fits
from zipbatch.metrics import Share
from zipbatch.report.progress import Part, Progress
from zipbatch.spelling import setting
from zipbatch.stages.adapt.job import PICTURE, AdaptJob
from zipbatch.stages.adapt.request import AdaptRequest
from zipbatch.stages.adapt.white_box import Defence, MaskAlarm, answers, slope_of
from zipbatch.stages.purify.build import exact_on
from zipbatch.victims import Victim

log = logging.getLogger(__name__)
Report = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """The trigger, and which share of the held-out images the surrogate takes for the target.

    Attributes:
        file: where it is.
        levels: int16 [3, H, W].
        images: how many it was optimised on, of which ``split``.
        stamped: images with the trigger, not purified.
        purified: the same purified, with noise that was never optimised on.
        clean: the same images purified without the trigger; unpurified, none of them is taken for the target.
    """

    file: Path
    levels: Tensor
    images: int
    split: str
    stamped: Share
    purified: Share
    clean: Share


@dataclass(frozen=True)
class _Shown:
    """Images uint8 [N, 3, S, S] and their keys."""

    pixels: Tensor
    keys: tuple[str, ...]

    def rows(self, chosen: Sequence[int]) -> _Shown:
        """Some of them."""
        return _Shown(self.pixels[list(chosen)], tuple(self.keys[i] for i in chosen))

    def named(self, chosen: Sequence[int], occasion: str) -> list[str]:
        """Keys of some of them under which noise is drawn on one occasion alone."""
        return [f"{occasion}\n{self.keys[i]}" for i in chosen]


def adapt(job: AdaptJob, *, report: Report = lambda _: None) -> Adapted:
    """Optimise a trigger and write it where asked: the same request gives the same bytes on one kind of machine.

    Images that the surrogate takes for the target as they are are left out: they say nothing of a trigger.

    Raises:
        UsageError: settings, images, surrogate or purifier that do not fit each other; says which.
        DataError: an image cannot be read, or purified pixels are not finite.
    """
    asked, device = job.asked, job.device
    exact_on(device)
    victim = job.victim()
    shown = _images(job, victim)
    form = _form(asked, int(shown.pixels.shape[-1]))
    learned, held_out = _parted(shown, asked)
    defence = Defence(job.through, device, job.source.place)
    done = _Counted(asked, len(held_out.keys), report)
    levels = optimised(
        learned.pixels,
        form,
        purify=lambda pixels, rows, step: defence(pixels, learned.named(rows.tolist(), f"step {step}")),
        slope=slope_of(victim, job.target, device),
        steps=asked.steps,
        batch_size=asked.batch_size,
        seed=asked.seed,
        alarm=_alarm(job, learned),
        on_step=done.step,
    )
    stamped = form.stamped(held_out.pixels, levels)

    def purified(pixels: Tensor, occasion: str) -> Tensor:
        batches = torch.split(torch.arange(len(pixels)), asked.batch_size)
        return torch.cat([done.told(defence(pixels[b], held_out.named(b.tolist(), occasion))) for b in batches])

    def taken(pixels: Tensor) -> Share:
        return _share(answers(victim, pixels, device) == job.target)

    adapted = Adapted(
        file=asked.out,
        levels=levels,
        images=len(learned.keys),
        split=job.split,
        stamped=taken(stamped),
        purified=taken(purified(stamped, "stamped")),
        clean=taken(purified(held_out.pixels, "clean")),
    )
    write_trigger(asked.out, levels)
    return adapted


def _share(taken: Tensor) -> Share:
    return Share(int(taken.sum()), len(taken))


def _alarm(job: AdaptJob, learned: _Shown) -> Alarm | None:
    if not job.asked.evade:
        return None
    alarm = MaskAlarm(job.through, job.device, seed=job.asked.seed)
    return lambda pixels, rows, step: alarm.slope(pixels, learned.named(rows.tolist(), f"step {step}"))


class _Counted:
    """Tells how many images have been purified, of all that will be."""

    def __init__(self, asked: AdaptRequest, held_out: int, report: Report) -> None:
        self._what, self._report = f"optimising {asked.out.name}", report
        self._steps, self._batch = asked.steps, asked.batch_size
        self._all = asked.steps * asked.batch_size + 2 * held_out
        self._step, self._done, self._share = 0, 0, 0.0

    def step(self, step: int, share: float) -> None:
        """A step is done, of whose images that share was taken for the target."""
        self._step, self._share = step, share if step == 1 else 0.9 * self._share + 0.1 * share
        self._tell(self._batch)

    def told(self, purified: Tensor) -> Tensor:
        """What was purified to measure."""
        self._tell(len(purified))
        return purified

    def _tell(self, more: int) -> None:
        self._done += more
        notes = (f"taken for the target {self._share:.2f}",)
        self._report(
            Progress(
                what=self._what,
                parts=(Part("steps", self._step, self._steps),),
                fraction=self._done / self._all,
                notes=notes,
            )
        )


def write_trigger(out: Path, levels: Tensor) -> None:
    """A patch as PNG, a pattern as ``.npy`` of int16 [S, S, 3]; from levels [3, H, W]."""
    pixels = np.ascontiguousarray(levels.permute(1, 2, 0).numpy())
    if out.suffix == PICTURE:
        atomic.write_bytes(out, images.encode_png(pixels.astype(np.uint8)))
        return
    written = io.BytesIO()
    np.save(written, pixels, allow_pickle=False)
    atomic.write_bytes(out, written.getvalue())


def _images(job: AdaptJob, victim: Victim) -> _Shown:
    """Those that the surrogate does not take for the target anyway."""
    source, split, target = job.source, job.split, job.target
    size = _size(job)
    count = job.asked.images + job.asked.held_out
    survey = source.survey(split)
    held = min(count, survey.images)
    check_fits(6 * held * size**2, f"{source.place}: {held} images of {size} px", smaller="fewer (‹images N›)")
    some = list(some_images(source, split, survey, limit=count))
    keys, pixels = [image.key for image, _ in some], stacked([pixels for _, pixels in some])
    rows = (answers(victim, pixels, job.device) != target).nonzero()[:, 0]
    if len(rows) < 2:
        raise UsageError(
            f"{source.place}: the surrogate takes all but {len(rows)} of {len(keys)} images for class {target} as they "
            "are; name another ‹target›, or give more ‹images›"
        )
    if len(keys) < count:
        log.warning("%s: split %s has %d images, %d are wanted", source.place, split, len(keys), count)
    return _Shown(pixels, tuple(keys)).rows(rows.tolist())


def _size(job: AdaptJob) -> int:
    """Pixels of a side, which surrogate and defence take."""
    source, surrogate, size = job.source, job.surrogate, job.source.image_size()
    if size != surrogate.image_size:
        raise UsageError(
            f"{source.place}: images of {size} px, {surrogate.label} takes {surrogate.image_size} px; "
            f"{setting('image_size', surrogate.image_size)} resizes them"
        )
    try:
        if job.through is not None:
            job.through.images_per_row(size, size)
    except ValueError as error:
        raise UsageError(f"‹through›: {error}") from error
    return size


def _parted(shown: _Shown, asked: AdaptRequest) -> tuple[_Shown, _Shown]:
    """Those to optimise on, and those held out: the share that was asked for, evenly spaced, one at least."""
    count, share = len(shown.keys), asked.held_out / (asked.images + asked.held_out)
    held_out = spaced(count, min(count - 1, max(1, round(count * share))))
    return shown.rows([i for i in range(count) if i not in set(held_out)]), shown.rows(held_out)


def _form(asked: AdaptRequest, image_size: int) -> Form:
    if asked.epsilon is not None:
        return Everywhere(image_size, asked.epsilon)
    side = asked.patch_size or 0
    top, left = (at if at >= 0 else image_size + at + 1 - side for at in (asked.row, asked.column))
    if min(top, left) < 0 or max(top, left) + side > image_size:
        raise UsageError(
            f"a patch of {side}x{side} pixels at row {asked.row}, column {asked.column} does not lie within "
            f"{image_size}x{image_size}; place it with ‹row›, ‹column› and ‹patch_size›"
        )
    return Square(side=side, top=top, left=left)
