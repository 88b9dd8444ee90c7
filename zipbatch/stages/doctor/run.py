"""All checks, each for itself: one that cannot be made is a finding, too."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from zipbatch.checkpoints import open_prior, read_calibration
from zipbatch.cluster import cluster_nodes
from zipbatch.errors import UsageError, ZipbatchError
from zipbatch.memory import GB
from zipbatch.stages.assets import prior_path
from zipbatch.stages.doctor import machine
from zipbatch.stages.doctor.finding import Finding
from zipbatch.storage import storage_path
from zipbatch.store import Store
from zipbatch.user_config import user_defaults

_FUTURE_S = 300.0


def examine(*, store: str | None = None, prior: str | None = None, address: str | None = None) -> Iterator[Finding]:
    """Look at this machine, and at what is named; findings come as they are made.

    Args:
        store: a store of purified shards.
        prior: a diffusion model.
        address: a running Ray cluster.
    """
    for check in (
        machine.python,
        machine.torch_build,
        machine.gpus,
        machine.cores_and_memory,
        machine.ray_install,
        machine.shared_memory,
        machine.temp_folder,
        machine.open_files,
    ):
        yield from _made(check.__name__.replace("_", " "), check)
    yield from _made("config", _config)
    if prior is not None:
        yield from _made("prior", lambda: _prior(prior))
    if store is not None:
        yield from _made("store", lambda: _store(store))
    if address is not None:
        yield from _made("cluster", lambda: _cluster(address))


def _made(name: str, check: Callable[[], Finding | Iterator[Finding]]) -> Iterator[Finding]:
    try:
        found = check()
        if isinstance(found, Finding):
            yield found
        else:
            yield from found
    except (ZipbatchError, OSError) as error:
        yield Finding(check=name, text=str(error), state="failed", next_step="mend that, then ask again")


def _config() -> Finding:
    defaults = user_defaults()
    return Finding(
        check="config", text="no zipbatch.toml here or above" if defaults.file is None else str(defaults.file)
    )


def _prior(named: str) -> Iterator[Finding]:
    folder = open_prior(prior_path(named))
    steps = f", learned below step {folder.trained_below}" if folder.trained_below < folder.training_steps else ""
    yield Finding(check="prior", text=f"{named}: images of {folder.image_size} px, digest {folder.digest[:12]}{steps}")
    try:
        read_calibration(folder)
    except UsageError as error:
        yield Finding(
            check="prior",
            text=f"{named}: not calibrated, as 'balanced' and 'repaint' need it",
            state="warning",
            next_step=str(error),
        )


def _store(named: str) -> Iterator[Finding]:
    root = storage_path(named)
    store = Store(root)
    try:
        store.require()
    except UsageError:
        yield Finding(check="store", text=f"{named}: not there yet; the first purify makes it")
        return
    versions = store.versions
    datasets = versions.datasets()
    headers = [header for dataset in datasets for header in versions.versions(dataset)]
    lost = [tag for dataset in datasets for tag, there in versions.tags.of(dataset).items() if not there]
    yield Finding.of(
        "store",
        f"{named}: {len(datasets)} datasets, {len(headers)} versions",
        not lost,
        f"tags that point nowhere: {', '.join(lost)}; see 'zipbatch store verify'",
    )
    if isinstance(root, Path):
        free = shutil.disk_usage(root).free / GB
        text = f"{free:.1f} GB free where {named} lies"
        step = "free some: 'zipbatch store gc' says what could go"
        yield Finding.of("store", text, free >= machine.LEAST_DISK_GB, step, warns=True)
        ahead = max((path.stat().st_mtime for path in root.iterdir()), default=0.0) - time.time()
        if ahead > _FUTURE_S:
            step = "set the clocks of this machine and of the file server"
            yield Finding(
                check="store",
                text=f"{named}: its files are {ahead / 60:.0f} minutes ahead of this clock",
                state="warning",
                next_step=step,
            )


def _cluster(address: str) -> Iterator[Finding]:
    nodes = cluster_nodes(address)
    gpus, cores = sum(node.gpus for node in nodes), sum(node.cpus for node in nodes)
    yield Finding(check="cluster", text=f"{address}: {len(nodes)} nodes, {cores:g} CPU cores, {gpus:g} GPUs")
    others = sorted({node.zipbatch for node in nodes if node.zipbatch is not None})
    for node in nodes:
        if node.problem is not None:
            yield Finding(
                check="cluster",
                text=f"node {node.name}: {node.problem}",
                state="failed",
                next_step="install the same zipbatch on every node",
            )
    if len(others) > 1:
        yield Finding(
            check="cluster",
            text=f"nodes have zipbatch {', '.join(others)}",
            state="failed",
            next_step="install the same on every node",
        )
