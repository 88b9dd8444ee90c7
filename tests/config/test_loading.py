"""Configs are plain data, checked whole; every mistake is named at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from zipbatch.config import (
    VictimConfig,
    find_config,
    list_configs,
    load_config,
    parse_scalar,
    read_config,
    read_description,
    validate,
)
from zipbatch.errors import UsageError
from zipbatch.purifiers import PURIFIERS
from zipbatch.stages.purify.choose import chosen_purifier
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.victims import build_victim


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_fields_of_the_file_and_defaults_of_the_rest(tmp_path: Path):
    path = write(tmp_path, "arch: resnet34\nlr: 0.05\nmean: [0.1, 0.2, 0.3]\n")
    config = load_config(path, VictimConfig)
    assert (config.arch, config.lr, config.mean, config.batch_size) == ("resnet34", 0.05, (0.1, 0.2, 0.3), 128)


def test_overrides_win_and_none_does_not(tmp_path: Path):
    path = write(tmp_path, "arch: resnet34\nepochs: 7\n")
    config = load_config(path, VictimConfig, {"epochs": 2, "arch": None, "seed": 0})
    assert (config.arch, config.epochs) == ("resnet34", 2)


def test_every_mistake_is_named_at_once(tmp_path: Path):
    path = write(tmp_path, "arch: 18\nepochs: many\nlr: -1\nmomentum: .nan\nwarm_up: 0.1\nbatch_size: 1\nstd: [1, 2]\n")
    with pytest.raises(UsageError) as caught:
        load_config(path, VictimConfig)
    first, *lines = str(caught.value).splitlines()
    assert caught.value.exit_code == 2
    assert first.startswith(f"{path}: ")
    assert all(field in first for field in VictimConfig.model_fields)
    assert len(lines) == 7
    by_field = {line.split(" = ")[0].strip(): line for line in lines}
    expected = {
        "arch": "18: Input should be a valid string",
        "epochs": "'many': Input should be a valid integer",
        "lr": "-1: Input should be greater than 0",
        "momentum": "nan: Input should be",
        "warm_up": "0.1: Extra inputs are not permitted",
        "batch_size": "1: Input should be greater than or equal to 2",
        "std.2": "[1, 2]: Field required",
    }
    assert set(by_field) == set(expected)
    for field, text in expected.items():
        assert f" = {text}" in by_field[field]


def test_wrong_overrides_are_named_too(tmp_path: Path):
    with pytest.raises(UsageError, match="epochs = 0: Input should be greater than or equal to 1"):
        load_config(write(tmp_path, "arch: resnet18\n"), VictimConfig, {"epochs": 0})


@pytest.mark.parametrize(
    "transform", ["sharpen", "blur", "blur:0", "blur:-1", "blur:1.5", "blur:02", "blur:123456", "gray ", "blur:2\n"]
)
def test_wrong_transforms(transform: str):
    settings = PURIFIERS["zip"].settings_type
    with pytest.raises(UsageError, match=r"transforms\.1 = .*'gray' or 'blur:N'") as caught:
        validate(settings, {"transforms": ["gray", transform]}, where="flags")
    assert repr(transform) in str(caught.value)


def test_settings_do_not_change():
    config = VictimConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "!!python/object/new:os.system ['touch {marker}']",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/tuple [1, 2]",
        "!Custom {{a: 1}}",
    ],
)
def test_tags_that_would_run_code_are_refused(tmp_path: Path, value: str):
    marker = tmp_path / "ran"
    path = write(tmp_path, f"epochs: {value.format(marker=marker)}\n")
    with pytest.raises(UsageError, match="not readable as YAML: could not determine a constructor"):
        load_config(path, VictimConfig)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a mapping of fields, is NoneType"),
        (b"- epochs\n", "must be a mapping of fields, is list"),
        (b"resnet18", "must be a mapping of fields, is str"),
        (b"epochs: [1\n", "not readable as YAML"),
        (b"epochs: 1\n  lr: 2\n", "not readable as YAML"),
        (b"arch: \xff\xfe\n", "not readable as YAML"),
        (b"arch: a\0b\n", "not readable as YAML"),
        (b"epochs: 1\n---\nepochs: 2\n", "not readable as YAML"),
        (b"[" * 200_000, "over 20 levels"),
        (b"- " * 100_000, "not readable as YAML"),
        (b"#" * 256_001, "over 256000 bytes"),
    ],
    ids=["empty", "list", "text", "open", "indent", "bytes", "nul", "documents", "brackets", "dashes", "long"],
)
def test_what_is_no_config(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_files_that_cannot_be_read(tmp_path: Path, name: str):
    with pytest.raises(UsageError, match="not readable"):
        read_config(tmp_path / name)


@pytest.mark.parametrize("key", ["1", "true", "null", "2020-01-01"])
def test_fields_that_are_not_text(tmp_path: Path, key: str):
    with pytest.raises(UsageError, match=r"unfit settings|no text"):
        load_config(write(tmp_path, f"{key}: 1\n"), VictimConfig)


def test_presets_by_name():
    assert find_config("purifiers", "paper").name == "paper.yaml"
    assert find_config("victims", "resnet34-paper").parent.name == "victims"
    assert find_config("pipelines", "demo").parent.name == "pipelines"
    assert list_configs("purifiers") == sorted(list_configs("purifiers"))
    assert {"paper", "blur", "balanced"} <= set(list_configs("purifiers"))


@pytest.mark.parametrize("group", ["purifiers", "victims", "pipelines"])
@pytest.mark.parametrize("name", ["nope", "", "../victims/resnet18", "*", "paper.yaml "])
def test_unknown_preset_lists_the_known(group: str, name: str):
    with pytest.raises(UsageError) as caught:
        find_config(group, name)
    assert str(caught.value) == f"no preset {name!r} in {group}; there are: {', '.join(list_configs(group))}"
    assert list_configs(group)


def test_unknown_group_has_no_presets():
    assert list_configs("nothing") == []
    with pytest.raises(UsageError, match="there are: none"):
        find_config("nothing", "x")


def test_own_files_by_path(tmp_path: Path):
    path = write(tmp_path, "method: blur\n")
    assert find_config("purifiers", str(path)) == path
    with pytest.raises(UsageError, match=f"{os.fspath(tmp_path)}/other.yml: no such file"):
        find_config("purifiers", str(tmp_path / "other.yml"))


@pytest.mark.parametrize("name", list_configs("purifiers"))
def test_purifier_presets_load(name: str):
    path = find_config("purifiers", name)
    values = read_config(path)
    purifier = PURIFIERS[str(values.pop("method"))]
    settings = validate(purifier.settings_type, values, where=str(path))
    assert set(values) <= set(settings.model_fields_set)


def test_paper_preset_is_the_published_method():
    values = read_config(find_config("purifiers", "paper"))
    assert values == {
        "method": "zip",
        "transforms": ["blur:2", "gray"],
        "guidance_exponent": 1,
        "steps": 20,
        "eta": 1,
        "start_step": None,
    }


@pytest.mark.parametrize("name", list_configs("victims"))
def test_victim_presets_load(name: str):
    config = load_config(find_config("victims", name), VictimConfig)
    build_victim(config.arch, num_classes=2, mean=config.mean, std=config.std)


@pytest.mark.parametrize("text", ["epochs: 2020-13-45", "epochs: !!int abc", "epochs: !!timestamp x", "epochs: 0b_"])
def test_values_that_yaml_itself_chokes_on(tmp_path: Path, text: str):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError, match="not readable as YAML"):
        load_config(tmp_path / "c.yaml", VictimConfig)


def test_an_alias_bomb_gives_a_short_message(tmp_path: Path):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (tmp_path / "c.yaml").write_text("\n".join(["a0: &a0 [x]", *levels, "epochs: *a8"]))
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path / "c.yaml", VictimConfig)
    assert len(str(caught.value)) < 20_000


MERGES = "a: &a {k: 1}\n" + "".join(
    f"b{i}: &{'bcdefghijk'[i]} {{<<: [{','.join(['*' + 'abcdefghij'[i]] * 9)}]}}\n" for i in range(10)
)
ALIASES = "a: &a [1, 1]\n" + "".join(
    f"b{i}: &{'bcdefghijk'[i]} [{','.join(['*' + 'abcdefghij'[i]] * 9)}]\n" for i in range(10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MERGES, "10000 values"),
        (ALIASES, "10000 values"),
        ("a: &a [*a]\n", "20 levels"),
        ("a: &a {b: *a}\n", "20 levels"),
        ("[" * 25 + "]" * 25, "20 levels"),
        ("a: 1" + ":1" * 40_000, "line 1: a number of 80001 characters"),
        ("b: 2\na: 1" + ":1" * 400 + ".5", "line 2: a number of"),
        ("a: 0x" + "f" * 100_000, "a number of 100002 characters"),
        *((f"a: {text}", "not readable as YAML") for text in ("!!bool x", "!!int ''", "!!float ''", "!!timestamp x")),
    ],
    ids=["merges", "aliases", "loop", "loop of maps", "deep", "base 60", "base 60 point", "hex", *"1234"],
)
def test_small_files_that_are_vast_inside(tmp_path: Path, text: str, message: str):
    """A value that YAML would take minutes, or all the memory, to work out; or a tag that its value does not fit."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 1000


