"""What a prior makes of clean images, in ``calibration.json`` beside its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zipbatch import atomic
from zipbatch.checkpoints.beside import read_beside
from zipbatch.checkpoints.prior import PriorFolder
from zipbatch.config import Calibration, validate
from zipbatch.errors import UsageError

CALIBRATION = "calibration.json"
_OF_THE_FILE = ("format_version", "prior_sha256", "measured_on", "versions")


def read_calibration(prior: PriorFolder) -> Calibration:
    """What was measured of this very prior.

    Raises:
        UsageError: there is none, it is damaged, or it was measured of other weights; says what to do.
    """
    again = f"measure it with clean images of yours: 'zipbatch calibrate {prior.path} SOURCE'"
    if not isinstance(prior.path, Path):
        again = "copy the prior here, measure it with clean images ('zipbatch calibrate'), and put it back whole"
    without = "‹preset='fast'›, which needs none, or balanced-v1, the default before"
    if prior.guided is not None:
        raise UsageError(
            f"{prior.path}: not calibrated, which 'repaint' needs: 'zipbatch import prior' makes it a folder, which "
            f"'zipbatch calibrate' takes; or take {without}"
        )
    file = prior.path / CALIBRATION
    if not file.is_file():
        raise UsageError(f"{prior.path}: not calibrated, which 'repaint' needs: {again}; or take {without}")
    other = "was measured with other weights than lie there"
    try:
        values = read_beside(file, prior, no_such="that is no calibration", of_others=other)
    except UsageError as error:
        raise UsageError(f"{error}; {again}") from error
    own = {name: value for name, value in values.items() if name not in _OF_THE_FILE}
    return validate(Calibration, own, where=str(file))


def check_writable(prior: PriorFolder) -> None:
    """Tell before anything is measured that it could not be kept.

    Raises:
        UsageError: the prior is one file, or lies where nothing can be written.
    """
    if prior.guided is not None:
        raise UsageError(f"{prior.path}: is one file; make it a folder first: 'zipbatch import prior'")
    if not isinstance(prior.path, Path):
        raise UsageError(f"{prior.path}: is not on a disk of this machine; calibrate a copy and put it there whole")
    if not os.access(prior.path, os.W_OK):
        raise UsageError(f"{prior.path}: cannot be written to; calibrate a copy of it")


def write_calibration(prior: PriorFolder, calibration: Calibration, about: dict[str, Any]) -> Path:
    """Put it beside the weights, whole or not at all; ``about`` says what it was measured on and with.

    Raises:
        UsageError: the prior is one file, or lies where it cannot be written.
    """
    check_writable(prior)
    assert isinstance(prior.path, Path)
    file = prior.path / CALIBRATION
    values = calibration.model_dump(mode="json")
    atomic.write_json(file, {"format_version": 1, "prior_sha256": prior.digest, **values, **about})
    return file
