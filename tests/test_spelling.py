"""A setting in a message is a reference, which the command line, a pipeline and Python each spell as they have it."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

import zipbatch as api
from tests.making import stage_sample, zipbatch
from zipbatch.api.spelling import keyword
from zipbatch.cli.main import cli
from zipbatch.cli.spelling import REQUESTS, flag, flags_of_request, requests_of
from zipbatch.errors import DataError, UsageError
from zipbatch.logs import LogSettings, configure, settings
from zipbatch.pipeline.spelling import key_of
from zipbatch.spelling import as_read, readers_spell, setting, spelled

PACKAGE = Path(__file__).parent.parent / "zipbatch"
OURS = re.compile(r"zipbatch [^'`]*")
OTHERS = re.compile(r"(?:pip install|ray start|docker run) --[a-z-]+(?:=\w+)?")
FLAG = re.compile(r"(?<![\w-])--(?=[a-z…])")
REFERENCE = re.compile(r"‹([^‹›=\s]+)[^‹›]*›")
PLACEHOLDER = "…"


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string, docstrings too; an f-string is one, with ``…`` for each value."""
    tree = ast.parse(path.read_text())
    within = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else PLACEHOLDER for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
            yield node.lineno, node.value


def texts(*, cli_too: bool) -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        if (cli_too or not where.startswith("cli/")) and where != "spelling.py":
            yield from ((f"{where}:{line}", text) for line, text in texts_of(path))


def flags_in(text: str) -> list[str]:
    """Flags that are not those of a whole command line."""
    return FLAG.findall(OTHERS.sub("", OURS.sub("", text)))


def test_what_counts_as_a_flag():
    assert flags_in("give --resize") and flags_in("--… does not apply") and flags_in("``tune --fit``")
    assert not flags_in("'zipbatch store verify --repair' mends it, pip install --upgrade onnx too; a -- b, x--y")


def test_lower_layers_name_no_flags():
    named = [f"{where}: {text}" for where, text in texts(cli_too=False) if flags_in(text)]
    assert not [one for one in named if not one.startswith(("config/request.py:", "pipeline/spelling.py:"))], named


def test_every_reference_names_a_setting():
    """Of a request, or an option of a command that has none; each is written as ``spelled`` reads it."""
    known = {name for module in REQUESTS for request in requests_of(module) for name in flags_of_request(request)}
    known |= {
        opt.lstrip("-").replace("-", "_")
        for command in commands(cli)
        for option in command.params
        for opt in option.opts
    }
    found = {(where, ref[1], ref[0]) for where, text in texts(cli_too=True) for ref in REFERENCE.finditer(text)}
    assert len(found) > 100
    unknown = [one for one in found if one[1] not in {*known, PLACEHOLDER, "values"}]
    assert not unknown
    unread = [one for one in found if one[1] != PLACEHOLDER and "‹" in spelled(one[2], lambda named: named.name)]
    assert not unread


def commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command)
        yield command


def test_all_requests_are_known_and_a_name_has_one_flag():
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("request.py")}
    assert {*REQUESTS, "zipbatch.config.request"} == modules
    pairs = {pair for one in REQUESTS for request in requests_of(one) for pair in flags_of_request(request).items()}
    assert len(dict(pairs)) == len(pairs)


VALUES = [
    ("gpus", None, "--gpus", "gpus", "gpus"),
    ("resize", "stretch", "--resize stretch", "resize: stretch", 'resize="stretch"'),
    ("image_size", 32, "--image-size 32", "image_size: 32", "image_size=32"),
    ("poison_rate", 0.1, "--poison-rate 0.1", "poison_rate: 0.1", "poison_rate=0.1"),
    ("quarantine", True, "--quarantine", "quarantine: true", "quarantine=True"),
    ("clean_label", False, "--no-clean-label", "clean_label: false", "clean_label=False"),
    ("splits", ["train", "test"], "--split train --split test", "splits: [train, test]", 'splits=["train", "test"]'),
    ("set", {"zip.steps": "…"}, "--set zip.steps=…", "set: {zip.steps: …}", 'set={"zip.steps": "…"}'),
    ("chain", "jpeg quality=60", "--chain 'jpeg quality=60'", "chain: jpeg quality=60", 'chain="jpeg quality=60"'),
    ("data", Path("a‹b›"), "--data a‹b›", "data: a‹b›", 'data="a‹b›"'),
    ("preset", "null", "--preset null", "preset: 'null'", 'preset="null"'),
]


@pytest.mark.parametrize(("name", "value", "on_command_line", "in_yaml", "in_python"), VALUES)
def test_values(name: str, value: object, on_command_line: str, in_yaml: str, in_python: str):
    text = f"‹{name}›" if value is None else setting(name, value)
    assert spelled(text, flag) == on_command_line
    assert spelled(text, keyword) == in_python
    yaml_text = spelled(text, key_of("purify"))
    assert yaml_text == (text if name == "gpus" else in_yaml)
    if value is not None:
        assert yaml.safe_load(yaml_text) == {name: str(value) if isinstance(value, Path) else value}


def test_a_word_for_a_value_and_what_stands_within_a_field():
    assert [spelled("‹limit N›", spell) for spell in (flag, key_of("poison"), keyword)] == [
        *("--limit N", "limit: N", "limit=N")
    ]
    assert spelled("‹lr› or ‹lr=0.1›", key_of("train victim")) == "set.lr or set: {lr: 0.1}"
    assert spelled("‹lr=0.1›", flag) == "--lr 0.1"


def test_what_is_no_reference_stays():
    for text in ("‹Gpus›", "‹gpus=8", "‹gpus=open('x')›", "‹›", "‹ gpus›", "‹gpus=b'1'›"):
        assert spelled(text, keyword) == text


