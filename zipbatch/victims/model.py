"""The victim as a black box around a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zipbatch.pixels import from_u8
from zipbatch.victims.classifier import U8
from zipbatch.victims.preact_resnet import PreActResNet
from zipbatch.victims.resnet import CifarResNet
from zipbatch.victims.vgg import DEPTHS, CifarVgg


def _vgg(layers: int, batch_norm: bool, classes: int) -> nn.Module:
    return CifarVgg(layers, batch_norm=batch_norm, num_classes=classes)


CIFAR_ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "resnet20": lambda classes: CifarResNet([3, 3, 3], width=16, num_classes=classes),
    "resnet18": lambda classes: CifarResNet([2, 2, 2, 2], width=64, num_classes=classes),
    "resnet34": lambda classes: CifarResNet([3, 4, 6, 3], width=64, num_classes=classes),
    "resnet50": lambda classes: CifarResNet([3, 4, 6, 3], width=64, num_classes=classes, bottleneck=True),
    "resnet101": lambda classes: CifarResNet([3, 4, 23, 3], width=64, num_classes=classes, bottleneck=True),
    "resnet152": lambda classes: CifarResNet([3, 8, 36, 3], width=64, num_classes=classes, bottleneck=True),
    "preactresnet18": lambda classes: PreActResNet([2, 2, 2, 2], num_classes=classes),
    **{f"vgg{layers}": partial(_vgg, layers, False) for layers in DEPTHS},
    **{f"vgg{layers}_bn": partial(_vgg, layers, True) for layers in DEPTHS},
}
TORCHVISION_PREFIX = "torchvision:"
VIT = "vit_"
"""What the names of torchvision's networks for images of one size begin with."""
TIMM_PREFIX = "timm:"


class Victim(nn.Module):
    """A classifier that takes RGB pixels in [0, 1] and normalises them itself.

    Args:
        network: logits from normalised pixels.
        mean, std: per-channel constants of the normalisation, in unit pixels, RGB order.
        bgr: the network was trained on BGR images; channels are swapped after normalisation.
        network_size: side in pixels to which images are resized inside (bilinear, antialiased); None leaves them.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        bgr: bool = False,
        network_size: int | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std need three values, std above 0; got {tuple(mean)} and {tuple(std)}")
        self.network = network
        self.bgr = bgr
        self.network_size = network_size
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(self, unit: Tensor) -> Tensor:
        """Unit pixels [B, 3, H, W] -> class scores [B, classes]."""
        x = (unit - self.get_buffer("mean")) / self.get_buffer("std")
        if self.network_size is not None:
            x = F.interpolate(x, size=(self.network_size, self.network_size), mode="bilinear", antialias=True)
        scores: Tensor = self.network(x.flip(1) if self.bgr else x)
        return scores

    @torch.inference_mode()
    def classify(self, images: U8) -> npt.NDArray[np.float32]:
        """Class scores, float32 [N, classes], of uint8 images [N, H, W, 3]: see ``Classifier``.

        Asked in evaluation mode, on its own device, and left in the mode it was in.
        """
        device, training = self.get_buffer("mean").device, self.training
        self.eval()
        try:
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
            scores: npt.NDArray[np.float32] = self(from_u8(pixels.to(device), "unit")).float().cpu().numpy()
            return scores
        finally:
            self.train(training)


def build_victim(
    arch: str,
    *,
    num_classes: int,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    bgr: bool = False,
    network_size: int | None = None,
    image_size: int | None = None,
) -> Victim:
    """A victim with fresh weights: a network for CIFAR by name, ``torchvision:<name>`` or ``timm:<name>``.

    ``image_size`` is the side of the images it will be shown, for networks that are built for one size (torchvision's
    ViTs, 224 where it is None) and see it as it is, without ``network_size``.

    Raises:
        ValueError: unknown architecture, a size that it cannot be built for, or timm is not installed.
    """
    network = build_network(arch, num_classes=num_classes, side=network_size or image_size)
    return Victim(network, mean=mean, std=std, bgr=bgr, network_size=network_size)


def build_network(arch: str, *, num_classes: int, side: int | None) -> nn.Module:
    """The network of a victim alone: logits from normalised pixels of ``side`` px. Raises ``ValueError`` as above."""
    if arch in CIFAR_ARCHITECTURES:
        return CIFAR_ARCHITECTURES[arch](num_classes)
    if arch.startswith(TORCHVISION_PREFIX):
        return _torchvision(arch.removeprefix(TORCHVISION_PREFIX), num_classes, side)
    if arch.startswith(TIMM_PREFIX):
        return _timm(arch.removeprefix(TIMM_PREFIX), num_classes)
    known = ", ".join(CIFAR_ARCHITECTURES)
    raise ValueError(f"unknown architecture {arch!r}; known: {known}, torchvision:<name>, timm:<name>")


def _torchvision(name: str, num_classes: int, side: int | None) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(f"torchvision has no classifier named {name!r}")
    extra: dict[str, Any] = {}
    if name in {"googlenet", "inception_v3"}:
        extra = {"init_weights": True, "aux_logits": False}
    if name.startswith(VIT) and side is not None:
        patch = int(name.rpartition("_")[2])
        if side % patch:
            raise ValueError(f"{name} takes images whose side is a multiple of its {patch} px patches, not {side} px")
        extra = {"image_size": side}
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **extra)
    return network


def _timm(name: str, num_classes: int) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the architecture timm:{name} needs timm, which is not installed: pip install timm"
        ) from error
    if name not in timm.list_models():  # names such as hf-hub:… would be fetched, or read from a disk
        raise ValueError(f"timm has no classifier named {name!r}")
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return network
