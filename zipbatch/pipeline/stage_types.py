"""What a stage of a pipeline can be: ``run`` in its YAML."""

from __future__ import annotations

from zipbatch.stages.adapter import StageType
from zipbatch.stages.convert.adapter import IMPORT_VICTIM
from zipbatch.stages.evaluate.adapter import EVALUATE
from zipbatch.stages.poison.adapter import POISON
from zipbatch.stages.purify.adapter import PURIFY
from zipbatch.stages.train.adapter import TRAIN_PRIOR, TRAIN_VICTIM

STAGE_TYPES: dict[str, StageType] = {
    "poison": POISON,
    "train victim": TRAIN_VICTIM,
    "train prior": TRAIN_PRIOR,
    "import victim": IMPORT_VICTIM,
    "purify": PURIFY,
    "evaluate": EVALUATE,
}
