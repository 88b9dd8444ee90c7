"""``zipbatch bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.request_options import options_of
from zipbatch.stages.bench.request import BenchRequest
from zipbatch.stages.purify.request import NetworkRequest

if TYPE_CHECKING:
    from zipbatch.results import Benchmark


@click.command()
@options_of(
    BenchRequest,
    first=("prior", "preset", "data", "images", "gpus"),
    last=(*NetworkRequest.model_fields, "seconds", "device"),
)
@JSON
def bench(request: BenchRequest, as_json: bool) -> None:
    """How fast does this machine purify, how fast could it, and how long will a run take?

    Measures products of matrices, the network alone with batches of 1, 2, 4, … images, decoding and encoding, and a run
    from shards to a store, in temporary files. What it finds is remembered, so that 'purify --dry-run' can tell how
    long the same purifier takes on this machine.

    \b
    Examples:
      zipbatch bench --prior embedded
      zipbatch bench --prior embedded --preset fast --images 1000000 --gpus 8
      zipbatch bench --prior priors/mine --data 'incoming/day-{000..009}.tar' --json
    """
    from zipbatch.report.columns import Look, pairs_text
    from zipbatch.report.progress import Part, Progress
    from zipbatch.results import dump
    from zipbatch.stages.bench.run import PARTS
    from zipbatch.stages.bench.run import bench as run

    with screen() as shown:
        shown.begin("measuring", "about two minutes")

        def tell(what: str, done: int) -> None:
            shown.show(Progress(what=f"measuring {what}", parts=(Part("parts", done, PARTS),)))

        found = run(request, tell=tell)
    if as_json:
        emit_json(dump(found))
        return
    click.echo(pairs_text(_for_people(found), Look()), nl=False)


def _for_people(found: Benchmark) -> dict[str, str]:
    from zipbatch.report.units import size_text

    lines = {
        "device": found.device,
        "purifier": f"{found.purifier}; images of {found.image_size} px, batches of {found.batch_size}",
        **({} if found.floor_images_per_s is None else _of_network(found)),
        "purify": f"{found.images_per_s:.1f} images/s from shards to a store, after {found.start_s:.1f} s",
    }
    if found.efficiency is not None and found.mfu is not None:
        lines["efficiency"] = f"{found.efficiency:.2f} of the network alone, {found.mfu:.2f} of the matrix rate"
    lines["one core"] = (
        f"reads {found.read_images_per_s:.0f}, decodes {found.decode_images_per_s:.0f}, "
        f"encodes {found.encode_images_per_s:.0f} images/s"
    )
    lines["store"] = f"{size_text(found.store_bytes_per_image)} an image"
    if found.foretold is not None:
        lines["foretold"] = (
            f"{found.foretold.images} images on {found.foretold.gpus} such: {found.foretold.hours:.3g} hours, "
            f"{found.foretold.store_gb:.3g} GB of the store"
        )
    return lines


def _of_network(found: Benchmark) -> dict[str, str]:
    rates = ", ".join(f"{rate:.0f} at {rows}" for rows, rate in found.passes_per_s.items())
    advice = "" if found.best_batch == found.batch_size else f"; best: --batch-size {found.best_batch}"
    return {
        "matrices": f"{found.matrix_tflop_per_s:.3g} TFLOP/s in {found.precision}",
        "passes/s": f"{rates} rows a batch{advice}",
        "network": f"{found.floor_images_per_s:.1f} images/s alone: {found.calls:.2f} calls an image of "
        f"{found.gflop_per_pass:.3g} GFLOP",
    }
