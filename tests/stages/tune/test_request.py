"""What may be asked of ``tune`` at once, whoever asks."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zipbatch.errors import UsageError
from zipbatch.stages.tune.request import TuneRequest

SUSPECTS: dict[str, Any] = {"data": ("in",), "store": "pur"}


def asked(**settings: Any) -> TuneRequest:
    return TuneRequest(victim="theirs", prior="embedded", **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Missing option '‹data›'. Suspect images, or clean ones with ‹fit›"),
        ({"data": ("in",)}, "Missing option '‹store›'"),
        ({**SUSPECTS, "fit_limit": 500}, "‹fit_limit› goes with ‹fit›"),
        ({**SUSPECTS, "calibrate": True, "resize": "stretch"}, "‹resize› goes with ‹fit›"),
        ({"fit": "photos", "limit": 0.02}, "‹limit› goes with ‹data›.*of ‹fit› it is ‹fit_limit› or ‹max_loss›"),
        ({"fit": "photos", "splits": ("test",)}, "‹splits› goes with ‹data›.*of ‹fit› it is ‹fit_split›"),
        ({"fit": "photos", "exponents": (3,)}, "‹exponents› goes with ‹data›"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], words: str):
    """A setting that is given at its default is given, too."""
    with pytest.raises(UsageError, match=words):
        asked(**settings)


def test_suspects_clean_images_or_both():
    assert asked(**SUSPECTS).limit == 0.02
    assert asked(fit="photos").max_loss == 0.1
    assert asked(**SUSPECTS, fit="photos", limit=0.5, max_loss=0).fit == "photos"


@pytest.mark.parametrize("bad", [{"exponents": (0,)}, {"exponents": (float("nan"),)}, {"limit": 2}, {"shards": 0}])
def test_limits(bad: dict[str, Any]):
    with pytest.raises(ValidationError):
        asked(**SUSPECTS, **bad)


def test_a_preset_is_purified_with_as_the_request_says():
    request = asked(fit="photos", presets=("fast", "jpeg"), seed=3, precision="bfloat16", resize="stretch")
    purifier = request.purifier(request.preset)
    assert (purifier.preset, purifier.seed, purifier.precision, purifier.resize) == ("jpeg", 3, "bfloat16", "stretch")
    assert asked(fit="photos").preset is None
