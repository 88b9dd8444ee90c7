"""Means and standard deviations that classifiers are trained with, by name; per channel, RGB, in unit pixels."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """Pixels x of [0, 1] reach the network as ``(x - mean) / std``."""

    mean: RGB
    std: RGB


NO_NORMALISATION = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISATIONS = {
    "none": NO_NORMALISATION,
    "half": Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": IMAGENET,
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tiny": Normalisation((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "gtsrb": NO_NORMALISATION,
    "celeba": NO_NORMALISATION,
}
"""Those named after datasets are BackdoorBench's (f02e353); ``imagenet`` is torchvision's, and the same there."""
