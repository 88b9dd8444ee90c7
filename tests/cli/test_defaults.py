"""Defaults of a user hold in every command that has the flag: a flag wins over the environment, that over the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import sample, write_shard, zipbatch


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ZIPBATCH_STORE", "ZIPBATCH_PRIOR", "ZIPBATCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return write_shard(tmp_path / "in.tar", [sample(f"k{n}", n % 3, seed=n, size=32) for n in range(4)])


def test_flag_environment_file(shard: Path, monkeypatch: pytest.MonkeyPatch):
    arguments = ("purify", shard, "--name", "in", "--dry-run", "--json")
    assert zipbatch(*arguments, "--preset", "jpeg").code == 2, "nobody says where the store is"
    Path("zipbatch.toml").write_text('store = "by-file"\n[commands.purify]\npreset = "jpeg"\nbatch-size = 5\n')
    ran = zipbatch(*arguments)
    assert ran.code == 0, ran.err
    assert (Path(ran.json["store"]).name, ran.json["batch_size"]) == ("by-file", 5)
    assert ran.json["purifier"]["method"] == "jpeg"
    monkeypatch.setenv("ZIPBATCH_STORE", "by-environment")
    assert Path(zipbatch(*arguments).json["store"]).name == "by-environment"
    assert Path(zipbatch(*arguments, "--store", "by-flag", "--batch-size", 7).json["store"]).name == "by-flag"
    assert zipbatch(*arguments, "--store", "by-flag", "--batch-size", 7).json["batch_size"] == 7


def test_commands_of_the_store_have_it_too(shard: Path):
    Path("zipbatch.toml").write_text('store = "pur"\n[commands."store gc"]\ngrace = "0s"\n')
    assert zipbatch("purify", shard, "--name", "in", "--preset", "jpeg").code == 0
    assert "in" in zipbatch("store", "ls").out
    assert zipbatch("store", "verify").code == 0
    assert zipbatch("store", "gc", "--json").json["kept_versions"] == 1


def test_a_prior_that_is_always_there_is_no_harm(shard: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZIPBATCH_PRIOR", "embedded")
    monkeypatch.setenv("ZIPBATCH_STORE", "pur")
    assert zipbatch("purify", shard, "--name", "in", "--preset", "jpeg").code == 0
    assert zipbatch("purify", shard, "--name", "in", "--preset", "fast", "--dry-run").code == 0
    assert zipbatch("evaluate", "embedded:badnets", "--data", shard).code == 0
    assert zipbatch("evaluate", "embedded:badnets", "--data", shard, "--purified", "in").code == 0


def test_an_audit_and_a_training_take_the_store_beside_a_version_alone(shard: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZIPBATCH_PRIOR", "embedded")
    monkeypatch.setenv("ZIPBATCH_STORE", "pur")
    assert zipbatch("purify", shard, "--name", "in", "--preset", "jpeg").code == 0
    audited = zipbatch("audit", "embedded:badnets", "--data", shard, "--purified", "in", "--json")
    assert audited.code == 4, audited.err  # too few images, but both are found, and the prior is no contradiction
    assert zipbatch("audit", "embedded:badnets", "--data", shard, "--preset", "fast", "--json").code == 4
    trained = zipbatch("train", "victim", shard, "--out", "v", "--purified", "in@latest", "--epochs", 1)
    assert "holds none of the splits" in trained.err, trained.err  # the version was found
    assert "--store" not in zipbatch("train", "victim", shard, "--out", "v", "--epochs", 1).err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[commands.purify]\nstroe = 'x'", "[commands.purify] stroe: no such option of 'zipbatch purify'"),
        ("[commands.purfy]\nstore = 'x'", "[commands.purfy]: no such command"),
        (
            "[commands.poison]\nattack = 'python:mine.py:stamp'",
            "functions of yours are named on the command line alone",
        ),
        ("[commands.purify]\nbatch-size = 'many'", "Invalid value for '--batch-size'"),
    ],
)
def test_what_a_file_says_wrong_is_told(shard: Path, text: str, told: str):
    Path("zipbatch.toml").write_text(text + "\n")
    command = "poison" if "poison" in text else "purify"
    ran = (
        zipbatch(command, shard, "--preset", "jpeg", "--store", "pur")
        if command == "purify"
        else zipbatch("poison", "x")
    )
    assert ran.code == 2
    assert told in ran.err


def test_config_says_where_each_comes_from(shard: Path, monkeypatch: pytest.MonkeyPatch):
    assert "store: not set; set ZIPBATCH_STORE" in zipbatch("config").out
    Path("zipbatch.toml").write_text('prior = "embedded"\n[commands.purify]\npreset = "jpeg"\n')
    monkeypatch.setenv("ZIPBATCH_STORE", "pur")
    file = str(Path("zipbatch.toml").absolute())
    assert zipbatch("config", "--json").json == {
        "file": file,
        "defaults": [
            {"setting": "store", "value": "pur", "source": "ZIPBATCH_STORE"},
            {"setting": "prior", "value": "embedded", "source": file},
            {"setting": "purify --preset", "value": "jpeg", "source": file},
        ],
    }
    assert f"prior = embedded   ({file})" in zipbatch("config").out


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["purfy"], "No such command 'purfy'. Did you mean 'purify'?"),
        (["store", "verfy"], "No such command 'verfy'. Did you mean 'verify'?"),
        (["train", "victims"], "No such command 'victims'"),
        (["xyzzy"], "No such command 'xyzzy'.\n"),
        (["purify", "--stroe", "x"], "'--store'"),
    ],
)
def test_mistyped_commands_and_flags_get_a_suggestion(typed: list[str], told: str):
    ran = zipbatch(*typed)
    assert ran.code == 2
    assert told in ran.err
