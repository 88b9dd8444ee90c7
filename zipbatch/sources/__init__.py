"""Image sources that are not shards yet. Each yields ``SourceImage`` in a fixed order."""

from zipbatch.sources.image_folder import UNLABELLED, SourceImage, class_names, is_image_folder, read_image_folder

__all__ = ["UNLABELLED", "SourceImage", "class_names", "is_image_folder", "read_image_folder"]
