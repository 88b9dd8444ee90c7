"""Numbers of a run for the user's own tracking package: MLflow, Weights & Biases, TensorBoard. None is a dependency."""

from zipbatch.tracking.base import TrackedRun, Tracker
from zipbatch.tracking.choosing import TRACKERS, Choice, choice_of
from zipbatch.tracking.following import Following
from zipbatch.tracking.values import flat_settings, row_values

__all__ = ["TRACKERS", "Choice", "Following", "TrackedRun", "Tracker", "choice_of", "flat_settings", "row_values"]
