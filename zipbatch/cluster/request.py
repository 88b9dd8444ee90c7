"""Who is asked to work: every setting of the workers, its default, its limits and its help are written here alone."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import Field

from zipbatch.cluster.device import pick_device
from zipbatch.cluster.types import Workers
from zipbatch.config import Option, Request
from zipbatch.config.request import Device
from zipbatch.errors import UsageError
from zipbatch.memory import GB
from zipbatch.spelling import setting


class WorkerRequest(Request):
    """Who does the work, as it is asked for. No result depends on it."""

    gpus: Annotated[
        int | None, Field(ge=1), Option("Ray actors, one pinned to each GPU.", metavar="N", decides="nothing")
    ] = None
    workers: Annotated[
        int | None,
        Field(ge=0),
        Option(
            "Ray actors on CPU cores; 0 works in this process, without Ray.",
            metavar="N",
            default="0",
            decides="nothing",
        ),
    ] = None
    address: Annotated[
        str | None,
        Option(
            "Join this running Ray cluster; 'auto' finds one.",
            metavar="HOST:PORT",
            default="RAY_ADDRESS, or an embedded one",
            decides="nothing",
        ),
    ] = None
    at_least: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "Do with N workers until more are free.", metavar="N", default="all that are asked for", decides="nothing"
        ),
    ] = None
    stall_minutes: Annotated[
        float,
        Field(gt=0),
        Option(
            "Take a worker for hung, and replace it, whose shard shows no progress for MIN minutes.",
            metavar="MIN",
            decides="nothing",
        ),
    ] = 60.0
    memory_gb: Annotated[
        float | None,
        Field(gt=0),
        Option(
            "What the images in a worker's hands may take.",
            metavar="GB",
            default="1, or a 16th of all there is",
            decides="nothing",
        ),
    ] = None
    device: Device = "auto"

    def resolve(self) -> Workers:
        """The workers, once what is asked is held against what this machine has.

        Without an address, actors join the cluster that the environment variable RAY_ADDRESS names, as within a job
        that was submitted to it.

        Raises:
            UsageError: settings that contradict each other, more GPUs than there are, no CUDA for the device ``cuda``.
        """
        self._check_count()
        address, device = self.address, self.device
        if address is None and (self.gpus or self.workers):
            address = os.environ.get("RAY_ADDRESS") or None
        if self.workers and device == "cuda":
            raise UsageError(
                "‹workers N› shares the CPU cores; ‹device='cuda'› goes with ‹gpus N›, or with ‹workers=0›"
            )
        if self.workers:
            device = "cpu"
        if address is None and self.gpus is not None:
            _check_gpus(self.gpus)
        if address is None and (self.gpus is None or device == "cuda"):
            pick_device(device)
        memory = None if self.memory_gb is None else int(self.memory_gb * GB)
        return Workers(
            gpus=self.gpus,
            workers=self.workers or 0,
            address=address,
            device=device,
            at_least=self.at_least,
            stall_s=60 * self.stall_minutes,
            memory=memory,
        )

    def _check_count(self) -> None:
        if self.gpus is not None and self.workers is not None:
            raise UsageError("‹gpus› and ‹workers› exclude each other: a worker has a GPU or it has not")
        if self.address is not None and self.gpus is None and not self.workers:
            raise UsageError("‹address› needs ‹gpus N› or ‹workers N›: how many actors should the cluster run?")
        if self.at_least is not None and not self.at_least <= (self.gpus or self.workers or 0):
            raise UsageError(
                f"{setting('at_least', self.at_least)}: that is more workers than ‹gpus› or ‹workers› asks for"
            )


def _check_gpus(gpus: int) -> None:
    import torch

    if gpus > torch.cuda.device_count():
        raise UsageError(
            f"{setting('gpus', gpus)}: this machine has {torch.cuda.device_count()} CUDA devices; "
            "ask for fewer, use ‹workers N› on CPU cores, or ‹address› of a cluster that has them"
        )
