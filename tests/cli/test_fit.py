"""``zipbatch tune --fit``: clean images of any size, an unknown victim, a preset that they can afford."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.making import (
    CLASSES,
    Ran,
    calibrate_made_up,
    files_below,
    sample,
    write_prior,
    write_shard,
    write_source,
    zipbatch,
)
from tests.stages.train.test_train_prior import UNET
from zipbatch.report.fit_table import fit_table
from zipbatch.results import FitReport
from zipbatch.stages.tune.candidates import PRESETS, candidates
from zipbatch.stages.tune.request import TuneRequest

IMAGES = 90


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images to learn thresholds from, labelled."""
    return write_source(tmp_path_factory.mktemp("photos") / "in", counts={"train": 6, "test": IMAGES})


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior that nobody has calibrated."""
    return write_prior(tmp_path_factory.mktemp("priors") / "bare", calibrated=False)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 24 px, unlabelled, which neither equals nor tiles 16."""
    folder = tmp_path_factory.mktemp("large") / "in"
    write_shard(folder / "test-0.tar", [sample(f"k{i}", None, seed=i, size=24) for i in range(8)])
    return folder


def scores(folder: Path) -> str:
    """A victim of any size that tells images by the colour of one pixel, which purifying often changes."""
    file = folder / "mine.py"
    file.write_text("def scores(images):\n    return images[:, 8, 8].astype(float)\n")
    return f"python:{file}:scores"


def fit(victim: object, source: object, prior: object, *more: object) -> Ran:
    return zipbatch("tune", victim, "--fit", source, "--prior", prior, *more)


def test_thresholds_are_learned_kept_in_the_preset_and_not_written_into_the_prior(
    photos: Path, bare: Path, tmp_path: Path
):
    before, ours, victim = files_below(bare), tmp_path / "ours.yaml", scores(tmp_path)
    ran = fit(victim, photos, bare, "--max-loss", 1, "--out", ours, "--json")
    assert ran.code == 0, ran.err
    assert files_below(bare) == before
    found = ran.json["fit"]
    assert (found["images"], found["split"], found["image_size"], found["n_ca"]) == (IMAGES, "test", 16, IMAGES)
    assert [row["preset"] for row in found["presets"]] == list(PRESETS)
    assert [(row["calls_at_least"], row["calls"]) for row in found["presets"]] == [(2, 2), (5, 7), (5, 7)]
    for row in found["presets"]:
        low, high = row["agreement_ci95"]
        assert low <= row["agreement"] <= high + 1e-12
        assert abs(row["ca_loss"]) <= row["loss"] + 1e-12
        assert row["loss"] == pytest.approx(1 - row["agreement"])
    assert (found["chosen"], found["within"]) == ("strong", True)
    (learned,) = found["learned"]
    assert "no calibration" in learned["why"]

    copy = shutil.copytree(bare, tmp_path / "copy")
    calibrated = zipbatch("calibrate", copy, photos, "--json")
    assert calibrated.code == 0, calibrated.err
    assert {name: calibrated.json[name] for name in ("levels", "scores")} == {
        name: learned[name] for name in ("levels", "scores")
    }
    preset = yaml.safe_load(ours.read_text())
    assert preset["steps"][0]["levels"] == learned["levels"]
    assert preset["steps"][0]["image_size"] == 16
    assert {name: preset[name] for name in ("method", "steps")} == ran.json["settings"]
    assert "Thresholds learned" in preset["description"]

    purify = ("purify", photos, "--split", "test", "--prior", bare, "--store", tmp_path / "pur", "--name", "in")
    assert zipbatch(*purify).code == 2
    done = zipbatch(*purify, "--preset", ours)
    assert done.code == 0, done.err
    measured = zipbatch(
        *("evaluate", victim, "--data", photos, "--purified", "in", "--store", tmp_path / "pur", "--json")
    )
    assert measured.code == 0, measured.err
    flipped = next(row["flip_rate"] for row in measured.json["rows"] if row["purified"])
    assert flipped > 0.1
    assert flipped == pytest.approx(found["presets"][-1]["loss"], abs=2 / IMAGES)


