"""What ``train`` is asked: presets with settings over them, and identities that stay what they have always been."""

from __future__ import annotations

from typing import Any

import pytest

from zipbatch.config import DenoiserConfig, PriorConfig, Request, RestorerConfig, VictimConfig, list_configs
from zipbatch.errors import UsageError
from zipbatch.stages.train.request import PriorSettings, RestorerRequest, VictimRequest, VictimSettings
from zipbatch.stages.train.run import training_identity

RECORDED = {
    "victims/resnet18": "2c851813007c2a2e6f9023fbe547d0f09865ae06930e1c216cf188d7ed683e1b",
    "victims/resnet20-embedded": "3f12d2adfcd69da971669f2a9001fea469972647b5ecc30595f23767349ef157",
    "victims/resnet34-paper": "50854767d9a4ae560e0365cc9b5b651a8aad56471663511fe4845492986f02c6",
    "priors/small32": "de007566773833df4e08610d83ccf2c31c6297004544d96e3b3f49f0acd6725a",
}
"""Of runs on the shard ``ab``."""


@pytest.mark.parametrize("preset", RECORDED)
def test_identity_of_a_preset(preset: str):
    group, name = preset.split("/")
    asked = VictimSettings(preset=name) if group == "victims" else PriorSettings(preset=name)
    assert training_identity(asked.config(), ["ab"]) == RECORDED[preset]


def test_every_preset_is_recorded():
    assert set(RECORDED) == {f"{group}/{name}" for group in ("victims", "priors") for name in list_configs(group)}


@pytest.mark.parametrize(
    ("config", "data", "identity"),
    [
        (VictimConfig(), ["ab"], "f794700a45ab5a03ef3f45ab75218e1acb8683606e34a6d271d4594c7212d127"),
        (
            VictimConfig(arch="resnet20", epochs=2, minutes=1.5, batch_size=8, lr=0.05, augment=False, seed=3),
            {"shards": ["ab"], "start": "cd"},
            "a88338ea01d62f47aac6b178a102c51b257067fc5fc493ea4d66573f70eb07d1",
        ),
        (PriorConfig(), ["ab"], "ccaa43e7af001e83511d69d483edc29411f843ebeb8b36fe58297183bbabd7fb"),
        (
            PriorConfig(max_step=5, min_snr=5.0),
            ["ab"],
            "2ba1888e214171a749ec5a8ee8df3f2622d301ee46b710bca0cd2dcf142ea918",
        ),
        (RestorerConfig(), ["ab"], "6f22294c4bbe8409f437b0d5ae4e8586f87d08877102c708f88f6f38d18c37ca"),
    ],
)
def test_identity_of_a_config(config: VictimConfig | DenoiserConfig, data: Any, identity: str):
    assert training_identity(config, data) == identity


def test_settings_win_over_the_preset():
    config = VictimSettings(preset="resnet20-embedded", set={"epochs": 7, "augment": False}).config()
    assert (config.arch, config.epochs, config.augment) == ("resnet20", 7, False)
    assert VictimRequest(out="v").config() == VictimSettings(preset="resnet18").config()


def test_unfit_settings_name_the_preset_the_field_and_the_limit():
    with pytest.raises(
        UsageError, match=r"resnet18.yaml: unfit settings(?s:.*)epochs = 0: .*greater than or equal to 1"
    ):
        VictimSettings(preset="resnet18", set={"epochs": 0}).config()


@pytest.mark.parametrize(
    ("given", "trained_below", "max_step"),
    [({}, 1000, 150), ({}, 40, 40), ({"max_step": 60}, 40, 60), ({"max_step": 200}, 1000, 200)],
)
def test_a_restorer_learns_by_default_where_the_prior_has(given: dict[str, int], trained_below: int, max_step: int):
    assert RestorerRequest(set=given).config(trained_below).max_step == max_step


@pytest.mark.parametrize("settings", [VictimSettings, PriorSettings])
def test_a_stage_of_a_pipeline_names_its_preset(settings: type[Request]):
    assert set(settings.model_fields) == {"preset", "set", "image_size", "resize"}
    assert settings.model_fields["preset"].is_required()
