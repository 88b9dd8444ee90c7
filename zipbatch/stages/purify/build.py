"""From a purifier's spec to a working purifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from zipbatch.checkpoints import load_prior
from zipbatch.errors import UsageError
from zipbatch.purifiers import METHODS, PURIFIERS, Purifier, Resources, SamplerSettings
from zipbatch.purifiers.again import sure
from zipbatch.stages.purify.compiling import prepare_to_compile
from zipbatch.stages.purify.precision import check_precision
from zipbatch.stages.purify.spec import PurifierSpec, libraries_of
from zipbatch.storage import StoragePath


def build_purifier(
    spec: PurifierSpec,
    device: torch.device,
    *,
    heartbeat: Callable[[], None] = lambda: None,
    begin_pass: Callable[[], None] = lambda: None,
    keep_masks: Callable[[Sequence[str], torch.Tensor], None] = lambda _keys, _masks: None,
    done_again: Callable[[int], None] = lambda _images: None,
    local: Callable[[StoragePath], StoragePath] = lambda place: place,
) -> Purifier:
    """Load what the purifier needs onto ``device``.

    Args:
        spec: which purifier, and its settings.
        device: where it computes.
        tick: called between pieces of work, each forward pass of the prior among them.
        begin_pass: called before each forward pass of the prior.
        keep_masks: called with keys and what of their images is repainted, bool [N, H, W].
        done_again: called with how many images were done again in float32, because they were not finite in less.
        local: where a file that ``spec`` names can be read on this machine.

    Raises:
        UsageError: the prior cannot be loaded, this machine's libraries would make other pixels, or its device does
            not have the precision, or it cannot compile.
    """
    libraries = libraries_of(spec.method, spec.settings)
    if libraries != spec.libraries:
        raise UsageError(
            f"{spec.method} depends on {_versions(spec.libraries)}, this worker has {_versions(libraries)}; "
            "install the same on all machines"
        )
    check_precision(spec, device)
    exact_on(device)
    if spec.asked.compile == "on":
        prepare_to_compile(device)
    asks_prior = any(isinstance(step.settings, SamplerSettings) for step in spec.steps)
    prior, restorer = (
        None if folder is None else load_prior(folder.read_through(local))
        for folder in (spec.prior if asks_prior else None, None if spec.restorer is None else spec.restorer.folder)
    )
    resources = Resources(
        device=device,
        prior=prior,
        seed=spec.asked.seed,
        precision=spec.precision,
        heartbeat=heartbeat,
        begin_pass=begin_pass,
        keep_masks=keep_masks,
        restorer=restorer,
        done_again=done_again,
        compiled=spec.asked.compile == "on",
    )
    kind = PURIFIERS[spec.method]
    return sure(kind, spec.settings, resources) if spec.method in METHODS else kind(spec.settings, resources)


def exact_on(device: torch.device) -> None:
    """Let float32 mean float32 on a GPU: TF32 keeps 10 bits, and results would differ between devices and runs."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True


def _versions(libraries: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in libraries.items()) or "none"
