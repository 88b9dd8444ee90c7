"""``seeds`` of a pipeline: what is run once a seed and what once, the rows of each seed, and the table over them."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.making import Ran, write_victim, zipbatch

STAGES: dict[str, dict[str, Any]] = {
    "shards": {"run": "poison", "source": "${source}", "attack": "badnets", "seed": 1234, "samples_per_shard": 6},
    "pur": {"run": "purify", "data": "${shards}", "purifier": "${defence}"},
    "table": {"run": "evaluate", "per": [], "victim": "${victim}", "data": "${shards}", "purified": "${pur}"},
}
PIPELINE: dict[str, Any] = {
    "vars": {"source": None, "victim": None},
    "matrix": {"defence": ["jpeg", "shrinkpad"]},
    "seeds": [3, 5],
    "stages": STAGES,
}
TRAINED = {"run": "train victim", "data": "${shards}", "preset": "resnet20-embedded", "set": {"epochs": 1}}


def changed(**stages: dict[str, Any] | None) -> dict[str, Any]:
    """The pipeline with other fields of stages (None: without one), or more of them."""
    copy = json.loads(json.dumps(PIPELINE))
    for name, fields in stages.items():
        copy["stages"][name] = copy["stages"].get(name, {}) | (fields or {})
        copy["stages"][name] = {key: value for key, value in copy["stages"][name].items() if value is not None}
    return copy


@pytest.fixture
def run(tmp_path: Path, source: Path, victim: Path):
    def start(pipeline: dict[str, Any], *options: object) -> Ran:
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump(pipeline))
        paths = {"source": source, "victim": victim}
        given = [f"--var={name}={paths[name]}" for name in pipeline["vars"]]
        return zipbatch("run", file, "--out", tmp_path / "out", "--device", "cpu", *given, *options)

    return start


def labels(ran: Ran) -> list[str]:
    assert ran.code == 0, ran.err
    return [line[5:50].strip() for line in ran.out.splitlines()]


def test_only_what_depends_on_the_seed_is_run_once_a_seed(run):
    assert labels(run(PIPELINE, "--dry-run")) == [
        "shards",
        "pur[jpeg]",
        "pur[shrinkpad, 3]",
        "pur[shrinkpad, 5]",
        "table[3]",
        "table[5]",
    ]
    apart = changed(table={"per": None})
    assert labels(run(apart, "--dry-run"))[4:] == ["table[jpeg]", "table[shrinkpad, 3]", "table[shrinkpad, 5]"]


@pytest.mark.parametrize("per", [[], None])
def test_rows_of_each_seed_and_their_mean_and_spread(run, tmp_path: Path, per: list[str] | None):
    pipeline = changed(table={"per": per})
    ran = run(pipeline, "--json", "--csv", tmp_path / "t.csv")
    assert ran.code == 0, ran.err
    rows, over = ran.json["rows"], ran.json["over_seeds"]
    assert [tuple(row["axes"].values()) for row in rows] == [
        (None, None),
        ("jpeg", None),
        ("shrinkpad", "3"),
        ("shrinkpad", "5"),
    ]
    none, jpeg, shrinkpad = over
    assert [row["axes"] for row in over] == [{"defence": None}, {"defence": "jpeg"}, {"defence": "shrinkpad"}]
    for row, single in ((none, rows[0]), (jpeg, rows[1])):
        assert (row["seeds"], row["n_seeds"], row["ca"], row["ca_ci95"]) == ([], 0, single["ca"], single["ca_ci95"])
    assert (shrinkpad["seeds"], shrinkpad["n_seeds"], shrinkpad["n_ca"]) == ([3, 5], 2, 12)
    for name in ("ca", "asr", "fpr", "pa", "ra", "der", "flip_rate", "psnr_poisoned_db", "ssim_clean"):
        pair = [row[name] for row in rows[2:]]
        assert shrinkpad[name] == pytest.approx(sum(pair) / 2)
        assert shrinkpad[f"{name}_sd"] == pytest.approx(abs(pair[0] - pair[1]) / 2**0.5), "n - 1"
    assert rows[2]["psnr_poisoned_db"] != rows[3]["psnr_poisoned_db"], "the seeds do differ"
    assert (shrinkpad["purified"], shrinkpad["victim"]) == (None, rows[0]["victim"])
    assert sum(shrinkpad["findings"].values()) == 2
    assert (shrinkpad["seeds_of"], jpeg["seeds_of"]) == (["pur"], [])
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (kept["rows"], kept["over_seeds"]) == (rows, over)

    with (tmp_path / "t.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["row"], line["defence"], line["seed"], line["n_seeds"], line["seeds"]) for line in lines] == [
        ("single", "", "", "", ""),
        ("single", "jpeg", "", "", ""),
        ("single", "shrinkpad", "3", "", ""),
        ("single", "shrinkpad", "5", "", ""),
        ("mean", "", "", "0", ""),
        ("mean", "jpeg", "", "0", ""),
        ("mean", "shrinkpad", "", "2", "3 5"),
    ]
    assert [line["psnr_clean_db_sd"] for line in lines] == [""] * 6 + [str(shrinkpad["psnr_clean_db_sd"])]

    again = run(pipeline)
    assert (again.code, "0 stages run" in again.out) == (0, True)
    table = again.out.splitlines()
    assert table[0].split()[:3] == ["defence", "seeds", "CA"]
    assert [line.split()[:2] for line in table[2:4]] == [["jpeg", "–"], ["shrinkpad", "2"]]
    assert "±" not in "".join(table[1:3])
    assert "mean ± standard deviation (n - 1) over the seeds 3, 5 of pur" in table


def test_without_seeds_nothing_is_told_of_them_and_stages_keep_their_names(run, tmp_path: Path):
    """What does not depend on the seed has the same name with seeds, so nothing of it is made again."""
    plain = {key: value for key, value in PIPELINE.items() if key != "seeds"}
    ran = run(plain, "--json", "--csv", tmp_path / "t.csv")
    assert ran.code == 0, ran.err
    assert "over_seeds" not in ran.json
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"rows", "failed"}
    assert all(set(row["axes"]) == {"defence"} for row in ran.json["rows"])
    header = (tmp_path / "t.csv").read_text().splitlines()[0].split(",")
    assert not {"row", "seed", "seeds", "n_seeds", "ca_sd"} & set(header)
    states = {line[5:50].strip(): line[:4] for line in run(PIPELINE, "--dry-run").out.splitlines()}
    assert [label for label, state in states.items() if state == "skip"] == ["shards", "pur[jpeg]"]


def test_seeds_train_victims_and_stage_triggers_of_their_own(run):
    """Everything from the poison on; the rows without a defence have a spread, too, and a victim's name without a
    seed.
    """
    pipeline = changed(shards={"seed": None}, trained=TRAINED, table={"victim": "${trained}"})
    pipeline["vars"] = {"source": None}
    pipeline["matrix"] = {"defence": ["jpeg"]}
    ran = run(pipeline, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["ran"] == 8
    assert [tuple(row["axes"].values()) for row in ran.json["rows"]] == [
        (None, "3"), ("jpeg", "3"), (None, "5"), ("jpeg", "5")
    ]  # fmt: skip
    assert [row["n_seeds"] for row in ran.json["over_seeds"]] == [2, 2]
    assert {row["victim"] for row in ran.json["over_seeds"]} == {"trained"}
    assert {row["victim_stage"] for row in ran.json["over_seeds"]} == {"trained"}
    assert {row["data"] for row in ran.json["over_seeds"]} == {"shards"}
    assert ran.json["over_seeds"][0]["seeds_of"] == ["shards", "trained"], (
        "pur takes one, too, but jpeg has no use for it"
    )
    seeds = {
        json.loads((Path(row["victim"]) / "manifest.json").read_text())["training"]["seed"] for row in ran.json["rows"]
    }
    assert seeds == {3, 5}


def test_a_stage_keeps_a_seed_of_its_own_wherever_it_says_it(run):
    own = changed(shards={"seed": 7}, trained=TRAINED | {"set": {"epochs": 1, "seed": 9}}, pur={"seed": 1})
    own["stages"]["table"]["victim"] = "${trained}"
    own["stages"]["other"] = {"run": "purify", "data": "${shards}", "purifier": "shrinkpad"}
    own["vars"] = {"source": None}
    assert sorted(labels(run(own, "--dry-run"))) == [
        *("other[3]", "other[5]", "pur[jpeg]", "pur[shrinkpad]", "shards", "table", "trained")
    ]
    own["matrix"]["case"] = {"a": {"epochs": 1, "seed": 9}}
    own["stages"]["trained"]["set"] = {"epochs": "${case.epochs}", "seed": "${case.seed}"}
    assert "trained[a]" in labels(run(own, "--dry-run"))
    del own["stages"]["trained"]["set"]["seed"]
    assert "trained[a, 3]" in labels(run(own, "--dry-run"))


def test_settings_that_a_reference_stands_for_may_say_a_seed(run):
    """Then all seeds are the same case; where it says none, each is one of its own."""
    pipeline = changed(trained=TRAINED | {"set": "${case.set}"}, table={"victim": "${trained}"})
    pipeline["vars"] = {"source": None}
    pipeline["matrix"]["case"] = {"own": {"set": {"seed": 9}}, "none": {"set": {"epochs": 2}}}
    found = [label for label in labels(run(pipeline, "--dry-run")) if label.startswith("trained")]
    assert sorted(found) == ["trained[none, 3]", "trained[none, 5]", "trained[own]"]


def test_seeds_may_be_referred_to_and_given_on_the_command_line(run, tmp_path: Path):
    for seed in range(2):
        write_victim(tmp_path / f"victim-{seed}", seed=seed)
    pipeline = changed(table={"victim": f"{tmp_path}/victim-${{seed}}"})
    del pipeline["seeds"]
    pipeline["vars"] = {"source": None}
    pipeline["matrix"] = {"defence": ["jpeg"]}
    ran = run(pipeline, "--seeds", 2, "--json")
    assert ran.code == 0, ran.err
    assert [tuple(row["axes"].values()) for row in ran.json["rows"]] == [
        (None, "0"), ("jpeg", "0"), (None, "1"), ("jpeg", "1")
    ]  # fmt: skip
    assert [row["seeds"] for row in ran.json["over_seeds"]] == [[0, 1], [0, 1]]
    assert all(row["ca_sd"] is not None for row in ran.json["over_seeds"])


def test_a_seed_that_failed_is_missing_in_its_mean_and_told(run, monkeypatch: pytest.MonkeyPatch):
    from zipbatch.stages.purify import adapter

    real = adapter.plan_purify

    def fails_once(request: Any) -> Any:
        if request.spec.asked.seed == 5:
            raise RuntimeError("no")
        return real(request)

    monkeypatch.setattr(adapter, "plan_purify", fails_once)
    ran = run(PIPELINE, "--json")
    assert ran.code == 1
    assert set(ran.json["failed"]) == {"pur[shrinkpad, 5]", "table[5]"}
    shrinkpad = ran.json["over_seeds"][2]
    assert (shrinkpad["seeds"], shrinkpad["ca_sd"]) == ([3], None)
    assert ran.json["over_seeds"][1]["seeds"] == [], "jpeg depends on no seed, whichever is there"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shards": {"seed": None}}, "the victim .* knows one trigger, but shards is staged with each of the seeds"),
        ({"pur": {"seed": 0}}, "seeds: no stage comes out otherwise with another seed; leave seeds out"),
        ({"table": {"per": ["sed"]}}, "per = \\['sed'\\]: a list out of defence, seed"),
        ({"pur": {"seed": "${seeds}"}}, "nothing is named 'seeds' here; there are: .*seed"),
    ],
)
def test_seeds_that_do_not_fit_the_stages(run, change: dict[str, Any], words: str, tmp_path: Path):
    import re

    ran = run(changed(**change))
    assert ran.code == 2
    assert re.search(words, ran.err), ran.err
    assert not (tmp_path / "out").exists()


def test_a_victim_of_other_lessons_does_not_know_the_triggers_of_seeds(run):
    pipeline = changed(shards={"seed": None}, trained=TRAINED | {"data": "${lessons}"}, table={"victim": "${trained}"})
    pipeline["stages"]["lessons"] = STAGES["shards"]
    pipeline["vars"] = {"source": None}
    assert "the victim trained knows one trigger" in run(pipeline, "--dry-run").err
    del pipeline["stages"]["lessons"]["seed"]
    assert "trained[3]" in labels(run(pipeline, "--dry-run"))


def test_the_spread_is_that_of_a_sample():
    from tests.results.making import pipeline_row
    from zipbatch.pipeline.rows import CombinedRow
    from zipbatch.pipeline.seed_statistics import rows_over_seeds
    from zipbatch.results import SeedRow

    def row(seed: int, **values: Any) -> CombinedRow:
        return CombinedRow(pipeline_row(axes={"seed": str(seed)}, **values), ("t", 0), {})

    rows = [row(0, ca=0.5, n_ca=9, der=0.5), row(1, ca=1.0, n_ca=8, der=None), row(2, ca=0.6, n_ca=9, der=0.5)]
    (over,) = rows_over_seeds(rows, stages=[])
    assert isinstance(over, SeedRow)
    assert over.ca == pytest.approx(0.7)
    assert over.ca_sd == pytest.approx(statistics.stdev([0.5, 1.0, 0.6]))
    assert (over.n_ca, over.n_seeds) == (8, 3)
    assert (over.der, over.der_sd) == (None, None), "not of all seeds"
