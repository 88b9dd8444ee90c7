"""Rows to try things on."""

from __future__ import annotations

from typing import Any

from zipbatch.results import NO_COST, EvaluationRow, PipelineRow, SeedRow, dump

SHARES = ("ca", "asr", "fpr", "pa", "ra", "disrupted", "collapsed")
_NUMBERS = ("psnr_clean_db", "ssim_clean", "psnr_poisoned_db", "ssim_poisoned", "flip_rate", "der")


def evaluation_row(**changes: Any) -> EvaluationRow:
    """A row where nothing is measured, but for what is given."""
    return EvaluationRow(**(_nothing() | changes))


def pipeline_row(**changes: Any) -> PipelineRow:
    """The same of a pipeline."""
    return PipelineRow(**({"axes": {}} | _nothing() | changes))


def seed_row(**changes: Any) -> SeedRow:
    """A row over the seeds 0, 1 and 2 where nothing is measured, but for what is given."""
    values = {name: value for name, value in _nothing().items() if name != "fled" and not name.endswith("_ci95")}
    seeds = {"axes": {}, "seeds": [0, 1, 2], "n_seeds": 3, "seeds_of": [], "findings": {}}
    return SeedRow(**(seeds | values | changes))


def _nothing() -> dict[str, Any]:
    names = ("attack", "purifier", "purified", "version", "settings", "paired", "unlabelled_reason")
    return {
        "data": "staged",
        "victim": "victims/a",
        **dict.fromkeys(names),
        **dict.fromkeys(SHARES),
        **{f"n_{name}": 0 for name in SHARES},
        **{f"{name}_ci95": None for name in SHARES},
        **dict.fromkeys(_NUMBERS),
        "n_flip": 0,
        "fled": {},
        "n_quarantined": 0,
        "n_unlabelled": 0,
        **dump(NO_COST),
    }
