"""Help and listings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import sample, write_shard, zipbatch
from zipbatch.config import DEFAULTS


@pytest.mark.parametrize(
    "command",
    [
        "",
        "demo",
        "poison",
        "train",
        "train victim",
        "import",
        "import victim",
        "import dataset",
        "import prior",
        "purify",
        "evaluate",
        "store",
        "store ls",
        "store urls",
        "store import",
        "run",
        "audit",
        "tune",
        "adapt",
        "report",
        "ls",
        "schema",
    ],
)
def test_every_command_has_help(command: str):
    ran = zipbatch(*command.split(), "-h")
    assert ran.code == 0
    assert "Usage: zipbatch" in ran.out
    assert "--help" in ran.out


@pytest.mark.parametrize(
    ("what", "names"),
    [
        (
            "attacks",
            {"badnets", "blended", "wanet", "physicalba", "sig", "ftrojan", "ctrl", "bpp", "batt", "tact", "refool"},
        ),
        ("purifiers", {"zip", "ddnm", "diffpure", "blur", "median", "bitdepth", "jpeg", "shrinkpad"}),
        ("pipelines", {"demo", "cifar10-presets", "cifar10-unseen", "rates"}),
        ("presets", {"paper", "balanced", "blur", "resnet18", "demo"}),
        ("schedules", {"crontab", "zipbatch-purify.service", "slurm-array.sbatch", "kuberay-rayjob.yaml"}),
        ("datasets", {"cifar10", "gtsrb", "imagenette", "folder", "wds"}),
    ],
)
def test_ls(what: str, names: set[str]):
    assert names <= {row["name"] for row in zipbatch("ls", what, "--json").json[what]}
    assert all(name in zipbatch("ls", what).out for name in names)


def test_ls_attacks_shows_defaults_of_each_profile():
    rows = {row["name"]: row for row in zipbatch("ls", "attacks", "--json").json["attacks"]}
    assert rows["wanet"]["params"] == {
        "standard": {"grid_size": 4, "strength": 0.5},
        "zip-code": {"grid_size": 256, "strength": 0.5},
        "backdoorbench": {"grid_size": 4, "strength": 0.5},
    }
    sig = {"delta": 40.0, "frequency": 6.0}
    assert rows["sig"]["params"] == {"standard": sig, "backdoorbench": sig}
    corner = rows["badnets"]["profiles"]["backdoorbench"]
    assert (corner["target"], corner["poison_rate"]) == (0, 0.1)
    assert {name for name, row in rows.items() if row["clean_label"]} == {"sig", "ctrl", "label-consistent"}
    assert {name: row["train_transform"] for name, row in rows.items() if row["train_transform"]} == {
        "physicalba": "physicalba",
        "batt": "batt",
    }
    assert "clean label true" in " ".join(zipbatch("ls", "attacks").out.split())


def test_poison_offers_every_profile():
    from zipbatch.attacks import PROFILES
    from zipbatch.cli.poison import poison

    choice = next(option for option in poison.params if option.name == "profile").type
    assert list(choice.choices) == list(PROFILES)


def test_help_imports_no_heavy_library():
    commands = ", ".join(f"zipbatch.cli.{name}" for name in ("main", "purify", "evaluate", "tune", "audit"))
    code = f"import sys, {commands}; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for library in ("torch", "ray", "diffusers", "matplotlib", "webdataset"):
        assert f"'{library}'" not in modules


def test_a_store_is_listed_without_torch(tmp_path: Path):
    shard = write_shard(tmp_path / "in.tar", [sample("a", 0, seed=1)])
    assert zipbatch("purify", shard, "--name", "in", "--preset", "jpeg", "--store", tmp_path / "pur").code == 0
    code = (
        "import sys; from zipbatch.cli.main import cli; from zipbatch.cli.run_context import RunContext\n"
        f"cli.main(['store', 'ls', '--store', {str(tmp_path / 'pur')!r}], standalone_mode=False, obj=RunContext())\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "jpeg" in ran.stdout
    assert ran.stdout.endswith("False\n")


def test_an_unknown_command_is_a_usage_error():
    ran = zipbatch("purifi")
    assert ran.code == 2
    assert "purifi" in ran.err


def test_every_preset_says_what_it_is_and_one_of_each_group_is_the_default():
    rows = zipbatch("ls", "presets", "--json").json["presets"]
    assert all(row["description"] for row in rows)
    defaults = [(row["group"], row["name"]) for row in rows if row["default"]]
    assert sorted(defaults) == sorted(DEFAULTS.items())
    text = " ".join(zipbatch("ls", "presets").out.split())
    assert all(row["description"] in text for row in rows)
    assert all(f"{name} (default)" in text for _, name in defaults)


@pytest.mark.parametrize("what", ["attacks", "datasets", "purifiers", "presets", "pipelines", "schedules"])
def test_listings_are_for_people(what: str):
    out = zipbatch("ls", what).out
    assert not re.search(r"[{\[]'|': |\bNone\b|\bTrue\b|\bFalse\b", out)
    assert [line for line in out.splitlines() if len(line) > 80 and "/" not in line] == []


@pytest.mark.parametrize("group", [(), ("store",)], ids=" ".join)
def test_a_list_of_commands_says_of_each_what_it_is_for(group: tuple[str, ...]):
    said = zipbatch(*group, "--help").out.partition("Commands:\n")[2].splitlines()
    assert len(said) > 5
    for line in said:
        name, _, about = line.strip().partition(" ")
        assert about.strip().endswith((".", "?")), "cut, or gone on below"
        assert not about.strip().endswith("..."), "cut"
        assert zipbatch(*group, name, "--help").code == 0


def test_help_imports_no_command():
    code = "import sys; from zipbatch.cli.main import cli; cli.main(['--help'], standalone_mode=False)\n"
    asked = "print([name for name in ('pydantic', 'yaml', 'numpy', 'torch', 'rich') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code + asked], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
