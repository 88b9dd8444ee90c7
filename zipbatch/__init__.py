"""zipbatch: purify backdoored image shards offline with ZIP (NeurIPS 2023, arXiv 2303.12175).

For notebooks and services::

    import zipbatch

    purify = zipbatch.load_purifier("balanced", prior="embedded")
    clean = purify(images)  # uint8 [N, H, W, 3], the same out

Each name is imported when it is first used: ``import zipbatch`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zipbatch.api.jobs import Audited, audit, evaluate, poison, purify, run, tune
    from zipbatch.api.purifier import LoadedPurifier, load_purifier
    from zipbatch.api.version import PurifiedSample, PurifiedVersion, open_version

__version__ = "0.1.0"
__all__ = [
    "Audited",
    "LoadedPurifier",
    "PurifiedSample",
    "PurifiedVersion",
    "__version__",
    "audit",
    "evaluate",
    "load_purifier",
    "open_version",
    "poison",
    "purify",
    "run",
    "tune",
]
_WHERE = {
    "Audited": "zipbatch.api.jobs",
    "audit": "zipbatch.api.jobs",
    "evaluate": "zipbatch.api.jobs",
    "LoadedPurifier": "zipbatch.api.purifier",
    "PurifiedSample": "zipbatch.api.version",
    "PurifiedVersion": "zipbatch.api.version",
    "load_purifier": "zipbatch.api.purifier",
    "open_version": "zipbatch.api.version",
    "poison": "zipbatch.api.jobs",
    "run": "zipbatch.api.jobs",
    "tune": "zipbatch.api.jobs",
    "purify": "zipbatch.api.jobs",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'zipbatch' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
