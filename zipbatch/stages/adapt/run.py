"""``zipbatch adapt``: the trigger of an attacker who knows the defence, optimised through it against a classifier."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zipbatch import atomic, images
from zipbatch.attacks.optimise import Alarm, Everywhere, Form, Square, optimised
from zipbatch.checkpoints.victim import VictimFolder
from zipbatch.datasets.clean_images import some_images, spaced, stacked
from zipbatch.datasets.source import Source
from zipbatch.errors import UsageError
from zipbatch.memory import check_fits
from zipbatch.metrics import Share
from zipbatch.report.progress import Part, Progress
from zipbatch.stages.adapt.white_box import Defence, MaskAlarm, answers, slope_of
from zipbatch.stages.purify.build import exact_on
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.victims import Victim, VictimSource

log = logging.getLogger(__name__)
PICTURE, ARRAY = ".png", ".npy"
"""How a patch is written, for the attack ``patch``, and what is added to all of an image, for ``lf``."""
_LEARNED_ON = ("train", "val", "test")
Report = Callable[[Progress], None]


@dataclass(frozen=True)
class AdaptRequest:
    """What to optimise.

    Attributes:
        source: clean images; labels are not needed.
        surrogate: the attacker's own classifier, whose gradient is taken.
        through: the defence that is to be survived; None for none, to compare with.
        target: the class that triggered images are to be taken for.
        out: the file to write, ``.png`` for a patch, ``.npy`` for a pattern.
        epsilon: levels that a pattern may add or take away at each pixel; None for a patch.
        patch_size: side of a patch, pixels, with its ``row`` and ``column`` as the attack ``patch`` has them.
        steps: of the optimisation, ``batch_size`` images each.
        images: how many to optimise on; ``held_out`` others measure the result.
        image_size: resize images to so many pixels; None for the source's own size.
        seed: of the first levels, the images drawn and the defence's noise.
        evade: also keep the trigger below what ``repaint`` masks.
    """

    source: Source
    surrogate: VictimSource
    through: PurifierSpec | None
    target: int
    out: Path
    epsilon: int | None = None
    patch_size: int | None = None
    row: int = -1
    column: int = -1
    steps: int = 200
    batch_size: int = 32
    images: int = 512
    held_out: int = 200
    image_size: int | None = None
    seed: int = 0
    evade: bool = False


@dataclass(frozen=True)
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


def adapt(request: AdaptRequest, *, device: torch.device, report: Report = lambda _: None) -> Adapted:
    """Optimise a trigger and write it to ``request.out``: the same request gives the same bytes on one kind of machine.

    Images that the surrogate takes for the target as they are are left out: they say nothing of a trigger.

    Raises:
        UsageError: settings, images, surrogate or purifier that do not fit each other; says which.
        DataError: an image cannot be read, or purified pixels are not finite.
    """
    _check(request)
    exact_on(device)
    victim, split = _surrogate(request, device), _split(request.source)
    shown = _images(request, split, victim)
    form = _form(request, int(shown.pixels.shape[-1]))
    learned, held_out = _parted(shown, request)
    defence = Defence(request.through, device, request.source.place)
    done = _Counted(request, len(held_out.keys), report)
    levels = optimised(
        learned.pixels,
        form,
        purify=lambda pixels, rows, step: defence(pixels, learned.named(rows.tolist(), f"step {step}")),
        slope=slope_of(victim, request.target, device),
        steps=request.steps,
        batch_size=request.batch_size,
        seed=request.seed,
        alarm=_alarm(request, device, learned),
        on_step=done.step,
    )

    stamped = form.stamped(held_out.pixels, levels)

    def purified(pixels: Tensor, occasion: str) -> Tensor:
        batches = torch.split(torch.arange(len(pixels)), request.batch_size)
        return torch.cat([done.told(defence(pixels[b], held_out.named(b.tolist(), occasion))) for b in batches])

    told = (stamped, purified(stamped, "stamped"), purified(held_out.pixels, "clean"))
    shares = (_share(answers(victim, pixels, device) == request.target) for pixels in told)
    write_trigger(request.out, levels)
    return Adapted(request.out, levels, len(learned.keys), split, *shares)


def _share(taken: Tensor) -> Share:
    return Share(int(taken.sum()), len(taken))


def _alarm(request: AdaptRequest, device: torch.device, learned: _Shown) -> Alarm | None:
    if not request.evade:
        return None
    alarm = MaskAlarm(request.through, device, seed=request.seed)
    return lambda pixels, rows, step: alarm.slope(pixels, learned.named(rows.tolist(), f"step {step}"))


class _Counted:
    """Tells how many images have been purified, of all that will be."""

    def __init__(self, request: AdaptRequest, held_out: int, report: Report) -> None:
        self._what, self._report = f"optimising {request.out.name}", report
        self._steps, self._batch = request.steps, request.batch_size
        self._all = request.steps * request.batch_size + 2 * held_out
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
            Progress(self._what, (Part("steps", self._step, self._steps),), self._done / self._all, notes=notes)
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


def _check(request: AdaptRequest) -> None:
    if (request.epsilon is None) == (request.patch_size is None):
        raise UsageError("give --patch-size PX for a patch, or --epsilon LEVELS for a pattern over the whole image")
    suffix = ARRAY if request.patch_size is None else PICTURE
    if request.out.suffix != suffix or not request.out.absolute().parent.is_dir():
        kind = "a pattern" if suffix == ARRAY else "a patch"
        raise UsageError(f"--out {request.out}: {kind} is written as a {suffix} file in a folder that is there")


def _surrogate(request: AdaptRequest, device: torch.device) -> Victim:
    folder = request.surrogate
    if not isinstance(folder, VictimFolder):
        raise UsageError(
            f"{folder.label}: a surrogate's gradient is needed, and only a victim's folder has one; train one of your "
            "own with 'zipbatch train victim'"
        )
    if request.target >= folder.spec.num_classes:
        raise UsageError(f"--target {request.target}: {folder.path} knows classes 0 to {folder.spec.num_classes - 1}")
    victim = folder.load(device)
    if not isinstance(victim, Victim):
        raise UsageError(
            f"{folder.path}: is an ONNX model, whose gradient cannot be taken; train a surrogate of your own with "
            "'zipbatch train victim', or import one from a checkpoint of PyTorch"
        )
    return victim.requires_grad_(False)


def _split(source: Source) -> str:
    return next(split for split in (*_LEARNED_ON, *source.splits) if split in source.splits)


def _images(request: AdaptRequest, split: str, victim: Victim) -> _Shown:
    """Those that the surrogate does not take for the target anyway."""
    source = replace(request.source, size=request.image_size)
    size = source.image_size()
    if size != request.surrogate.image_size:
        raise UsageError(
            f"{source.place}: images of {size} px, {request.surrogate.label} takes {request.surrogate.image_size} px; "
            f"--image-size {request.surrogate.image_size} resizes them"
        )
    _check_size(request, size)
    count = request.images + request.held_out
    survey = source.survey(split)
    held = min(count, survey.images)
    check_fits(6 * held * size**2, f"{source.place}: {held} images of {size} px", smaller="fewer (--images N)")
    some = list(some_images(source, split, survey, limit=count))
    keys, pixels = [image.key for image, _ in some], stacked([pixels for _, pixels in some])
    device = next(victim.parameters()).device
    rows = (answers(victim, pixels, device) != request.target).nonzero()[:, 0]
    if len(rows) < 2:
        raise UsageError(
            f"{source.place}: the surrogate takes all but {len(rows)} of {len(keys)} images for class "
            f"{request.target} as they are; name another --target, or give more --images"
        )
    if len(keys) < count:
        log.warning("%s: split %s has %d images, %d are wanted", source.place, split, len(keys), count)
    return _Shown(pixels, tuple(keys)).rows(rows.tolist())


def _check_size(request: AdaptRequest, size: int) -> None:
    try:
        if request.through is not None:
            request.through.images_per_row(size, size)
    except ValueError as error:
        raise UsageError(f"--through: {error}") from error


def _parted(shown: _Shown, request: AdaptRequest) -> tuple[_Shown, _Shown]:
    """Those to optimise on, and those held out: the share that was asked for, evenly spaced, one at least."""
    count, share = len(shown.keys), request.held_out / (request.images + request.held_out)
    held_out = spaced(count, min(count - 1, max(1, round(count * share))))
    return shown.rows([i for i in range(count) if i not in set(held_out)]), shown.rows(held_out)


def _form(request: AdaptRequest, image_size: int) -> Form:
    if request.epsilon is not None:
        return Everywhere(image_size, request.epsilon)
    side = request.patch_size or 0
    top, left = (at if at >= 0 else image_size + at + 1 - side for at in (request.row, request.column))
    if min(top, left) < 0 or max(top, left) + side > image_size:
        raise UsageError(
            f"a patch of {side}x{side} pixels at row {request.row}, column {request.column} does not lie within "
            f"{image_size}x{image_size}; place it with --row, --column and --patch-size"
        )
    return Square(side, top, left)