def test_a_prior_that_is_calibrated_for_the_size_is_taken_as_it_is(
    victim: Path, photos: Path, prior: Path, tmp_path: Path
):
    ran = fit(victim, photos, prior, "--out", tmp_path / "ours.yaml", "--json", "--max-loss", 1, "--fit-limit", 4)
    assert ran.code == 0, ran.err
    assert ran.json["fit"]["learned"] == []
    assert yaml.safe_load((tmp_path / "ours.yaml").read_text())["steps"][0]["levels"] is None
    again = fit(victim, photos, prior, "--calibrate", "--fit-limit", 80, "--json", "--max-loss", 1)
    assert again.code == 0, again.err
    assert again.json["fit"]["images"] == 80
    assert "as was asked" in again.json["fit"]["learned"][0]["why"]
    assert again.json["settings"]["steps"][0]["levels"] == again.json["fit"]["learned"][0]["levels"]


def test_tiles_of_a_prior_calibrated_for_its_own_size(tmp_path: Path, photos: Path):
    prior = write_prior(tmp_path / "prior", image_size=32, calibrated=False)
    calibrate_made_up(prior, image_size=32)
    ran = fit(scores(tmp_path), photos, prior, "--out", tmp_path / "ours.yaml", "--max-loss", 1)
    assert ran.code == 0, ran.err
    assert "calibrated for 32 px, not for 16" in ran.out
    staged = tmp_path / "staged"
    assert zipbatch("poison", photos, "--attack", "badnets", "--split", "test", "--limit", 4, "--out", staged).code == 0
    for data in (staged, f"{photos}/test-000000.tar"):
        done = zipbatch(
            *("purify", data, "--prior", prior, "--preset", tmp_path / "ours.yaml", "--store", tmp_path / "pur"),
            *("--resize", "stretch", "--name", "in"),
        )
        assert done.code == 0, done.err


def test_resizing_to_a_prior_that_is_calibrated_for_tiles_is_refused_before_any_work(tmp_path: Path):
    prior = write_prior(tmp_path / "prior", image_size=32)
    large = write_source(tmp_path / "large", counts={"test": 3}, size=24)
    assert zipbatch("poison", large, "--attack", "badnets", "--out", tmp_path / "staged").code == 0
    ran = zipbatch("purify", tmp_path / "staged", "--prior", prior, "--resize", "stretch", "--store", tmp_path / "pur")
    assert (ran.code, "calibrated on 16 px images" in ran.err) == (2, True), ran.err
    assert not (tmp_path / "pur").exists()


def test_images_that_do_not_fit_the_prior_name_every_way_out(large: Path, prior: Path, tmp_path: Path):
    told = fit(scores(tmp_path), large, prior)
    assert (told.code, told.out) == (2, "")
    for way in ("images of 24 px", "--resize stretch", "--image-size 16", "--train-minutes"):
        assert way in told.err
    ours = tmp_path / "ours.yaml"
    ran = fit(scores(tmp_path), large, prior, "--resize", "stretch", "--out", ours)
    assert ran.code == 0, ran.err
    assert "24 px, purified at 16 px" in ran.out
    assert "CA" not in ran.out.splitlines()[0], "there are no labels"
    assert f"--preset {ours} --resize stretch" in ran.out
    purify = ("purify", large, "--prior", prior, "--preset", ours, "--store", tmp_path / "pur")
    assert zipbatch(*purify, "--resize", "stretch").code == 0


def test_images_are_stretched_to_what_the_victim_takes(victim: Path, prior: Path, tmp_path: Path):
    mixed = [sample(f"k{i}", None, seed=i, size=size) for i, size in enumerate((24, 40, 16))]
    write_shard(tmp_path / "mixed" / "test-0.tar", mixed)
    ran = fit(victim, tmp_path / "mixed", prior, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["fit"]["image_size"], ran.json["fit"]["prior_size"], ran.json["fit"]["stretched"]) == (
        16,
        16,
        True,
    )
    told = fit(scores(tmp_path), tmp_path / "mixed", prior, "--resize", "stretch")
    assert (told.code, "name --image-size" in told.err) == (2, True), told.err


