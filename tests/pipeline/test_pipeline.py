"""``zipbatch run`` on small real data: matrix, references, what is skipped and why, and failures."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.making import Ran, files_below, sample, write_shard, zipbatch
from tests.object_store import S3Path
from zipbatch.attacks.badnets import BadNets
from zipbatch.config import find_config, list_configs, load_config
from zipbatch.pipeline.config import PipelineConfig
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.purifiers import PURIFIERS
from zipbatch.purifiers.blur import Blur
from zipbatch.purifiers.settings import BlurSettings
from zipbatch.shards import Sample
from zipbatch.stages.purify.spec import PurifierSpec

PIPELINE: dict[str, Any] = {
    "about": "Two attacks, two baselines.",
    "vars": {"source": None, "victim": None, "rate": 0.5},
    "matrix": {"attack": ["badnets", "blended"], "transform": {"coarse": {"t": ["blur:4"]}, "fine": {"t": ["blur:2"]}}},
    "stages": {
        "table": {  # before what it needs, on purpose
            "run": "evaluate",
            "victim": "${victim}",
            "data": "${shards}",
            "purified": "${pur}",
        },
        "pur": {"run": "purify", "data": "${shards}", "purifier": "blur", "set": {"transforms": "${transform.t}"}},
        "shards": {
            "run": "poison",
            "source": "${source}",
            "attack": "${attack}",
            "poison_rate": "${rate}",
            "samples_per_shard": 5,
        },
    },
}


@pytest.fixture
def run(tmp_path: Path, source: Path, victim: Path):
    """Runs a pipeline given as a dictionary, on the tiny source and victim, into ``tmp_path/out``."""

    def start(pipeline: dict[str, Any], *options: object, victim: Path = victim) -> Ran:
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump(pipeline))
        given = [
            f"--var={name}={path}"
            for name, path in (("source", source), ("victim", victim))
            if name in pipeline.get("vars", {})
        ]
        return zipbatch("run", file, "--out", tmp_path / "out", *given, *options)

    return start


def test_every_case_is_run_once_and_a_second_run_does_nothing(run, tmp_path: Path):
    first = run(PIPELINE, "--json", "--csv", tmp_path / "table.csv")
    assert first.code == 0, first.err
    assert (first.json["ran"], first.json["skipped"]) == (2 + 4 + 4, 0)
    rows = first.json["rows"]
    assert [(row["axes"]["attack"], row["axes"]["transform"], row["purifier"]) for row in rows] == [
        ("badnets", None, None),
        ("badnets", "coarse", "blur"),
        ("badnets", "fine", "blur"),
        ("blended", None, None),
        ("blended", "coarse", "blur"),
        ("blended", "fine", "blur"),
    ]
    assert all(row["n_ca"] == 12 for row in rows)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == rows
    with (tmp_path / "table.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [(line["attack"], line["transform"], line["ca"]) for line in table] == [
        (row["axes"]["attack"], row["axes"]["transform"] or "", str(row["ca"])) for row in rows
    ]

    before = files_below(tmp_path / "out")
    again = run(PIPELINE, "--json")
    assert (again.json["ran"], again.json["skipped"], again.json["rows"]) == (0, 10, rows)
    assert files_below(tmp_path / "out") == before
    assert {line.split()[0] for line in run(PIPELINE, "--dry-run").out.splitlines()} == {"skip"}


def test_a_change_runs_what_depends_on_it_and_dry_run_says_why(run, tmp_path: Path):
    assert run(PIPELINE).code == 0
    changed = json.loads(json.dumps(PIPELINE))
    changed["matrix"]["transform"]["fine"]["t"] = ["blur:8"]
    before = files_below(tmp_path / "out")
    plan = run(changed, "--dry-run").out
    assert files_below(tmp_path / "out") == before
    states = {line[5:].split("  ")[0]: line for line in plan.splitlines()}
    assert states["shards[badnets]"].endswith("done")
    assert states["pur[badnets, coarse]"].endswith("done")
    assert states["pur[badnets, fine]"].startswith("run")
    assert states["pur[badnets, fine]"].endswith("changed: settings.transforms")
    assert states["table[badnets, fine]"].endswith("after pur[badnets, fine]")
    ran = run(changed, "--json")
    assert (ran.json["ran"], ran.json["skipped"]) == (4, 6)
    assert "blur:8" in {row["settings"].split()[-1] for row in ran.json["rows"] if row["settings"]}

    rate = run(PIPELINE, "--var", "rate=0.25", "--dry-run").out
    assert "shards[badnets]" in rate
    assert "changed: poison_rate" in rate


def test_changed_input_files_are_noticed_by_content(run, source: Path, tmp_path: Path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    pipeline = {**PIPELINE, "vars": {**PIPELINE["vars"], "source": str(copy)}}
    pipeline["vars"].pop("victim")
    pipeline["stages"] = {"shards": PIPELINE["stages"]["shards"]}
    pipeline["matrix"] = {"attack": ["badnets"]}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(pipeline))

    def state() -> str:
        return zipbatch("run", file, "--out", tmp_path / "out", "--dry-run").out

    assert zipbatch("run", file, "--out", tmp_path / "out").code == 0
    (copy / "train-000000.tar").touch()
    assert state().startswith("skip"), "the same bytes with a newer date"
    (copy / "train-000001.tar").unlink()
    assert "changed: source" in state()


def test_per_gathers_what_lies_along_the_other_axes(run):
    pipeline = json.loads(json.dumps(PIPELINE))
    pipeline["stages"]["table"] |= {"per": ["attack"], "sheet": True}
    ran = run(pipeline, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["ran"] == 2 + 4 + 2
    assert [row["axes"]["transform"] for row in ran.json["rows"]] == [None, "coarse", "fine"] * 2
    assert all(Path(sheet).read_bytes().startswith(b"\x89PNG") for sheet in ran.json["sheets"])
    assert len(ran.json["sheets"]) == 2


def test_the_four_modes_train_and_test_on_original_and_purified_shards(run, tmp_path: Path):
    """A victim trained on purified shards is another than one trained on the originals; both meet both test sets."""
    pipeline = {
        "vars": {"source": None},
        "matrix": {"trained": {"on-poisoned": {"preset": "resnet20-embedded"}}},
        "stages": {
            "shards": {"run": "poison", "source": "${source}", "attack": "badnets"},
            "pur": {"run": "purify", "data": "${shards}", "purifier": "blur"},
            "pur-train": {"run": "purify", "data": "${shards}", "purifier": "blur", "splits": ["train"]},
            "plain": {"run": "train victim", "data": "${shards}", "preset": "${trained.preset}", "set": {"epochs": 1}},
            "cleaned": {
                "run": "train victim",
                "data": "${shards}",
                "purified": "${pur-train}",
                "preset": "${trained.preset}",
                "set": {"epochs": 1},
            },
            "modes": {
                "run": "evaluate",
                "data": "${shards}",
                "victim": ["${plain}", "${cleaned}"],
                "purified": "${pur}",
            },
        },
    }
    ran = run(pipeline, "--json", "--device", "cpu")
    assert ran.code == 0, ran.err
    rows = ran.json["rows"]
    assert [(Path(row["victim"]).parent.name, row["purifier"]) for row in rows] == [
        ("plain", None),
        ("plain", "blur"),
        ("cleaned", None),
        ("cleaned", "blur"),
    ]
    weights = {row["victim"]: (Path(row["victim"]) / "model.safetensors").read_bytes() for row in rows}
    assert len(set(weights.values())) == 2
    assert (run(pipeline, "--json").json["ran"]) == 0


def test_a_failed_stage_stops_its_users_alone(run, tmp_path: Path):
    pipeline = json.loads(json.dumps(PIPELINE))
    pipeline["matrix"]["transform"]["fine"]["t"] = ["blur:7"]  # 16 px have no blocks of 7
    ran = run(pipeline, "--json")
    assert ran.code == 1
    assert [row["axes"]["transform"] for row in ran.json["rows"]] == [None, "coarse"] * 2, "what is done is shown"
    assert "4 of 10 stages failed" in ran.err
    assert "pur[badnets, fine]:" in ran.err
    assert "table[badnets, fine]: not run without pur[badnets, fine]" in ran.err
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())["failed"]) == set(ran.json["failed"])
    assert len(ran.json["failed"]) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["stages"]["shards"].update(run="poisn"), "shards: run = 'poisn': must be one of poison"),
        (lambda p: p["stages"]["shards"].update(atack="x"), "atack"),
        (lambda p: p["stages"]["shards"].update(attack="${attak}"), "nothing is named 'attak'"),
        (lambda p: p["stages"]["shards"].update(attack="nope"), "shards: unknown attack 'nope'"),
        (
            lambda p: p["stages"]["shards"].update(profile="bogus"),
            "profile = 'bogus': Input should be 'standard', 'zip-code' or 'backdoorbench'",
        ),
        (lambda p: p["stages"]["pur"].update(purifier="nosuch"), "unknown purifier 'nosuch'"),
        (lambda p: p["stages"]["pur"].update(set={"bogus": 1}), "no such setting"),
        (lambda p: p["stages"]["shards"].update(run=["poison"]), "run = \\['poison'\\]"),
        (lambda p: p["stages"]["table"].update(per=[["attack"]]), "per = "),
        (lambda p: p["stages"]["table"].update(victim="${victim.path}"), "only axes have fields"),
        (lambda p: p["stages"]["table"].update(victim="${a.b.c}"), "a reference is"),
        (
            lambda p: p["stages"]["table"].update(per=["attack"], victim="x-${transform}"),
            "transform is not in its 'per'",
        ),
        (
            lambda p: p["stages"]["pur"].update(set={"transforms": "${transform.tt}"}),
            "transform = coarse has no field 'tt'",
        ),
        (lambda p: p["stages"]["pur"].update(data="${table}"), "stages that need each other"),
        (lambda p: p["stages"]["pur"].pop("data"), "pur: needs 'data'"),
        (lambda p: p["stages"]["table"].update(victim="${shards}"), "a stage that runs 'import victim' or a path"),
        (
            lambda p: p["stages"]["table"].update(purified="somewhere@latest"),
            "purified must be a stage that runs 'purify'",
        ),
        (lambda p: p["stages"]["table"].update(per=["nothing"]), "per = \\['nothing'\\]"),
        (lambda p: p["stages"]["table"].update(data=["${shards}", "${shards}"]), "data is one, not 2"),
        (lambda p: p["stages"]["shards"].update(source="no/such/folder"), "no such file or folder"),
        (
            lambda p: p["stages"]["shards"].update(source="s3://bucket/in"),
            "source = s3://bucket/in: a source is read from this",
        ),
        (lambda p: p["stages"]["table"].update(victim="embedded:nobody"), "no such victim"),
        (lambda p: p["stages"]["table"].update(victim="${source}"), "table: .*config.json"),
        (lambda p: p["stages"]["pur"].update(purifier="zip", set={}, prior="${source}"), "pur: .*: "),
        (lambda p: p["stages"]["pur"].update(purifier=None, preset="nobody"), "no preset 'nobody'"),
    ],
)
def test_mistakes_are_told_before_anything_is_run(run, tmp_path: Path, change, words: str):
    import re

    pipeline = json.loads(json.dumps(PIPELINE))
    change(pipeline)
    ran = run(pipeline)
    assert ran.code == 2, ran.err
    assert re.search(words, ran.err), ran.err
    assert not (tmp_path / "out").exists()


def test_a_variable_that_was_not_given_is_told(tmp_path: Path):
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(PIPELINE))
    ran = zipbatch("run", file, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "shards: needs 'source': give --var source=" in ran.err


def test_unknown_variables_are_told(run):
    ran = run(PIPELINE, "--var", "rat=1")
    assert ran.code == 2
    assert "no variable 'rat'; there are: rate, source, victim" in ran.err


def test_training_on_purified_shards_needs_their_store(staged: Path, tmp_path: Path):
    ran = zipbatch("train", "victim", staged, "--purified", "tiny-badnets@t", "--out", tmp_path / "v")
    assert ran.code == 2
    assert "--purified and --store go together" in ran.err


def test_training_on_a_version_without_train_shards_is_refused(staged: Path, tmp_path: Path):
    store = tmp_path / "pur"
    assert zipbatch("purify", staged, "--purifier", "blur", "--store", store).code == 0  # test splits alone
    ran = zipbatch(
        *("train", "victim", staged, "--purified", "tiny-badnets", "--store", store, "--out", tmp_path / "v"),
    )
    assert ran.code == 2
    assert "holds none of the splits of tiny-badnets" in ran.err
    assert not (tmp_path / "v").exists()


PICTURES = find_config("pipelines", "cifar10-unseen").parent / "triggers"


@pytest.mark.parametrize("name", list_configs("pipelines"))
def test_shipped_pipelines_can_be_planned(name: str, source: Path, tmp_path: Path):
    """Every preset, attack, victim and setting that they name exists and fits."""
    wanted = load_config(find_config("pipelines", name), PipelineConfig).vars
    given = {
        "source": source,
        "test": source,
        "prior": "embedded",
        "triggers": PICTURES,
        "image": PICTURES / "cross.png",
    }
    values = [f"--var={key}={value}" for key, value in given.items() if key in wanted]
    ran = zipbatch("run", name, *values, "--out", tmp_path / "out", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert {"poison", "purify", "evaluate"} <= {stage["run"] for stage in ran.json["stages"]}
    assert not (tmp_path / "out").exists()


def test_a_prior_is_asked_for_where_one_is_needed_and_makes_no_difference_elsewhere(run, tmp_path: Path):
    pipeline = json.loads(json.dumps(PIPELINE))
    pipeline["matrix"]["transform"] = {"none": {"t": ["blur:2"]}}
    pipeline["vars"]["prior"] = None
    pipeline["stages"]["pur"] |= {"prior": "${prior}"}
    assert run(pipeline).code == 0
    with_prior = run(pipeline, "--var", "prior=embedded", "--dry-run")
    assert {line.split()[0] for line in with_prior.out.splitlines()} == {"skip"}
    pipeline["stages"]["pur"]["purifier"] = "zip"
    needs = run(pipeline)
    assert needs.code == 2
    assert "pur: needs 'prior': give --var prior=" in needs.err


def test_two_runs_at_once_make_each_stage_once(run, source: Path, victim: Path, tmp_path: Path):
    """The second waits for what the first has in hand, and then takes it as done."""
    run(PIPELINE, "--dry-run")  # writes the file
    command = [sys.executable, "-m", "zipbatch", "run", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out")]
    command += [f"--var=source={source}", f"--var=victim={victim}", "--device", "cpu", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    results = [json.loads(out) for out, _ in outputs]
    assert sum(result["ran"] for result in results) == 10
    assert results[0]["rows"] == results[1]["rows"]


def test_samples_that_cannot_be_read_are_set_aside_where_a_stage_says_so(run, victim: Path, tmp_path: Path):
    good = sample("b", 1, seed=1)
    folder = tmp_path / "in"
    folder.mkdir()
    write_shard(folder / "day-0.tar", [Sample("a", {**good.members, "png": good.members["png"][:60]}), good])
    pur = {"run": "purify", "data": str(folder), "purifier": "blur"}
    table = {"run": "evaluate", "victim": "${victim}", "data": str(folder), "purified": "${pur}"}
    pipeline = {"vars": {"victim": None}, "stages": {"pur": pur, "table": table}}
    refused = run(pipeline)
    assert refused.code == 1
    assert "day-0.tar" in refused.err
    pur["quarantine"] = True
    assert run(pipeline, "--dry-run").out.splitlines()[0].endswith("changed: quarantine")
    ran = run(pipeline, "--json")
    assert ran.code == 0, ran.err
    assert [row["n_quarantined"] for row in ran.json["rows"]] == [1, 1]


def test_data_prior_and_victim_may_be_in_an_object_store(run, staged: Path, prior: Path, victim: Path, s3: object):
    bucket = S3Path.fresh()
    there = {name: (bucket / name).copy_from(path) for name, path in (("d", staged), ("p", prior), ("v", victim))}
    stages = {
        "pur": {"run": "purify", "data": str(there["d"]), "prior": str(there["p"]), "set": {"steps": 2}},
        "table": {"run": "evaluate", "victim": "${victim}", "data": str(there["d"]), "purified": "${pur}"},
    }
    pipeline = {"vars": {"victim": None}, "stages": stages}
    first = run(pipeline, "--json", victim=there["v"])
    assert (first.code, first.json["ran"]) == (0, 2), first.err
    assert [row["n_ca"] for row in first.json["rows"]] == [12, 12]
    assert run(pipeline, "--json", victim=there["v"]).json["ran"] == 0
    config = there["v"] / "config.json"
    config.write_bytes(config.read_bytes() + b"\n")
    lines = run(pipeline, "--dry-run", victim=there["v"]).out.splitlines()
    assert [line[:4] for line in lines] == ["skip", "run "]
    assert lines[1].endswith("changed: victim")
    gone = run(pipeline, "--dry-run", victim=bucket / "nothing")
    assert gone.code == 2
    assert "nothing: no such file or folder" in gone.err


def names(ran: Ran) -> dict[str, str]:
    """State of each stage of a dry run, by label."""
    assert ran.code == 0, ran.err
    return {line[5:].split("  ")[0]: line.split("  ")[-1] for line in ran.out.splitlines()}


def test_what_a_purifier_is_known_by_is_what_its_stage_is_known_by(run, monkeypatch: pytest.MonkeyPatch):
    """Whatever comes to be part of the identity, nobody needs to tell pipelines of it."""
    assert run(PIPELINE).code == 0
    known_by = PurifierSpec.identity.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(PurifierSpec, "identity", property(lambda self: {**known_by(self), "a-new-part": 1}))
    states = names(run(PIPELINE, "--dry-run"))
    assert states["shards[badnets]"] == "done"
    assert states["pur[badnets, fine]"] == "changed: a-new-part"


def test_a_new_setting_and_a_new_version_of_a_purifier_change_its_stage(run, monkeypatch: pytest.MonkeyPatch):
    class MoreSettings(BlurSettings):
        extra: int = 3

    class More(Blur):
        settings_type = MoreSettings

    assert run(PIPELINE).code == 0
    monkeypatch.setitem(PURIFIERS, "blur", More)
    assert names(run(PIPELINE, "--dry-run"))["pur[blended, coarse]"] == "changed: settings.extra"
    monkeypatch.setitem(PURIFIERS, "blur", type("Later", (Blur,), {"version": Blur.version + 1}))
    assert names(run(PIPELINE, "--dry-run"))["pur[blended, coarse]"] == "changed: algorithm_version"


def test_a_new_version_of_an_attack_stages_anew_and_the_first_has_no_name(
    run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run(PIPELINE).code == 0
    asked = ("poison", source, "--attack", "badnets", "--out", tmp_path / "staged")
    assert zipbatch(*asked).code == 0
    manifest = json.loads((tmp_path / "staged" / "manifest.json").read_text())
    assert ("version" in manifest["options"], manifest["attack"]["version"]) == (False, 1)
    monkeypatch.setattr(BadNets, "version", 2)
    states = names(run(PIPELINE, "--dry-run"))
    assert (states["shards[badnets]"], states["shards[blended]"]) == ("changed: version", "done")
    refused = zipbatch(*asked)
    assert refused.code == 2
    assert "choose another --out" in refused.err


def test_all_that_decides_staged_bytes_is_what_the_stage_is_known_by(run, tmp_path: Path):
    """Beside what its source says."""
    assert run(PIPELINE).code == 0
    (ids,) = (tmp_path / "out" / ".ids" / "shards").glob("badnets-*.json")
    facts = json.loads(ids.read_text())["facts"]
    (manifest,) = (tmp_path / "out" / "shards").glob("badnets-*/manifest.json")
    options = json.loads(manifest.read_text())["options"]
    of_the_source = {"classes", "image_size", "source_sha256"}
    assert {name: facts.get(name) for name in set(options) - of_the_source} == {
        name: value for name, value in options.items() if name not in of_the_source
    }


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("poison", {"attack": "badnets"}),
        ("train victim", {"preset": "resnet18"}),
        ("train prior", {"preset": "small32"}),
        ("purify", {}),
        ("evaluate", {}),
    ],
)
def test_a_setting_that_a_stage_gains_is_in_what_it_is_known_by(kind: str, given: dict[str, str]):
    """But at its default, stages keep their names."""
    known = STAGE_TYPES[kind]
    more = type("More", (known.settings,), {"__annotations__": {"a_new_one": int}, "a_new_one": 0})
    assert known.decides(more(**given)) == known.decides(known.settings(**given))
    assert known.decides(more(**given, a_new_one=1))["a_new_one"] == 1


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a shard is gone": ("shards/badnets-*/test-000000.tar", Path.unlink),
    "a shard is short": ("shards/badnets-*/train-*1.tar", lambda path: path.write_bytes(path.read_bytes()[:700])),
    "the trigger is gone": ("shards/badnets-*/trigger.npz", Path.unlink),
    "the trigger is another": ("shards/badnets-*/trigger.npz", lambda path: path.write_bytes(b"PK")),
    "a victim's weights are short": (
        "trained/badnets-*/model.safetensors",
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
    ),
    "a victim's weights are gone": ("trained/badnets-*/model.safetensors", Path.unlink),
    "a purified shard is gone": ("pur/objects/??/*.tar", Path.unlink),
    "the rows are short": ("table/badnets-*.json", lambda path: path.write_text('{"rows": []}')),
    "the rows are damaged": ("table/badnets-*.json", lambda path: path.write_text('{"rows": [')),
    "the sheet is short": ("table/badnets-*.png", lambda path: path.write_bytes(path.read_bytes()[:-4])),
}


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline that trains, and its results."""
    folder = tmp_path_factory.mktemp("finished")
    pipeline = json.loads(json.dumps(PIPELINE))
    pipeline["vars"] = {"source": str(source), "rate": 0.5}
    pipeline["matrix"] = {"attack": ["badnets"], "transform": {"coarse": {"t": ["blur:4"]}}}
    pipeline["stages"]["trained"] = {
        "run": "train victim", "data": "${shards}", "preset": "resnet20-embedded", "set": {"epochs": 1}
    }  # fmt: skip
    pipeline["stages"]["table"] |= {"victim": "${trained}", "sheet": True}
    (folder / "small.yaml").write_text(yaml.safe_dump(pipeline))
    ran = zipbatch("run", folder / "small.yaml", "--out", folder / "out", "--device", "cpu")
    assert ran.code == 0, ran.err
    return folder


