"""An adapt request, opened: images, surrogate and the defence to survive."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zipbatch.checkpoints.victim import VictimFolder
from zipbatch.cluster import pick_device
from zipbatch.config import class_number
from zipbatch.datasets.source import Source
from zipbatch.errors import UsageError
from zipbatch.spelling import setting
from zipbatch.stages.adapt.request import NO_DEFENCE, AdaptRequest
from zipbatch.stages.assets import prior_path
from zipbatch.stages.evaluate.victims import find_victim
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.train.inputs import opened_source
from zipbatch.victims import Victim

PICTURE, ARRAY = ".png", ".npy"
"""How a patch is written, for the attack ``patch``, and what is added to all of an image, for ``lf``."""
_LEARNED_ON = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class AdaptJob:
    """What to optimise, opened.

    Attributes:
        asked: the settings.
        source: clean images, resized as asked.
        split: those of it that are taken.
        surrogate: the attacker's own classifier, whose gradient is taken.
        target: its number of the target class.
        through: the defence that is to be survived; None for none, to compare with.
        device: where the networks run.
    """

    asked: AdaptRequest
    source: Source
    split: str
    surrogate: VictimFolder
    target: int
    through: PurifierSpec | None
    device: torch.device

    def victim(self) -> Victim:
        """The surrogate, loaded.

        Raises:
            UsageError: its gradient cannot be taken.
        """
        victim = self.surrogate.load(self.device)
        if not isinstance(victim, Victim):
            raise UsageError(
                f"{self.surrogate.path}: is an ONNX model, whose gradient cannot be taken; train a surrogate of your "
                "own with 'zipbatch train victim', or import one from a checkpoint of PyTorch"
            )
        return victim.requires_grad_(False)


def opened_job(source: str, asked: AdaptRequest) -> AdaptJob:
    """Open what a request names.

    Args:
        source: clean images, as for 'zipbatch poison'; labels are not needed.
        asked: the settings.

    Raises:
        UsageError: something that is not there or does not fit; says which.
    """
    defence = None
    if asked.through != NO_DEFENCE:
        settings = PurifierRequest(preset=asked.through, seed=asked.seed)
        defence = purifier_spec(settings, None if asked.prior is None else prior_path(asked.prior))
    opened = opened_source(source, asked, split=asked.split)
    victim = find_victim(asked.surrogate)
    device = pick_device(asked.device)
    _check_file(asked)
    if not isinstance(victim, VictimFolder):
        raise UsageError(
            f"{victim.label}: a surrogate's gradient is needed, and only a victim's folder has one; train one of your "
            "own with 'zipbatch train victim'"
        )
    return AdaptJob(
        asked=asked,
        source=opened,
        split=_split(opened),
        surrogate=victim,
        target=_target(asked.target, victim, opened),
        through=defence,
        device=device,
    )


def _target(given: int | str, victim: VictimFolder, source: Source) -> int:
    """The surrogate's number of the target class. It may name its classes, else the images do where they are as many.

    Raises:
        UsageError: it is no class of the surrogate, or a name where nothing names them.
    """
    count = victim.spec.num_classes
    named = next((one for one in (victim.spec.classes, source.archive.classes) if one and len(one) == count), None)
    if named is None and isinstance(given, str):
        raise UsageError(
            f"{setting('target', given)}: nothing names the classes of {victim.path}; give a number, 0..{count - 1}"
        )
    return class_number(given, named or [str(number) for number in range(count)], where=setting("target", given))


def _check_file(asked: AdaptRequest) -> None:
    suffix = ARRAY if asked.patch_size is None else PICTURE
    if asked.out.is_dir():
        raise UsageError(f"{setting('out', asked.out)}: is a folder; name the file to write")
    if asked.out.suffix != suffix or not asked.out.absolute().parent.is_dir():
        kind = "a pattern" if suffix == ARRAY else "a patch"
        raise UsageError(f"{setting('out', asked.out)}: {kind} is written as a {suffix} file in a folder that is there")


def _split(source: Source) -> str:
    return next(split for split in (*_LEARNED_ON, *source.splits) if split in source.splits)
