"""Priors on the Hugging Face hub. The only place that touches the network, and only for a model that the user names."""

from __future__ import annotations

from pathlib import Path

from zipbatch.checkpoints.calibration import CALIBRATION
from zipbatch.checkpoints.prior import SCHEDULER_CONFIG
from zipbatch.checkpoints.restorer import RESTORER, RESTORER_WEIGHTS
from zipbatch.checkpoints.weights import parts_named, pick_weights
from zipbatch.errors import UsageError

HUB = "hub:"
_BESIDE = {CALIBRATION, RESTORER, RESTORER_WEIGHTS}
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
    except UsageError:
        raise
    except ImportError as error:
        raise UsageError(f"{reference}: the package huggingface_hub is needed: pip install huggingface_hub") from error
    except Exception as error:  # whichever HTTP library is below has errors of its own
        raise UsageError(f"{reference}: {_reason(error)}") from error


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for unet, scheduler in _FOLDERS:
        files = (f"{unet}config.json", f"{scheduler}{SCHEDULER_CONFIG}")
        found = [try_to_load_from_cache(name, file, revision=revision) for file in files]
        if all(isinstance(path, str) for path in found):
            folder = Path(str(found[0])).parent
            weights = pick_weights([file.name for file in folder.iterdir()])
            if weights and all((folder / part).is_file() for part in parts_named(folder / weights)):
                return _root(str(found[0]), files[0])
    return None


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    def fetched(file: str) -> str:
        return str(hf_hub_download(name, file, revision=revision))

    there = set(HfApi().list_repo_files(name, revision=revision))
    for unet, scheduler in _FOLDERS:
        files = (f"{unet}config.json", f"{scheduler}{SCHEDULER_CONFIG}")
        names = [file.removeprefix(unet) for file in there if file.startswith(unet)]
        if there.issuperset(files) and (weights := pick_weights(names)):
            paths = [fetched(file) for file in (*files, *there.intersection(_BESIDE))]
            for part in parts_named(Path(fetched(unet + weights))):
                fetched(unet + part)
            return _root(paths[0], files[0])
    raise _NoPriorError(f"is no prior in diffusers' format; it has {', '.join(sorted(there)[:20])}")


class _NoPriorError(Exception):
    """A model of another kind."""


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import (
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, _NoPriorError | ValueError) and not isinstance(error, HFValidationError):
        return str(error)
    if isinstance(error, RevisionNotFoundError):
        return "the model has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such model, or shows it only to those who are logged in"
    if isinstance(error, OfflineModeIsEnabled):
        return "is not in the hub's cache, and HF_HUB_OFFLINE forbids to download it"
    said = (str(error).strip() or "no reason given").splitlines()[0]
    return f"cannot be downloaded ({type(error).__name__}: {said}); without network, name a local folder instead"


def _root(path: str, file: str) -> Path:
    """The folder that ``path`` is the ``file`` of."""
    return Path(path).parents[file.count("/")]
