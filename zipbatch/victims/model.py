"""The victim as a black box around a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zipbatch.pixels import from_u8
from zipbatch.victims.resnet import CifarResNet

CIFAR_ARCHITECTURES = {
    "resnet20": lambda classes: CifarResNet([3, 3, 3], width=16, num_classes=classes),
    "resnet18": lambda classes: CifarResNet([2, 2, 2, 2], width=64, num_classes=classes),
    "resnet34": lambda classes: CifarResNet([3, 4, 6, 3], width=64, num_classes=classes),
}
TORCHVISION_PREFIX = "torchvision:"


class Victim(nn.Module):
    """A classifier that takes RGB pixels in [0, 1] and normalises them itself.

    Args:
        network: logits from normalised pixels.
        mean, std: per-channel constants of the normalisation, in unit pixels, RGB order.
        bgr: the network was trained on BGR images; channels are swapped after normalisation.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        bgr: bool = False,
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std need three values, std above 0; got {tuple(mean)} and {tuple(std)}")
        self.network = network
        self.bgr = bgr
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(self, unit: Tensor) -> Tensor:
        """Unit pixels [B, 3, H, W] -> class scores [B, classes]."""
        x = (unit - self.get_buffer("mean")) / self.get_buffer("std")
        scores: Tensor = self.network(x.flip(1) if self.bgr else x)
        return scores


def build_victim(
    arch: str,
    *,
    num_classes: int,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    bgr: bool = False,
) -> Victim:
    """A victim with fresh weights: a CIFAR-stem ResNet by name, or ``torchvision:<name>``.

    Raises:
        ValueError: unknown architecture.
    """
    if arch in CIFAR_ARCHITECTURES:
        return Victim(CIFAR_ARCHITECTURES[arch](num_classes), mean=mean, std=std, bgr=bgr)
    if not arch.startswith(TORCHVISION_PREFIX):
        raise ValueError(f"unknown architecture {arch!r}; known: {', '.join(CIFAR_ARCHITECTURES)}, torchvision:<name>")
    from torchvision import models

    name = arch.removeprefix(TORCHVISION_PREFIX)
    if name not in models.list_models(module=models):
        raise ValueError(f"torchvision has no classifier named {name!r}")
    extra = {"init_weights": True, "aux_logits": False} if name in {"googlenet", "inception_v3"} else {}
    return Victim(models.get_model(name, weights=None, num_classes=num_classes, **extra), mean=mean, std=std, bgr=bgr)


@torch.inference_mode()
def classify(
    victim: Victim, images: Tensor, *, batch_size: int = 128, before_batch: Callable[[], None] = lambda: None
) -> npt.NDArray[np.int64]:
    """The top-1 class of each of uint8 images [N, 3, H, W], int64 [N]; ``before_batch`` may raise to stop.

    The victim is asked in evaluation mode, on its own device, and left in the mode it was in.
    """
    device, training = victim.get_buffer("mean").device, victim.training
    victim.eval()
    try:
        answers = [np.empty(0, np.int64)]
        for rows in torch.split(images, batch_size):
            before_batch()
            answers.append(victim(from_u8(rows.to(device), "unit")).argmax(dim=1).cpu().numpy())
        return np.concatenate(answers)
    finally:
        victim.train(training)
