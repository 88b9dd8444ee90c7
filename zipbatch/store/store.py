"""A store of purified shards, in parts."""

from __future__ import annotations

from zipbatch.storage import StoragePath
from zipbatch.store.contents import StoreContents
from zipbatch.store.tags import Tags
from zipbatch.store.versions import Versions


class Store(StoreContents):
    """A store rooted at a folder or URL. Reading never creates anything; ``prepare`` makes it ready for writing.

    Attributes:
        objects: purified shards, named by their digests.
        tasks: records of what was made from what.
        answers: what victims answered on shards.
        versions: immutable lists of objects.
        tags: movable names of versions.
    """

    def __init__(self, root: StoragePath) -> None:
        super().__init__(root)
        self.tags = Tags(self)
        self.versions = Versions(self, self.tags)
