"""Tasks in, outcomes out, on whichever workers were asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zipbatch.cluster.types import Node, OnPartial, Outcome, Setup, Workers, ignore_progress


def run_tasks(
    setup: Setup,
    tasks: Iterable[Any],
    workers: Workers,
    *,
    files: Sequence[Path] = (),
    on_partial: OnPartial = ignore_progress,
) -> Iterator[Outcome]:
    """Run every task once, in no fixed order; a bounded number is in flight, the rest is not even read.

    Workers on a cluster that was joined get ``files`` of this machine, once a node, as ``WorkerContext.local`` says.

    Close the iterator (or leave it by an exception) to stop: what runs is stopped at its next safe point.

    Raises:
        UsageError: the cluster cannot give what is asked, or a worker cannot be set up; says why.
    """
    if not workers.uses_ray:
        from zipbatch.cluster.local import run_local

        return run_local(setup, tasks, workers, on_partial=on_partial)
    _set_ray_environment(joining=workers.address is not None)
    from zipbatch.cluster.ray_pool import run_ray

    return run_ray(setup, tasks, workers, files=files, on_partial=on_partial)


def cluster_nodes(address: str) -> list[Node]:
    """The nodes of a running Ray cluster that are up, each asked for its zipbatch.

    Raises:
        UsageError: nobody answers at the address, or the cluster does not let us in.
    """
    _set_ray_environment(joining=True)
    from zipbatch.cluster.nodes import nodes_of

    return nodes_of(address)


def _set_ray_environment(*, joining: bool) -> None:
    """What Ray reads once, when it is imported: no usage reports, and the token of clusters started on this machine.

    ``ray start`` asks for a token as soon as one exists, but ``ray.init`` does not present it of its own accord.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    token = Path(os.path.expanduser(named))  # noqa: PTH111  pathlib's raises for a user without a home
    if joining and (token.is_file() or "RAY_AUTH_TOKEN" in os.environ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
