"""What ``zipbatch bench`` has measured on this machine, remembered for estimates, in the user's cache folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from zipbatch import atomic
from zipbatch.cluster.device import cpu_cores
from zipbatch.errors import UsageError
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.storage import cache

_FILE = "bench.json"
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one worker: seconds before its first image, images a second from then on, bytes of the store an image."""

    start_s: float
    images_per_s: float
    store_bytes_per_image: float

    def seconds(self, images: int, *, workers: int) -> float:
        """What so many images take so many workers like it."""
        return self.start_s + images / (self.images_per_s * workers)


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's with the cores that this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {cpu_cores()} cores"


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return "CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def remember(speed: Speed, spec: PurifierSpec, device: torch.device, *, batch_size: int, image_size: int) -> None:
    """Keep what was measured; a cache folder that cannot be written is no reason to fail."""
    try:
        file = cache.folder() / _FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        key = _key(spec, device, batch_size=batch_size, image_size=image_size)
        atomic.write_json(file, {**_all(file), key: asdict(speed)})
    except (OSError, UsageError):
        return


def remembered(spec: PurifierSpec, device: torch.device, *, batch_size: int, image_size: int) -> Speed | None:
    """What was measured of a purifier on such a device with such batches and images; None where nothing was."""
    try:
        found = _all(cache.folder() / _FILE).get(_key(spec, device, batch_size=batch_size, image_size=image_size))
        return None if found is None else Speed(**found)
    except (OSError, UsageError, TypeError):
        return None


def _all(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _key(spec: PurifierSpec, device: torch.device, *, batch_size: int, image_size: int) -> str:
    """The noise's seed has no part in it: it makes nothing slower."""
    purifier = {name: value for name, value in spec.identity.items() if name != "seed"}
    return atomic.sha256_json(
        {"device": device_name(device), "purifier": purifier, "batch_size": batch_size, "image_size": image_size}
    )
