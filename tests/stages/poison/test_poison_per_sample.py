"""Attacks that stamp each image by its key and its class, staged as any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field

from tests.making import write_source, zipbatch
from tests.stages.poison.test_poison import of_source, samples_of, trigger_of
from zipbatch.attacks import ATTACKS, Attack, Trigger
from zipbatch.attacks.base import check_size, drawn_words
from zipbatch.config import Settings
from zipbatch.datasets import open_dataset


class PerSampleSettings(Settings):
    """Settings of ``per-sample``."""

    classes: int = Field(default=3, ge=1, description="classes that have a level of their own")


@dataclass(frozen=True)
class PerSample(Attack):
    """One pixel: its row is drawn by key, its column is the class, its level tells training from the test."""

    name: ClassVar[str] = "per-sample"
    source: ClassVar[str] = "of this test"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.5
    default_cover_rate: ClassVar[float] = 0.25
    clean_label: ClassVar[bool] = False
    train_transform: ClassVar[str | None] = None
    shuffles: ClassVar[tuple[str, ...]] = ("train",)

    settings: PerSampleSettings = PerSampleSettings()

    def make_trigger(self, image_size: int, *, seed: int) -> Trigger:
        return {"image_size": np.array([image_size]), "seed": np.array([seed])}

    def apply(
        self, images: np.ndarray, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool
    ) -> np.ndarray:
        check_size(images, int(trigger["image_size"][0]))
        stamped = images.copy()
        for row, key, label in zip(stamped, keys, labels, strict=True):
            row[drawn_words(int(trigger["seed"][0]), key, 1)[0] % len(row), label % self.settings.classes] = (
                100 if training else 255
            )
        return stamped


def test_each_image_is_stamped_by_its_own_key_and_true_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_source(tmp_path / "in", counts={"train": 24, "test": 12})
    monkeypatch.setitem(ATTACKS, PerSample.name, PerSample())
    given = ("--attack", "per-sample", "--param", "classes=2", "--seed", 5, "--samples-per-shard", 7)
    ran = zipbatch("poison", source, *given, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    dataset, trigger = open_dataset([str(tmp_path / "out")]), trigger_of(tmp_path / "out")
    assert dataset.manifest is not None
    assert dataset.manifest.attack.params == {"classes": 2}
    stamped = {"train": 0, "test_poisoned": 0}
    for split in stamped:
        originals = {clean.key: clean for _, clean in of_source(source, split.removesuffix("_poisoned"))}
        for s in samples_of(dataset, split):
            expected = originals[s.key].image().copy()
            if s.stamped():
                stamped[split] += 1
                label = originals[s.key].label()
                assert label is not None
                expected[drawn_words(5, s.key, 1)[0] % 16, label % 2] = 100 if split == "train" else 255
            assert np.array_equal(s.image(), expected)
    assert stamped == {"train": 18, "test_poisoned": 12}
    assert int(trigger["seed"][0]) == 5


def test_its_settings_are_held_to_their_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ATTACKS, PerSample.name, PerSample())
    source = write_source(tmp_path / "in", counts={"test": 3})
    ran = zipbatch("poison", source, "--attack", "per-sample", "--param", "classes=0", "--out", tmp_path / "out")
    assert (ran.code, "attack per-sample: unfit settings (fields: classes)" in ran.err) == (2, True)
    assert "classes = '0': Input should be greater than or equal to 1" in ran.err