@dataclass(frozen=True)
class Case:
    """A stage with settings that cannot be, and what is said of it."""

    stage: str
    settings: dict[str, object]
    flags: str
    said: dict[str, str]


CASES = {
    "values": Case(
        "purify",
        {"preset": "balanced", "resize": "center-crop", "output_size": "input"},
        "--preset balanced --resize center-crop --output-size input",
        {
            "flags": "take --output-size prior for that square at the prior's size, or --resize stretch for whole",
            "keys": "take output_size: prior for that square at the prior's size, or resize: stretch for whole",
            "keywords": 'take output_size="prior" for that square at the prior\'s size, or resize="stretch" for whole',
        },
    ),
    "a mapping": Case(
        "purify",
        {"preset": "jpeg", "set": {"qualty": 5}},
        "--preset jpeg --set qualty=5",
        {
            "flags": "--set qualty=5: the purifier jpeg has no such setting",
            "keys": "set: {qualty: 5}: the purifier jpeg has no such setting",
            "keywords": 'set={"qualty": 5}: the purifier jpeg has no such setting',
        },
    ),
    "a switch": Case(
        "poison",
        {"attack": "badnets", "target_mode": "all-to-all", "clean_label": True},
        "--attack badnets --target-mode all-to-all --clean-label",
        {
            "flags": "attack badnets: all-to-all leaves no label true; add --no-clean-label",
            "keys": "attack badnets: all-to-all leaves no label true; add clean_label: false",
            "keywords": "attack badnets: all-to-all leaves no label true; add clean_label=False",
        },
    ),
    "another name": Case(
        "poison",
        {"attack": "tact", "target": 0, "params": {"source_classes": "0"}},
        "--attack tact --target 0 --param source_classes=0",
        {
            "flags": "take another --target, or other --param source_classes=",
            "keys": "take another target, or other params source_classes=",
            "keywords": "take another target, or other params source_classes=",
        },
    ),
}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage_sample(tmp_path_factory.mktemp("spelling") / "sample", limit=10)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_error_is_told_to_each_as_they_ask(case: Case, staged: Path, tmp_path: Path):
    typed = case.flags.split()
    if case.stage == "purify":
        ran = zipbatch("purify", staged, "--prior", "embedded", "--store", tmp_path / "pur", *typed)
    else:
        ran = zipbatch("poison", "embedded", "--out", tmp_path / "out", *typed)
    assert (ran.code, case.said["flags"] in ran.err) == (2, True), ran.err

    with pytest.raises(UsageError) as called:
        if case.stage == "purify":
            api.purify(staged, prior="embedded", store=tmp_path / "pur", **case.settings)
        else:
            api.poison("embedded", out=tmp_path / "out", **case.settings)
    assert case.said["keywords"] in str(called.value)

    inputs = {"data": str(staged), "prior": "embedded"} if case.stage == "purify" else {"source": "embedded"}
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump({"stages": {"it": {"run": case.stage, **inputs, **case.settings}}}))
    ran = zipbatch("run", file, "--out", tmp_path / "made")
    assert case.said["keys"] in ran.err, ran.err
    assert ran.code in {1, 2}


def test_what_a_pipeline_does_not_have_is_left_to_whom_it_is_started_by(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text("{vars: {source: null}, stages: {it: {run: poison, source: '${source}', attack: badnets}}}")
    ran = zipbatch("run", file, "--gpus", 1, "--workers", 1)
    assert "error: --gpus and --workers exclude each other" in ran.err
    with pytest.raises(UsageError, match=r"^gpus and workers exclude each other"):
        api.run(file, gpus=1, workers=1)
    assert "needs 'source': give --var source=…" in zipbatch("run", file, "--out", tmp_path / "made").err
    with pytest.raises(UsageError, match=r"""needs 'source': give values=\{"source": "…"\}"""):
        api.run(file, out=tmp_path / "made")


def test_an_error_is_spelled_where_it_leaves_the_innermost_reader_first():
    with pytest.raises(DataError) as told, readers_spell(keyword), readers_spell(key_of("purify")):
        raise DataError("in.tar", "say ‹quarantine=True›, ‹gpus=2›", key="k")
    assert str(told.value) == "in.tar: key 'k': say quarantine: true, gpus=2"
    assert told.value.reason == "say quarantine: true, gpus=2"
    assert as_read("‹gpus›") == "‹gpus›"


def test_log_lines_are_spelled_as_errors_are():
    before, log = settings(), logging.getLogger("zipbatch.tests")
    for style in ("text", "json"):
        stream = io.StringIO()
        configure(LogSettings(style, logging.INFO), stream)
        try:
            with readers_spell(flag):
                log.warning("take %s", "‹resize='stretch'›")
        finally:
            configure(before)
        said = stream.getvalue()
        assert "take --resize stretch" in (json.loads(said)["message"] if style == "json" else said)


def test_json_keeps_what_looks_like_a_reference(tmp_path: Path):
    """A file may be called so; a text that is told is spelled."""
    file = tmp_path / "p.yaml"
    file.write_text("{stages: {it: {run: poison, source: embedded, attack: badnets}}}")
    ran = zipbatch("run", file, "--out", tmp_path / "‹gpus›", "--dry-run", "--json")
    assert ran.json["out"] == str(tmp_path / "‹gpus›")


def test_help_names_other_options_by_their_flags():
    for command in commands(cli):
        for option in command.params:
            assert "‹" not in (getattr(option, "help", None) or ""), (command.name, option.name)
    assert "with --fit one more to try" in " ".join(zipbatch("tune", "-h").out.split())
