"""Samples of a shard, read and decoded as far as a purifier needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from zipbatch import images
from zipbatch.diffusion.tiling import DoesNotTileError
from zipbatch.errors import DataError
from zipbatch.shards import Sample
from zipbatch.stages.purify.masks import MASK
from zipbatch.stages.purify.quarantine import Quarantine
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.strays import Tally

OTHER_IMAGES = "holds other images"
"""How the reason begins for which a sample is refused that has images beside its own."""


@dataclass(frozen=True, kw_only=True)
class Readable:
    """A sample without its image, and that decoded.

    Attributes:
        sample: without its image.
        image: uint8 [H, W, 3], resized where it was to be.
        images_per_row: images of that size to a row of the network's batch.
        out: the height and width that it comes out with.
    """

    sample: Sample
    image: images.U8
    images_per_row: int
    out: tuple[int, int]

    @property
    def size(self) -> int:
        """Bytes that it takes while it is in hand: what else it holds, its image decoded, in a batch, and purified."""
        return self.sample.size + 3 * self.image.nbytes


class CountedSamples:
    """Counts what passes: the samples that went in, independent of those that came out."""

    def __init__(self, samples: Iterator[Sample]) -> None:
        self._samples, self.count = samples, 0

    def __iter__(self) -> Iterator[Sample]:
        for sample in self._samples:
            self.count += 1
            yield sample


class SampleReader:
    """Reads samples for one purifier.

    Args:
        spec: the purifier.
        keep_others: pass images beside a sample's own on as they are; without, they are an error.
        heartbeat: called before each sample.
    """

    def __init__(self, spec: PurifierSpec, *, keep_others: bool, heartbeat: Callable[[], None]) -> None:
        self._spec, self._keep, self._heartbeat = spec, keep_others, heartbeat

    def readable(self, samples: Iterable[Sample], quarantine: Quarantine, kept: Tally) -> Iterator[Readable]:
        """Samples that can be read, in order, as if the others, which go into quarantine, had never been there.

        ``kept`` gains their other images.
        """
        for sample in samples:
            self._heartbeat()
            try:
                readable = self._read(sample)
            except DataError as error:
                quarantine.take(sample, error)
            else:
                for extension in sample.other_images if self._keep else ():  # else they were refused
                    kept.add(f"{sample.key}.{extension}")
                yield readable

    def _read(self, sample: Sample) -> Readable:
        if not self._keep and (others := sample.other_images):
            raise DataError(sample.shard, _refusal(sample, others), key=sample.key)
        if self._spec.asked.keep_masks and MASK in sample.members:
            reason = f"has a member {MASK} of its own, where ‹keep_masks› puts the mask; purify it without"
            raise DataError(sample.shard, reason, key=sample.key)
        image = original = sample.image()
        try:
            if self._spec.asked.resize is not None and self._spec.prior is not None:
                image = self._fitting(image, self._spec.prior.image_size, self._spec.asked.resize)
            height, width = (original if self._spec.output_size == "input" else image).shape[:2]
            return Readable(
                sample=sample.without_image(),
                image=image,
                images_per_row=self._spec.images_per_row(*image.shape[:2]),
                out=(height, width),
            )
        except ValueError as error:
            raise DataError(sample.shard, str(error), key=sample.key) from error

    def _fitting(self, image: images.U8, size: int, policy: str) -> images.U8:
        try:
            self._spec.images_per_row(*image.shape[:2])
        except DoesNotTileError:
            return images.resize(image, size, policy=policy)
        return image


def _refusal(sample: Sample, others: Sequence[str]) -> str:
    named = ", ".join(f".{extension}" for extension in others[:5]) + (", …" if len(others) > 5 else "")
    return (
        f"{OTHER_IMAGES} than .{sample.image_extension}, which is purified: {named}. A key ends at its first dot: "
        "rename what are samples of their own (1_5.jpg for 1.5.jpg); ‹other_images='keep'› passes masks and the like "
        "on as they are; ‹quarantine=True› sets such samples aside"
    )
