"""What a user may point at: staged datasets, shards, official archives and image folders.

Sources yield ``SourceImage`` in a fixed order. A new kind is one new module and one entry in ``SOURCES``; the first
that recognises a bare path reads it.
"""

from zipbatch.datasets.base import SPLITS, UNLABELLED, Archive, SourceImage, SourceKind
from zipbatch.datasets.cifar10 import CIFAR10
from zipbatch.datasets.gtsrb import GTSRB
from zipbatch.datasets.image_folder import FOLDER, class_names, is_image_folder, read_image_folder
from zipbatch.datasets.imagenette import IMAGENETTE
from zipbatch.datasets.opening import open_dataset
from zipbatch.datasets.plain_folder import PLAIN_FOLDER
from zipbatch.datasets.staged import ShardDataset, ShardRef, StagedManifest, write_manifest

SOURCES = (CIFAR10, GTSRB, IMAGENETTE, FOLDER)

__all__ = [
    "PLAIN_FOLDER",
    "SOURCES",
    "SPLITS",
    "UNLABELLED",
    "Archive",
    "ShardDataset",
    "ShardRef",
    "SourceImage",
    "SourceKind",
    "StagedManifest",
    "class_names",
    "is_image_folder",
    "open_dataset",
    "read_image_folder",
    "write_manifest",
]
