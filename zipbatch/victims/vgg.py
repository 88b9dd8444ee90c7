"""VGG (Simonyan and Zisserman 2015, arXiv 1409.1556) for small images: one linear layer after the convolutions.

Module names (``features.N classifier``) are those of BackdoorBox's victims and of the usual CIFAR training scripts.
"""

from __future__ import annotations

from torch import Tensor, nn

_WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage, by the paper's count of layers, which has three linear ones at the end."""


class CifarVgg(nn.Module):
    """Normalised images [B, 3, H, W] -> logits [B, num_classes]; any H, W of 32 or more.

    Args:
        layers: a key of ``DEPTHS``.
        batch_norm: normalise after each convolution.
        num_classes: size of the head.
    """

    def __init__(self, layers: int, *, batch_norm: bool, num_classes: int) -> None:
        super().__init__()
        channels, features = 3, list[nn.Module]()
        for width, depth in zip(_WIDTHS, DEPTHS[layers], strict=True):
            for _ in range(depth):
                features += [nn.Conv2d(channels, width, 3, padding=1), *([nn.BatchNorm2d(width)] if batch_norm else [])]
                features.append(nn.ReLU())
                channels = width
            features.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits
