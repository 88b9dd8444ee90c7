"""``zipbatch tune`` on the embedded sample, prior and victim: a real backdoor, found without its labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tests.making import Ran, stage_sample, write_shard, zipbatch
from tests.serving import npy, serving
from zipbatch.checkpoints import open_victim
from zipbatch.shards import Sample, read_shard
from zipbatch.stages.assets import embedded_victim


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 images and their stamped twins, in shards of 24."""
    return stage_sample(tmp_path_factory.mktemp("staged") / "badnets", limit=72)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the tests of this module, as by the runs of an operator."""
    return tmp_path_factory.mktemp("stores") / "pur"


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three network calls an image, exponent 10."""
    file = tmp_path_factory.mktemp("presets") / "quick.yaml"
    file.write_text('{method: zip, transforms: ["blur:2", "blur:1"], guidance_exponent: 10, start_step: 150}\n')
    return file


@pytest.fixture
def tune(preset: Path) -> Callable[..., Ran]:
    """``zipbatch tune`` over the exponents 1000, 10 and 3."""

    def run(data: Path | str, store: Path, *options: object) -> Ran:
        return zipbatch(
            *("tune", embedded_victim("badnets"), "--data", data, "--prior", "embedded", "--store", store),
            *("--preset", preset, "--guidance-exponent", 3, "--guidance-exponent", 1000, *options),
        )

    return run


def test_the_target_is_found_and_the_weakest_strength_that_frees_from_it(
    tune: Callable[..., Ran], shards: Path, store: Path, tmp_path: Path
):
    ran = tune(shards, store, "--out", tmp_path / "ours.yaml", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["suspect"] == "automobile"
    assert found["triggered"] == pytest.approx(72 * 0.9, rel=0.15)
    weak, own, strong = found["rungs"]
    assert [candidate["guidance_exponent"] for candidate in found["rungs"]] == [1000, 10, 3]
    assert weak["asr"] > 0.3, "the weakest strength is to leave the attack in"
    for candidate in found["rungs"]:
        assert candidate["residual"] == pytest.approx(candidate["asr"], abs=0.06)
    assert weak["agreement"] > own["agreement"] > strong["agreement"]
    assert (found["chosen"], [candidate["chosen"] for candidate in found["rungs"]]) == (10, [False, True, False])

    preset = yaml.safe_load((tmp_path / "ours.yaml").read_text())
    assert (preset["method"], preset["guidance_exponent"], preset["start_step"]) == ("zip", 10, 150)
    again = zipbatch(
        *("purify", shards, "--prior", "embedded", "--preset", tmp_path / "ours.yaml", "--store", store, "--json")
    )
    assert again.code == 0, again.err
    assert (again.json["computed"], again.json["reused"]) == (0, 6), "what tuning purified is used again"


def test_without_labels_the_same_is_chosen(tune: Callable[..., Ran], shards: Path, store: Path):
    """Bare tars: the same images, and nothing said about them."""
    ran = tune(f"{shards}/test_poisoned-{{000000..000002}}.tar", store)
    assert ran.code == 0, ran.err
    assert "answers flee the class 1" in ran.out
    assert [line.split()[0] for line in ran.out.splitlines() if line.endswith("  chosen")] == ["10"]


def test_an_endpoint_is_tuned_for_as_the_victim_behind_it(
    tune: Callable[..., Ran], shards: Path, store: Path, preset: Path
):
    """Its answers are all that is asked for."""
    network = open_victim(embedded_victim("badnets")).load(torch.device("cpu"))
    options = ("--data", shards, "--prior", "embedded", "--store", store, "--preset", preset, "--json")
    exponents = ("--guidance-exponent", 3, "--guidance-exponent", 1000)
    with serving(lambda pixels: (200, npy(network.classify(pixels)))) as served:
        ran = zipbatch("tune", served.url, *options, *exponents)
    assert ran.code == 0, ran.err
    assert ran.json["victim"] == served.url
    assert {**ran.json, "victim": None} == {**tune(shards, store, "--json").json, "victim": None}


def test_where_nothing_is_triggered_the_preset_stays(tune: Callable[..., Ran], shards: Path, store: Path):
    ran = tune(shards, store, "--split", "test", "--shards", 2)
    assert ran.code == 0, ran.err
    assert "no class stands out" in ran.out
    assert [line.split()[0] for line in ran.out.splitlines() if line.endswith("  chosen")] == ["10"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--preset", "blur"), "has no strength to tune"),
        (("--guidance-exponent", 0), "0.0 is not in the range x>0"),
        (("--guidance-exponent", "nan"), "is not a finite number"),
        (("--split", "val"), "no split 'val'; it has"),
        (("--out", "no-such-folder/ours.yaml"), "a .yaml file in a folder that is there"),
        (("--out", "ours.json"), "a .yaml file in a folder that is there"),
        (("--limit", 2), "0<=x<=1"),
    ],
)
def test_wrong_inputs(tune: Callable[..., Ran], shards: Path, tmp_path: Path, options: tuple[object, ...], words: str):
    ran = tune(shards, tmp_path / "pur", *options)
    assert ran.code == 2
    assert words in ran.err
    assert not (tmp_path / "pur").exists()


def test_a_victim_that_does_not_fit_is_refused_before_any_work(shards: Path, victim: Path, tmp_path: Path):
    ran = zipbatch("tune", victim, "--data", shards, "--prior", "embedded", "--store", tmp_path / "pur")
    assert ran.code == 2
    assert "the victim has 3 classes" in ran.err
    assert not (tmp_path / "pur").exists()


def test_labels_that_cannot_be_used_do_not_stop_it(tune: Callable[..., Ran], shards: Path, store: Path, tmp_path: Path):
    """All its work is done before labels would be looked at, and none is needed."""
    bare = tmp_path / "incoming"
    for number, shard in enumerate(sorted(shards.glob("test*.tar"))):
        rows = [Sample(s.key, {"png": s.members["png"], "cls": b"-1"}) for s in read_shard(shard)]
        write_shard(bare / f"day-{number}.tar", rows)
    ran = tune(bare, store, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["suspect"] == "1"
    assert ran.json["undefended"] == {"ca": None, "asr": None}