def test_the_users_presets_are_tried_after_the_usual_ones_in_their_order(victim: Path, large: Path, prior: Path):
    def tried(*presets: str) -> list[str]:
        return [one.preset for one in candidates(TuneRequest(victim="v", fit="in", prior="p", presets=presets))]

    assert tried("strong", "jpeg") == ["fast", "balanced", "strong", "jpeg"]
    assert tried("fast", "blur", "fast") == ["balanced", "strong", "fast", "blur"]
    ran = fit(victim, large, prior, "--preset", "jpeg", "--max-loss", 1)
    assert ran.code == 0, ran.err
    assert "next: zipbatch purify SHARDS --preset jpeg --store DIR" in ran.out


def test_with_suspects_the_chosen_preset_is_tuned(
    victim: Path, photos: Path, prior: Path, staged: Path, tmp_path: Path
):
    options = ("--data", staged, "--store", tmp_path / "pur", "--guidance-exponent", 7, "--max-loss", 1)
    ran = fit(victim, photos, prior, *options, "--fit-limit", 8, "--out", tmp_path / "ours.yaml", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["fit"]["chosen"] == "strong"
    assert [candidate["guidance_exponent"] for candidate in ran.json["rungs"]] == [100, 7]
    preset = yaml.safe_load((tmp_path / "ours.yaml").read_text())
    assert preset["steps"][-1]["transforms"].count("blur:2") == 5
    assert preset["steps"][-1]["guidance_exponent"] == ran.json["chosen"]
    assert "'zipbatch tune' for" in preset["description"]
    assert "'zipbatch tune --fit' for" in preset["description"]


def training(folder: Path) -> tuple[object, ...]:
    """A training of two steps that holds 85 images out where no split is apart."""
    file = folder / "tiny.yaml"
    file.write_text(json.dumps({"unet": UNET, "batch_size": 2, "steps": 2, "held_out": 85}))
    return "--train-minutes", 1, "--train-preset", file


def test_a_prior_is_trained_first_and_found_again(victim: Path, tmp_path: Path):
    """On images stretched to what the victim takes; the choice is made on those that training left out."""
    source, prior = write_source(tmp_path / "in", counts={"train": 100}, size=24), tmp_path / "new"
    ran = fit(victim, source, prior, *training(tmp_path), "--json")
    assert ran.code == 0, ran.err
    found = ran.json["fit"]
    assert (found["images"], found["split"], found["image_size"], found["learned"]) == (85, "train", 16, [])
    assert json.loads((prior / "manifest.json").read_text())["trained_on"]["image_size"] == 16
    trained = files_below(prior)
    again = fit(victim, source, prior, *training(tmp_path), "--fit-limit", 5, "--json")
    assert again.code == 0, again.err
    assert files_below(prior) == trained


def test_what_training_refuses(victim: Path, photos: Path, large: Path, tmp_path: Path):
    def told(*arguments: object) -> str:
        ran = fit(victim, *arguments, *training(tmp_path))
        assert (ran.code, ran.out) == (2, "")
        return ran.err

    assert "name that" in told(photos, "embedded")
    assert "has no split train" in told(large, tmp_path / "new")
    assert "trained on split train" in told(photos, tmp_path / "new", "--fit-split", "train")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "test"), "of --fit it is --fit-split"),
        (("--limit", 0.5), "--fit-limit or --max-loss"),
        (("--guidance-exponent", 5), "goes with --data"),
        (("--image-size", 24), "the victim untrained takes 16 px"),
        (("--preset", "nope"), "no preset 'nope'"),
        (("--fit-split", "val"), "no split 'val'"),
        (("--max-loss", "nan"), "not a finite number"),
        (("--out", "ours.json"), "a .yaml file"),
        (("--data", "nowhere"), "Missing option '--store'"),
    ],
)
def test_wrong_inputs(victim: Path, photos: Path, prior: Path, options: tuple[object, ...], words: str):
    ran = fit(victim, photos, prior, *options)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_what_it_refuses_with_suspects(victim: Path, photos: Path, prior: Path, staged: Path, tmp_path: Path):
    def told(*arguments: object) -> str:
        ran = zipbatch("tune", *arguments, "--prior", prior, "--store", tmp_path / "pur")
        assert (ran.code, ran.out, (tmp_path / "pur").exists()) == (2, "", False), ran.err
        return ran.err

    assert "has no strength to tune" in told(victim, "--fit", photos, "--data", staged, "--preset", "jpeg")
    large = write_source(tmp_path / "large", counts={"test": 2}, size=32)
    assert zipbatch("poison", large, "--attack", "badnets", "--out", tmp_path / "other").code == 0
    assert "those of --fit have 16" in told(scores(tmp_path), "--fit", photos, "--data", tmp_path / "other")
    assert "Missing option '--data'" in told(victim)
    assert "--max-loss goes with --fit" in told(victim, "--data", staged, "--max-loss", 0.1)
    assert TuneRequest.model_fields["max_loss"].default == 0.1


