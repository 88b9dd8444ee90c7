"""Image sources that are not shards yet. Each yields ``SourceImage`` in a fixed order.

A new kind is one new module and one entry in ``SOURCES``; the first that recognises a bare path reads it.
"""

from zipbatch.sources.base import SPLITS, UNLABELLED, Archive, SourceImage, SourceKind
from zipbatch.sources.cifar10 import CIFAR10
from zipbatch.sources.gtsrb import GTSRB
from zipbatch.sources.image_folder import FOLDER, class_names, is_image_folder, read_image_folder
from zipbatch.sources.imagenette import IMAGENETTE
from zipbatch.sources.plain_folder import PLAIN_FOLDER

SOURCES = (CIFAR10, GTSRB, IMAGENETTE, FOLDER)

__all__ = [
    "PLAIN_FOLDER",
    "SOURCES",
    "SPLITS",
    "UNLABELLED",
    "Archive",
    "SourceImage",
    "SourceKind",
    "class_names",
    "is_image_folder",
    "read_image_folder",
]
