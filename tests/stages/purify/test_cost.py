"""Network calls and seconds an image: measured when shards are made, told beside their measures, never guessed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.making import purifier_spec, zipbatch
from zipbatch.results import NO_COST, dump
from zipbatch.stages.purify.busy import Busy, SharedClock
from zipbatch.store.seal import sealed

NOTHING = dump(NO_COST)
NEW = ("calls", "busy_s", "made")
ZIP = ("--purifier", "zip", "--set", "steps=4", "--set", "start_step=600")


def purified(staged: Path, store: Path, *flags: object) -> None:
    ran = zipbatch("purify", staged, "--store", store, "--device", "cpu", *flags)
    assert ran.code == 0, ran.err


def measured(victim: Path, staged: Path, store: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The costs of the rows without and with the version."""
    ran = zipbatch("evaluate", victim, "--data", staged, "--purified", staged.name, "--store", store, "--json")
    assert ran.code == 0, ran.err
    none, row = ran.json["rows"]
    return tuple({name: each[name] for name in NOTHING} for each in (none, row))  # type: ignore[return-value]


def change_records(store: Path, change: Callable[[dict[str, Any]], object], *, count: int = 99) -> None:
    for file in sorted((store / "tasks").rglob("*.json"))[:count]:
        record = json.loads(file.read_text())
        del record["seal"]
        change(record)
        file.write_text(json.dumps(sealed(record)))


def test_calls_and_seconds_stand_beside_the_measures(staged: Path, prior: Path, victim: Path, tmp_path: Path):
    began = time.process_time()
    purified(staged, tmp_path, *ZIP, "--prior", prior)
    worked = time.process_time() - began
    none, row = measured(victim, staged, tmp_path)
    assert none == NOTHING
    assert (row["calls_least"], row["calls_most"]) == (3, 3)
    assert 0 < row["seconds_per_image"] * 24 < worked
    assert row["seconds_on"].startswith("cpu of ")
    assert row["purified_first"] <= row["purified_last"]
    assert row["purified_first"].endswith("Z")
    asked = ("evaluate", victim, "--data", staged, "--purified", staged.name, "--store", tmp_path, "--wide")
    table = zipbatch(*asked).out.splitlines()
    assert table[0].split()[-2:] == ["calls", "s/image"]
    assert [line.split()[-2] for line in table[1:3]] == ["–", "3"]
    assert any(line.startswith("s/image: of one CPU core or GPU") for line in table)


@pytest.mark.parametrize(
    ("given", "calls"),
    [
        ({"method": "jpeg"}, (0, 0)),
        ({"preset": "paper"}, (20, 20)),
        ({"preset": "fast"}, (2, 2)),
        ({"preset": "balanced"}, (5, 7)),
        ({"preset": "repaint"}, (3, 5)),
        ({"preset": "fast", "assigned": {"zip.draws": 3}}, (6, 6)),
    ],
)
def test_a_purifier_knows_its_calls(given: dict[str, Any], calls: tuple[int, int], prior: Path):
    """As the table of presets in docs/settings.md has them."""
    assert purifier_spec(**given, prior=prior).calls == calls


def test_records_that_are_older_are_read_reused_and_tell_no_seconds(
    staged: Path, prior: Path, victim: Path, tmp_path: Path
):
    asked = ("purify", staged, "--store", tmp_path, *ZIP, "--prior", prior, "--json")
    first = zipbatch(*asked).json
    change_records(tmp_path, lambda record: [record.pop(name) for name in NEW])
    again = zipbatch(*asked).json
    assert (again["computed"], again["version"]) == (0, first["version"])
    assert measured(victim, staged, tmp_path)[1] == NOTHING
    assert zipbatch("store", "verify", "--store", tmp_path).code == 0


def test_without_a_prior_there_are_no_calls_however_old_the_record(staged: Path, victim: Path, tmp_path: Path):
    purified(staged, tmp_path, "--purifier", "jpeg")
    change_records(tmp_path, lambda record: [record.pop(name) for name in NEW])
    assert measured(victim, staged, tmp_path)[1] == NOTHING | {"calls_least": 0, "calls_most": 0}


