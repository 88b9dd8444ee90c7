"""What a running Ray cluster consists of."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zipbatch import __version__
from zipbatch.cluster.connection import connected
from zipbatch.cluster.types import Node, Workers

ANSWER_S = 60.0
"""How long a node may take to start a process and answer."""


def nodes_of(address: str) -> list[Node]:
    """The nodes that are up, each asked for its zipbatch.

    Raises:
        UsageError: nobody answers at the address, or the cluster does not let us in.
    """
    with connected(Workers(workers=1, address=address)):
        up = [node for node in ray.nodes() if node["Alive"]]
        asked = [_ask(node["NodeID"]) for node in up]
        return [_node(about, ref) for about, ref in zip(up, asked, strict=True)]


def _ask(node: str) -> Any:
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(_version).options(scheduling_strategy=here, num_cpus=0, max_retries=0).remote()


def _version() -> str:
    return __version__


def _node(about: dict[str, Any], ref: Any) -> Node:
    has = about["Resources"]
    version, problem = None, None
    try:
        version = ray.get(ref, timeout=ANSWER_S)
    except RayError as error:
        problem = f"runs nothing of ours: {str(error).strip().splitlines()[-1]}"
    return Node(
        name=about["NodeManagerHostname"],
        cpus=has.get("CPU", 0.0),
        gpus=has.get("GPU", 0.0),
        zipbatch=version,
        problem=problem,
    )
