"""Import a foreign prior: convert it once into a folder of this tool's own format."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zipbatch import __version__, atomic
from zipbatch.checkpoints import PriorFolder, open_prior, prior_tensors, write_prior
from zipbatch.checkpoints.guided_flags import PUBLISHED, GuidedFlags
from zipbatch.checkpoints.prior import MANIFEST, alpha_bar_of
from zipbatch.errors import UsageError
from zipbatch.kinds import taken_by
from zipbatch.spelling import setting
from zipbatch.stages.output_folder import new_folder
from zipbatch.stages.train.run import finished_manifest
from zipbatch.storage import StoragePath


@dataclass(frozen=True, kw_only=True)
class ImportedPrior:
    """The folder, the source's digest, and what is in it; ``reused`` when it was there already.

    ``assumed``: what neither the file nor the user said, and what was taken for it, by the setting that says otherwise.
    """

    path: Path
    source_sha256: str
    image_size: int
    parameters: int
    dtype: str
    assumed: dict[str, str]
    reused: bool


def import_prior(file: StoragePath, out: Path, *, half: bool = False, flags: GuidedFlags = PUBLISHED) -> ImportedPrior:
    """Convert a guided-diffusion checkpoint into a diffusers folder, dtypes as in the file, or float16 with ``half``.

    ``flags`` are those of its training that its tensors do not show. A folder that has the result already is left as it
    is.

    Raises:
        UsageError: no such checkpoint, tensors that do not fit or are not finite, ``out`` holds something else.
    """
    opened = open_prior(file, flags=flags).pinned()
    if opened.guided is None:
        raise UsageError(f"{file}: is a folder, which purify takes as it is: {setting('prior', file)}")
    source = opened.sha256s[0]
    trained = {} if flags.meaning == PUBLISHED.meaning else {"flags": flags.meaning}
    identity = atomic.sha256_json({"source": source, "half": half, **trained})
    manifest = finished_manifest(out, MANIFEST, identity, opened=open_prior)
    reused = manifest is not None
    if manifest is None:
        if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
            raise UsageError(f"{setting('out', out)}: holds other files: it is {taken_by(out)}; choose an empty folder")
        alpha_bar_of(opened)  # says what is wrong with the schedule
        tensors = _finite(prior_tensors(opened), half=half, where=opened.path)
        manifest = {
            "format_version": 1,
            "identity": identity,
            "source": {"file": opened.path.name, "sha256": source, "format": "guided-diffusion", **trained},
            "image_size": opened.image_size,
            "parameters": sum(tensor.numel() for tensor in tensors.values()),
            "dtype": "+".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
            "versions": {"zipbatch": __version__, "torch": torch.__version__},
        }
        write = partial(_write, opened, tensors, manifest)
        if (out / MANIFEST).is_file():
            write(out)  # the same prior, damaged since
        else:
            new_folder(out, write, taken=f"{setting('out', out)}: holds other files; choose an empty folder")
    size, parameters, dtype = (manifest[name] for name in ("image_size", "parameters", "dtype"))
    return ImportedPrior(
        path=out,
        source_sha256=source,
        image_size=size,
        parameters=parameters,
        dtype=dtype,
        assumed=flags.assumed,
        reused=reused,
    )


def _write(opened: PriorFolder, tensors: dict[str, Tensor], manifest: dict[str, Any], folder: Path) -> None:
    write_prior(folder, tensors, opened.unet_config, opened.scheduler_config, manifest)


def _finite(tensors: dict[str, Tensor], *, half: bool, where: StoragePath) -> dict[str, Tensor]:
    """The tensors, in float16 where that is asked for, none of their values infinite or NaN."""
    kept = {key: tensor.half() if half else tensor for key, tensor in tensors.items()}
    for key, tensor in kept.items():
        if not bool(torch.isfinite(tensor).all()):
            hint = " in float16; import it without ‹half›" if half and bool(torch.isfinite(tensors[key]).all()) else ""
            raise UsageError(f"{where}: {key} (diffusers' name) has values that are not finite{hint}")
    return kept
