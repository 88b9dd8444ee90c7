"""``run: import victim`` in a pipeline."""

from __future__ import annotations

import logging
from pathlib import Path

from zipbatch.checkpoints import open_victim
from zipbatch.errors import UsageError
from zipbatch.stages.adapter import Input, Instance, Report, StageType, Workspace, remove_folder, text_of
from zipbatch.stages.convert.import_victim import asked_of, checkpoint_file, import_victim
from zipbatch.stages.convert.request import ImportVictimRequest, ImportVictimSettings
from zipbatch.stages.train.run import is_trained
from zipbatch.storage import Url, storage_path

log = logging.getLogger(__name__)


def checkpoint_place(text: str) -> str:
    """The file that ``text`` stands for, absolute: of a folder, BackdoorBench's record in it.

    Raises:
        UsageError: it is a URL.
    """
    if isinstance(storage_path(text), Url):
        raise UsageError(f"{text}: a checkpoint is read from a disk; fetch it first, and name the file")
    return str(checkpoint_file(Path(text).absolute()))


def _import_victim(instance: Instance, workspace: Workspace, _report: Report) -> None:
    where = {"file": text_of(instance.one("file")), "out": instance.path(workspace)}
    done = import_victim(ImportVictimRequest.model_validate({**instance.settings.model_dump(), **where}))
    for name, value in done.assumed.items():
        log.warning("%s: assumed: %s %s; say it in the stage if it is another", instance.label, name, value)


IMPORT_VICTIM = StageType(
    settings=ImportVictimSettings,
    inputs={"file": Input()},
    run=_import_victim,
    is_done=lambda instance, workspace: is_trained(instance.path(workspace), open_victim),
    fingerprint=asked_of,
    discard=remove_folder,
)
