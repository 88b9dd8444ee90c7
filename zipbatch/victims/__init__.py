"""Victim classifiers: RGB pixels in, class scores out. Normalisation lives inside."""

from zipbatch.victims.augment import (
    TRAIN_TRANSFORMS,
    TrainTransform,
    crop_and_flip,
    physical_transforms,
    random_rotation,
)
from zipbatch.victims.classifier import Classifier, Scores, VictimSource, checked_scores, top1
from zipbatch.victims.model import (
    CIFAR_ARCHITECTURES,
    TIMM_PREFIX,
    TORCHVISION_PREFIX,
    VIT,
    Victim,
    build_network,
    build_victim,
)
from zipbatch.victims.normalisation import NO_NORMALISATION, NORMALISATIONS, Normalisation

__all__ = [
    "CIFAR_ARCHITECTURES",
    "NORMALISATIONS",
    "NO_NORMALISATION",
    "TIMM_PREFIX",
    "TORCHVISION_PREFIX",
    "TRAIN_TRANSFORMS",
    "VIT",
    "Classifier",
    "Normalisation",
    "Scores",
    "TrainTransform",
    "Victim",
    "VictimSource",
    "build_network",
    "build_victim",
    "checked_scores",
    "crop_and_flip",
    "physical_transforms",
    "random_rotation",
    "top1",
]
