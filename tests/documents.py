"""What README.md, ARCHITECTURE.md, CHANGELOG.md and docs/ say: their code blocks, command lines, links and anchors."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code, and the heading that it stands below."""

    page: Path
    heading: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One simple command: its words as the shell makes them, without variables before it and placeholders (``…``)."""

    page: Path
    heading: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.name}: {shlex.join(self.words)}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        headings = _HEADING.findall(_FENCE.sub("", text[: match.start()]))
        yield Block(page, headings[-1][1] if headings else "", match[1], match[2])


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def spans(page: Path) -> list[str]:
    """What stands between single backticks in the text."""
    return _SPAN.findall(prose(page))


def links(page: Path) -> list[str]:
    """The targets of links and pictures in the text, in order."""
    return _LINK.findall(_SPAN.sub("", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: list[str] = []
    for _, title in _HEADING.findall(prose(page)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return set(found)


def commands(block: Block) -> Iterator[Command]:
    """The simple commands of an ``sh`` block; those of a ``for`` loop once for each of its words."""
    loops: dict[str, list[str]] = {}
    for line in _COMMENT.sub("", block.text.replace("\\\n", " ")).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split, lexer.commenters = True, ""
        words: list[str] = []
        for part in [*lexer, ";"]:
            if not part or not set(part) <= set(";&|"):
                words += [part] if part != "…" else []
            elif words[:1] == ["for"]:
                loops[words[1]], words = words[3:], []
            elif words:
                yield from _each(block, [word for word in words if word not in {"do", "done"}], loops)
                words = []
        loops = {}


def _each(block: Block, words: list[str], loops: dict[str, list[str]]) -> Iterator[Command]:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    names = [name for name in loops if any(f"${name}" in word for word in words)]
    for values in product(*(loops[name] for name in names)):
        made = words
        for name, value in zip(names, values, strict=True):
            made = [word.replace(f"${name}", value) for word in made]
        if made:
            yield Command(block.page, block.heading, tuple(made))