def test_anchors_and_merges_in_good_faith(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("a: &a {k: 1, l: [1, 2]}\nb: {<<: *a, k: 2}\nc: *a\n")
    read = read_config(tmp_path / "config.yaml")
    assert read == {"a": {"k": 1, "l": [1, 2]}, "b": {"k": 2, "l": [1, 2]}, "c": {"k": 1, "l": [1, 2]}}


@pytest.mark.parametrize("text", ["!!bool x", "!!int ''", "1" + ":1" * 400, "0x" + "f" * 5000, "&a [*a]"])
def test_scalars_of_bad_faith(text: str):
    with pytest.raises(UsageError):
        parse_scalar(text)


@pytest.mark.parametrize("description", ["", "what it is for", "two\nlines: and 'marks'"])
@pytest.mark.parametrize("name", list_configs("purifiers"))
def test_a_description_is_told_and_decides_nothing(tmp_path: Path, name: str, description: str):
    values = read_config(find_config("purifiers", name))
    path = write(tmp_path, yaml.safe_dump({"description": description, **values}))
    assert read_config(path) == values
    assert read_description(path) == " ".join(description.split())
    assert chosen_purifier(PurifierRequest(preset=str(path))) == chosen_purifier(PurifierRequest(preset=name))
    assert read_description(find_config("purifiers", name))