def of_another_machine(record: dict[str, Any]) -> None:
    record["worker"]["host"] = "elsewhere"


def of_another_object(record: dict[str, Any]) -> None:
    record["output_sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "on"),
    [(of_another_machine, "several: cpu of "), (lambda record: record.pop("busy_s"), None), (of_another_object, None)],
)
def test_seconds_of_several_machines_or_of_some_shards_alone_are_not_told(
    staged: Path, victim: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], on: str | None
):
    purified(staged, tmp_path, "--purifier", "jpeg")
    assert measured(victim, staged, tmp_path)[1]["seconds_per_image"] is not None
    change_records(tmp_path, change, count=1)
    row = measured(victim, staged, tmp_path)[1]
    assert row["seconds_per_image"] is None
    assert (row["seconds_on"] or "").startswith(on or "")
    assert (row["seconds_on"] is None) == (on is None)


def test_gpus_of_a_kind_are_one_machine(staged: Path, victim: Path, tmp_path: Path):
    purified(staged, tmp_path, "--purifier", "jpeg")
    change_records(tmp_path, lambda record: record.update(device="NVIDIA H100", busy_s=2.0))
    change_records(tmp_path, of_another_machine, count=1)
    row = measured(victim, staged, tmp_path)[1]
    assert (row["seconds_on"], row["seconds_per_image"]) == ("NVIDIA H100", 0.5)  # 6 shards of 4 images


def test_images_that_another_tool_purified_tell_nothing(staged: Path, victim: Path, tmp_path: Path):
    purified(staged, tmp_path / "a", "--purifier", "jpeg")
    exported = ("store", "export", staged.name, tmp_path / "out", "--as", "images", "--store", tmp_path / "a")
    assert zipbatch(*exported).code == 0
    imported = zipbatch("store", "import", tmp_path / "out", "--data", staged, "--store", tmp_path / "b")
    assert imported.code == 0, imported.err
    assert measured(victim, staged, tmp_path / "b")[1] == NOTHING


def test_a_pipeline_tells_the_same_also_of_evaluations_that_were_done_before(
    source: Path, victim: Path, prior: Path, tmp_path: Path
):
    file = tmp_path / "p.yaml"
    stages: dict[str, Any] = {
        "s": {"run": "poison", "source": str(source), "attack": "badnets", "splits": ["test"]},
        "p": {"run": "purify", "data": "${s}", "prior": str(prior), "preset": "balanced"},
        "t": {"run": "evaluate", "victim": str(victim), "data": "${s}", "purified": "${p}"},
    }
    file.write_text(yaml.safe_dump({"stages": stages}))
    asked = ("run", file, "--out", tmp_path / "out", "--device", "cpu", "--json", "--csv", tmp_path / "t.csv")
    first = zipbatch(*asked)
    assert first.code == 0, first.err
    assert [row["calls_most"] for row in first.json["rows"]] == [None, 7]
    assert "calls_least,calls_most,seconds_per_image,seconds_on" in (tmp_path / "t.csv").read_text()
    (kept,) = (tmp_path / "out" / "t").glob("*.json")
    rows = json.loads(kept.read_text())["rows"]
    kept.write_text(json.dumps({"rows": [{k: v for k, v in row.items() if k not in NOTHING} for row in rows]}))
    again = zipbatch(*asked).json
    assert (again["ran"], again["rows"]) == (0, first.json["rows"])


def test_the_time_of_a_gpu_is_shared_by_the_batches_that_it_has_in_hand():
    times = iter([0.0, 1.0, 4.0, 6.0, 10.0, 11.0])
    clock = SharedClock(lambda: next(times))
    first = clock.change(1)  # at 0
    second = clock.change(1)  # at 1: two from here on
    assert clock.change(-1) - first == 1.0 + 1.5  # at 4
    assert clock.change(-1) - second == 1.5 + 2.0  # at 6: nobody from here on
    third = clock.change(1)
    assert clock.change(-1) - third == 1.0


def test_what_threads_work_adds_up_and_waiting_is_no_work():
    busy = Busy(torch.device("cpu"))

    def work() -> None:
        with busy.working():
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                pass
            time.sleep(0.3)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.1 <= busy.seconds < 0.25
