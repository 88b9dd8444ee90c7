"""Priors on the Hugging Face hub. The only place that touches the network, and only for a model that the user names."""

from __future__ import annotations

from pathlib import Path

from zipbatch.checkpoints.prior import SCHEDULER_CONFIG, WEIGHT_NAMES
from zipbatch.errors import UsageError

HUB = "hub:"
_FOLDERS = (("", ""), ("unet/", "scheduler/"))  # of the network's files and of the schedule, flat or as a pipeline


def fetch_prior(reference: str) -> Path:
    """The folder of ``hub:NAME[@REVISION]`` in the hub's own cache, where it is downloaded to when it is not there yet.

    A copy in the cache is used as it is, without asking the hub: a branch that moves on is followed only by naming
    another revision. ``HF_HUB_OFFLINE=1`` forbids downloads, ``HF_HOME`` moves the cache.

    Raises:
        UsageError: no such model, revision or files, no network, no huggingface_hub.
    """
    name, _, revision = reference.removeprefix(HUB).partition("@")
    try:
        return _cached(name, revision or None) or _download(name, revision or None)
    except ImportError as error:
        raise UsageError(f"{reference}: the package huggingface_hub is needed: pip install huggingface_hub") from error
    except Exception as error:  # whichever HTTP library is below has errors of its own
        raise UsageError(f"{reference}: {_reason(error)}") from error


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for files in _layouts():
        found = [try_to_load_from_cache(name, file, revision=revision) for file in files]
        if all(isinstance(path, str) for path in found):
            return _root(str(found[0]), files[0])
    return None


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    there = set(HfApi().list_repo_files(name, revision=revision))
    for files in _layouts():
        if there.issuperset(files):
            paths = [hf_hub_download(name, file, revision=revision) for file in files]
            return _root(paths[0], files[0])
    raise _NoPriorError(f"is no prior in diffusers' format; it has {', '.join(sorted(there)[:20])}")


class _NoPriorError(Exception):
    """A model of another kind."""


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, _NoPriorError):
        return str(error)
    if isinstance(error, RevisionNotFoundError):
        return "the model has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such model, or shows it only to those who are logged in"
    if isinstance(error, OfflineModeIsEnabled):
        return "is not in the hub's cache, and HF_HUB_OFFLINE forbids to download it"
    said = (str(error).strip() or "no reason given").splitlines()[0]
    return f"cannot be downloaded ({type(error).__name__}: {said}); without network, name a local folder instead"


def _layouts() -> list[tuple[str, str, str]]:
    """Network config, schedule and weights as a model may have them, the preferred first."""
    return [
        (f"{unet}config.json", f"{scheduler}{SCHEDULER_CONFIG}", f"{unet}{weights}")
        for unet, scheduler in _FOLDERS
        for weights in WEIGHT_NAMES
    ]


def _root(path: str, file: str) -> Path:
    """The folder that ``path`` is the ``file`` of."""
    return Path(path).parents[file.count("/")]
