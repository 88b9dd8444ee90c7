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
from torch.nn import functional as F

from zipbatch import atomic, images
from zipbatch.attacks.optimise import Everywhere, Form, Slope, Square, optimised
from zipbatch.checkpoints import load_prior
from zipbatch.checkpoints.victim import VictimFolder
from zipbatch.diffusion import derived_seed, unexplained
from zipbatch.errors import DataError, UsageError
from zipbatch.memory import check_fits
from zipbatch.metrics import Share
from zipbatch.pixels import from_u8
from zipbatch.purifiers import Painter, Purifier, RepaintSettings, Resources
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.report.progress import Part, Progress
from zipbatch.stages.calibrate import spaced, spaced_images
from zipbatch.stages.purifier import PurifierSpec, build_purifier, exact_on
from zipbatch.stages.source import Source
from zipbatch.victims import Victim

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
    surrogate: VictimFolder
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


def adapt(request: AdaptRequest, *, device: torch.device, report: Report = lambda _: None) -> Adapted:
    """Optimise a trigger and write it to ``request.out``: the same request gives the same bytes on one kind of machine.

    Images that the surrogate takes for the target as they are are left out: they say nothing of a trigger.

    Raises:
        UsageError: settings, images, surrogate or purifier that do not fit each other; says which.
        DataError: an image cannot be read, or purified pixels are not finite.
    """
    _check(request)
    exact_on(device)
    victim, split = _white_box(request, device), _split(request.source)
    pixels, keys = _images(request, split, victim)
    form = _form(request, int(pixels.shape[-1]))
    defence = _Defence(request, device, keys)
    held = _every_other(len(keys), request)
    rest = torch.tensor([i for i in range(len(keys)) if i not in set(held.tolist())])
    done = _Counted(request, len(held), report)
    alarm = _Alarm(request, device, [keys[row] for row in rest.tolist()]) if request.evade else None

    def purify(stamped: Tensor, rows: Tensor, step: int) -> Tensor:
        return defence(stamped, rest[rows], f"step {step}")

    levels = optimised(
        pixels[rest],
        form,
        purify=purify,
        slope=slope_of(victim, request.target, device),
        steps=request.steps,
        batch_size=request.batch_size,
        seed=request.seed,
        alarm=alarm,
        on_step=done.step,
    )

    def taken(shown: Tensor) -> Share:
        return Share(int((answers(victim, shown, device) == request.target).sum()), len(shown))

    stamped = form.stamped(pixels[held], levels)
    shares = [taken(stamped)]
    for shown, name in ((stamped, "stamped"), (pixels[held], "clean")):
        parts = [
            defence(shown[i : i + request.batch_size], held[i : i + request.batch_size], name)
            for i in done.measured(len(held), request.batch_size)
        ]
        shares.append(taken(torch.cat(parts)))
    write_trigger(request.out, levels)
    return Adapted(request.out, levels, len(rest), split, *shares)


class _Defence:
    """The purifier as the optimisation meets it: other noise for every occasion, by other keys."""

    def __init__(self, request: AdaptRequest, device: torch.device, keys: Sequence[str]) -> None:
        spec, self._keys, self._place = request.through, keys, request.source.place
        self._purifier: Purifier | None = None if spec is None else build_purifier(spec, device)

    def __call__(self, shown: Tensor, rows: Tensor, occasion: str) -> Tensor:
        if self._purifier is None:
            return shown
        try:
            return self._purifier(shown, [f"{occasion}\n{self._keys[row]}" for row in rows.tolist()])
        except NonFiniteError as error:
            raise DataError(self._place, str(error), key=error.key.partition("\n")[2]) from error


class _Alarm:
    """What the ``repaint`` of a defence finds unusual of stamped images: that has a gradient, its mask has none."""

    def __init__(self, request: AdaptRequest, device: torch.device, keys: Sequence[str]) -> None:
        spec = request.through
        steps = () if spec is None else spec.steps
        settings = next((step.settings for step in steps if isinstance(step.settings, RepaintSettings)), None)
        if spec is None or spec.prior is None or settings is None:
            raise UsageError("--evade is for a defence that masks what it repaints; that of --through does not")
        assert settings.levels is not None  # a spec with a prior has them
        assert settings.seed_threshold is not None
        assert settings.region_threshold is not None
        self._levels, self._steps, self._keys = settings.levels, settings.residual_steps, keys
        self._threshold = (settings.seed_threshold + settings.region_threshold) / 2
        prior = load_prior(spec.prior).to(device).requires_grad_(False)
        self._painter = Painter(settings, Resources(device, prior, derived_seed(request.seed, "alarm"), spec.precision))
        self._device = device

    def __call__(self, stamped: Tensor, rows: Tensor, step: int) -> Tensor:
        """As ``Alarm`` of the optimisation: 0 where no region would begin, with a margin for its noise."""
        pixels = from_u8(stamped.to(self._device), "model").requires_grad_()
        names = [f"step {step}\n{self._keys[row]}" for row in rows.tolist()]
        tiling, noise_at = self._painter.placed(stamped, names)
        residuals = self._painter.residuals_of(tiling.pack(pixels), noise_at, tiling, len(pixels), self._steps)
        over = unexplained(residuals, self._levels) - self._threshold
        (gradient,) = torch.autograd.grad(over.clamp_min(0).sum(), pixels)
        return gradient.cpu()


