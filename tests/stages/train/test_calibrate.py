"""``zipbatch calibrate``, and what purify does with a prior that has none, an old one, or a damaged one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.making import purifier_spec, sample, write_prior, write_shard, write_source, zipbatch
from tests.stages.train.test_train_prior import UNET
from zipbatch.checkpoints import open_prior, read_calibration
from zipbatch.datasets.clean_images import spaced
from zipbatch.errors import UsageError
from zipbatch.stages.purify.identity import describe
from zipbatch.stages.purify.resolve import uncalibrated

IMAGES = 600


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images for the tail of one pixel in 2,000, unlabelled."""
    folder = tmp_path_factory.mktemp("photos") / "in"
    return write_source(folder, counts={"train": 8, "test": IMAGES}, labelled=False)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return write_prior(tmp_path / "prior", calibrated=False)


def test_it_learns_from_held_out_images_without_labels(bare: Path, photos: Path, tmp_path: Path):
    ran = zipbatch("calibrate", bare, photos, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["file"], ran.json["images"], ran.json["split"]) == (
        str(bare / "calibration.json"),
        IMAGES,
        "test",
    )
    found = read_calibration(open_prior(bare))
    assert (found.image_size, found.residual_steps) == (16, (100, 300, 500))
    assert all(0 < level < 2 for level in found.levels)
    assert len(set(found.scores)) == len(found.scores)
    written = json.loads((bare / "calibration.json").read_text())
    assert written["measured_on"]["images"] == IMAGES
    assert written["prior_sha256"] == open_prior(bare).digest
    before = (bare / "calibration.json").read_bytes()
    assert zipbatch("calibrate", bare, photos).code == 0
    assert (bare / "calibration.json").read_bytes() == before

    write_shard(tmp_path / "in" / "a.tar", [sample(f"k{i}", 1, seed=i) for i in range(5)])
    ran = zipbatch("purify", tmp_path / "in", "--prior", bare, "--store", tmp_path / "pur", "--json")
    assert ran.code == 0, ran.err


def test_share_of_clean_pixels_is_what_was_asked_for(bare: Path, photos: Path, tmp_path: Path):
    """On the very images, half of the pixels reach the score of half of them; so masks cover about that share."""
    assert zipbatch("calibrate", bare, photos).code == 0
    ran = zipbatch(
        *("purify", photos, "--split", "test", "--prior", bare, "--store", tmp_path / "pur", "--purifier", "repaint"),
        *("--set", "seed_share=0.02", "--set", "region_share=0.02", "--keep-masks"),
    )
    assert ran.code == 0, ran.err
    from zipbatch.images import decode
    from zipbatch.shards import read_shard

    masks = [
        decode(s.members["mask.png"], "png")
        for shard in (tmp_path / "pur" / "objects").rglob("*.tar")
        for s in read_shard(shard)
    ]
    assert len(masks) == IMAGES
    assert np.mean(np.stack(masks) > 0) == pytest.approx(0.02, rel=0.15)


def test_the_identity_has_the_numbers_and_people_do_not(bare: Path, photos: Path):
    assert zipbatch("calibrate", bare, photos).code == 0
    spec = purifier_spec(prior=bare)
    step = spec.identity["settings"]["steps"][0]
    assert step["settings"]["levels"] == list(read_calibration(open_prior(bare)).levels)
    assert describe(spec.identity) == (
        "repaint S=20 eta=1 t0=100 > jpeg quality=60 > zip blur:2+blur:1 k=100 S=20 eta=1 t0=60"
    )
    other = purifier_spec(
        method="repaint", assigned={"residual_steps": [100, 300, 500], "seed_share": 0.001}, prior=bare
    )
    assert describe(other.identity) == "repaint S=20 eta=1 t0=100 seed_share=0.001"
    assert spec.passes == 3 + 2 + 2


def refused(source: Path, prior: Path, tmp_path: Path, *more: object) -> str:
    ran = zipbatch("purify", source, "--prior", prior, "--store", tmp_path / "pur", *more)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert not (tmp_path / "pur").exists()
    return ran.err


def test_without_one_the_default_says_what_to_do(source: Path, bare: Path, tmp_path: Path):
    told = refused(source, bare, tmp_path)
    assert "not calibrated" in told
    assert f"zipbatch calibrate {bare} SOURCE" in told
    assert "--preset fast" in told
    assert zipbatch("purify", source, "--prior", bare, "--store", tmp_path / "two", "--preset", "fast").code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values | {"prior_sha256": "0" * 64}, "other weights"),
        (lambda values: values | {"format_version": 2}, "format_version"),
        (lambda values: values | {"levels": [0.1]}, "one for one"),
        (lambda values: values | {"scores": "many"}, "scores"),
        (lambda values: values | {"image_size": 8}, "calibrated on 8 px images"),
        (lambda values: values | {"residual_steps": [1, 2, 3]}, "was calibrated at"),
        (lambda _: [], "JSON object"),
    ],
)
def test_one_that_does_not_do(source: Path, tmp_path: Path, change: object, words: str):
    prior = write_prior(tmp_path / "prior")
    file = prior / "calibration.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))  # type: ignore[operator]
    ran = zipbatch("purify", source, "--prior", prior, "--store", tmp_path / "pur", "--device", "cpu")
    assert ran.code in {1, 2}
    assert words in ran.err, ran.err
    assert "Traceback" not in ran.err


def test_other_weights_in_the_folder_are_noticed(source: Path, tmp_path: Path):
    prior, other = write_prior(tmp_path / "prior"), write_prior(tmp_path / "other", seed=1)
    shutil.copy(other / "unet" / "diffusion_pytorch_model.safetensors", prior / "unet")
    assert "other weights" in refused(source, prior, tmp_path)


