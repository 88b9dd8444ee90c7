"""What may be asked of ``audit`` at once, whoever asks."""

from __future__ import annotations

from typing import Any

import pytest

from zipbatch.errors import UsageError
from zipbatch.stages.audit.request import AuditRequest


def asked(**settings: Any) -> AuditRequest:
    return AuditRequest(victim="theirs", data=("in",), **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, r"name ‹purified NAME\[@TAG\]› with ‹store›, or ‹prior›"),
        ({"seed": 1}, r"name ‹purified NAME\[@TAG\]› with ‹store›, or ‹prior›"),
        ({"purified": ("in",)}, "Missing option '‹store›'. Where the purified versions are."),
        ({"purified": ("in",), "store": "pur", "batch_size": 32}, "‹batch_size› is for images that are still"),
        ({"purified": ("in",), "presets": ("jpeg",), "prior": "embedded"}, "‹prior› is for images that are still"),
        ({"purified": ("in",), "store": "pur", "presets": ("jpeg",)}, "‹presets› is for images that are still"),
    ],
)
def test_versions_that_exist_or_how_to_make_them(settings: dict[str, Any], words: str):
    """A setting that is given at its default is given, too."""
    with pytest.raises(UsageError, match=words):
        asked(**settings)


def test_either_way():
    assert asked(purified=("in",), store="pur", share=0.3, splits=("test",)).prior is None
    assert asked(presets=("jpeg",), seed=2).purifier("jpeg").seed == 2
