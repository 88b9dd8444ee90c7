"""Settings, validated whole at the door, and the presets that ship with the tool."""

from zipbatch.config.loading import find_config, list_configs, load_config, problems, read_config, validate
from zipbatch.config.models import DemoConfig, PriorConfig, Settings, Transform, VictimConfig

__all__ = [
    "DemoConfig",
    "PriorConfig",
    "Settings",
    "Transform",
    "VictimConfig",
    "find_config",
    "list_configs",
    "load_config",
    "problems",
    "read_config",
    "validate",
]