def test_what_calibrate_refuses(bare: Path, tmp_path: Path):
    def told(source: Path, *more: object) -> str:
        ran = zipbatch("calibrate", bare, source, *more)
        assert (ran.code, ran.out, "Traceback" in ran.err) == (2, "", False), ran.err
        assert not (bare / "calibration.json").exists()
        return ran.err

    write_shard(tmp_path / "few" / "test-0.tar", [sample("a", None, seed=0, size=8)])
    assert "calibrate with more images" in told(tmp_path / "few")
    write_shard(tmp_path / "mixed" / "test-0.tar", [sample("a", None, seed=0), sample("b", None, seed=1, size=24)])
    assert "key 'b' is 24x24" in told(tmp_path / "mixed")
    write_shard(tmp_path / "odd" / "test-0.tar", [sample("a", None, seed=0, size=12)])
    assert "--image-size 16 resizes them" in told(tmp_path / "odd")
    assert "residual_steps must be below" in told(
        tmp_path / "mixed", "--residual-steps", "100,1000", "--image-size", 16
    )
    assert "no split 'val'" in told(tmp_path / "mixed", "--split", "val")


def tiny_training(file: Path) -> Path:
    """A preset of a prior that is trained and measured in a second or two."""
    file.write_text(json.dumps({"unet": UNET, "batch_size": 2}))
    return file


def test_a_trained_prior_is_calibrated(source: Path, photos: Path, tmp_path: Path):
    steps = ("--steps", 2, "--preset", tiny_training(tmp_path / "tiny.yaml"))
    ran = zipbatch("train", "prior", photos, "--out", tmp_path / "prior", *steps)
    assert ran.code == 0, ran.err
    assert read_calibration(open_prior(tmp_path / "prior")).image_size == 16
    few = zipbatch("train", "prior", source, "--out", tmp_path / "few", *steps)
    assert few.code == 0, few.err
    assert zipbatch("purify", source, "--prior", tmp_path / "few", "--store", tmp_path / "pur").code == 2


def test_it_learns_at_other_timesteps(bare: Path, photos: Path):
    assert zipbatch("calibrate", bare, photos, "--residual-steps", "200,400", "--limit", 500).code == 0
    spec = purifier_spec(method="repaint", assigned={"residual_steps": "200,400"}, prior=bare)
    assert spec.settings.levels == read_calibration(open_prior(bare)).levels  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="zipbatch calibrate --residual-steps"):
        purifier_spec(prior=bare)


def test_the_shipped_prior_is_left_as_it_is(photos: Path):
    ran = zipbatch("calibrate", "embedded", photos)
    assert (ran.code, "copy it first" in ran.err) == (2, True)


def test_a_few_images_of_a_source_are_of_all_of_it():
    assert spaced(10, 4) == [0, 2, 5, 7]
    assert spaced(3, 100) == [0, 1, 2]
    assert spaced(5, 0) == [0]


def test_a_large_calibration_is_refused(source: Path, tmp_path: Path):
    prior = write_prior(tmp_path / "prior")
    file = prior / "calibration.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"levels": [""] * 50_000}))
    assert "that is no calibration" in refused(source, prior, tmp_path)


def test_what_tune_writes_is_of_any_prior(tmp_path: Path):
    prior = write_prior(tmp_path / "prior")
    spec = purifier_spec(prior=prior)
    step = uncalibrated(spec).model_dump(mode="json")["steps"][0]
    assert (step["levels"], step["seed_threshold"], step["image_size"]) == (None, None, None)
    own = {"levels": [0.1, 0.2, 0.3], "seed_threshold": 2.0, "region_threshold": 1.0}
    chosen = purifier_spec(method="repaint", assigned=own, prior=prior)
    assert uncalibrated(chosen) == chosen.settings


def test_a_pipeline_follows_the_calibration_and_only_where_it_matters(source: Path, photos: Path, tmp_path: Path):
    """Of a prior at a path, and of one that another stage made."""
    prior, tiny = write_prior(tmp_path / "prior"), tiny_training(tmp_path / "tiny.yaml")
    pipeline = {
        "matrix": {"defence": ["repaint", "balanced-v1"]},
        "stages": {
            "shards": {"run": "poison", "source": str(source), "attack": "badnets", "splits": ["test"]},
            "made": {"run": "train prior", "per": [], "source": str(photos), "preset": str(tiny), "set": {"steps": 2}},
            "given": {"run": "purify", "data": "${shards}", "prior": str(prior), "preset": "${defence}"},
            "own": {"run": "purify", "data": "${shards}", "prior": "${made}", "preset": "${defence}"},
        },
    }
    (tmp_path / "p.yaml").write_text(json.dumps(pipeline))

    def ran() -> list[str]:
        found = zipbatch("run", tmp_path / "p.yaml", "--out", tmp_path / "out", "--dry-run", "--json")
        assert found.code == 0, found.err
        due = [
            f"{s['stage']} {s['axes'].get('defence', '')}".strip() for s in found.json["stages"] if s["state"] != "done"
        ]
        assert zipbatch("run", tmp_path / "p.yaml", "--out", tmp_path / "out").code == 0
        return due

    first = ran()
    assert len(first) == 6
    assert ran() == []
    made = next((tmp_path / "out" / "made").iterdir())
    for folder in (prior, made):
        assert zipbatch("calibrate", folder, photos, "--limit", 300).code == 0
    assert sorted(ran()) == ["given repaint", "own repaint"]
    assert ran() == []
