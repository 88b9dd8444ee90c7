"""Settings, validated whole at the door, and the presets that ship with the tool."""

from zipbatch.config.classes import AS_CLASS, ClassGiven, class_number
from zipbatch.config.loading import (
    DEFAULTS,
    find_config,
    list_configs,
    list_schedules,
    load_config,
    pairs,
    parse_scalar,
    problems,
    read_config,
    read_description,
    validate,
)
from zipbatch.config.models import Calibration
from zipbatch.config.request import Option, Request
from zipbatch.config.settings import Settings
from zipbatch.config.training import DenoiserConfig, PriorConfig, RestorerConfig, VictimConfig
from zipbatch.config.transforms import MAX_SIGMA, Transform, Transforms, listed, parse_transform

__all__ = [
    "AS_CLASS",
    "DEFAULTS",
    "MAX_SIGMA",
    "Calibration",
    "ClassGiven",
    "DenoiserConfig",
    "Option",
    "PriorConfig",
    "Request",
    "RestorerConfig",
    "Settings",
    "Transform",
    "Transforms",
    "VictimConfig",
    "class_number",
    "find_config",
    "list_configs",
    "list_schedules",
    "listed",
    "load_config",
    "pairs",
    "parse_scalar",
    "parse_transform",
    "problems",
    "read_config",
    "read_description",
    "validate",
]