def test_too_few_images_to_learn_from(victim: Path, photos: Path, bare: Path):
    ran = fit(victim, photos, bare, "--fit-limit", 5)
    assert (ran.code, "calibrate with more images" in ran.err) == (2, True), ran.err


def test_an_image_that_cannot_be_read_is_named(victim: Path, prior: Path, tmp_path: Path):
    good = sample("a", None, seed=0)
    write_shard(tmp_path / "in" / "test-0.tar", [good, type(good)("b", {"png": b"none"})])
    ran = fit(victim, tmp_path / "in", prior)
    assert (ran.code, "key 'b'" in ran.err) == (1, True), ran.err


def found(**changes: object) -> FitReport:
    rows = [
        {
            "preset": name,
            "calls": 7,
            "calls_at_least": least,
            "purifier": "zip",
            "agreement": kept,
            "agreement_ci95": (kept - 0.02, kept + 0.02),
            "loss": 1 - kept,
            "loss_ci95": (0.98 - kept, 1.02 - kept),
            "ca": 0.5,
            "ca_loss": -0.01,
            "chosen": name == "fast",
        }
        for name, least, kept in (("fast", 7, 0.91), ("strong", 5, 0.8))
    ]
    about = {
        "source": "clean/",
        "prior": "priors/p",
        "resize": None,
        "n_ca": 300,
        "chosen": "fast",
        "split": "test",
        "images": 300,
        "image_size": 32,
        "prior_size": 32,
        "stretched": False,
        "max_loss": 0.1,
        "learned": [],
    }
    return FitReport.model_validate({**about, "presets": rows, "ca_before": 0.49, "within": True, **changes})


def test_the_table_says_what_was_chosen_and_how_sure_that_is():
    text = fit_table(found())
    assert ".910 ±.020" in text
    assert "-.010" in text
    assert "fast is the strongest within ‹max_loss› .100,\nbut its interval reaches .110" in text
    assert "5 to 7" in text
    assert all(len(line) <= 88 for line in text.splitlines())
    assert "no preset is within ‹max_loss› .050: fast, which changes least" in fit_table(
        found(within=False, max_loss=0.05)
    )
    assert CLASSES[0] not in text


def test_what_a_trained_prior_will_not_do_for_is_told_before_it_is_trained(victim: Path, tmp_path: Path):
    source, prior = write_source(tmp_path / "in", counts={"train": 100}), tmp_path / "new"
    ran = fit(victim, source, prior, *training(tmp_path), "--preset", "restore")
    assert (ran.code, prior.exists()) == (2, False)
    assert "--preset restore: needs a restorer, which a prior that is trained now has not" in ran.err
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_step": 80}))
    given = ("--train-minutes", 1, "--train-preset", file)
    ran = fit(victim, source, prior, *given, "--preset", "balanced-v1")
    assert (ran.code, prior.exists()) == (2, False)
    assert "--preset balanced-v1: the prior to be trained learned the timesteps below 80 alone" in ran.err
    ran = fit(victim, source, prior, *given, "--json")
    assert ran.code == 0, ran.err
    assert [row["preset"] for row in ran.json["fit"]["presets"]] == ["fast"]
