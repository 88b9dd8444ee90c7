"""Chains: their steps one after another, draws averaged, settings drawn by key; all of it in the identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from tests.making import Ran, files_below, purifier_spec, sample, write_shard, zipbatch
from zipbatch.config import find_config, read_config
from zipbatch.errors import UsageError
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.purifiers import METHODS, PURIFIERS, ChainSettings, Resources
from zipbatch.purifiers.chain import MAX_DRAWS, Chain
from zipbatch.stages.purify.identity import describe, describe_settings
from zipbatch.store import Store

CPU = Resources(device=torch.device("cpu"), seed=3)
IMAGES = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
KEYS = [f"k{i}" for i in range(6)]


def chain(*steps: dict[str, object]) -> Chain:
    return Chain(ChainSettings(steps=steps), CPU)


def alone(method: str, **settings: object):
    kind = METHODS[method]
    return kind(kind.settings_type(**settings), CPU)


def test_steps_come_one_after_another():
    jpeg, median = alone("jpeg", quality=60), alone("median", window=3)
    both = chain({"method": "jpeg", "quality": 60}, {"method": "median"})(IMAGES, KEYS)
    assert torch.equal(both, median(jpeg(IMAGES, KEYS), KEYS))
    assert not torch.equal(both, jpeg(median(IMAGES, KEYS), KEYS))


def test_draws_are_averaged_and_differ():
    one, four = (chain({"method": "shrinkpad", "draws": draws}) for draws in (1, 4))
    each = [draw(IMAGES, KEYS) for draw in four._steps[0]]
    assert len({draw.numpy().tobytes() for draw in each}) == 4
    assert torch.equal(four(IMAGES, KEYS), torch.stack(each).double().mean(0).round().to(torch.uint8))
    assert torch.equal(one(IMAGES, KEYS), each[0])
    twice = chain({"method": "shrinkpad"}, {"method": "shrinkpad"})
    assert not torch.equal(twice._steps[0][0](IMAGES, KEYS), twice._steps[1][0](IMAGES, KEYS)), "noise of its own"


@pytest.mark.parametrize(
    ("method", "name", "text", "values"),
    [("jpeg", "quality", "40..44", range(40, 45)), ("bitdepth", "bits", "1..3", range(1, 4))],
)
def test_a_setting_is_drawn_by_key(method: str, name: str, text: str, values: range):
    step = chain({"method": method, name: text})
    keys = [f"key {i}" for i in range(40)]
    images = IMAGES[:1].repeat(40, 1, 1, 1)
    drawn = [value for (value,) in step._steps[0][0]._values(keys)]
    assert set(drawn) == set(values)
    made = step(images, keys)
    for i in (0, 7, 39):
        assert torch.equal(made[i], alone(method, **{name: drawn[i]})(images[i : i + 1], [keys[i]])[0])
    some = [39, 3, 7]
    assert torch.equal(step(images[some], [keys[i] for i in some]), made[some]), "whatever shares the batch"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"method": "chain"}, "has a method out of"),
        ({}, "has a method out of"),
        ({"method": ["jpeg"]}, "has a method out of"),
        ({"method": "jpeg", "settings": {}}, "Extra inputs"),
        ({"method": "jpeg", "quality": 0}, "greater than or equal to 1"),
        ({"method": "jpeg", "quality": "50..101"}, "less than or equal to 100"),
        ({"method": "jpeg", "quality": "60..50"}, "from the lower to the higher"),
        ({"method": "jpeg", "draws": 2}, "all draws of it are the same"),
        ({"method": "shrinkpad", "draws": MAX_DRAWS + 1}, f"less than or equal to {MAX_DRAWS}"),
        ({"method": "median", "window": "3..5"}, "4 does not do"),
        ({"method": "zip", "start_step": "50..100"}, "images share its canvases"),
        ({"method": "blur", "factor": 2}, "Extra inputs"),
    ],
)
def test_steps_that_cannot_be(step: dict[str, object], words: str):
    with pytest.raises(ValidationError, match=words):
        ChainSettings(steps=(step,))


def test_every_setting_and_version_of_every_step_is_in_the_identity(prior: Path, monkeypatch: pytest.MonkeyPatch):
    def identity(*steps: dict[str, object], seed: int = 0) -> dict[str, object]:
        return purifier_spec(method="chain", assigned={"steps": list(steps)}, prior=prior, seed=seed).identity

    jpeg, zip_ = {"method": "jpeg", "quality": 60}, {"method": "zip", "start_step": 60}
    base = identity(jpeg, zip_)
    others = [
        identity(zip_, jpeg),
        identity(jpeg),
        identity({**jpeg, "quality": 61}, zip_),
        identity({**jpeg, "quality": "60..61"}, zip_),
        identity(jpeg, {**zip_, "draws": 2}),
        identity(jpeg, {**zip_, "eta": 0}),
        identity(jpeg, zip_, seed=1),
    ]
    monkeypatch.setattr(METHODS["jpeg"], "version", 2)
    others.append(identity(jpeg, zip_))
    told = [json.dumps(each, sort_keys=True) for each in (base, *others)]
    assert len(set(told)) == len(told)
    assert base["libraries"] == METHODS["jpeg"].libraries and base["prior_sha256"]
    assert "seed" not in identity(jpeg) and "prior_sha256" not in identity(jpeg)
    assert describe(base) == "jpeg quality=60 > zip blur:2+blur:1 k=10 S=20 eta=1 t0=60"


def purified(source: Path, store: Path, *more: object) -> Ran:
    ran = zipbatch("purify", source, "--store", store, *more)
    assert ran.code == 0, ran.err
    return ran


def test_on_the_command_line_and_in_a_preset(tmp_path: Path, prior: Path):
    """The same chain, the same bytes, whatever names it and however many images share a batch or a run."""
    write_shard(tmp_path / "in" / "a.tar", [sample(f"k{i}", 1, seed=i) for i in range(7)])
    write_shard(tmp_path / "in" / "b.tar", [sample(f"l{i}", 1, seed=50 + i) for i in range(3)])
    flags = ("--chain", "jpeg quality=40..90", "--chain", "zip start_step=300 steps=6 draws=2", "--prior", prior)
    first = json.loads(purified(tmp_path / "in", tmp_path / "one", *flags, "--json").out)
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "description: mine\nsteps:\n  - {method: jpeg, quality: 40..90}\n"
        "  - {method: zip, start_step: 300, steps: 6, draws: 2}\n"
    )
    again = json.loads(purified(tmp_path / "in", tmp_path / "two", "--preset", preset, "--prior", prior, "--json").out)
    assert first["version"] == again["version"]
    assert files_below(tmp_path / "one" / "objects") == files_below(tmp_path / "two" / "objects")
    version = Store(tmp_path / "one").versions.read("in")
    assert describe_settings(version.header) == "jpeg quality=40..90 > 2x zip S=6"
    shown = zipbatch("store", "show", "in", "--store", tmp_path / "one").out
    assert "jpeg quality=40..90 > 2x zip" in shown.replace("\n", " ")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--chain", ""), "name a purifier"),
        (("--chain", "jpeg 'quality"), "name a purifier"),
        (("--chain", "jpeg quality"), "NAME=VALUE"),
        (("--chain", "jpeg", "--preset", "fast"), "leave --preset and --purifier out"),
        (("--chain", "jpeg", "--steps", "3"), "say it of a step, --set zip.steps=…"),
        (("--chain", "zip"), "needs a diffusion model"),
        (("--chain", "jpeg", "--resize", "stretch"), "--resize does not apply"),
    ],
)
def test_what_does_not_fit(staged: Path, tmp_path: Path, flags: tuple[str, ...], words: str):
    ran = zipbatch("purify", staged, "--store", tmp_path / "pur", *flags)
    assert (ran.code, words in ran.err) == (2, True), ran.err


def test_it_is_listed():
    assert "chain" in PURIFIERS
    listed = json.loads(zipbatch("ls", "purifiers", "--json").out)
    assert "chain" in json.dumps(listed)


def test_a_step_is_written_as_it_is_read():
    steps = ({"method": "jpeg", "quality": "40..60"}, {"method": "shrinkpad", "draws": 3, "pad": 2})
    settings = ChainSettings(steps=steps)
    assert settings.model_dump(mode="json")["steps"] == list(steps)
    assert ChainSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("address", ["2", "jpeg"])
def test_a_step_set_by_itself_is_known_by_what_a_file_with_its_value_is_known_by(
    prior: Path, tmp_path: Path, address: str
):
    """Also where the value is a range, and by the pipeline's numbers as by the command line's text."""
    values = read_config(find_config("purifiers", "balanced"))
    written = tmp_path / "mine.yaml"
    for value, given in ((70, "70"), (70, 70), ("40..80", "40..80")):
        values["steps"][1]["quality"] = value  # type: ignore[index]
        written.write_text(yaml.safe_dump(values))
        by_file = purifier_spec(preset=str(written), prior=prior).identity
        assert purifier_spec(assigned={f"{address}.quality": given}, prior=prior).identity == by_file
        assert by_file != purifier_spec(prior=prior).identity


def test_a_pipeline_sets_what_a_step_has_and_its_stage_is_known_by_that(tmp_path: Path):
    values = read_config(find_config("purifiers", "fast"))
    values["steps"][0]["quality"] = 70  # type: ignore[index]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    kind = STAGE_TYPES["purify"]
    written = kind.decides(kind.settings(preset=str(tmp_path / "mine.yaml")))
    assert kind.decides(kind.settings(preset="fast", set={"1.quality": 70})) == written
    assert kind.decides(kind.settings(preset="fast", set={"jpeg.quality": "70"})) == written
    assert kind.decides(kind.settings(preset="fast")) != written


def test_several_settings_of_several_steps_and_draws(prior: Path):
    assigned = {"1.quality": "55", "zip.start_step": None, "zip.transforms": "blur:4,gray", "2.draws": "1"}
    chain = purifier_spec(method="chain", assigned=assigned, prior=prior)
    steps = (
        {"method": "jpeg", "quality": 55},
        {"method": "zip", "guidance_exponent": 40, "transforms": ["blur:4", "gray"], "start_step": None},
    )
    assert chain.identity == purifier_spec(method="chain", assigned={"steps": steps}, prior=prior).identity
    assert "draws" not in chain.identity["settings"]["steps"][1]
    many = purifier_spec(preset="fast", assigned={"zip.draws": "3"}, prior=prior)
    assert describe(many.identity).startswith("jpeg quality=60 > 3x zip")


@pytest.mark.parametrize(
    ("preset", "assigned", "words"),
    [
        ("balanced", {"4.quality": 1}, "no step '4'; its steps are: 1 repaint, 2 jpeg, 3 zip"),
        ("balanced", {"0.quality": 1}, "no step '0'; its steps are"),
        ("balanced", {"median.window": 3}, "no step 'median'; its steps are"),
        ("balanced", {"2.qualty": 1}, "step 2, jpeg, has no such setting; it has: quality, draws"),
        ("balanced", {"2.quality": 1, "jpeg.quality": 2}, "both set quality of step 2; give one"),
        (
            "balanced",
            {"2.quality": 0},
            r"‹set={'2.quality': 0}›: step 2 cannot be so\n.*\n.*greater than or equal to 1",
        ),
        ("balanced", {"2.draws": 4}, "all draws of it are the same"),
        ("balanced", {"quality": 70}, "has no such setting; it has: steps; .* ‹set={'1.quality': 70}›"),
        ("jpeg", {"1.quality": 70}, "the purifier jpeg is no chain, .* it has: quality"),
        (None, {"steps": 9, "2.quality": 70}, "the purifier zip is no chain"),
    ],
)
def test_a_step_or_setting_that_is_not_there_is_told_with_those_that_are(
    prior: Path, preset: str | None, assigned: dict[str, object], words: str
):
    with pytest.raises(UsageError, match=words):
        purifier_spec(preset=preset, assigned=assigned, prior=prior)


def test_a_method_that_occurs_twice_is_named_by_its_number(staged: Path, tmp_path: Path):
    asked = (
        "purify",
        staged,
        "--store",
        tmp_path / "pur",
        "--chain",
        "jpeg quality=60",
        "--chain",
        "jpeg",
        "--dry-run",
    )
    ran = zipbatch(*asked, "--set", "jpeg.quality=70")
    assert ran.code == 2
    assert "the steps are: 1 jpeg, 2 jpeg); say which: 1.quality or 2.quality" in ran.err
    ran = zipbatch(*asked, "--set", "2.quality=70", "--json")
    assert [step["settings"] for step in ran.json["purifier"]["settings"]["steps"]] == [
        {"quality": 60},
        {"quality": 70},
    ]
