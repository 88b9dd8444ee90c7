"""What the documents say is there: commands, options, links, anchors, files, presets; and the site builds from them."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from tests.documents import GUIDES, PAGES, ROOT, Block, Command, anchors, blocks, commands, links, prose, spans
from zipbatch.attacks import ATTACKS
from zipbatch.cli.main import cli
from zipbatch.cli.run_context import RunContext
from zipbatch.config import list_configs

LANGUAGES = {"sh", "python", "yaml", "text"}
# Command lines of the documents that are not zipbatch's, and why nothing of them is parsed.
OTHERS = dict.fromkeys(("tar", "cp", "export", "eval", "openssl"), "the system's")
# Options in the text that are not zipbatch's: whose they are.
FOREIGN_OPTIONS = {
    "--strict": "mkdocs build",
    "--inputs": "tests/fuzz/run.py",
    "--rounds": "tests/fuzz/faults.py",
    "--s3": "tests/fuzz/faults.py",
    "--img_size": "the published code",
    "--concat": "the published code",
    "--mode": "the published code",
}
_PATH = re.compile(r"(?<![\w/~.-])(?:pipelines|configs|benchmarks|docs|tests|zipbatch)/[\w/.*-]*[\w/*]")


def command_lines() -> list[Command]:
    return [found for page in GUIDES for block in blocks(page) if block.language == "sh" for found in commands(block)]


def parsed(words: tuple[str, ...] | list[str], *, complete: bool = True) -> click.Context:
    """The context of the command that these words name; where they are not ``complete``, parameters may be missing.

    Raises:
        click.UsageError: there is no such command or option, a value is of another type, or arguments are too many.
    """
    command, context, rest = cli, None, list(words[1:])
    while True:
        bare = without_effects(command, complete=complete)
        context = bare.make_context(command.name, rest, parent=context, obj=RunContext())
        if not isinstance(command, click.Group):
            return context
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest and not complete:
            return context
        _, command, rest = command.resolve_command(context, rest)


def without_effects(command: click.Command, *, complete: bool) -> click.Command:
    """The same command for parsing alone: no callbacks, files need not exist."""
    bare = copy.copy(command)
    bare.params = [copy.copy(param) for param in command.params]
    if not complete:
        bare.no_args_is_help = False
    for param in bare.params:
        param.callback = None
        param.required = param.required and complete
        if isinstance(param.type, click.Path):
            param.type = click.Path()
    return bare


def every_option() -> set[str]:
    """The options of all commands."""

    def of(command: click.Command) -> Iterator[str]:
        for param in command.params:
            yield from (*param.opts, *param.secondary_opts)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from of(found)

    return {*of(cli), "-h", "--help"}


def test_every_code_block_is_fenced_and_says_its_language():
    for page in PAGES:
        assert all(block.language in LANGUAGES for block in blocks(page)), page.name
        assert "```" not in prose(page), page.name
        indented = re.findall(r"\n\n( {4}\S.*)", prose(page))
        assert indented == [], page.name


def test_the_shell_can_parse_every_sh_block():
    for block in (block for page in PAGES for block in blocks(page) if block.language == "sh"):
        checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{block.page.name}: {checked.stderr}"


def test_words_of_a_command_line():
    text = "for a in x y; do FOO=1 zipbatch poison c/ --out s/$a …; done && cp -r a 'b c' \\\n    d  # why; not\n"
    block = Block(ROOT / "README.md", "", "sh", text)
    assert [command.words for command in commands(block)] == [
        ("zipbatch", "poison", "c/", "--out", "s/x"),
        ("zipbatch", "poison", "c/", "--out", "s/y"),
        ("cp", "-r", "a", "b c", "d"),
    ]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("zipbatch purifi shards", "purifi"),
        ("zipbatch purify shards --store pur --no-such", "--no-such"),
        ("zipbatch purify shards --store pur --seed many", "many"),
        ("zipbatch purify shards", "store"),
        ("zipbatch ls presets priors", "priors"),
        ("zipbatch ls prices", "prices"),
    ],
)
def test_a_wrong_command_line_is_found(line: str, wrong: str):
    with pytest.raises(click.UsageError, match=wrong):
        parsed(line.split())


def test_every_command_line_is_one_that_the_program_takes():
    found = command_lines()
    assert len(found) > 100
    for command in found:
        if command.words[0] == "zipbatch":
            check_names(command, parsed_or_told(command))
        elif command.words[0] == "make":
            assert re.search(rf"^{command.words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), str(command)
        elif command.words[0] == "pip":
            assert all(extra in extras() for extra in re.findall(r"zipbatch\[(\w+)\]", " ".join(command.words)))
        elif command.words[0] == "python":
            source = (ROOT / command.words[1]).read_text("utf-8")
            options = [word for word in command.words[2:] if word.startswith("--")]
            assert [option for option in options if f'"{option}"' not in source] == [], str(command)
        else:
            assert command.words[0] in OTHERS, str(command)


def parsed_or_told(command: Command) -> click.Context:
    try:
        return parsed(command.words)
    except click.ClickException as error:
        pytest.fail(f"{command}\n{error.format_message()}")


def check_names(command: Command, context: click.Context) -> None:
    """Attacks, presets and pipelines are names, whatever Click thinks of them."""
    given = context.params
    attack = given.get("attack")
    assert attack is None or attack in ATTACKS or attack.startswith("python:"), str(command)
    groups = ("purifiers", "victims", "priors")
    presets = [given.get(name) for name in ("preset", "through", "train_preset")]
    for preset in {*filter(None, presets[1:]), *([presets[0]] if isinstance(presets[0], str) else presets[0] or ())}:
        known = preset == "none" or any(preset in list_configs(group) for group in groups)
        assert known or preset.endswith(".yaml"), f"{command}: {preset}"
    if context.command.name == "run":
        name = command.words[2]
        assert name in list_configs("pipelines") or name.endswith(".yaml"), str(command)


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def in_the_text(span: str) -> list[list[str]]:
    """The command lines that a span names: ``zipbatch store ls | show`` are two."""
    first, *others = re.sub(r"\[(--[^]]*)\]", r"\1", span.replace("…", "")).split(" | ")
    words = shlex.split(first)
    return [words, *([*words[:2], *shlex.split(other)] for other in others)]


def test_every_command_and_option_in_the_text_exists():
    known, found = every_option(), [(page, span) for page in PAGES for span in spans(page)]
    for page, span in found:
        for words in in_the_text(span) if span.startswith("zipbatch ") else []:
            try:
                parsed(words, complete=False)
            except click.BadOptionUsage as error:  # named without its value
                assert error.option_name == words[-1] and error.option_name in known, f"{page.name}: `{span}`"
            except click.UsageError as error:
                pytest.fail(f"{page.name}: `{span}`: {error.format_message()}")
        for option in re.findall(r"(?:^|[ /[])(--[a-z][\w-]*)", span):
            assert option in known or option in FOREIGN_OPTIONS, f"{page.name}: `{span}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    for target in links(page):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_mentioned_exists(page: Path):
    text = re.sub(r"https?://\S+", "", page.read_text("utf-8"))
    for path in _PATH.findall(text):
        assert list(ROOT.glob(path)), f"{page.name}: {path}"
    for path in (span for span in spans(page) if re.fullmatch(r"[\w/]+/[\w/]+\.py", span)):
        assert (ROOT / path).is_file() or (ROOT / "zipbatch" / path).is_file(), f"{page.name}: {path}"


def test_every_preset_has_its_row_and_every_page_its_link():
    rows = re.findall(
        r"^\| (`.*?) \|", (ROOT / "docs/settings.md").read_text("utf-8").split("## Flags")[0], re.MULTILINE
    )
    assert sorted(name for row in rows for name in re.findall(r"`([\w-]+)`", row)) == list_configs("purifiers")
    readme = {target.partition("#")[0] for target in links(ROOT / "README.md")}
    assert {f"docs/{page.name}" for page in GUIDES[1:]} <= readme
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 160


@pytest.mark.skipif(not (find_spec("mkdocs") and find_spec("material")), reason="pip install 'zipbatch[docs]'")
def test_the_site_builds_from_the_documents(tmp_path: Path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    ran = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert ran.returncode == 0, ran.stderr
    pages = {path.name: path.read_text("utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert {"index.html", "architecture.html", "changelog.html", *(f"{page.stem}.html" for page in GUIDES[1:])} <= set(
        pages
    )
    for name, html in pages.items():
        body = html.partition("<article")[2].partition("</article>")[0]
        assert "<p>|" not in body, f"{name}: a table that is none"
        assert not re.search(r"^[-*] ", body, re.MULTILINE), f"{name}: a list that is none"
        for table in re.findall(r"<table.*?</table>", body, re.DOTALL):
            widths = {len(re.findall(r"<t[hd][ >]", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)}
            assert len(widths) == 1, f"{name}: a row with other cells than its table"
        for source in re.findall(r"<(?:script|link|img|iframe)[^>]*?\s(?:src|href)=\"?([^\" >]+)", html):
            assert "//" not in source, f"{name} loads {source}"
            file = source.partition("#")[0].partition("?")[0].lstrip("/")
            assert (tmp_path / "site" / file).exists(), f"{name}: {source}"