@pytest.mark.parametrize("what", DAMAGE)
def test_a_stage_is_done_when_all_that_it_published_is_there(what: str, finished: Path, tmp_path: Path):
    """Else it is run again, and leaves what it left before."""
    shutil.copytree(finished, tmp_path / "copy")
    out, asked = (
        tmp_path / "copy" / "out",
        ("run", tmp_path / "copy" / "small.yaml", "--out", tmp_path / "copy" / "out"),
    )
    before = {name: data for name, data in files_below(out).items() if name.endswith((".tar", ".npz", ".safetensors"))}
    pattern, damage = DAMAGE[what]
    damage(sorted(out.glob(pattern))[0])
    stage = pattern.partition("/")[0]
    states = names(zipbatch(*asked, "--dry-run"))
    assert [state for label, state in states.items() if label.startswith(stage)] == ["not finished"]
    ran = zipbatch(*asked, "--device", "cpu", "--json")
    assert (ran.code, ran.json["ran"]) == (0, 1), ran.err
    after = files_below(out)
    assert {name: after[name] for name in before} == before
    assert set(names(zipbatch(*asked, "--dry-run")).values()) == {"done"}


def test_a_purified_stage_lacks_a_quarantine_shard(run, tmp_path: Path):
    good = sample("b", 1, seed=1)
    write_shard(tmp_path / "in" / "day-0.tar", [Sample("a", {**good.members, "png": good.members["png"][:60]}), good])
    pipeline = {
        "stages": {"pur": {"run": "purify", "data": str(tmp_path / "in"), "purifier": "blur", "quarantine": True}}
    }
    assert run(pipeline).code == 0
    (aside,) = (tmp_path / "out" / "pur" / "objects").glob("??/*.quarantine.tar")
    kept = aside.read_bytes()
    aside.unlink()
    assert names(run(pipeline, "--dry-run")) == {"pur": "not finished"}
    assert run(pipeline).code == 0
    assert aside.read_bytes() == kept
