"""``run: import victim``: pipelines that begin from a checkpoint of another tool."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from tests.foreign import SIZE, weights
from tests.making import Ran, zipbatch
from zipbatch.checkpoints import open_victim

STAGES: dict[str, dict[str, Any]] = {
    "theirs": {"run": "import victim", "file": "${file}", "image_size": SIZE, "mean": "cifar10"},
    "shards": {"run": "poison", "source": "${source}", "attack": "badnets", "splits": ["test"]},
    "table": {"run": "evaluate", "victim": "${theirs}", "data": "${shards}"},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(weights("resnet20", 3), tmp_path / "ckpt.pth")
    return tmp_path / "ckpt.pth"


@pytest.fixture
def run(tmp_path: Path, source: Path):
    """Runs the stages, some of their fields changed, on a checkpoint."""

    def start(file: object, *options: object, **changes: Any) -> Ran:
        stages = {**STAGES, "theirs": {**STAGES["theirs"], **changes}}
        text = yaml.safe_dump({"vars": {"source": None, "file": None}, "stages": stages})
        (tmp_path / "theirs.yaml").write_text(text)
        given = (f"--var=source={source}", f"--var=file={file}", "--out", tmp_path / "out", "--json")
        return zipbatch("run", tmp_path / "theirs.yaml", *given, *options)

    return start


def victims(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "out" / "theirs").iterdir())


def test_it_is_imported_once_whatever_the_file_is_called(run, checkpoint: Path, tmp_path: Path):
    first = run(checkpoint)
    assert first.code == 0, first.err
    assert (first.json["ran"], first.json["rows"][0]["victim_stage"]) == (3, "theirs")
    (folder,) = victims(tmp_path)
    assert open_victim(folder).spec.arch == "resnet20"
    assert "assumed: channels RGB" in first.err
    shutil.copy(checkpoint, tmp_path / "copy.pth")
    assert run(tmp_path / "copy.pth").json["ran"] == 0


def test_another_file_or_another_setting_is_another_victim(run, checkpoint: Path, tmp_path: Path):
    run(checkpoint)
    assert run(checkpoint, mean="imagenet").json["ran"] == 2
    torch.save(weights("resnet20", 3, seed=1), checkpoint)
    assert run(checkpoint).json["ran"] == 2
    assert len(victims(tmp_path)) == 3
    same = {"mean": "0.4914,0.4822,0.4465", "std": "cifar10"}
    assert run(checkpoint, **same).json["ran"] == 0


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("nothing.pth", {}, "theirs: "),
        ("s3://models/ckpt.pth", {}, "fetch it first"),
        (None, {"mean": "half", "std": "no"}, "std no: is neither three numbers"),
        (None, {"channel_order": "gbr"}, "channel_order"),
        (None, {"archi": "resnet20"}, "archi"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_run(
    run, checkpoint: Path, tmp_path: Path, file: str | None, changes: dict[str, str], words: str
):
    ran = run(checkpoint if file is None else file, **changes)
    assert (ran.code, words in ran.err) == (2, True), ran.err
    assert not (tmp_path / "out" / "theirs").exists()


def test_weights_beside_an_onnx_model_are_part_of_what_it_is_known_by(run, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network, file = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 3)), tmp_path / "net.onnx"
    for seed, ran in ((0, 3), (1, 2)):
        torch.manual_seed(seed)
        nn.init.normal_(network[1].weight)
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, SIZE, SIZE),),
            file,
            dynamo=False,
            dynamic_axes={"input": [0]},
            input_names=["input"],
        )
        model = onnx.load(file)
        (tmp_path / "net.data").unlink(missing_ok=True)
        onnx.save(model, file, save_as_external_data=True, location="net.data", size_threshold=0)
        done = run(file, image_size=None)
        assert (done.code, done.json["ran"]) == (0, ran), done.err
