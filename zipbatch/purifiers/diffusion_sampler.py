"""What purifiers with a prior share: the sampler's settings, tiling, noise by key, the network's call, checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zipbatch.diffusion import (
    Apply,
    NoiseAt,
    Tiling,
    guided_sample,
    mean_projection,
    noise_streams,
    parse_projector,
    residual_at,
    standard_normal,
)
from zipbatch.pixels import from_u8, to_u8
from zipbatch.purifiers.base import Resources, check_finite
from zipbatch.purifiers.settings import Precision, SamplerSettings

_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class DiffusionSampler:
    """Lets a prior work on uint8 images. Those smaller than the prior's are tiled onto its canvas, in key order.

    Args:
        settings: how to sample.
        resources: with a prior.

    Raises:
        ValueError: no prior, or settings that its schedule cannot serve.
    """

    def __init__(self, settings: SamplerSettings, resources: Resources) -> None:
        if resources.prior is None:
            raise ValueError("this purifier needs a prior")
        self._device, self._seed, self._precision = resources.device, resources.seed, resources.precision
        self._heartbeat, self._begin_pass = resources.heartbeat, resources.begin_pass
        self._layout = _fastest_layout(self._device, self._precision)
        prior = resources.prior.cast(self._device, _DTYPES[self._precision], compiled=resources.compiled)
        self._prior = prior.to(memory_format=self._layout)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # other threads' streams read the weights, too
        self.alpha_bar, self.eta = self._prior.alpha_bar, settings.eta
        self.steps, self.start_step = settings.grid(len(self.alpha_bar))

    def tiling(self, images: Tensor) -> Tiling:
        """How images [N, 3, H, W] lie on the prior's canvases."""
        return Tiling.fit(images.shape[-2], images.shape[-1], self._prior.image_size)

    @torch.inference_mode()
    def paint(self, images: Tensor, keys: Sequence[str], sample: Callable[[Tensor, NoiseAt], Tensor]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU.

        Args:
            images: the suspects.
            keys: one for each.
            sample: (canvases float32 [B, 3, S, S] in model units, noise by counter) -> purified canvases.

        Raises:
            NonFiniteError: a result is not finite.
        """
        tiling, y, noise_at = self._prepared(images, keys)
        purified = tiling.unpack(sample(y, noise_at), len(images))
        check_finite(purified, keys)
        return to_u8(purified, "model").cpu()

    @torch.inference_mode()
    def residuals(self, images: Tensor, keys: Sequence[str], steps: Sequence[int]) -> list[Tensor]:
        """What the prior does not explain of uint8 images [N, 3, H, W] at each timestep: float32, same shape, CPU."""
        tiling, y, noise_at = self._prepared(images, keys)
        return [one.cpu() for one in self.residuals_of(y, noise_at, tiling, len(images), steps)]

    def residuals_of(
        self, y: Tensor, noise_at: NoiseAt, tiling: Tiling, count: int, steps: Sequence[int]
    ) -> list[Tensor]:
        """The same of ``count`` images on canvases [B, 3, S, S], on their device. Its noise is none that the sampler
        draws: counters above T.
        """

        def residual(t: int) -> Tensor:
            noise = noise_at(len(self.alpha_bar) + 1 + t)
            return residual_at(self.predict, y, t=t, alpha_bar=self.alpha_bar, noise=noise)

        return [tiling.unpack(residual(t), count) for t in steps]

    def _prepared(self, images: Tensor, keys: Sequence[str]) -> tuple[Tiling, Tensor, NoiseAt]:
        """How images lie on canvases, these canvases, float32 [B, 3, S, S] in model units, and noise for them."""
        tiling, noise_at = self.placed(images, keys)
        return tiling, tiling.pack(from_u8(self._taken(images), "model")), noise_at

    def _taken(self, images: Tensor) -> Tensor:
        """Images on the device; the host does not wait until a GPU has them."""
        if self._device.type != "cuda" or images.is_cuda:
            return images.to(self._device)
        return images.pin_memory().to(self._device, non_blocking=True)

    def placed(self, images: Tensor, keys: Sequence[str]) -> tuple[Tiling, NoiseAt]:
        """How images [N, 3, H, W] named by ``keys`` lie on canvases, and noise for these."""
        tiling = self.tiling(images)
        streams = noise_streams(self._seed, keys, device=self._device)

        def noise_at(counter: int) -> Tensor:
            return tiling.pack(standard_normal(streams, step=counter, shape=images.shape[1:]))

        return tiling, noise_at

    def paint_guided(
        self, images: Tensor, keys: Sequence[str], *, transforms: Sequence[str], guidance_exponent: float
    ) -> Tensor:
        """``paint`` by ``guided_sample``, held to the mean of the transforms."""
        projectors = [parse_projector(text).with_keys(self._seed, keys) for text in transforms]
        project = mean_projection(projectors)
        if not all(projector.whole for projector in projectors):
            project = self._of_single_images(project, images)

        def sample(y: Tensor, noise_at: NoiseAt) -> Tensor:
            return guided_sample(
                self.predict,
                y,
                alpha_bar=self.alpha_bar,
                project=project,
                guidance_exponent=guidance_exponent,
                steps=self.steps,
                start_step=self.start_step,
                eta=self.eta,
                noise_at=noise_at,
            )

        return self.paint(images, keys, sample)

    def _of_single_images(self, project: Apply, images: Tensor) -> Apply:
        """A map of images as one of canvases: it would reach into an image's neighbours there."""
        tiling, count = self.tiling(images), len(images)
        return lambda canvases: tiling.pack(project(tiling.unpack(canvases, count)))

    def predict(self, x_t: Tensor, t: int) -> Tensor:
        """The prior's noise estimate at ``t`` for canvases [B, 3, S, S], float32, same shape."""
        self._heartbeat()
        self._begin_pass()
        if self._device.type == "cuda":
            _let_float32_mean(self._precision)
        eps: Tensor = self._prior(x_t.contiguous(memory_format=self._layout), t)
        return eps


def images_per_canvas(height: int, width: int, prior_size: int | None, transforms: Sequence[str] = ()) -> int:
    """How many images of that size share a canvas of the prior.

    Raises:
        ValueError: the size neither equals nor tiles the prior's, or a transform's block does not divide it (a block
            must not reach into a neighbour).
    """
    assert prior_size is not None  # needs_prior
    slots = Tiling.fit(height, width, prior_size).slots
    for text in transforms:
        parse_projector(text).check(height, width)
    return slots


def _fastest_layout(device: torch.device, precision: Precision) -> torch.memory_format:
    """Channels last, except for bfloat16 on CPUs, where planes are a quarter faster."""
    planes = device.type == "cpu" and precision == "bfloat16"
    return torch.contiguous_format if planes else torch.channels_last


def _let_float32_mean(precision: Precision) -> None:
    """On a GPU, float32 or TF32, whose products keep 10 bits: for the whole process, so each forward pass says it."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.deterministic = True
