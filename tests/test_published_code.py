"""What goes wrong in the published code and could come back here (docs/published-code.md lists it all)."""

from __future__ import annotations

import ast
import json
import re
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.making import sample, write_shard, zipbatch
from zipbatch.checkpoints import load_victim, open_victim
from zipbatch.config import PriorConfig, VictimConfig, load_config
from zipbatch.datasets import open_dataset
from zipbatch.errors import UsageError
from zipbatch.pixels import from_u8
from zipbatch.shards import Sample, read_shard
from zipbatch.stages.purify import worker as purify_shard
from zipbatch.stages.train import victim_run
from zipbatch.stages.train.data import load_split

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_page_names_exists():
    page = (ROOT / "docs" / "published-code.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) >= 20
    for file, test in named:
        functions = {
            node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)
        }
        assert test in functions, f"{file}::{test}"
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert all("::" in row for row in rows)


@pytest.mark.parametrize("text", ["false", "False", '"False"', "no", "off", "0"])
def test_false_is_false(tmp_path: Path, text: str):
    victim, prior = tmp_path / "victim.yaml", tmp_path / "prior.yaml"
    victim.write_text(f"augment: {text}\n")
    prior.write_text(f"flip: {text}\n")
    assert load_config(victim, VictimConfig).augment is False
    assert load_config(prior, PriorConfig).flip is False
    victim.write_text("augment: perhaps\n")
    with pytest.raises(UsageError, match="augment"):
        load_config(victim, VictimConfig)


@pytest.mark.parametrize("arch", ["resnet18", "resnet20"])
def test_a_benign_victim_of_the_depth_asked_for_is_trained_and_evaluated(source: Path, tmp_path: Path, arch: str):
    staged, out = tmp_path / "benign", tmp_path / "v"
    assert zipbatch("poison", source, "--attack", "badnets", "--poison-rate", 0, "--out", staged).code == 0
    assert not any(s.stamped() for shard in open_dataset([str(staged)]).split("train") for s in read_shard(shard.path))
    options = ("--arch", arch, "--epochs", 1, "--batch-size", 8, "--device", "cpu")
    assert zipbatch("train", "victim", staged, "--out", out, *options).code == 0
    spec = open_victim(out).spec
    assert (spec.arch, spec.image_size) == (arch, 16)
    depth = [
        len(list(stage)) for name, stage in load_victim(open_victim(out)).network.named_children() if "layer" in name
    ]
    assert depth == {"resnet18": [2, 2, 2, 2], "resnet20": [3, 3, 3]}[arch]
    ran = zipbatch("evaluate", out, "--data", staged, "--device", "cpu", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rows"][0]["ca"] == json.loads((out / "manifest.json").read_text())["ca"]["value"]


def test_training_on_purified_shards_sees_purified_pixels(
    staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, seen = tmp_path / "pur", set[bytes]()
    made = zipbatch("purify", staged, "--preset", "blur", "--split", "train", "--store", store, "--tag", "t")
    assert made.code == 0, made.err

    real = victim_run._step

    def watched(unit: torch.Tensor, labels: torch.Tensor, run: victim_run.VictimRun) -> float:
        seen.update(image.contiguous().numpy().tobytes() for image in unit)
        return real(unit, labels, run)

    monkeypatch.setattr(victim_run, "_step", watched)
    options = ("--arch", "resnet20", "--epochs", 1, "--batch-size", 8, "--no-augment", "--device", "cpu")
    purified = ("--purified", "tiny-badnets@t", "--store", store)
    ran = zipbatch("train", "victim", staged, *purified, "--out", tmp_path / "v", *options)
    assert ran.code == 0, ran.err
    paths = zipbatch("store", "urls", "tiny-badnets@t", "--store", store).out.split()
    after = [torch.from_numpy(s.image()).permute(2, 0, 1) for path in paths for s in read_shard(Path(path))]
    before = load_split(open_dataset([str(staged)]).split("train")).images
    assert seen == {from_u8(image, "unit").contiguous().numpy().tobytes() for image in after}
    assert not seen & {from_u8(image, "unit").contiguous().numpy().tobytes() for image in before}


def test_memory_does_not_grow_with_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While a shard of 200 images is purified, no more than a few batches of them are ever held."""
    alive, most = set[str](), 0
    real, lighter = purify_shard.read_shard, Sample.without_image

    def kept(item: Sample) -> Sample:
        carried = lighter(item)
        alive.add(f"{item.key} without its image")
        weakref.finalize(carried, alive.discard, f"{item.key} without its image")
        return carried

    def watched(path: Path, **options: bool) -> Iterator[Sample]:
        nonlocal most
        for item in real(path, **options):
            alive.add(item.key)
            weakref.finalize(item, alive.discard, item.key)
            most = max(most, len(alive))
            yield item

    monkeypatch.setattr(purify_shard, "read_shard", watched)
    monkeypatch.setattr(Sample, "without_image", kept)
    shard = write_shard(tmp_path / "in.tar", [sample(f"k{i:03d}", 0, seed=i) for i in range(200)])
    ran = zipbatch("purify", shard, "--preset", "blur", "--store", tmp_path / "pur", "--batch-size", 4)
    assert ran.code == 0, ran.err
    assert 4 <= most <= 40
