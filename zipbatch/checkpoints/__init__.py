"""Model files: read, never trusted. Safetensors, or ``.bin`` with weights only; nothing is ever unpickled as code."""

from zipbatch.checkpoints.calibration import CALIBRATION, check_writable, read_calibration, write_calibration
from zipbatch.checkpoints.prior import PriorFolder, load_prior, open_prior, prior_tensors
from zipbatch.checkpoints.prior_writing import fresh_prior, save_prior, write_prior
from zipbatch.checkpoints.restorer import (
    RESTORER,
    RESTORER_CHECKPOINT,
    RESTORER_SAMPLES,
    RESTORER_WEIGHTS,
    Restorer,
    read_restorer,
    write_restorer,
)
from zipbatch.checkpoints.victim import VictimFolder, load_victim, open_victim, save_victim

__all__ = [
    "CALIBRATION",
    "RESTORER",
    "RESTORER_CHECKPOINT",
    "RESTORER_SAMPLES",
    "RESTORER_WEIGHTS",
    "PriorFolder",
    "Restorer",
    "VictimFolder",
    "check_writable",
    "fresh_prior",
    "load_prior",
    "load_victim",
    "open_prior",
    "open_victim",
    "prior_tensors",
    "read_calibration",
    "read_restorer",
    "save_prior",
    "save_victim",
    "write_calibration",
    "write_prior",
    "write_restorer",
]
