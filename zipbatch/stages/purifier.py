"""From what the user asks to a purifier's full identity, and from that to a working purifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zipbatch.checkpoints import PriorFolder, load_prior, open_prior
from zipbatch.config import Settings, find_config, read_config, validate
from zipbatch.diffusion import timesteps
from zipbatch.errors import UsageError
from zipbatch.purifiers import PURIFIERS, Purifier, Resources
from zipbatch.purifiers.base import Precision

DEFAULT_PRESET = "balanced"
TILING = "shard order, last canvas repeats its own"


@dataclass(frozen=True)
class PurifierSpec:
    """Everything that decides how pixels change, resolved and checked. Small and picklable."""

    method: str
    settings: Settings
    seed: int
    precision: Precision
    resize: str | None
    prior: PriorFolder | None

    def row_of(self, height: int, width: int) -> int:
        """Images of that size to a row of the network's batch; raises ``ValueError`` when they cannot be purified."""
        prior_size = None if self.prior is None else self.prior.image_size
        return PURIFIERS[self.method].row_of(self.settings, height, width, prior_size=prior_size)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides purified pixels and nothing else (DESIGN, "The store"): no paths, batch sizes or workers."""
        kind = PURIFIERS[self.method]
        identity: dict[str, Any] = {
            "method": self.method,
            "algorithm_version": kind.version,
            "settings": self.settings.model_dump(mode="json"),
            "resize": self.resize,
        }
        if self.prior is not None:
            identity |= {
                "prior_sha256": self.prior.digest,
                "seed": self.seed,
                "precision": self.precision,
                "tiling": TILING,
            }
        return identity


def purifier_spec(
    *,
    preset: str | None = None,
    method: str | None = None,
    overrides: Mapping[str, object] | None = None,
    prior: Path | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    resize: str | None = None,
) -> PurifierSpec:
    """Resolve a preset (or file), flags on top of it, and the prior.

    Raises:
        UsageError: unknown preset or method, settings that do not fit or do not apply, no prior where one is needed.
    """
    values: dict[str, object] = {}
    where = f"--purifier {method}"
    if preset is not None or method is None:
        file = find_config("purifiers", preset or DEFAULT_PRESET)
        values, where = read_config(file), str(file)
        chosen = str(values.pop("method", "zip"))
        if method is not None and method != chosen:
            raise UsageError(f"{file} is a preset of {chosen}, not of --purifier {method}")
        method = chosen
    if method not in PURIFIERS:
        raise UsageError(f"{where}: unknown purifier {method!r}; known: {', '.join(PURIFIERS)}")
    kind = PURIFIERS[method]
    if resize is not None and not kind.needs_prior:
        raise UsageError(f"--resize does not apply to the purifier {method}: it takes images of any size")
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key in given:
        if key not in kind.settings_type.model_fields:
            raise UsageError(f"--{key.replace('_', '-')} does not apply to the purifier {method}")
    validate(kind.settings_type, values, where=where)
    settings = validate(kind.settings_type, {**values, **given}, where="settings given as flags")
    if not kind.needs_prior:
        return PurifierSpec(method, settings, seed, precision, resize, None)
    if prior is None:
        raise UsageError(f"the purifier {method} needs a diffusion model: --prior DIR (or --prior embedded)")
    folder = open_prior(prior)
    return PurifierSpec(method, _resolved(settings, folder), seed, precision, resize, folder)


def _resolved(settings: Settings, folder: PriorFolder) -> Settings:
    """Settings held against the prior's schedule; a start at or above T is T: one behaviour, one identity."""
    steps, start = getattr(settings, "steps", 1), getattr(settings, "start_step", None)
    try:
        timesteps(folder.training_steps, steps, folder.training_steps if start is None else start)
    except ValueError as error:
        raise UsageError(f"{folder.path}: {error}") from error
    if "start_step" not in type(settings).model_fields:
        return settings
    resolved = min(start or folder.training_steps, folder.training_steps)
    return settings.model_copy(update={"start_step": resolved})


def build_purifier(spec: PurifierSpec, device: torch.device) -> Purifier:
    """Load what the purifier needs onto ``device``.

    Raises:
        UsageError: the prior cannot be loaded.
    """
    prior = None
    if device.type == "cuda":  # float32 means float32: TF32 keeps 10 bits, and results would differ between devices
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    if spec.prior is not None:
        prior = load_prior(spec.prior).to(device)
    return PURIFIERS[spec.method](spec.settings, Resources(device, prior, spec.seed, spec.precision))


def describe(identity: Mapping[str, Any]) -> str:
    """One line for tables: ``zip blur:2+gray k=1 S=20 t0=1000 eta=1``."""
    names = {"guidance_exponent": "k", "steps": "S", "start_step": "t0"}
    parts = [str(identity["method"])]
    for key, value in identity["settings"].items():
        if key == "transforms":
            parts.append("+".join(value))
        else:
            parts.append(f"{names.get(key, key)}={value:g}" if isinstance(value, int | float) else f"{key}={value}")
    return " ".join(parts)
