"""What ``bench`` finds: how fast a machine purifies, and what that makes of a run to come."""

from __future__ import annotations

from typing import Annotated

from zipbatch.results.base import Images, Result, Text, unit

PerSecond = Annotated[float, unit("images a second")]
Seconds = Annotated[float, unit("s")]


class Foretold(Result):
    """A run that was not made."""

    images: Images
    """That it purifies."""
    gpus: Annotated[int, unit("GPUs")]
    """That it has, or workers on such CPU cores as these."""
    hours: Annotated[float, unit("h")]
    """That it takes, from its start to its version."""
    store_gb: Annotated[float, unit("10^9 bytes")]
    """That it adds to the store."""


class Benchmark(Result):
    """What was measured. Of a purifier without a prior the network's figures are null."""

    device: Text
    """The card, or the processor and its cores."""
    purifier: Text
    """The method and its settings."""
    precision: Text | None
    """Of the network."""
    image_size: Annotated[int, unit("px")]
    """Side of the images."""
    batch_size: Annotated[int, unit("rows")]
    """Of the network's batch, as it was asked for."""
    matrix_tflop_per_s: Annotated[float | None, unit("10^12 floating-point operations a second")]
    """Products of large matrices in the network's precision: what the device can do."""
    gflop_per_pass: Annotated[float | None, unit("10^9 floating-point operations an image")]
    """Of one forward pass of the network."""
    calls: Annotated[float | None, unit("network calls an image")]
    """Forward passes that the images of the measured run took, on average."""
    passes_per_s: Annotated[dict[int, float], unit("passes of an image a second")]
    """Forward passes a second of the network alone, images counted, by rows of a batch."""
    best_batch: Annotated[int | None, unit("rows")]
    """The fewest rows of a batch with which the network is about as fast as with any."""
    floor_images_per_s: PerSecond | None
    """If only the network ran, with its best batch."""
    images_per_s: PerSecond
    """Of a run from shards to a store, once it is under way."""
    start_s: Seconds
    """From the run's start until it is under way."""
    efficiency: Annotated[float | None, unit("share of the floor, 0 to 1")]
    """``images_per_s`` of ``floor_images_per_s``."""
    mfu: Annotated[float | None, unit("share of the matrix rate, 0 to 1")]
    """What of the matrix rate a run makes use of for the network."""
    read_images_per_s: PerSecond
    """That one core reads from shards."""
    decode_images_per_s: PerSecond
    """That one core decodes."""
    encode_images_per_s: PerSecond
    """That one core encodes as PNG."""
    store_bytes_per_image: Annotated[float, unit("bytes an image")]
    """That a purified image takes in the store."""
    foretold: Foretold | None
    """The run that was asked about."""
