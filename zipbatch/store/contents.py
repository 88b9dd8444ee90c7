"""What a store holds beside its versions: objects, the records of the tasks that made them, and answers on them."""

from __future__ import annotations

from zipbatch.storage import StoragePath
from zipbatch.store.answers import Answers
from zipbatch.store.files import StoreFiles
from zipbatch.store.objects import Objects
from zipbatch.store.tasks import Tasks


class StoreContents(StoreFiles):
    """Objects, task records and answers below a root."""

    def __init__(self, root: StoragePath) -> None:
        super().__init__(root)
        self.objects = Objects(self)
        self.tasks = Tasks(self, self.objects)
        self.answers = Answers(self)
