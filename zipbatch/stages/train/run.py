"""What every training run shares: a budget, a learning rate, a checkpoint that knows which run it belongs to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch

from zipbatch import atomic
from zipbatch.checkpoints.tensors import is_whole, read_json
from zipbatch.config import Settings
from zipbatch.errors import UsageError
from zipbatch.kinds import folder_kind, taken_by
from zipbatch.spelling import setting

_OTHERS = {"a store of purified shards", "a staged dataset", "a folder of shards"}
"""What no model belongs in."""


class Stateful(Protocol):
    """A module, an optimizer: anything whose state can be saved."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass(kw_only=True)
class Budget:
    """How far a run may go and has gone: optimizer steps, or minutes where those run out first."""

    steps: int
    minutes: float | None
    step: int = 0
    seconds: float = 0.0

    @property
    def fraction(self) -> float:
        """Share that is spent, 0..1."""
        by_time = self.seconds / 60 / self.minutes if self.minutes else 0.0
        return min(1.0, max(self.step / self.steps, by_time))

    @property
    def spent(self) -> bool:
        """Whether the run is over."""
        return self.fraction >= 1


def training_fingerprint(config: Settings) -> dict[str, Any]:
    """What decides a training run beside its data; a pipeline's stage is known by it, too."""
    unused = {name for name in config.LATER if getattr(config, name) is None}
    return {"config": config.model_dump(mode="json", exclude=unused)}


def training_identity(config: Settings, data: object) -> str:
    """Digest of all that decides a training run; ``data`` says what it learns from."""
    return atomic.sha256_json({**training_fingerprint(config), "data": data})


def finished_manifest(
    out: Path, marker: str, identity: str, *, opened: Callable[[Path], object]
) -> dict[str, Any] | None:
    """The manifest of a finished run in ``out``, None when it is not whole: then it is to be trained, or trained anew.

    Args:
        out: its folder.
        marker: the file that it writes last.
        identity: of the run that asks.
        opened: as for ``is_trained``.

    Raises:
        UsageError: the folder is of another run.
    """
    if not (out / marker).is_file():
        return None
    manifest = read_json(out / "manifest.json")
    if manifest.get("identity") != identity:
        raise UsageError(
            f"{out}: holds the result of other settings or data, {taken_by(out)}; choose another ‹out› or remove it"
        )
    return manifest if is_trained(out, opened) else None


def is_trained(out: Path, opened: Callable[[Path], object]) -> bool:
    """Whether all that a training run publishes is in ``out``: configs that ``opened`` takes, weights, a manifest.

    Args:
        out: the folder.
        opened: opens it as what it is; raises ``UsageError`` where it is not that.
    """
    try:
        opened(out)
        read_json(out / "manifest.json")
    except UsageError:
        return False
    return all(map(is_whole, out.rglob("*.safetensors")))


def prepare_out(out: Path) -> None:
    """Make the folder of a run before any work is put into it, and sweep up what a killed run left there.

    Raises:
        UsageError: it cannot be made, or is a store or a folder of shards.
    """
    if out.is_dir() and (kind := folder_kind(out)) in _OTHERS:
        raise UsageError(f"{setting('out', out)}: taken by {kind}; choose another ‹out› or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        atomic.sweep(out)
    except OSError as error:
        raise UsageError(f"{setting('out', out)}: cannot be made ({error.strerror}); choose another place") from error


_PASSES = 3
"""What learning from an image costs, in forward passes: the pass back is worth two."""


def share_of_all(budget: Budget, *, batch_size: int, measured: int, to_measure: Callable[[int], int]) -> float:
    """How much of a run is done, 0 to 1, when measuring what it has learned is counted in.

    Args:
        budget: of the training itself.
        batch_size: images a step.
        measured: images that were passed forward to measure.
        to_measure: optimizer steps in all -> images that will have been.
    """
    if not budget.fraction:
        return 0.0
    steps = budget.step / budget.fraction
    done = _PASSES * batch_size * budget.step + measured
    return min(1.0, done / (_PASSES * batch_size * steps + to_measure(round(steps))))


class Stopwatch:
    """Adds the time that passes between its laps to a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._last = budget, time.monotonic()

    def lap(self) -> None:
        """Charge the time since the last lap."""
        now = time.monotonic()
        self._budget.seconds += now - self._last
        self._last = now


def cosine_rate(fraction: float, *, peak: float, warmup: float, final: float = 0.0) -> float:
    """Linear warm-up over the first share ``warmup`` of the budget, then half a cosine down to ``final * peak``."""
    if fraction < warmup:
        return peak * max(fraction, 1e-3) / warmup
    down = 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - warmup) / (1 - warmup))))
    return peak * (final + (1 - final) * down)


def has_bfloat16(device: torch.device) -> bool:
    """Whether autocast to bfloat16 pays on this device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Told:
    """A stream for torch, which makes errors of its own of those of writing: ``error`` is the first of those."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        self.flush = stream.flush

    def write(self, data: bytes) -> int:
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = self.error or error
            raise


def _save(content: dict[str, Any], stream: BinaryIO) -> None:
    told = _Told(stream)
    try:
        torch.save(content, told)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise (told.error or error) from None


class Checkpoint:
    """The state of a run in one file, tied to the run's identity. Written atomically, read without running code."""

    def __init__(self, path: Path, identity: str, parts: Mapping[str, Stateful], budget: Budget) -> None:
        self._path, self._identity, self._parts, self._budget = path, identity, parts, budget

    def save(self, **extra: float) -> None:
        """Replace the file with the present state; ``extra`` comes back from ``resume``."""
        content = {
            "identity": self._identity,
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "step": self._budget.step,
            "seconds": self._budget.seconds,
            "extra": extra,
        }
        atomic.write_with(self._path, lambda stream: _save(content, stream))

    def resume(self) -> dict[str, float]:
        """Load the file into the run's parts and budget, if there is one.

        Raises:
            UsageError: it is of another run, or not a checkpoint at all.
        """
        if not self._path.is_file():
            return {}
        try:
            content = torch.load(self._path, map_location="cpu", weights_only=True)
            ours = content["identity"] == self._identity
            if ours:
                for name, part in self._parts.items():
                    part.load_state_dict(content["parts"][name])
                self._budget.step, self._budget.seconds = content["step"], content["seconds"]
        except Exception as error:
            # The cause is left out: torch's own text invites to load the file unsafely.
            raise UsageError(f"{self._path}: not a checkpoint of this tool; remove it to start over") from error
        if not ours:
            raise UsageError(
                f"{self._path}: belongs to other settings or data; remove it to start over, or choose another place"
            )
        return dict(content["extra"])

    def remove(self) -> None:
        """Delete the file of a run that is over."""
        self._path.unlink(missing_ok=True)