class _Counted:
    """Tells how many images have been purified, of all that will be."""

    def __init__(self, request: AdaptRequest, held_out: int, report: Report) -> None:
        self._what, self._report = f"optimising {request.out.name}", report
        self._steps, self._batch = request.steps, request.batch_size
        self._all = request.steps * request.batch_size + 2 * held_out
        self._done, self._share = 0, 0.0

    def step(self, step: int, share: float) -> None:
        self._share = share if step == 1 else 0.9 * self._share + 0.1 * share
        self._tell(step, self._batch)

    def measured(self, count: int, batch_size: int) -> Sequence[int]:
        """Where batches of ``count`` images begin; telling so before each."""
        for start in range(0, count, batch_size):
            self._tell(self._steps, min(batch_size, count - start))
        return range(0, count, batch_size)

    def _tell(self, step: int, more: int) -> None:
        self._done += more
        parts = (Part("steps", step, self._steps),)
        notes = (f"taken for the target {self._share:.2f}",)
        self._report(Progress(self._what, parts, self._done / self._all, notes=notes))


def slope_of(victim: Victim, target: int, device: torch.device) -> Slope:
    """The gradient of a classifier's cross entropy for the target, at each pixel of uint8 images [B, 3, S, S]."""

    def slope(shown: Tensor) -> tuple[Tensor, float]:
        unit = from_u8(shown.to(device), "unit").requires_grad_()
        scores = victim(unit)
        wanted = torch.full((len(unit),), target, device=device)
        (gradient,) = torch.autograd.grad(F.cross_entropy(scores, wanted), unit)
        return gradient.cpu(), float((scores.argmax(dim=1) == wanted).float().mean())

    return slope


@torch.inference_mode()
def answers(victim: Victim, shown: Tensor, device: torch.device) -> Tensor:
    """The class of each of uint8 images [N, 3, S, S], int64 [N]."""
    return torch.cat([victim(from_u8(rows.to(device), "unit")).argmax(dim=1).cpu() for rows in torch.split(shown, 128)])


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


def _white_box(request: AdaptRequest, device: torch.device) -> Victim:
    folder = request.surrogate
    if request.target >= folder.spec.num_classes:
        raise UsageError(f"--target {request.target}: {folder.path} knows classes 0 to {folder.spec.num_classes - 1}")
    victim = folder.load(device)
    if not isinstance(victim, Victim):
        raise UsageError(
            f"{folder.path}: is an ONNX model, whose gradient cannot be taken; train a surrogate of your own with "
            "'zipbatch train victim', or import one from a checkpoint"
        )
    return victim.requires_grad_(False)


def _split(source: Source) -> str:
    return next(split for split in (*_LEARNED_ON, *source.splits) if split in source.splits)


def _images(request: AdaptRequest, split: str, victim: Victim) -> tuple[Tensor, list[str]]:
    """Those that the surrogate does not take for the target anyway, uint8 [N, 3, S, S], and their keys."""
    source, size = request.source, request.image_size or request.source.image_size()
    if size != request.surrogate.image_size:
        raise UsageError(
            f"{source.place}: images of {size} px, {request.surrogate.path} takes {request.surrogate.image_size} px; "
            f"--image-size {request.surrogate.image_size} resizes them"
        )
    _check_size(request, size)
    count = request.images + request.held_out
    check_fits(6 * count * size**2, f"{source.place}: {count} images of {size} px", smaller="fewer (--images N)")
    survey = source.survey(split)
    pixels, keys = spaced_images(source, split, survey, count=count, image_size=request.image_size)
    device = next(victim.parameters()).device
    rows = (answers(victim, pixels, device) != request.target).nonzero()[:, 0]
    if len(rows) < 2:
        raise UsageError(
            f"{source.place}: the surrogate takes all but {len(rows)} of {len(keys)} images for class "
            f"{request.target} as they are; name another --target, or give more --images"
        )
    if len(keys) < count:
        log.warning("%s: split %s has %d images, %d are wanted", source.place, split, len(keys), count)
    return pixels[rows], [keys[row] for row in rows.tolist()]


def _check_size(request: AdaptRequest, size: int) -> None:
    try:
        if request.through is not None:
            request.through.row_of(size, size)
    except ValueError as error:
        raise UsageError(f"--through: {error}") from error


def _every_other(count: int, request: AdaptRequest) -> Tensor:
    """The rows that are held out: the share that was asked for, evenly spaced, one at least."""
    share = request.held_out / (request.images + request.held_out)
    return torch.tensor(spaced(count, min(count - 1, max(1, round(count * share)))))


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
