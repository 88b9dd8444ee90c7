"""What a store holds beside its versions: objects and the records of the tasks that made them."""

from __future__ import annotations

from zipbatch.storage import StoragePath
from zipbatch.store.files import StoreFiles
from zipbatch.store.objects import Objects
from zipbatch.store.tasks import Tasks


class StoreContents(StoreFiles):
    """Objects and task records below a root."""

    def __init__(self, root: StoragePath) -> None:
        super().__init__(root)
        self.objects = Objects(self)
        self.tasks = Tasks(self, self.objects)
