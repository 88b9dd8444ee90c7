"""Victim classifiers: pixels in [0, 1] in, class scores out. Normalisation lives inside."""

from zipbatch.victims.augment import (
    TRAIN_TRANSFORMS,
    TrainTransform,
    crop_and_flip,
    physical_transforms,
    random_rotation,
)
from zipbatch.victims.model import CIFAR_ARCHITECTURES, Victim, build_victim, classify

__all__ = [
    "CIFAR_ARCHITECTURES",
    "TRAIN_TRANSFORMS",
    "TrainTransform",
    "Victim",
    "build_victim",
    "classify",
    "crop_and_flip",
    "physical_transforms",
    "random_rotation",
]
